"""What of the story is asked for."""

import argparse
import re
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, Optional

from ..failure import Failure
from ..validate import show

FORMATS = ("text", "csv", "jsonl", "html")


class Options(NamedTuple):
    """`users`: none means everybody. `since` and `until`: UTC as `YYYY-MM-DDTHH:MM:SS.ffffffZ`, both included."""

    users: frozenset[str]
    since: Optional[str]
    until: Optional[str]
    format: str


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command line, jailctl's or the deployer's."""
    parser.add_argument(
        "--user", action="append", default=[], metavar="NAME", help="this user alone; may be given several times"
    )
    parser.add_argument("--since", metavar="WHEN", help="a day, 2026-05-31, or an instant, 2026-05-31T08:00:00Z; UTC")
    parser.add_argument("--until", metavar="WHEN", help="the same; a day counts to its end")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")


def read(given: argparse.Namespace) -> Options:
    """The options, checked; `Failure` where one makes no sense."""
    for name in given.user:
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}|uid:[0-9]{1,10}", name):
            raise Failure(f"--user: {show(name)}: no user's name", "Give it as the log has it, e.g. jack or uid:70002")
    since = None if given.since is None else _when("--since", given.since)
    until = None if given.until is None else _when("--until", given.until, end=True)
    if since is not None and until is not None and since > until:
        raise Failure(
            f"--since: {show(given.since)}: later than --until {show(given.until)}", "Exchange them, or leave one out"
        )
    return Options(frozenset(given.user), since, until, given.format)


def arguments(given: argparse.Namespace) -> list[str]:
    """The options as words of a command line again."""
    words = [word for name in given.user for word in ("--user", name)]
    for name in ("since", "until"):
        value = getattr(given, name)
        words += [] if value is None else [f"--{name}", value]
    return [*words, "--format", given.format]


DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
INSTANT = re.compile(
    rf"({DAY.pattern}T[0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{6}})?)?)(Z|[+-][0-9]{{2}}:[0-9]{{2}})"
)


def _when(option: str, text: str, end: bool = False) -> str:
    try:
        if DAY.fullmatch(text):
            when = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
            when += timedelta(days=1, microseconds=-1) if end else timedelta()
        else:
            parts = INSTANT.fullmatch(text)
            if parts is None:
                raise ValueError
            when = datetime.fromisoformat(parts[1] + parts[2].replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise Failure(
            f"{option}: {show(text)}: neither a day nor an instant with its zone",
            "Write 2026-05-31, which is that day in UTC, or 2026-05-31T08:00:00Z or 2026-05-31T10:00:00+02:00",
        ) from None
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
