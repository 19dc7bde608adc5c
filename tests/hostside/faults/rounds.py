"""Rounds of verbs that are interrupted at each of their steps, and what must hold whenever that happens."""

import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional, TypeVar

import pytest

from tests.conftest import RELEASES, Done, Key, Machine
from tests.hostside.conftest import spec
from tests.hostside.faults.driver import FULL, KILLED, PLACE, REFUSED, Driver, Fault, Outcome, outcome, request_of

CLEAN = "no difference\n"

LIMITS: dict[str, object] = {"access": "read-only", "expires": "2199-12-07", "allowFrom": ["10.213.0.0/16"]}

LOGIN_EVERY = 12
"""Steps between two after which real clients knock, too: that takes longer than all else."""


ON_TRIAL = ("apply-jail", "repair")
"""The verbs after which the administrator has something to confirm."""


class Server(NamedTuple):
    """A machine, the driver in it, and the keys of its jack."""

    machine: Machine
    driver: Driver
    laptop: Key
    desk: Key

    @property
    def jack(self) -> dict:
        """A user who may read and write."""
        return spec("jack", desk=self.desk)

    @property
    def less(self) -> dict:
        """The same, with another key, who may read, from here, for some time."""
        return spec("jack", LIMITS, laptop=self.laptop)

    def run(self, verb: str, spec: Optional[dict] = None, fault: Optional[Fault] = None) -> Outcome:
        """Run a verb; over a new connection of the administrator's, if it is one that looks at that."""
        if verb != "confirm":
            return self.driver.run(verb, spec, fault, canary=False)
        request = json.dumps(request_of(verb, spec, fault, canary=False)) + "\n"
        done = self.administrator(f"sudo -n python3 -I {PLACE}", request)
        assert done.code == 0, done
        return outcome(json.loads(done.out))

    def must(self, verb: str, spec: Optional[dict] = None) -> None:
        """Run a verb to its end, and confirm what it has put on trial."""
        done = self.run(verb, spec).done
        assert done.code == 0, done
        if verb in ON_TRIAL:
            self.must("confirm", spec)

    def administrator(self, command: str, stdin: str = "") -> Done:
        return self.machine.ssh("admin", self.machine.admin_key, command, stdin=stdin)

    def facts(self) -> dict[str, Any]:
        return self.driver.facts("jack", "nobody")


class Move(NamedTuple):
    """A verb that takes the server from one state to the next. The moves of a round end where the first one began."""

    verb: str
    spec: Optional[dict] = None
    prepare: Callable[[Server], object] = lambda server: None
    check: str = CLEAN
    """What `check` says afterwards; a regular expression."""

    test: str = "true"
    """A shell command that succeeds afterwards."""

    or_nothing: bool = False
    """Whether the verb takes back what it has begun, if it can do anything at all."""


def has_jack(server: Server) -> None:
    server.must("apply-user", server.jack)


def has_less(server: Server) -> None:
    server.must("apply-user", server.less)


KINDS: dict[str, list[pytest.MarkDecorator]] = {
    KILLED: [pytest.mark.case("B 1")],
    REFUSED: [pytest.mark.more],
    FULL: [],
}
"""Ways to be interrupted: one that `make test` tries on every Debian, one that it leaves out, one for the newest."""

Test = TypeVar("Test", bound=Callable[..., None])


def interrupted(rounds: dict[str, Any]) -> Callable[[Test], Test]:
    """Have a test play each of the rounds (`moves`), interrupted in each way (`kind`)."""

    def marked(test: Test) -> Test:
        by_moves = pytest.mark.parametrize("moves", rounds.values(), ids=rounds)(test)
        kinds = [pytest.param(kind, marks=marks) for kind, marks in KINDS.items()]
        by_kind: Test = pytest.mark.parametrize("kind", kinds)(by_moves)
        return by_kind

    return marked


EVERY_STEP = bool(os.environ.get("SFTP_JAIL_EVERY_STEP"))
"""Whether there is the time for all steps, three quarters of an hour: `make test-faults`."""


def stride_of(server: Server, stride: int) -> int:
    """How many steps from one that is tried to the next: 1 if all are; else each release has others of them tried, the
    fewer the older it is."""
    older = RELEASES[::-1].index(server.machine.spec["release"])
    return 1 if EVERY_STEP else stride + older * (stride + 1)


