"""The log and its rotations, as lines, in the order of what is in them."""

import bz2
import gzip
import io
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

LONGEST = 1 << 20
"""Bytes of a line that are read at once; rsyslog's are at most 8 KiB long."""


class Rotation(NamedTuple):
    """One file, open at its start."""

    path: str
    first: bytes
    time: str
    file: IO[bytes]
    compressed: bool


def files(log: str = LOG) -> list[Rotation]:
    """The files that there are, the oldest first: each by the first time that is in it.

    They are opened before they are ordered, and opened again where logrotate was at work meanwhile, so that none is
    missed and none is read twice. A compressed file that begins as a plain one does is a copy that logrotate has not
    finished.
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
    plain = {rotation.first for rotation in found if not rotation.compressed}
    found = [rotation for rotation in found if not (rotation.compressed and rotation.first in plain)]
    return sorted(found, key=lambda rotation: (rotation.time, rotation.path != log))


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
    suffix = path.rpartition(".")[2]
    file = io.BufferedReader(OPENERS[suffix](plain)) if suffix in OPENERS else plain
    first = time = None
    for text in _lines(file):
        first = text if first is None else first
        if (line := parse.line(text.decode("utf-8", "surrogateescape"))) is not None:
            time = line.time
            break
    if first is None:
        file.close()
        return None
    file.seek(0)
    return Rotation(path, first, time or "", file, suffix in OPENERS)


def lines(rotations: list[Rotation]) -> Iterator[str]:
    """Every line, without its end; bytes that are not UTF-8 are surrogates."""
    for rotation in rotations:
        with rotation.file:
            for text in _lines(rotation.file):
                yield text.decode("utf-8", "surrogateescape")


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    try:
        while text := file.readline(LONGEST):
            yield text.rstrip(b"\n")
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        yield f"this file cannot be read on from here: {error}".encode()
