"""One verb at a time: two stacks, or a run that was given up and the next one, wait for each other."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .failure import Failure

PATH = "/run/sftp-jail.lock"
"""On a file system that a reboot empties; the lock itself ends with the process that holds it."""

SSHD = "/run/sftp-jail-sshd.lock"
"""A lock of its own for sshd's files: they must come back in time while somebody's uploads are being archived, too.
Whoever wants both takes the other one first."""

PATIENCE = 300
"""Seconds to wait for the others."""


_held: list[int] = []


def inherited() -> list[int]:
    """The descriptors by which every tool that jailctl runs holds the server's lock as well: if jailctl is killed, the
    next one waits for a tool that is still at work, on somebody's archive, say."""
    return list(_held)


class Busy(Failure):
    """Somebody else has the lock."""


@contextlib.contextmanager
def held(path: str = PATH, patience: float = PATIENCE) -> Iterator[None]:
    """Hold one of the server's locks; `Busy` if it is not free within so many seconds."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"another jailctl has held {path} for {patience} s",
                        f"See which one: fuser -v {path}",
                    ) from None
                time.sleep(0.02)
        if path == PATH:
            _held.append(fd)
        yield
    finally:
        if fd in _held:
            _held.remove(fd)
        os.close(fd)
