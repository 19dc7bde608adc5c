"""Running the server's own tools, and ending a user's processes."""

import os
import re
import signal
import subprocess
import time
from typing import Optional

from . import lock
from .failure import Failure

TIMEOUT = 120
"""Seconds that a tool may take, so that a server which hangs never holds jailctl's lock for ever."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def run(*argv: str, stdin: str = "", timeout: Optional[float] = TIMEOUT) -> str:
    """The tool's standard output; `Failure` with the tool's own words unless it succeeds.

    A secret belongs in stdin, which no message repeats and no process list shows.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout,
            env=ENVIRONMENT,
            pass_fds=lock.inherited(),
            check=False,
        )
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not installed", "Install the Debian package that has it") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{argv[0]} did not end within {timeout} s", "See what it waits for on the server") from None
    if done.returncode:
        words = " ".join((done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").split("\n"))
        raise Failure(f"{' '.join(argv[:2])}: {words}", "Put that right and run it again")
    return done.stdout


def installed(name: str) -> bool:
    """Whether there is such a tool."""
    from shutil import which

    return which(name, path=ENVIRONMENT["PATH"]) is not None


def succeeds(*argv: str) -> bool:
    """Whether the tool exits with 0."""
    try:
        run(*argv)
    except Failure:
        return False
    return True


def openssh_version() -> tuple[int, int]:
    """Major and minor number of the server's OpenSSH; `Failure` if they cannot be told."""
    done = subprocess.run(["ssh", "-V"], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", done.stderr)
    if not found:
        raise Failure(f"ssh -V says {done.stderr.strip()!r}, which is no version of OpenSSH", "Install openssh-client")
    return int(found[1]), int(found[2])


def of(uid: int) -> list[int]:
    """The processes that have this uid as any of their four (proc(5))."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/status", "rb") as status:
                uids = next(line for line in status if line.startswith(b"Uid:")).split()[1:]
        except (OSError, StopIteration):  # it ended while we looked
            continue
        if b"%d" % uid in uids:
            found.append(int(name))
    return found


def end(uid: int) -> None:
    """Kill every process of the uid, and see that none is left: a live SFTP session outlives its account."""
    deadline = time.monotonic() + 10
    while pids := of(uid):
        if time.monotonic() > deadline:
            raise Failure(
                f"processes {pids} of uid {uid} do not die",
                "They wait for a disk: try again when that is well",
            )
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
