"""What arrives on stdin: JSON, checked here once more, whoever sent it."""

import io
import json
from collections.abc import Collection
from typing import Any, Callable, NamedTuple, Optional, TextIO

from . import state, validate
from .failure import Failure
from .state import Jail, User


class Tenancy(NamedTuple):
    """Which stack has the host, and whether the users of other stacks may go with it."""

    owner: str
    force_destroy: bool


def read_jail(stdin: TextIO) -> tuple[Jail, Tenancy]:
    """The spec of the jail; its `jailctl`, a version, is there so that an upgrade applies the jail again."""
    fields = {"jailctl", "logLevel", "umask", "hardening", "hostKeyType", "owner", "forceDestroy"}
    spec = _read(stdin, fields, {"quotas", "siem"})
    _check("logLevel", validate.check_log_level, spec["logLevel"])
    _check("umask", validate.check_umask, spec["umask"])
    _check("hostKeyType", validate.check_key_type, spec["hostKeyType"])
    if "quotas" in spec:
        _check("quotas", validate.check_quotas, spec["quotas"])
    if "siem" in spec:
        _check_siem(spec["siem"])
    tenancy = _tenancy(spec)
    jail = Jail(
        spec["logLevel"],
        spec["umask"],
        tenancy.owner,
        state.machine(),
        _flag(spec, "hardening"),
        spec["hostKeyType"],
        spec.get("siem"),
        spec.get("quotas"),
    )
    return jail, tenancy


def read_jail_if_given(stdin: TextIO) -> Optional[Jail]:
    """The spec of the jail; None from somebody who types the command, and none."""
    text = "" if stdin.isatty() else stdin.read()
    return read_jail(io.StringIO(text))[0] if text else None


def _check_siem(siem: object) -> None:
    if not isinstance(siem, dict) or {"ca", *siem} != set(validate.SIEM_CHECKS):
        raise Failure(
            "siem: not the object that belongs there", f"Give {', '.join(validate.SIEM_CHECKS)}; no ca but for tls"
        )
    for key, value in siem.items():
        _check(f"siem.{key}", validate.SIEM_CHECKS[key], value)


def read_tenancy(stdin: TextIO) -> Tenancy:
    """Who lets the host go."""
    return _tenancy(_read(stdin, {"owner", "forceDestroy"}))


def _tenancy(spec: dict[str, Any]) -> Tenancy:
    _check("owner", validate.check_owner, spec["owner"])
    return Tenancy(spec["owner"], _flag(spec, "forceDestroy"))


def _flag(spec: dict[str, Any], key: str) -> bool:
    if not isinstance(spec[key], bool):
        raise Failure(f"{key}: neither true nor false", "Give one of them")
    return bool(spec[key])


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


def read_user(stdin: TextIO) -> tuple[str, str, dict[str, Any]]:
    """A username, the stack that it belongs to, and the fields of `User` that the stack decides: `user`, for each key
    `key LABEL`, and what of `GRANT` is given."""
    wanted = f"'user', 'key LABEL' for each key, and what is wanted of {', '.join(GRANT)}"
    spec = _object(stdin, f"an object with {wanted}")
    owner, _, username = str(spec.pop("user", "")).rpartition("/")
    _check("user", validate.check_username, username)
    _check("user", validate.check_owner, owner)
    grant: dict[str, Any] = {"keys": {}}
    for entry, value in spec.items():
        kind, _, label = entry.partition(" ")
        if kind == "key":
            _check("key", validate.check_key_label, label)
            grant["keys"][label] = _check(entry, validate.normalise_key, value)
        elif entry in GRANT:
            field, normalise = GRANT[entry]
            grant[field] = _check(entry, normalise, value)
        else:
            raise Failure(f"{validate.show(entry)}: unknown", f"Give {wanted}")
    defaults = {field: User._field_defaults[field] for field, _ in GRANT.values()}
    return username, owner, {**defaults, **grant}


def _choice(check: Callable[[object], None]) -> Callable[[object], object]:
    def normalise(value: object) -> object:
        check(value)
        return value

    return normalise


def _sources(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise validate.Invalid("no list of networks", "Name one or more, or leave it out", validate.show(value))
    return sorted({validate.normalise_source(network) for network in value})


GRANT: dict[str, tuple[str, Callable[[object], object]]] = {
    "access": ("access", _choice(validate.check_access)),
    "allowFrom": ("allow_from", _sources),
    "expires": ("expires", validate.normalise_expiry),
    "onRemoval": ("on_removal", _choice(validate.check_on_removal)),
    "quota": ("quota", _choice(validate.check_quota)),
}
"""By the entry in stdin: the field of `User`, and what checks a value and makes it the field's."""


def read_password(stdin: TextIO) -> tuple[str, str]:
    """A username, and the hash of his password."""
    spec = _read(stdin, {"username", "passwordHash"})
    _check("username", validate.check_username, spec["username"])
    _check("passwordHash", validate.check_password_hash, spec["passwordHash"])
    return spec["username"], spec["passwordHash"]


def _read(stdin: TextIO, fields: set[str], optional: Collection[str] = ()) -> dict[str, Any]:
    wanted = f"an object with {sorted(fields)}, no more"
    spec = _object(stdin, wanted)
    if set(spec) - set(optional) != fields:
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
