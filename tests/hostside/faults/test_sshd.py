"""A change of sshd's, interrupted at any step: the administrator gets in, and the next run finishes the work."""

from collections.abc import Callable

import pytest

from tests.hostside.conftest import JAIL
from tests.hostside.faults.driver import KILLED, Fault
from tests.hostside.faults.rounds import CLEAN, Move, Server, has_jack, interrupted, play, stride_of

CHANGED = {**JAIL, "hardening": True, "umask": "027"}


def has_on_trial(jail: dict) -> Callable[[Server], None]:
    def prepare(server: Server) -> None:
        assert server.run("apply-jail", jail).done.code == 0

    return prepare


ROUNDS = {
    "a change of sshd": [Move("apply-jail", CHANGED, prepare=has_jack), Move("apply-jail", JAIL)],
    "a confirmation": [
        Move("confirm", CHANGED, prepare=has_on_trial(CHANGED)),
        Move("confirm", JAIL, prepare=has_on_trial(JAIL)),
    ],
    "a rollback": [
        Move("rollback", prepare=has_on_trial(CHANGED), check="sshd: the jail was rolled back at .*\n"),
    ],
}


@interrupted(ROUNDS)
def test_interrupted_at_any_step_a_verb_shuts_nobody_out_and_the_next_run_finishes_it(
    server: Server, moves: list[Move], kind: str
) -> None:
    play(server, moves, kind, stride=23)


@pytest.mark.case("B 2")
@pytest.mark.case("B 38")
def test_killed_at_any_step_of_a_change_the_servers_own_rollback_finds_the_old_configuration(server: Server) -> None:
    has_jack(server)
    before, old = server.facts(), drop_in(server)
    has_on_trial(CHANGED)(server)
    new = drop_in(server)
    server.must("rollback")
    step, stride, reached = 0, stride_of(server, 9), "the first one"
    while reached:
        reached = server.run("apply-jail", CHANGED, Fault(KILLED, step)).reached
        assert drop_in(server) in (old, new), f"half a file: {reached}"
        server.must("rollback")
        assert drop_in(server) == old, reached
        assert server.facts() == before, reached
        assert server.administrator("id -un").out == "admin\n", reached
        step += stride
    assert new != old
    server.must("apply-jail", JAIL)
    assert server.run("check").done.out == CLEAN


def drop_in(server: Server) -> str:
    return server.machine.root("cat", "/etc/ssh/sshd_config.d/00-sftp-jail.conf")
