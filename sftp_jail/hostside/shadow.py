"""The four files of accounts, which the tools of Debian's package passwd change one after the other, each whole or not
at all (commonio.c of shadow). So a tool that is killed in between, by a reboot, say, leaves a name in one of them and
not in another.

It leaves its locks, too. The next tool takes away those whose process is no more, and Debian those of before the boot
(tmpfiles.d/passwd.conf).
"""

import os
import re
from typing import Optional

from . import files
from .failure import Failure
from .process import run

SHADOW = "/etc/shadow"
GROUP = "/etc/group"
GSHADOW = "/etc/gshadow"

LOCKS = tuple(f"{path}.lock" for path in ("/etc/passwd", SHADOW, GROUP, GSHADOW))


def line(path: str, name: str) -> Optional[list[str]]:
    """The fields of somebody's line in one of the files; None where there is none."""
    return next((text.split(":") for text in _lines(path) if text.startswith(f"{name}:")), None)


def mentions(username: str) -> list[str]:
    """The files beside passwd(5) that speak of the user: a line of his own, or a group that he is in."""
    found = [SHADOW] if line(SHADOW, username) is not None else []
    return found + [path for path in (GROUP, GSHADOW) if groups(path, username)]


def groups(path: str, username: str) -> set[str]:
    """The groups that group(5) or gshadow(5) has the user in."""
    lines = [text.split(":") for text in _lines(path) if username in text]
    return {fields[0] for fields in lines if username in fields[-1].split(",")}


def _lines(path: str) -> list[str]:
    return (files.read(path) or "").splitlines()


def change(*argv: str, stdin: str = "") -> None:
    """Run one of the tools; where a lock has stopped it, the `Failure` says whose that is."""
    try:
        run(*argv, stdin=stdin)
    except Failure as failure:
        held = [path for path in LOCKS if os.path.lexists(path)]
        if not held:
            raise
        raise Failure(failure.message, "; ".join(map(_advice, held))) from None


def _advice(lock: str) -> str:
    pid = re.match("[0-9]+", files.read(lock) or "")
    if pid is None:
        return f"{lock} does not say whose it is: remove it if nobody changes accounts"
    name = (files.read(f"/proc/{pid[0]}/comm") or "which has ended").strip()
    return f"{lock} is of process {pid[0]} ({name}): wait for that, or remove the lock if that changes no accounts"
