"""jailctl that comes to grief at a step of the test's choice (`program`)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

from tests.conftest import MACHINE, Done, Machine

DRIVER = Path(__file__).with_name("program.py")
PLACE = "/run/fault_driver.py"

KILLED, REFUSED, FULL = "killed", "refused", "full"
"""What may happen."""


class Fault(NamedTuple):
    """What happens to jailctl, at which of the steps whose names begin with one of `at`, counted from 0."""

    kind: str
    step: int
    at: tuple[str, ...] = ("",)


class Outcome(NamedTuple):
    """How a verb ended."""

    done: Done
    reached: str
    """The step of the fault; empty if the verb ended before."""


class Driver:
    """A process in the machine that runs jailctl's verbs, whole or not."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def _ask(self, *request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def run(
        self, verb: str, spec: Optional[dict] = None, fault: Optional[Fault] = None, canary: bool = True
    ) -> Outcome:
        """Run a verb, which comes to grief if there is a fault.

        :param canary: whether it looks if the log is complete, as it always does else; that waits for the journal
        """
        return outcome(self._ask(*request_of(verb, spec, fault, canary)))

    def shell(self, command: str) -> None:
        """Run a shell command, all of which must succeed."""
        answer = self._ask("shell", command)
        assert answer["code"] == 0, (command, answer)

    def facts(self, *usernames: str) -> dict[str, Any]:
        """Who of them gets in, and to what, and what sshd does for the administrator."""
        return self._ask("facts", usernames)


def request_of(verb: str, spec: Optional[dict], fault: Optional[Fault], canary: bool = True) -> list[object]:
    return ["run", verb, json.dumps(spec) if spec is not None else None, fault, canary]


def outcome(answer: dict[str, Any]) -> Outcome:
    return Outcome(Done(answer["code"], answer["out"], answer["err"]), answer["reached"])


def bring(machine: Machine) -> None:
    """Have the driver in the machine."""
    machine.root("tee", PLACE, stdin=DRIVER.read_text())


@contextmanager
def driving(machine: Machine) -> Iterator[Driver]:
    """A driver in the machine, for as long as the block lasts."""
    bring(machine)
    argv = [sys.executable, str(MACHINE), "run", machine.spec["directory"], "--", "env", "SUDO_USER=admin"]
    argv += ["python3", "-I", PLACE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Driver(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0
