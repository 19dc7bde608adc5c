"""`jailctl timeline`."""

import sys
from collections.abc import Iterator
from importlib import import_module

from . import order, rotations
from .join import Event, Item, Session, Story
from .options import Options

WRITERS = {"text": "text", "csv": "sheet", "jsonl": "jsonl", "html": "page"}


def run(options: Options, log: str = rotations.LOG) -> None:
    """Write what is asked for to stdout. Only reads, and takes no lock.

    The log is read from its very beginning, whatever is asked for: what a session did yesterday belongs to a login
    that may be older.
    """
    writer = import_module(f".{WRITERS[options.format]}", __package__)
    files = rotations.files(log)
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]
    writer.write(chosen(Story().of(order.merged(rotations.lines(files))), options), sys.stdout)
    sys.stdout.flush()


def chosen(items: Iterator[Item], options: Options) -> Iterator[Item]:
    """The events that are asked for, and the sessions that they belong to.

    A line that cannot be read has no time and no user that could be believed; it is in every answer.
    """
    for item in items:
        if isinstance(item, Session):
            if item.shown:
                yield item
        elif is_chosen(item, options):
            if item.session is not None:
                item.session.shown = True
            yield item


def is_chosen(event: Event, options: Options) -> bool:
    """Whether the event is asked for."""
    if event.line is None:
        return True
    # A login that cannot be told for certain, and lines that are missing, may concern anybody.
    anybody = event.account is None and (event.said.ambiguous or event.kind == "gap")
    if options.users and event.account not in options.users and not anybody:
        return False
    return (options.since is None or event.line.time >= options.since) and (
        options.until is None or event.line.time <= options.until
    )
