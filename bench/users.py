"""Making users, and changing one of them: all contenders in turns, each on a machine of its own, round by round."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from bench.contenders import Account, Contender, Pulumi, make_accounts
from bench.measure import Cost, TooSlow
from tests.conftest import Key, Machine, until

OPERATIONS = {
    "create": "making {} users",
    "noop": "nothing to change at {}",
    "add_one": "one more than {}",
    "rotate_one": "another key for one of {}",
    "remove_one": "one less of {}",
    "preview": "a preview of one more than {}",
}

SLOW = 60
"""Whoever takes more seconds for the first operation is asked for the first two alone: the others would take hours."""


class Run(NamedTuple):
    """One contender's run of one operation."""

    operation: str
    users: int
    contender: str
    cost: Optional[Cost]
    """None where it was given up."""
    connections: int
    """How many SSH connections the machine's sshd had for it."""


def one_round(contender: type[Contender], users: int, release: str = "trixie") -> list[Run]:
    """Every operation, one after the other, on a machine that is booted for it; a run that is given up is the last, and
    of who is `SLOW` the second."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        place = Path(folder)
        machine = Machine(place, release)
        try:
            (place / "contender").mkdir()
            who = contender(place / "contender", machine)
            try:
                _operate(who, machine, place, users, runs)
            except TooSlow:
                runs.append(Run(list(OPERATIONS)[len(runs)], users, contender.name, None, 0))
            finally:
                who.close()
        finally:
            machine.stop()
    return runs


def _operate(who: Contender, machine: Machine, folder: Path, users: int, runs: list[Run]) -> None:
    (folder / "keys").mkdir()
    everybody = make_accounts(folder / "keys", users + 2)
    accounts, more, other = everybody[:users], everybody[: users + 1], everybody[users + 1]

    def run(operation: str, wanted: Sequence[Account], gone: Sequence[str] = ()) -> None:
        before = connections(machine)
        cost = who.preview(wanted) if operation == "preview" else who.apply(wanted, gone)
        runs.append(Run(operation, users, who.name, cost, connections(machine) - before))

    run("create", accounts)
    prove(machine, accounts[-1], folder / "keys" / accounts[-1].name)
    run("noop", accounts)
    if runs[0].cost is not None and runs[0].cost.seconds > SLOW and not isinstance(who, Pulumi):
        return
    run("add_one", more)
    prove(machine, more[-1], folder / "keys" / more[-1].name)
    rotated = [more[0]._replace(key=other.key), *more[1:]]
    run("rotate_one", rotated)
    prove(machine, rotated[0], folder / "keys" / other.name)
    run("remove_one", rotated[:-1], [rotated[-1].name])
    assert machine.run("id", rotated[-1].name).code != 0, f"{who.name} has not removed {rotated[-1].name}"
    run("preview", rotated)
    assert machine.run("id", rotated[-1].name).code != 0, f"{who.name} has made {rotated[-1].name} in a preview"


def prove(machine: Machine, account: Account, key: Path) -> None:
    """He can log in, and upload, and it is in the log under his name."""
    done = machine.sftp(account.name, Key(key), "put /etc/hostname proof")
    assert done.code == 0, done
    line = rf'^\S+ {account.name} internal-sftp\[[0-9]+\]: close "/uploads/proof"'
    until(lambda: machine.run("grep", "-Eq", line, "/var/log/sftp.log").code == 0, f"{account.name} in the log")


def connections(machine: Machine) -> int:
    """How many connections its sshd has had."""
    lines = machine.root("journalctl", "--unit=ssh", "--output=cat", "--no-pager").splitlines()
    return sum(" port " in line and ("Accepted" in line or "[preauth]" in line) for line in lines)
