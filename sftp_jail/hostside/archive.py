"""The uploads of a user who is removed, kept where only root can read them: as one file with its manifest, or as
they are."""

import os
import time
from collections.abc import Iterator
from typing import Callable

from . import chroot, files, state
from .difference import Difference
from .process import run
from .state import User

FOLDER = f"{state.TOP}/archive"


def folder_differences() -> Iterator[Difference]:
    """The archives, if there are any, for root alone."""
    if os.path.lexists(FOLDER):
        yield from files.directory_differences(FOLDER, 0o700)


def differences(user: User) -> Iterator[Difference]:
    """Uploads put away, unless there are none, or an earlier run has done it (the record says where), or they are to
    go with the jail."""
    uploads = chroot.uploads(user.username)
    try:
        entries = len(os.listdir(uploads))
    except FileNotFoundError:
        return
    if not entries or user.on_removal == "delete" or (user.archive and os.path.exists(user.archive)):
        return
    yield from files.directory_differences(FOLDER, 0o700)
    kept = user.on_removal == "keep"
    path = user.archive or _free_stem(user.username) + ("" if kept else ".tar")
    yield Difference(
        uploads,
        f"{entries} entries",
        f"{'kept' if kept else 'archived'} as {path}",
        lambda: _put_away(user._replace(archive=path), _keep if kept else _archive),
    )


def _free_stem(username: str) -> str:
    stem = base = f"{FOLDER}/{username}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 1
    while any(os.path.lexists(f"{stem}{end}") for end in ("", ".tar", ".manifest.jsonl")):
        number += 1
        stem = f"{base}-{number}"
    return stem


def _put_away(user: User, put: Callable[[User, str], None]) -> None:
    assert user.archive is not None
    # The name first: what is there by that name is whole, and if nothing is, the next run begins again under it.
    state.write_user(user)
    put(user, user.archive)
    files.sync(FOLDER)


def _keep(user: User, path: str) -> None:
    os.rename(chroot.uploads(user.username), path)


def _archive(user: User, path: str) -> None:
    from . import manifest

    # tar(1) rather than tarfile: it keeps holes, and copes with trees deeper than PATH_MAX.
    stem = path[: -len(".tar")]
    partial = f"{path}.partial"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        run(
            *("tar", "--create", f"--file={partial}", "--sparse", "--numeric-owner", "--one-file-system"),
            *("--force-local", f"--directory={chroot.path(user.username)}", "uploads"),
            timeout=None,
        )
        os.fsync(fd)
        manifest.write(f"{stem}.manifest.jsonl", partial, {"archive": path, "user": user.username, "stack": user.owner})
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        os.close(fd)
    os.rename(partial, path)
