"""The chain of directories down to each jail, which nobody but root may write to (sshd_config(5), ChrootDirectory)."""

import os
import stat
from collections.abc import Iterator

from . import accounts, files, state
from .difference import Difference, refusal
from .failure import Failure
from .process import run
from .state import User

JAILS = f"{state.TOP}/jail"


def path(username: str) -> str:
    """The user's jail."""
    return f"{JAILS}/{username}"


def uploads(username: str) -> str:
    """The one directory that is the user's own."""
    return f"{path(username)}/uploads"


def differences() -> Iterator[Difference]:
    """The directories above the jails. 0700 keeps the host's other accounts out; sshd enters as root."""
    root = os.stat("/")
    if root.st_uid != 0 or root.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        failure = Failure(
            "/ is writable for others than root, so sshd refuses every chroot",
            "Take it back",
            "sudo chown root / && sudo chmod go-w /",
        )
        yield refusal("/", "writable for others than root", "root's alone", failure)
    yield from files.directory_differences(state.TOP, 0o755)
    yield from files.directory_differences(JAILS, 0o700)


def link_differences() -> Iterator[Difference]:
    """No link in place of all of it, by which even the record of the jail would be lost."""
    if os.path.islink(state.TOP):
        yield refusal(state.TOP, "a symbolic link", "a directory", files.foreign(state.TOP))


def unknown_differences() -> Iterator[Difference]:
    """No jail that is nobody's. For `check` alone: what is in it may be somebody's all the same."""
    known = {user.username for user in state.users()}
    for name in sorted(set(os.listdir(JAILS)) - known if os.path.isdir(JAILS) else ()):
        shown = ascii(name)[1:-1]
        jail = f"{JAILS}/{shown}"
        # What cannot be typed as it is shown has no command.
        command = files.move_away(jail) if shown == name else ""
        failure = Failure(f"{jail} is nobody's jail", "See what is in it, and move it away", command)
        yield refusal(jail, "nobody's jail", "not there", failure)


def removal_differences() -> Iterator[Difference]:
    """None of them, but for those in which something is left: an archive, or what somebody else put there."""
    yield from files.empty_directory_differences(JAILS)
    yield from files.empty_directory_differences(state.TOP)


def jail_differences(user: User) -> Iterator[Difference]:
    """The user's jail itself, which is root's."""
    yield from files.directory_differences(path(user.username), 0o755)


def user_differences(user: User) -> Iterator[Difference]:
    """What is in the jail: root's, but for the uploads."""
    yield from files.directory_differences(f"{path(user.username)}/dev", 0o755)
    yield from files.directory_differences(uploads(user.username), 0o755, user.uid, accounts.gid())


def user_removal_differences(user: User) -> Iterator[Difference]:
    """No jail. Nobody can change it by now: the account is gone and its processes are dead."""
    jail = path(user.username)
    if os.path.lexists(jail):
        yield Difference(jail, "there", "gone", lambda: run("rm", "-rf", "--one-file-system", "--", jail, timeout=None))
