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


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold the server's lock."""
    fd = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failure(
                        f"another jailctl has held {PATH} for {PATIENCE} s",
                        f"See which one: fuser -v {PATH}",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)
