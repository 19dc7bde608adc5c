"""One verb at a time: two stacks, or a run that was given up and the next one, wait for each other."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .failure import Failure

PATH = "/run/sftp-jail.lock"
"""On a file system that a reboot empties; the lock itself ends with the process that holds it."""

PATIENCE = 300
"""Seconds to wait for the others."""


class Busy(Failure):
    """Somebody else has the lock."""


@contextlib.contextmanager
def held(patience: float = PATIENCE) -> Iterator[None]:
    """Hold the server's lock; `Busy` if it is not free within so many seconds."""
    fd = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"another jailctl has held {PATH} for {patience} s",
                        f"See which one: fuser -v {PATH}",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)
