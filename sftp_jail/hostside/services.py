"""systemd units, and the memory of which of them has yet to load what was written for it.

Without that memory, a run killed between the writing and the reload would look finished to the next one.
"""

import contextlib
import glob
import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Callable, Optional

from . import files, state
from .difference import Difference, refusal
from .failure import Failure
from .process import run, succeeds

FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/etc/systemd/system.control", "/run/systemd/system.control")
"""Where an administrator's drop-ins are."""

SSHD = "ssh.service"
SSHD_SOCKET = "ssh.socket"


def is_active(unit: str) -> bool:
    """Whether the unit is running."""
    return succeeds("systemctl", "is-active", "--quiet", unit)


def main_process(unit: str) -> int:
    """The unit's main process; 0 if there is none."""
    return int(run("systemctl", "show", "--property=MainPID", "--value", unit))


def changed(unit: str) -> float:
    """When the unit was started, reloaded or stopped last, in seconds since the epoch."""
    microseconds = int(run("systemctl", "show", "--property=StateChangeTimestampMonotonic", "--value", unit))
    return time.time() - (time.monotonic() - microseconds / 1e6)


def overriding_differences(units: Iterable[str]) -> Iterator[Difference]:
    """No word of anybody else's in units of ours (systemd.unit(5), drop-ins): it may take away all that they are for.

    For `check` alone: it may also be some limit that the administrator has set, and wants.
    """
    for unit in units:
        found = [path for folder in FOLDERS for path in sorted(glob.glob(f"{folder}/{unit}.d/*.conf"))]
        if found:
            failure = Failure(f"{', '.join(found)} changes {unit}", "Take it away", f"sudo systemctl revert {unit}")
            yield refusal(unit, f"changed by {', '.join(found)}", "as it was written", failure)


def act(verb: str, unit: str) -> None:
    """Start, restart or reload the unit, by systemctl(1)."""
    run("systemctl", verb, unit)


def load(*units: str) -> None:
    """Have systemd know the units as their files are now.

    What it has not looked at yet it reads by itself. To have it read all units of the server again takes longer than
    all else that jailctl does at a time, so that is for files that have changed or are gone: NeedDaemonReload
    (org.freedesktop.systemd1(5)). On Debian 13 it is so for every unit, too, once any has been enabled.
    """
    if "yes" in run("systemctl", "show", "--property=NeedDaemonReload", "--value", *units).split():
        run("systemctl", "daemon-reload")


def hang_up(unit: str) -> None:
    """Send the unit's processes a SIGHUP, if it runs: those of its control group, since to ask systemd takes as long as
    useradd does."""
    try:
        with open(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs") as group:
            processes = [int(line) for line in group]
    except OSError:  # it does not run, or control groups are not where systemd has them by default
        succeeds("systemctl", "kill", "--signal=HUP", unit)
        return
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGHUP)


def enable(*units: str) -> None:
    """Have the units started at boot; with `--now`, now, too. systemd has loaded them."""
    # It would have all units of the server read again by itself: see `load`.
    run("systemctl", "enable", "--quiet", "--no-reload", *units)


def disable(*units: str) -> None:
    """Have the units not started at boot; with `--now`, stopped, too. systemd is told when their files are gone."""
    run("systemctl", "disable", "--quiet", "--no-reload", *units)


def install(unit: str, texts: dict[str, Optional[str]], check: Callable[[], object], load: Callable[[], None]) -> None:
    """Write the unit's files and load them; where `check` or `load` fails, the old ones are back, and loaded."""
    mark(unit)
    try:
        with files.replaced(texts):
            check()
            load()
    except BaseException:
        with contextlib.suppress(Failure):
            load()
        raise


def mark(what: str) -> None:
    """Remember that something written must yet be loaded."""
    # Missing where somebody has deleted it all by hand, and what is left is to be removed.
    os.makedirs(state.FOLDER, 0o700, exist_ok=True)
    files.write(_marker(what), "")


def is_marked(what: str) -> bool:
    """Whether something must yet be loaded."""
    return os.path.exists(_marker(what))


def clear(what: str) -> None:
    """It is loaded."""
    if is_marked(what):
        files.remove(_marker(what))


def _marker(what: str) -> str:
    return f"{state.FOLDER}/{what}.pending"
