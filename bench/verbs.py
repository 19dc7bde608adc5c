"""What each verb of jailctl takes by itself, and how that grows with the users that the server has already."""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from bench.contenders import SCRIPTS, make_accounts
from tests.conftest import MACHINE, Machine
from tests.hostside.conftest import JAIL, OWNER

VERBS = ("new user", "no change", "another key", "removal", "password", "expire", "apply-jail", "check")
"""Of the last three, the work is to look at every user: they may grow with them."""


class Taken(NamedTuple):
    """Medians, of some runs: seconds by the clock and of CPU, tools included; and MB of memory at most."""

    seconds: float
    cpu: float
    peak: float


def seed(machine: Machine, users: int) -> None:
    """Give the server so many users, without the time that it takes to make them one by one."""
    with tempfile.TemporaryDirectory() as folder:
        (account,) = make_accounts(Path(folder), 1)
    inside(machine, "/usr/bin/python3", "-IS", "-", users, OWNER, account.key, stdin=(SCRIPTS / "seed.py").read_text())


def inside(machine: Machine, *argv: object, stdin: str = "") -> str:
    """Run a program in the machine as root, however long it takes."""
    command = [sys.executable, str(MACHINE), "run", str(machine.spec["directory"]), "--", *map(str, argv)]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(users: int, rounds: int, release: str = "trixie") -> dict[str, Taken]:
    """By verb, what it takes on a server that has so many users; after it, `check` finds no difference."""
    taken: dict[str, list[Taken]] = {verb: [] for verb in VERBS}
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        machine = Machine(Path(folder), release)
        try:
            machine.install()
            done = machine.jailctl("apply-jail", JAIL)
            assert done.code == 0, done
            # One is the user that is made and removed again.
            seed(machine, users - 1)
            (Path(folder) / "keys").mkdir()
            first, second = make_accounts(Path(folder) / "keys", 2)
            for number in range(rounds):
                user = f"bench{number}"
                spec = {"user": f"{OWNER}/{user}", "key laptop": first.key}
                hashed = {"username": user, "passwordHash": "$y$j9T$" + "a" * 22 + "$" + "b" * 43}
                taken["new user"].append(_jailctl(machine, "apply-user", spec))
                taken["no change"].append(_jailctl(machine, "apply-user", spec))
                taken["another key"].append(_jailctl(machine, "apply-user", {**spec, "key laptop": second.key}))
                taken["password"].append(_jailctl(machine, "apply-password", hashed))
                taken["removal"].append(_jailctl(machine, "remove-user", spec))
                taken["expire"].append(_jailctl(machine, "expire"))
            # These ask sshd about every user.
            for _ in range(rounds if users <= 100 else 1):
                taken["apply-jail"].append(_jailctl(machine, "apply-jail", JAIL))
                taken["check"].append(_jailctl(machine, "check"))
        finally:
            machine.stop()
    return {verb: Taken(*(statistics.median(column) for column in zip(*runs))) for verb, runs in taken.items()}


def _jailctl(machine: Machine, verb: str, spec: Optional[dict[str, Any]] = None) -> Taken:
    script = (SCRIPTS / "usage.py").read_text()
    argv: Sequence[str] = ("/usr/bin/python3", "-c", script, "/usr/local/sbin/jailctl", verb)
    done = json.loads(inside(machine, *argv, stdin=json.dumps(spec) if spec is not None else ""))
    assert done["code"] == 0, done
    return Taken(done["seconds"], done["cpu"], done["peak"])
