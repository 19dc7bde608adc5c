"""One event a line, for a terminal: aligned, and nothing in it that a terminal would obey.

    TIME  USER[PID]  EVENT  RESULT  BYTES  "NAME" and whatever else there is

Names are in quotes, with `\\"` for a quote of their own. `denied?` and `failed?`: see `Event.certain`.
"""

from collections.abc import Iterable
from typing import IO

from . import describe, escape
from .join import Event, Item


def write(items: Iterable[Item], file: IO[str]) -> None:
    """Write the events."""
    for item in items:
        if isinstance(item, Event):
            print(line(item), file=file)


def line(event: Event) -> str:
    """The event as a line."""
    time = "-" if event.line is None else event.line.time
    who = escape.visible(describe.who(event))
    names = " -> ".join(quoted(name) for name in (event.said.path, event.said.target) if name is not None)
    rest = "  ".join(part for part in (names, escape.visible(describe.more(event))) if part)
    return (
        f"{time:<27}  {who:<20} {event.kind:<14} {describe.result(event):<8} {describe.size(event):<18} {rest}".rstrip()
    )


def quoted(name: bytes) -> str:
    """A name in quotes."""
    return '"' + escape.visible(escape.name(name)).replace('"', '\\"') + '"'
