"""Time, CPU and memory, of a program on this computer and of a disposable machine."""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Optional

from tests.conftest import Machine

TICKS = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """What one run took, in seconds: by the clock; of CPU on this computer, and of CPU in the machine."""

    seconds: float
    cpu: float
    machine_cpu: float


class TooSlow(Exception):
    """It was given up after so many seconds."""


class Failed(Exception):
    """It did not succeed: its last words."""


def timed(
    machine: Machine,
    argv: Sequence[object],
    stdin: str = "",
    env: Optional[Mapping[str, str]] = None,
    patience: float = 3600,
) -> Cost:
    """What the program took, and what the machine did for it meanwhile.

    :raises TooSlow: if it takes more than `patience` seconds
    :raises Failed: if it does not succeed
    """
    before = machine_cpu(machine)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as given:
        given.write(stdin)
        given.seek(0)
        started = time.monotonic()
        cpu = _run([str(word) for word in argv], given, said, env, patience)
        seconds = time.monotonic() - started
    return Cost(seconds, cpu, machine_cpu(machine) - before)


def _run(argv: list[str], given: IO[str], said: IO[str], env: Optional[Mapping[str, str]], patience: float) -> float:
    """Run it to its end, for so many seconds at most; the CPU that it and its children took."""
    with subprocess.Popen(argv, stdin=given, stdout=said, stderr=said, env=env, start_new_session=True) as process:
        late = threading.Timer(patience, os.killpg, (process.pid, 9))
        late.start()
        try:
            # wait4(2), and not communicate: it knows what this child and its own took.
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == -9:
        raise TooSlow(f"{argv[0]}: more than {patience:g} s")
    if process.returncode != 0:
        said.seek(0)
        raise Failed(f"{argv[0]}: exit {process.returncode}\n{said.read()[-3000:]}")
    return usage.ru_utime + usage.ru_stime


def machine_cpu(machine: Machine) -> float:
    """The CPU seconds that the machine has had so far: those of all its processes, and of those that have ended, which
    their parents keep count of (proc(5))."""
    lines = machine.root("sh", "-c", "cat /proc/[0-9]*/stat 2> /dev/null || true").splitlines()
    return sum(int(tick) for line in lines for tick in line.rpartition(") ")[2].split()[11:15]) / TICKS


class Sampled(NamedTuple):
    """By the name of the program: the CPU seconds of its processes; and the most memory, in MB, of all of them at one
    time, what they share counted once (proc(5), Pss)."""

    cpu: dict[str, float]
    peak: float


@contextlib.contextmanager
def sampling(mark: str, into: list[Sampled], pause: float = 0.1) -> Iterator[None]:
    """Look every so often at all processes that have `mark` in their environment; the result goes into the list."""
    cpu: dict[int, tuple[str, float]] = {}
    peak = 0.0
    done = threading.Event()

    def look() -> None:
        nonlocal peak
        ours: dict[int, bool] = {}
        while not done.wait(pause):
            pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
            for pid in pids - ours.keys():
                with contextlib.suppress(OSError):
                    ours[pid] = mark.encode() in (Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            total = 0.0
            for pid in pids & {pid for pid, is_ours in ours.items() if is_ours}:
                with contextlib.suppress(OSError, IndexError):
                    cpu[pid] = _name(pid), _ticks(pid) / TICKS
                    total += _pss(pid)
            peak = max(peak, total)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    by_name: dict[str, float] = {}
    for name, seconds in cpu.values():
        by_name[name] = by_name.get(name, 0) + seconds
    into.append(Sampled(by_name, peak))


def _name(pid: int) -> str:
    """What a process runs: the script, where it is Python that runs one."""
    words = [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if word]
    names = [os.path.basename(word) for word in words[:3] if not word.startswith("-")]
    return names[1] if names[0].startswith("python") and len(names) > 1 else names[0]


def _ticks(pid: int) -> int:
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]))


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
