"""What arrives on stdin: JSON, checked here once more, whoever sent it."""

import json
from typing import Any, Callable, NamedTuple, TextIO

from . import state, validate
from .failure import Failure
from .state import Jail


class Tenancy(NamedTuple):
    """Which stack has the host, and whether the users of other stacks may go with it."""

    owner: str
    force_destroy: bool


def read_jail(stdin: TextIO) -> tuple[Jail, Tenancy]:
    """The spec of the jail; its `jailctl`, a version, is there so that an upgrade applies the jail again."""
    spec = _read(stdin, {"jailctl", "logLevel", "umask", "owner", "forceDestroy"})
    _check("logLevel", validate.check_log_level, spec["logLevel"])
    _check("umask", validate.check_umask, spec["umask"])
    tenancy = _tenancy(spec)
    return Jail(spec["logLevel"], spec["umask"], tenancy.owner, state.machine()), tenancy


def read_tenancy(stdin: TextIO) -> Tenancy:
    """Who lets the host go."""
    return _tenancy(_read(stdin, {"owner", "forceDestroy"}))


def _tenancy(spec: dict[str, Any]) -> Tenancy:
    _check("owner", validate.check_owner, spec["owner"])
    if not isinstance(spec["forceDestroy"], bool):
        raise Failure("forceDestroy: neither true nor false", "Give one of them")
    return Tenancy(spec["owner"], spec["forceDestroy"])


def read_owner(stdin: TextIO) -> str:
    """The stack that has the host."""
    spec = _read(stdin, {"owner"})
    _check("owner", validate.check_owner, spec["owner"])
    return spec["owner"]


def read_renaming(stdin: TextIO) -> tuple[str, str]:
    """A stack's name as it was, and as it is."""
    spec = _read(stdin, {"from", "to"})
    for name in spec:
        _check(name, validate.check_owner, spec[name])
    return spec["from"], spec["to"]


def read_user(stdin: TextIO) -> tuple[str, str, dict[str, str]]:
    """A username, the stack that it belongs to, and his keys by label: `user` and, for each key, `key LABEL`."""
    spec = _object(stdin, "an object with 'user', and 'key LABEL' for each key")
    owner, _, username = str(spec.pop("user", "")).rpartition("/")
    _check("user", validate.check_username, username)
    _check("user", validate.check_owner, owner)
    keys = {}
    for entry, key in spec.items():
        kind, _, label = entry.partition(" ")
        if kind != "key":
            raise Failure(f"{validate.show(entry)}: unknown", "Give 'user', and 'key LABEL' for each key")
        _check("key", validate.check_key_label, label)
        keys[label] = _check(entry, validate.normalise_key, key)
    return username, owner, keys


def read_password(stdin: TextIO) -> tuple[str, str]:
    """A username, and the hash of his password."""
    spec = _read(stdin, {"username", "passwordHash"})
    _check("username", validate.check_username, spec["username"])
    _check("passwordHash", validate.check_password_hash, spec["passwordHash"])
    return spec["username"], spec["passwordHash"]


def _read(stdin: TextIO, fields: set[str]) -> dict[str, Any]:
    wanted = f"an object with {sorted(fields)}, no more"
    spec = _object(stdin, wanted)
    if set(spec) != fields:
        raise Failure("stdin is not the object that this verb takes", f"Give {wanted}")
    return spec


def _object(stdin: TextIO, wanted: str) -> dict[str, Any]:
    try:
        spec = json.load(stdin)
    except ValueError:
        raise Failure("stdin is not JSON", f"Give {wanted}") from None
    if not isinstance(spec, dict):
        raise Failure("stdin is not the object that this verb takes", f"Give {wanted}")
    return spec


def _check(path: str, check: Callable[[object], Any], value: object) -> Any:
    try:
        return check(value)
    except validate.Invalid as invalid:
        raise Failure(
            f"{path}: {invalid.shown + ': ' if invalid.shown else ''}{invalid.message}", invalid.remedy
        ) from None