def play(server: Server, moves: list[Move], kind: str, stride: int) -> None:
    """Play a round until each of its verbs has been interrupted at each of its steps, or at every so many of them."""
    stride = stride_of(server, stride)
    expected = []
    for move in moves:
        move.prepare(server)
        expected.append(finish(server, move))
    steps, left = 0, dict.fromkeys(range(len(moves)), 0)
    while left:
        for number, move in enumerate(moves):
            move.prepare(server)
            if number in left:
                fault = Fault(kind, left[number])
                left[number] += stride
                steps += 1
                if not interrupt(server, move, fault, expected[number], with_clients=steps % LOGIN_EVERY == 0):
                    del left[number]
            assert finish(server, move) == expected[number]
    checked = server.driver.run("check").done
    assert re.fullmatch(moves[-1].check, checked.out), "and the log is complete"
    assert steps > len(moves) or moves[0].verb == "release", "something was interrupted"


def finish(server: Server, move: Move) -> dict[str, Any]:
    """Run a move to its end: what the server is then."""
    server.must(move.verb, move.spec)
    assert_checked(server, move)
    server.driver.shell(move.test)
    server.driver.shell(NOTHING_HALF_DONE)
    return server.facts()


NOTHING_HALF_DONE = r"""
! find /etc /run /sftp /var/lib/sftp-jail -xdev \( -name '.sftp-jail-*' -o -name 'sftp-jail-candidate' \) | grep .
! find /sftp -name '*.partial' -o -name '*.new' | grep .
"""


def assert_checked(server: Server, move: Move) -> None:
    checked = server.run("check").done
    assert re.fullmatch(move.check, checked.out), (move, checked)


def interrupt(server: Server, move: Move, fault: Fault, expected: dict[str, Any], with_clients: bool) -> bool:
    """Run a move that is interrupted, and see that it has done no harm; whether it came to that step at all."""
    before = server.facts()
    done, reached = server.run(move.verb, move.spec, fault)
    now = server.facts()
    where = (f"{move.verb} {fault.kind} at step {fault.step}, {reached}", done, before, now, expected)
    assert is_between(before, now, expected), where
    if with_clients:
        assert clients_are_told(server, now), where
    if reached and fault.kind == KILLED:
        assert done.code == -9, where
    elif done.code == 0:
        assert now == expected, where
        if move.verb in ON_TRIAL:
            server.must("confirm", move.spec)
        assert_checked(server, move)
    else:
        assert reached, where
        assert re.fullmatch(r"jailctl [a-z-]+: .+\.\n", done.err), where
        if move.or_nothing and fault.kind == REFUSED:
            assert now == before, where
            assert_checked(server, move)
    return bool(reached)


def clients_are_told(server: Server, now: dict[str, Any]) -> bool:
    """Whether the administrator gets in, and jack to nothing else than what sshd says, and that only if he may."""
    keys = (server.laptop, server.desk)
    return (
        server.administrator("id -un").out == "admin\n"
        and not any("uid=" in server.machine.ssh("jack", key, "id").out for key in keys)
        and ("jack" in now["users"] or all(server.machine.sftp("jack", key, "ls").code != 0 for key in keys))
    )


def is_between(before: dict[str, Any], now: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the administrator gets in as he did, or will, and nobody may do what he neither might nor will."""
    return (
        now["sshd"] == ""
        and now["admin"] in (before["admin"], after["admin"])
        and all(
            any(grant.is_within(other) for facts in (before, after) for other in grants(facts["users"].get(name)))
            for name, access in now["users"].items()
            for grant in grants(access)
        )
    )


class Grant(NamedTuple):
    """What one of somebody's keys, or his password, is good for when he comes from some place."""

    credential: str
    place: str
    options: frozenset[str]
    """That limit a key, in authorized_keys(5)."""

    sshd: list[str]
    """What sshd does for him."""

    def is_within(self, other: "Grant") -> bool:
        """Whether the other one is good for all that this one is."""
        same = (self.credential, self.place) == (other.credential, other.place)
        return same and self.options >= other.options and self._is_jailed_as(other)

    def _is_jailed_as(self, other: "Grant") -> bool:
        return len(self.sshd) == len(other.sshd) and all(
            mine == theirs
            or (theirs.startswith("forcecommand internal-sftp ") and mine.startswith(f"{theirs} -"))
            # What is asked for beside the credential at hand.
            or mine.startswith(("passwordauthentication ", "authenticationmethods "))
            for mine, theirs in zip(self.sshd, other.sshd)
        )


def grants(access: Optional[dict[str, Any]]) -> Iterator[Grant]:
    if access is None:
        return
    for place in ("near", "far"):
        sshd = access[place]
        if access["password"] != "*" and "passwordauthentication yes" in sshd:
            yield Grant(access["password"], place, frozenset(), sshd)
        for line in access["keys"]:
            options, kind, key, _ = line.split(" ")
            yield Grant(f"{kind} {key}", place, frozenset(options.split(",")), sshd)
