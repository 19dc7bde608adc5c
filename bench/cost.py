"""Where the time of one `up` goes, and how much memory it takes: by program on this computer, and in the machine."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from bench.contenders import Pulumi, make_accounts
from bench.measure import Sampled, sampling
from tests.conftest import Machine


class Split(NamedTuple):
    """CPU seconds: of Pulumi's engine, which writes the state; of the program with its language host; of the plugin;
    and of all that the machine does. Seconds by the clock; and the most memory, in MB, of the first three together."""

    engine: float
    program: float
    plugin: float
    machine: float
    seconds: float
    peak: float


def of_up(contender: type[Pulumi], users: int, release: str = "trixie") -> Split:
    """Of the `up` that makes so many users; the looking at it every tenth of a second makes it a little longer."""
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        machine = Machine(Path(folder), release)
        try:
            for name in ("contender", "keys"):
                (Path(folder) / name).mkdir()
            who = contender(Path(folder) / "contender", machine)
            try:
                accounts = make_accounts(Path(folder) / "keys", users)
                seen: list[Sampled] = []
                with sampling(f"PULUMI_BACKEND_URL={who.project.env['PULUMI_BACKEND_URL']}", seen):
                    cost = who.apply(accounts)
            finally:
                who.close()
        finally:
            machine.stop()
    parts = {"engine": 0.0, "program": 0.0, "plugin": 0.0}
    for name, seconds in seen[0].cpu.items():
        parts["engine" if name == "pulumi" else "plugin" if name.startswith("pulumi-resource-") else "program"] += (
            seconds
        )
    return Split(**parts, machine=cost.machine_cpu, seconds=cost.seconds, peak=seen[0].peak)
