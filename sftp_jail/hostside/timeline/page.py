"""One HTML page that needs nothing else: totals, a bar for each session, and every event.

The page's script may run because the Content-Security-Policy names its hash, and nothing else may; nothing is
fetched. Data is JSON in blocks that no browser takes for a script, written as the events come, and every text
in it reaches the page as text, never as HTML. Without scripts there are the totals and tables.
"""

import base64
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from html import escape as html
from pathlib import Path
from typing import IO, Any, Optional

from . import describe, escape, parse
from .join import Event, Item, Session

TEMPLATE = Path(__file__).parent / "page.html"

BLOCK = 2000
"""Events in one block of data."""

WITHOUT_SCRIPTS = 5000
"""Rows of the tables that are there without scripts."""

EPOCH = datetime(1970, 1, 1)


class Totals:
    """What somebody did, in numbers."""

    __slots__ = ("denied", "down", "failed_logins", "files_down", "files_up", "sessions", "unknown", "up")

    def __init__(self) -> None:
        self.sessions = self.files_up = self.up = self.files_down = self.down = 0
        self.unknown = self.denied = self.failed_logins = 0

    def add(self, event: Event) -> None:
        """Count one event."""
        if event.kind == "login-failed":
            self.failed_logins += 1
        elif event.result == "denied":
            self.denied += 1
        if event.kind in ("close", "forced-close"):
            if event.said.written is None or event.said.read is None:
                self.unknown += 1
            else:
                self.up += event.said.written
                self.files_up += event.said.written > 0
                self.down += event.said.read
                self.files_down += event.said.read > 0


def write(items: Iterable[Item], file: IO[str]) -> None:
    """Write the page."""
    before, after = TEMPLATE.read_text("utf-8").split("DATA\n")
    file.write(before.replace('"CSP"', f'"{_policy(before + after)}"'))
    page = Page()
    for data in page.blocks(items):
        file.write(_block(data))
    file.write(_block({"m": page.meta()}))
    parts = {"SUMMARY": page.summary(), "TOTALS": page.totals_table(), "NOSCRIPT": page.tables()}
    # Split, not replaced: what is put in may have such a word in it.
    for piece in re.split("(SUMMARY|TOTALS|NOSCRIPT)", after):
        file.write(parts.pop(piece, piece))


