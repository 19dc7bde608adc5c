"""systemd units, and the memory of which of them has yet to load what was written for it.

Without that memory, a run killed between the writing and the reload would look finished to the next one.
"""

import os

from . import files, state
from .process import run, succeeds

SSHD = "ssh.service"
RSYSLOG = "rsyslog.service"


def is_active(unit: str) -> bool:
    """Whether the unit is running."""
    return succeeds("systemctl", "is-active", "--quiet", unit)


def act(verb: str, unit: str) -> None:
    """Start, restart or reload the unit, by systemctl(1)."""
    run("systemctl", verb, unit)


def mark(what: str) -> None:
    """Remember that something written must yet be loaded."""
    files.write(_marker(what), "")


def is_marked(what: str) -> bool:
    """Whether something must yet be loaded."""
    return os.path.exists(_marker(what))


def clear(what: str) -> None:
    """It is loaded."""
    files.remove(_marker(what))


def _marker(what: str) -> str:
    return f"{state.FOLDER}/{what}.pending"
