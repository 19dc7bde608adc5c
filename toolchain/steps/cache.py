"""The cache outside the checkout: finished things, each under a name that says exactly what it is.

An entry is built in a directory of its own, which never moves afterwards (a Python venv breaks when it is moved).
Its name is a symlink to that directory, made in one atomic step after everything is on disk: so an entry has its
name if, and only if, it is finished. What a killed set-up left behind has no name, and the next one throws it away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from .run import say


def root() -> Path:
    """`$SFTP_JAIL_CACHE`, or `sftp-jail` in the user's cache directory."""
    if chosen := os.environ.get("SFTP_JAIL_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "sftp-jail"


def holds(path: Path) -> bool:
    """Whether `path`, links followed, lies in the cache."""
    return path.resolve().is_relative_to(root().resolve())


def digest(*parts: str | Path) -> str:
    """Twelve hex digits that change when a text, a file, or a name or file in a folder among `parts` changes."""
    total = hashlib.sha256()
    for part in parts:
        for item in _items(part):
            total.update(f"{len(item)}:".encode())
            total.update(item)
    return total.hexdigest()[:12]


def _items(part: str | Path) -> list[bytes]:
    if isinstance(part, str):
        return [part.encode()]
    if part.is_file():
        return [part.read_bytes()]
    files = sorted(file for file in part.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return [item for file in files for item in (bytes(file.relative_to(part)), file.read_bytes())]


def finished(name: str) -> Path | None:
    """The entry `name`, or None if it is not finished."""
    entry = root() / name
    return entry if entry.exists() else None


def entry(name: str, build: Callable[[Path], None]) -> Path:
    """The entry `name`; if it is not finished, `build` is called with an empty directory to fill.

    Where two set-ups want the same entry at once, one builds it and the other waits.
    """
    if done := finished(name):
        return done
    root().mkdir(parents=True, exist_ok=True)
    with open(root() / f".{name}.lock", "w") as lock:
        _take(lock.fileno(), name)
        if done := finished(name):
            return done
        for leftover in root().glob(f".{name}-*"):
            # Not an error: a grandchild of a killed set-up may still be writing there.
            shutil.rmtree(leftover, ignore_errors=True)
        home = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root()))
        home.chmod(0o755)
        try:
            build(home)
            os.sync()
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        link = home / ".name"
        link.symlink_to(home.name)
        return link.replace(root() / name)


def _take(lock: int, name: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another set-up, which is making {name}")
        fcntl.flock(lock, fcntl.LOCK_EX)
