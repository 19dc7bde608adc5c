"""Files and directories that root owns: written whole or not at all, and never through a planted link."""

import contextlib
import os
import shlex
import stat
from collections.abc import Iterator
from typing import Optional

from .difference import REPAIR, Difference, refusal
from .failure import Failure

UNFINISHED = ".sftp-jail-"
"""How the name of a file begins that is being written; the process id follows."""


def read(path: str) -> Optional[str]:
    """The file's text, or None where there is none; bytes that are not UTF-8 survive a write back."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write(path: str, text: str, mode: Optional[int] = None) -> None:
    """Replace the file's text in one step: whoever reads it, whenever, and whatever fails, finds the old or the new.

    `mode` is by default that of the file it replaces, or 0644; the owner stays, too.
    """
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    if mode is None:
        mode = stat.S_IMODE(before.st_mode) if before else 0o644
    folder = os.path.dirname(path)
    sweep(folder)
    temporary = f"{folder}/{UNFINISHED}{os.getpid()}-{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            if before:
                os.fchown(fd, before.st_uid, before.st_gid)
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync(folder)


def remove(path: str) -> None:
    """Remove the file if it is there."""
    folder = os.path.dirname(path)
    sweep(folder)
    discard(path)
    sync(folder)


def discard(path: str) -> None:
    """Remove the file if it is there, with no regard to a power cut."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: str) -> None:
    """Remove a directory of root's with all that is in it."""
    from shutil import rmtree

    rmtree(path)


def sweep(folder: str) -> None:
    """Remove from the folder what a run that was killed had begun to write."""
    for name in os.listdir(folder):
        if name.startswith(UNFINISHED) and not os.path.exists(f"/proc/{name[len(UNFINISHED) :].split('-')[0]}"):
            discard(f"{folder}/{name}")


def put(texts: dict[str, Optional[str]]) -> None:
    """Write the files with these texts (None: no such file), one after the other."""
    for path, text in texts.items():
        if text is None:
            remove(path)
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, text)


@contextlib.contextmanager
def replaced(texts: dict[str, Optional[str]]) -> Iterator[None]:
    """The files with these texts (None: no such file), for good only if the block succeeds."""
    before = {path: read(path) for path in texts}
    try:
        put(texts)
        yield
    except BaseException:
        put(before)
        raise


def sync(folder: str) -> None:
    """Make what was renamed or removed in the folder outlast a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_differences(path: str, text: Optional[str], mode: int = 0o644) -> Iterator[Difference]:
    """A root-owned file with this text and mode; with None, no such file."""
    if text is None:
        if os.path.lexists(path):
            yield Difference(path, "there", "gone", lambda: remove(path))
        return
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        yield Difference(path, "missing", "there", lambda: write(path, text, mode))
        return
    if not stat.S_ISREG(found.st_mode):
        yield refusal(path, "not a file", "a file", foreign(path))
    elif read(path) != text:
        yield Difference(path, "changed", "as specified", lambda: write(path, text, mode))
    yield from owner_differences(path, mode, 0, 0)


def owner_differences(path: str, mode: int, uid: int, gid: int) -> Iterator[Difference]:
    """A file that is there, with this owner and mode."""
    found = os.lstat(path)
    if stat.S_ISREG(found.st_mode) and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (uid, gid, mode):
        yield Difference(
            path, _describe(found), f"{uid}:{gid} {mode:04o}", lambda: _set(path, uid, gid, mode, os.O_RDONLY)
        )


def directory_differences(path: str, mode: int, uid: int = 0, gid: int = 0) -> Iterator[Difference]:
    """A directory, not a link to one, with this owner and mode."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        yield Difference(path, "missing", "a directory", lambda: _make(path, uid, gid, mode))
        return
    except NotADirectoryError:
        culprit = os.path.dirname(path)
        while not os.path.lexists(culprit):
            culprit = os.path.dirname(culprit)
        yield refusal(path, "below something that is no directory", "a directory", foreign(culprit))
        return
    if not stat.S_ISDIR(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        yield refusal(path, kind, "a directory", foreign(path))
    elif (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (uid, gid, mode):
        yield Difference(
            path,
            _describe(found),
            f"{uid}:{gid} {mode:04o}",
            lambda: _set(path, uid, gid, mode, os.O_RDONLY | os.O_DIRECTORY),
        )


def empty_directory_differences(path: str) -> Iterator[Difference]:
    """No such directory, if it is empty: what others put there is theirs."""
    try:
        if not os.listdir(path):
            yield Difference(path, "empty", "gone", lambda: os.rmdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return


def _describe(found: os.stat_result) -> str:
    return f"{found.st_uid}:{found.st_gid} {stat.S_IMODE(found.st_mode):04o}"


def _make(path: str, uid: int, gid: int, mode: int) -> None:
    os.mkdir(path, 0o700)
    _set(path, uid, gid, mode, os.O_RDONLY | os.O_DIRECTORY)


def _set(path: str, uid: int, gid: int, mode: int, flags: int) -> None:
    # By descriptor, and never through a link: chown(1) of a link that a user planted has given away /etc/passwd.
    fd = os.open(path, flags | os.O_NOFOLLOW)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def foreign(path: str) -> Failure:
    """What to do about something that is not what belongs there, and not ours to remove."""
    return Failure(
        f"{path} is not what belongs there", "See what it is, and move it away", f"{move_away(path)} && {REPAIR}"
    )


def move_away(path: str) -> str:
    """The command that moves something to where it harms nobody."""
    return f"sudo mv {shlex.quote(path)} /root/"
