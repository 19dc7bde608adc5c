"""The log and its rotations, as lines, in the order of what is in them."""

import bz2
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import IO, Any, Callable, NamedTuple, Optional

from ..failure import Failure
from . import parse

LOG = "/var/log/sftp.log"

ROTATION = re.compile(r"(?:[.-][0-9][0-9.-]*)?(?:\.(gz|bz2|xz))?")
"""What logrotate(8) appends to a log's name: a number or a date, and what its compressor does."""

OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": lambda file: gzip.GzipFile(fileobj=file),
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}

DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)

CHUNK = 1 << 16
"""Bytes that are read at once."""


class Rotation(NamedTuple):
    """One file, open at its start."""

    path: str
    first: bytes
    time: str
    file: Any


def files(log: str = LOG) -> list[Rotation]:
    """The files that there are, the oldest first: each by the latest time at the beginning of it. The first one there
    may be older than the file before is: the journal brings what sshd says later than internal-sftp says what it does.

    They are opened before they are ordered, and opened again where logrotate was at work meanwhile, so that none is
    missed and none is read twice. A compressed file beside the plain one, with the same beginning, is a copy that
    logrotate has not finished.
    """
    for _ in range(10):
        names = _names(log)
        found = [rotation for name in names if (rotation := _opened(name)) is not None]
        if _names(log) == names:
            break
        for rotation in found:
            rotation.file.close()
    else:
        raise Failure(f"the rotations of {log} change all the time", "Try again when logrotate has ended")
    if not found and not os.path.exists(log):
        raise Failure(f"there is no {log}", "Nothing was ever logged here: see `jailctl check`")
    plain = {rotation.path: rotation for rotation in found}
    found = [one for one in found if not _is_copy(one, plain.get(os.path.splitext(one.path)[0]))]
    return sorted(found, key=lambda rotation: (rotation.time, rotation.path != log))


def _is_copy(one: Rotation, beside: Optional[Rotation]) -> bool:
    return beside is not None and one.path.endswith(tuple(OPENERS)) and beside.first.startswith(one.first)


def _names(log: str) -> dict[str, int]:
    folder, base = os.path.split(log)
    names = {}
    for entry in os.scandir(folder):
        if entry.name.startswith(base) and ROTATION.fullmatch(entry.name[len(base) :]):
            names[entry.path] = entry.inode()
    return names


def _opened(path: str) -> Optional[Rotation]:
    """The file, unless it is empty or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    plain = open(fd, "rb")  # noqa: SIM115  # whoever reads the lines closes it
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Failure(f"{path} is no file", "See what it is, and move it away")
    if not os.fstat(fd).st_size:
        plain.close()
        return None
    suffix = path.rpartition(".")[2]
    file = OPENERS[suffix](plain) if suffix in OPENERS else plain
    try:
        start = file.read1(CHUNK).split(b"\n")
    except DAMAGED:
        start = [b""]
    times = (line.time for text in start if (line := parse.line(text.decode("utf-8", "surrogateescape"))) is not None)
    file.seek(0)
    return Rotation(path, start[0], max(times, default=""), file)


def lines(rotations: list[Rotation]) -> Iterator[str]:
    """Every line, without its end; bytes that are not UTF-8 are surrogates."""
    for rotation in rotations:
        with rotation.file:
            for text in _lines(rotation):
                yield text.decode("utf-8", "surrogateescape")


def _lines(rotation: Rotation) -> Iterator[bytes]:
    rest = b""
    damage = ""
    while True:
        try:
            chunk = rotation.file.read1(CHUNK)  # what there is before the damage, if there is any
        except DAMAGED as error:
            chunk, damage = b"", f"{rotation.path} cannot be read on from here: {error}"
        if not chunk:
            break
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest
    if damage:
        yield damage.encode()
