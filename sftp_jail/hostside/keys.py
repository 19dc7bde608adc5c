"""Public keys, in a place that no user can write to."""

import os
from collections.abc import Iterator

from . import files, process, state
from .difference import Difference
from .state import User
from .validate import end_of_access

PARENT = "/etc/ssh/sftp-jail"
FOLDER = f"{PARENT}/keys"


def path(username: str) -> str:
    """The user's authorized_keys file. sshd reads it as the user, so it is readable for all."""
    return f"{FOLDER}/{username}"


def differences() -> Iterator[Difference]:
    """The folder of the key files."""
    yield from files.directory_differences(PARENT, 0o755)
    yield from files.directory_differences(FOLDER, 0o755)
    known = {user.username for user in state.users()}
    for name in sorted(set(os.listdir(FOLDER)) - known if os.path.isdir(FOLDER) else ()):
        yield from files.file_differences(path(name), None)


def removal_differences() -> Iterator[Difference]:
    """No folder."""
    yield from files.empty_directory_differences(FOLDER)
    yield from files.empty_directory_differences(PARENT)


def user_differences(user: User) -> Iterator[Difference]:
    """One line a key: `restrict` (sshd(8)) takes away whatever a later OpenSSH may add to what a key allows."""
    yield from files.file_differences(path(user.username), "".join(_lines(user)))


def withdrawal_differences(user: User) -> Iterator[Difference]:
    """No key that he is not to have, nor one without his limits, though those that he is to have may be missing."""
    found = (files.read(path(user.username)) or "").splitlines(keepends=True)
    kept = [line for line in found if line in set(_lines(user))]
    if kept != found:
        yield from files.file_differences(path(user.username), "".join(kept))


def _lines(user: User) -> list[str]:
    options = ",".join(["restrict", *_limits(user)])
    return [f"{options} {key} {label}\n" for label, key in sorted(user.keys.items())]


def _limits(user: User) -> Iterator[str]:
    """From where, and until when, as sshd(8), AUTHORIZED_KEYS FILE FORMAT, has them."""
    if user.allow_from is not None:
        yield f'from="{",".join(user.allow_from)}"'
    if user.expires is not None:
        end = end_of_access(user.expires)
        if process.openssh_version() >= (9, 1):
            yield f'expiry-time="{end:%Y%m%d%H%M%SZ}"'
        else:  # it knows no zone but the system's
            yield f'expiry-time="{end.astimezone():%Y%m%d%H%M%S}"'


def user_removal_differences(user: User) -> Iterator[Difference]:
    """No key."""
    yield from files.file_differences(path(user.username), None)
