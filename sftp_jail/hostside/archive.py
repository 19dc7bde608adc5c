"""The uploads of a user who is removed, kept where only root can read them."""

import os
import time
from collections.abc import Iterator

from . import chroot, files, state
from .difference import Difference
from .process import run
from .state import User

FOLDER = f"{state.TOP}/archive"


def differences(user: User) -> Iterator[Difference]:
    """Uploads archived, unless there are none or an earlier run has done it; the record says where."""
    uploads = chroot.uploads(user.username)
    try:
        entries = len(os.listdir(uploads))
    except FileNotFoundError:
        return
    if not entries or (user.archive and os.path.exists(user.archive)):
        return
    yield from files.directory_differences(FOLDER, 0o700)
    path = _free_path(user.username)
    yield Difference(uploads, f"{entries} entries", f"archived as {path}", lambda: _archive(user, path))


def _free_path(username: str) -> str:
    stem = f"{FOLDER}/{username}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    path, number = f"{stem}.tar", 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}.tar"
    return path


def _archive(user: User, path: str) -> None:
    # tar(1) rather than tarfile: it keeps holes, and copes with trees deeper than PATH_MAX.
    partial = f"{path}.partial"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        run(
            *("tar", "--create", f"--file={partial}", "--sparse", "--numeric-owner", "--one-file-system"),
            *("--force-local", f"--directory={chroot.path(user.username)}", "uploads"),
            timeout=None,
        )
        os.fsync(fd)
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        os.close(fd)
    os.rename(partial, path)
    files.sync(FOLDER)
    state.write_user(user._replace(archive=path))
