"""What is wrong with the input, all of it at once: where, which value if it may be shown, and the remedy."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pulumi

from .hostside.validate import MAX_SHOWN, Invalid, looks_private

PLAIN_SEGMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
NAMED_LIKE_A_SECRET = re.compile(r"pass|secret|token|credential|private", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """One refused value: `path` is the property's place, `shown` is "" where the value may not be printed."""

    path: str
    message: str
    remedy: str
    shown: str = ""

    def __str__(self) -> str:
        value = f"{self.shown}: " if self.shown else ""
        end = "" if self.remedy.endswith("?") else "."
        return f"{self.path}: {value}{self.message}.\n    {self.remedy}{end}"


class ConfigError(pulumi.RunError):
    """Every fault of an input. A RunError, so that Pulumi prints the text and no traceback."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = list(faults)
        count = "one fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join([f"{count} in the configuration:", *map(str, self.faults)]))


def raise_any(faults: Iterable[Fault]) -> None:
    """Raise one ConfigError for all the faults; return if there is none."""
    found = list(faults)
    if found:
        raise ConfigError(found)


def below(path: str, key: object) -> str:
    """The path of an entry, as `pulumi config set --path` takes it: `users.jack`, `users["a b"]`."""
    text = str(key)
    if PLAIN_SEGMENT.fullmatch(text):
        return f"{path}{text}" if path.endswith(":") else f"{path}.{text}"
    if looks_private(text):
        text = "(not shown)"
    return f"{path}[{json.dumps(text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '...')}]"


def examine(path: str, check: Callable[[Any], object], value: object) -> Iterator[Fault]:
    """The fault that a check of `hostside/validate.py` finds in a value.

    An Output is passed over: nobody knows its value yet. `checked` catches it when it resolves.
    """
    if isinstance(value, pulumi.Output):
        return
    try:
        check(value)
    except Invalid as invalid:
        hidden = NAMED_LIKE_A_SECRET.search(path)
        yield Fault(path, invalid.message, invalid.remedy, "" if hidden else invalid.shown)


def checked(path: str, check: Callable[[Any], object], value: pulumi.Input[str]) -> pulumi.Output[str]:
    """The value as an Output that fails with a ConfigError where the check does."""

    def look(resolved: str) -> str:
        raise_any(examine(path, check, resolved))
        return resolved

    return pulumi.Output.from_input(value).apply(look)
