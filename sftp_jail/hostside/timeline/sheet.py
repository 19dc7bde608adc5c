"""CSV for a spreadsheet: a header, then one event a row, as Python's csv module writes it.

The columns are those of jsonl, less what is in them twice. Text is escaped as in the text format (`\\n`, `\\u202e`,
`\\xff`), so a row is a line. A cell that a spreadsheet would take for a formula, because it begins with = + - @ or
their full-width forms, gets a ' before it, which makes it text: take one ' away from such a cell to have the name.
"""

import csv
from collections.abc import Iterable
from typing import IO, Any

from . import escape, jsonl
from .join import Event, Item

COLUMNS = (
    "time", "user", "event", "result", "certain", "status", "path", "target", "written", "read", "detail", "session",
    "address", "port", "method", "key_type", "fingerprint", "key_label", "joined", "ambiguous", "cut", "note",
    "sender", "raw",
)  # fmt: skip

FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"


def write(items: Iterable[Item], file: IO[str]) -> None:
    """Write the events."""
    sheet = csv.writer(file)
    sheet.writerow(COLUMNS)
    for item in items:
        if isinstance(item, Event):
            sheet.writerow(row(item))


def row(event: Event) -> "list[Any]":
    """The event's cells."""
    record = jsonl.record(event)
    for key, name in (("path", event.said.path), ("target", event.said.target)):
        record[key] = None if name is None else escape.name(name)
    record["raw"] = event.raw
    return [cell(record[column]) for column in COLUMNS]


def cell(value: object) -> object:
    """A cell that is shown, and not computed."""
    if isinstance(value, bool):
        return "yes" if value else ""
    if not isinstance(value, str):
        return value
    text = escape.visible(value)
    return f"'{text}" if text.startswith(tuple(FORMULA)) else text
