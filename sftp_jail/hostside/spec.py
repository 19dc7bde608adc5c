"""What arrives on stdin: JSON, checked here once more, whoever sent it."""

import json
from typing import Any, Callable, TextIO

from . import validate
from .failure import Failure
from .state import Jail


def read_jail(stdin: TextIO) -> Jail:
    """The spec of the jail; its `jailctl`, a version, is there so that an upgrade applies the jail again."""
    spec = _read(stdin, {"jailctl", "logLevel", "umask"})
    _check("logLevel", validate.check_log_level, spec["logLevel"])
    _check("umask", validate.check_umask, spec["umask"])
    return Jail(log_level=spec["logLevel"], umask=spec["umask"])


def read_user(stdin: TextIO) -> tuple[str, dict[str, str]]:
    """A username, and his keys by label."""
    spec = _read(stdin, {"username", "keys"})
    _check("username", validate.check_username, spec["username"])
    if not isinstance(spec["keys"], dict):
        raise Failure("keys: not a map", "Give a map of label to key")
    keys = {}
    for label, key in spec["keys"].items():
        _check("keys", validate.check_key_label, label)
        keys[label] = _check(f"keys.{label}", validate.normalise_key, key)
    return spec["username"], keys


def read_password(stdin: TextIO) -> tuple[str, str]:
    """A username, and the hash of his password."""
    spec = _read(stdin, {"username", "passwordHash"})
    _check("username", validate.check_username, spec["username"])
    _check("passwordHash", validate.check_password_hash, spec["passwordHash"])
    return spec["username"], spec["passwordHash"]


def _read(stdin: TextIO, fields: set[str]) -> dict[str, Any]:
    try:
        spec = json.load(stdin)
    except ValueError:
        raise Failure("stdin is not JSON", f"Give an object with {sorted(fields)}") from None
    if not isinstance(spec, dict) or set(spec) != fields:
        raise Failure("stdin is not the object that this verb takes", f"Give one with {sorted(fields)}, no more")
    return spec


def _check(path: str, check: Callable[[object], Any], value: object) -> Any:
    try:
        return check(value)
    except validate.Invalid as invalid:
        raise Failure(
            f"{path}: {invalid.shown + ': ' if invalid.shown else ''}{invalid.message}", invalid.remedy
        ) from None
