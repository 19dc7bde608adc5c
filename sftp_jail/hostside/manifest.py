"""What is in an archive, file by file: the receipt for the contractor and the auditor.

JSON, one object a line. Each entry of the archive has its `path`, `type`, `size` in bytes and `mtime` (the one that
its owner gave it, who may have given any); a file has its `sha256`, a link its `target`. The last line is of the
archive itself: `archive`, `user`, `stack`, `archived` (the instant, UTC), `entries`, `size` and `sha256`. A byte of a
name that is no UTF-8 is `\\udcXX` (PEP 383).

It is made from the archive and not from the uploads, so that it also shows that the archive can be read.
"""

import hashlib
import json
import os
import tarfile
from datetime import datetime, timezone
from typing import Any, BinaryIO, Optional

from . import files

CHUNK = 1 << 20
LONGEST_HOLE = 64 << 30
"""Bytes of nothing that are worth hashing. A file with more than that has no `sha256`."""

TYPES = {tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hard link", tarfile.DIRTYPE: "directory"}


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def write(path: str, archive: str, about: dict[str, str]) -> None:
    """Write an archive's manifest, root's alone, whole or not at all.

    :param path: where
    :param archive: the tar file
    :param about: more for the last line
    """
    partial = f"{path}.partial"
    entries = 0
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as lines, open(archive, "rb") as opened:
            hashing = _Hashing(opened)
            # A stream: the archive is read once, from its beginning to its end.
            with tarfile.open(fileobj=hashing, mode="r|", errors="surrogateescape") as tar:  # type: ignore[call-overload]
                for member in tar:
                    tar.members = []  # else it keeps them all
                    lines.write(_line(_entry(tar, member)))
                    entries += 1
            while hashing.read(CHUNK):  # what tar has padded it with
                pass
            now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            whole = {"archived": now, "entries": entries, "size": hashing.size, "sha256": hashing.digest.hexdigest()}
            lines.write(_line({**about, **whole}))
            lines.flush()
            os.fsync(fd)
    except BaseException:
        os.unlink(partial)
        raise
    os.rename(partial, path)
    files.sync(os.path.dirname(path))


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, Any]:
    entry = {
        "path": member.name,
        "type": "file" if member.isreg() else TYPES.get(member.type, "special"),
        "size": member.size,
        "mtime": _instant(member.mtime),
    }
    if member.isreg():
        entry["sha256"] = _sha256(tar, member)
    elif member.linkname:
        entry["target"] = member.linkname
    return entry


def _instant(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # a year that Python does not know
        return f"@{int(seconds)}"


def _sha256(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Optional[str]:
    stored = [length for _, length in getattr(member, "sparse", None) or []]
    if stored and member.size - sum(stored) > LONGEST_HOLE:
        return None
    digest = hashlib.sha256()
    data = tar.extractfile(member)
    assert data is not None
    while chunk := data.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
