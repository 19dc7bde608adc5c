"""A server at rest: with a jail and its users, beside one without a jail."""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench.measure import machine_cpu
from bench.verbs import inside, seed
from tests.conftest import Machine
from tests.hostside.conftest import JAIL

PSS = r"sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' /proc/[0-9]*/smaps_rollup 2> /dev/null || true"


class Idle(NamedTuple):
    """Memory of all its processes in MB, what they share counted once; and the share of one CPU that they take, in
    percent."""

    memory: float
    cpu: float


def measure(users: int, seconds: float, release: str = "trixie") -> dict[str, Idle]:
    """Of `ours` and `stock`, both in the same stretch of time."""
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        machines: dict[str, Machine] = {}
        try:
            for name in ("stock", "ours"):
                (Path(folder) / name).mkdir()
                machines[name] = Machine(Path(folder) / name, release)
            machines["ours"].install()
            done = machines["ours"].jailctl("apply-jail", JAIL)
            assert done.code == 0, done
            seed(machines["ours"], users)
            # What the boot, and the administrator's login, have left to do.
            time.sleep(min(30, seconds))
            before = {name: machine_cpu(machine) for name, machine in machines.items()}
            started = time.monotonic()
            time.sleep(seconds)
            after = {name: machine_cpu(machine) for name, machine in machines.items()}
            lasted = time.monotonic() - started
            return {
                name: Idle(_memory(machine), 100 * (after[name] - before[name]) / lasted)
                for name, machine in machines.items()
            }
        finally:
            for machine in machines.values():
                machine.stop()


def _memory(machine: Machine) -> float:
    return sum(map(int, inside(machine, "sh", "-c", PSS).split())) / 1024