def _policy(template: str) -> str:
    hashes = {}
    for tag in ("style", "script"):
        inline = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        assert inline is not None
        hashes[tag] = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _block(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"))
    # Nothing that HTML could take for the end of the block, or the beginning of a comment.
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json">{text}</script>\n'


class Page:
    """What the page says at its end of what went by."""

    def __init__(self) -> None:
        self.users: dict[str, Totals] = {}
        self.others = Totals()
        self._running: dict[int, Totals] = {}
        self.first: Optional[str] = None
        self.last: Optional[str] = None
        self.events = 0
        self.sessions = 0
        self._event_rows: list[str] = []
        self._session_rows: list[str] = []

    def blocks(self, items: Iterable[Item]) -> Iterator[dict[str, Any]]:
        """The data, a block at a time."""
        events: list[Any] = []
        sessions: list[Any] = []
        for item in items:
            if isinstance(item, Event):
                events.append(self._event(item))
            else:
                sessions.append(self._session(item))
            if len(events) + len(sessions) >= BLOCK:
                yield {"e": events, "s": sessions}
                events, sessions = [], []
        yield {"e": events, "s": sessions}

    def _event(self, event: Event) -> "list[Any]":
        self.events += 1
        if event.line is not None:
            self.first = event.line.time if self.first is None else min(self.first, event.line.time)
            self.last = event.line.time if self.last is None else max(self.last, event.line.time)
        self._count(event)
        said = event.said
        result, more = describe.result(event), escape.visible(describe.more(event), right_to_left=True)
        if len(self._event_rows) < WITHOUT_SCRIPTS:
            time = "" if event.line is None else event.line.time
            who = escape.visible(describe.who(event))
            self._event_rows.append(_row(time, who, said.kind, result, describe.size(event), names(event), more))
        return [
            None if event.line is None else _microseconds(event.line.time),
            escape.visible(event.account or ""),
            None if event.session is None else event.session.number,
            said.kind,
            result or None,
            said.written,
            said.read,
            names(event),
            more,
            (said.kind in parse.CHANGES) | said.ambiguous << 1 | said.cut << 2 | bool(said.fields) << 3,
        ]

    def _count(self, event: Event) -> None:
        if event.session is not None:
            self._running.setdefault(event.session.number, Totals()).add(event)
        account, said = event.account, event.said
        if account is not None and (event.session is not None or event.kind == "login" or said.fields):
            self.users.setdefault(account, Totals())
        # A stranger may try any name, and as many as he likes.
        self.users.get(account or "", self.others).add(event)

    def _session(self, session: Session) -> "list[Any]":
        self.sessions += 1
        totals = self._running.pop(session.number, Totals())
        self.users.setdefault(session.user, Totals()).sessions += 1
        how = escape.visible(describe.session(session).partition(", ")[2])
        address = escape.visible(session.address or "unknown")
        ended = None if session.ended is None else _microseconds(session.ended)
        if len(self._session_rows) < WITHOUT_SCRIPTS:
            self._session_rows.append(
                _row(session.time, session.ended or "no end in the log", session.user, address, how,
                     *map(str, (totals.files_up, totals.up, totals.files_down, totals.down, totals.denied)))
            )  # fmt: skip
        return [
            session.number, session.user, session.pid, _microseconds(session.time), ended, address, how,
            totals.files_up, totals.up, totals.files_down, totals.down, totals.denied, totals.unknown,
            _microseconds(session.seen),
        ]  # fmt: skip

    def meta(self) -> "dict[str, Any]":
        """What the script must know of the whole."""
        first, last = (_microseconds(time or "1970-01-01T00:00:00.000000Z") for time in (self.first, self.last))
        return {"first": first, "last": last, "users": sorted(self.users)}

    def summary(self) -> str:
        """What this is, in a line."""
        range_ = f"{self.first[:19]}Z to {self.last[:19]}Z" if self.first and self.last else "nothing logged"
        made = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
        return html(
            f"{platform.node()}: {range_.replace('T', ' ')}. {self.events:,} events, {self.sessions:,} sessions, "
            f"{len(self.users):,} users. Made {made.replace('T', ' ')} by jailctl timeline."
        )

    def totals_table(self) -> str:
        """What each user did, in numbers."""
        heads = ("User", "Sessions", "Files up", "Bytes up", "Files down", "Bytes down", "Denied", "Failed logins")
        rows = [self._totals_row(user, totals, user) for user, totals in sorted(self.users.items())]
        if self.others.failed_logins or self.others.denied:
            rows.append(self._totals_row("(nobody here)", self.others, None))
        head = "".join(f"<th{' class=n' if number else ''}>{text}</th>" for number, text in enumerate(heads))
        return f'<table id="totals"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'

    @staticmethod
    def _totals_row(name: str, totals: Totals, user: Optional[str]) -> str:
        least = "≥ " if totals.unknown else ""
        cells = [f"{totals.sessions:,}", f"{totals.files_up:,}", least + size(totals.up), f"{totals.files_down:,}",
                 least + size(totals.down)]  # fmt: skip
        cells = [f'<td class="n">{cell}</td>' for cell in cells]
        cells += [
            f'<td class="n{" bad" if bad else " soft"}">{bad:,}</td>' for bad in (totals.denied, totals.failed_logins)
        ]
        data = "" if user is None else f' data-user="{html(user)}"'
        return f'<tr{data}><td><span class="dot"></span><bdi>{html(name)}</bdi></td>{"".join(cells)}</tr>'

    def tables(self) -> str:
        """All of it again, for a browser without scripts."""
        return _table("Sessions", SESSION_HEADS, self._session_rows, self.sessions) + _table(
            "Events", EVENT_HEADS, self._event_rows, self.events
        )


SESSION_HEADS = (
    "Begin",
    "End",
    "User",
    "Address",
    "Login",
    "Files up",
    "Bytes up",
    "Files down",
    "Bytes down",
    "Denied",
)
EVENT_HEADS = ("Time", "Who", "Event", "Result", "Bytes", "Name", "More")


def _table(title: str, heads: Sequence[str], rows: list[str], count: int) -> str:
    left = f"<p>The first {len(rows):,} of {count:,}. For all of them: allow scripts, or --format text.</p>"
    left = left if len(rows) < count else ""
    return (
        f'<section class="card"><h2>{title}</h2>{left}<div class="scroll"><table class="plain">'
        f"<thead>{_row(*heads, tag='th')}</thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def names(event: Event) -> str:
    """The names in an event, safe to look at."""
    found = [name for name in (event.said.path, event.said.target) if name is not None]
    # Two of them side by side could change places.
    return " → ".join(escape.visible(escape.name(name), right_to_left=len(found) == 1) for name in found)


def size(count: int) -> str:
    """Bytes as people say them, in powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            return f"{value:.1f} {unit}" if unit != "B" and value < 99.95 else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:,.1f} EB"


def _microseconds(time: str) -> int:
    return (datetime.fromisoformat(time[:26]) - EPOCH) // timedelta(microseconds=1)


def _row(*cells: str, tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}><bdi>{html(cell)}</bdi></{tag}>" for cell in cells) + "</tr>"
