"""A verb for users, interrupted at any step: nobody may do more than before or after, and the next run finishes it."""

from collections.abc import Callable

from tests.hostside.conftest import OWNER
from tests.hostside.faults.rounds import CLEAN, Move, Server, has_jack, has_less, interrupted, play

OTHER = "organization/sftp-jail/other"
HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"

UPLOAD = "echo precious > /sftp/jail/jack/uploads/precious"
ARCHIVED = """
test "$(for tar in /sftp/archive/jack-*.tar; do tar xOf $tar uploads/precious; done)" = precious
ls /sftp/archive/jack-*.manifest.jsonl
rm /sftp/archive/*
"""

PENDING = """
sed -i 's/"pending": false/"pending": true/' /sftp/state/users/jack.json
rm /etc/ssh/sftp-jail/keys/jack
userdel jack
"""
"""What a machine that is new to the jails has of him."""


def has_uploaded(server: Server) -> None:
    server.driver.shell(UPLOAD)


def has_jack_whose_account_is_open(server: Server) -> None:
    server.must("apply-user", {**server.jack, "expires": "2020-01-01"})
    server.driver.shell("chage -E -1 jack")


def has_jack_of_the_machine_before(server: Server) -> None:
    server.must("apply-user", server.jack)
    server.driver.shell(UPLOAD + PENDING)


PASSWORD = {"username": "jack", "passwordHash": HASH}

ROUNDS: dict[str, Callable[[Server], list[Move]]] = {
    "a user": lambda server: [
        Move("apply-user", server.less, or_nothing=True),
        Move("remove-user", server.less, prepare=has_uploaded, test=ARCHIVED),
    ],
    "what he may do": lambda server: [
        Move("apply-user", server.less, prepare=has_jack),
        Move("apply-user", server.jack),
    ],
    "a password": lambda server: [
        Move("apply-password", PASSWORD, prepare=has_less),
        Move("remove-password", PASSWORD),
    ],
    "the name of a stack": lambda server: [
        Move("rename-owner", {"from": OWNER, "to": OTHER}, prepare=has_jack),
        Move("rename-owner", {"from": OTHER, "to": OWNER}),
    ],
    "a host that is let go": lambda server: [
        Move("release", {"owner": OWNER, "forceDestroy": False}, prepare=has_jack),
    ],
    "the end of access": lambda server: [
        Move("expire", prepare=has_jack_whose_account_is_open, check=f"{CLEAN}jack: access ended 2020-01-01\n"),
    ],
    "who is not asked for": lambda server: [
        Move("prune", {"owner": OWNER}, prepare=has_jack_of_the_machine_before, test=ARCHIVED),
    ],
}


@interrupted(ROUNDS)
def test_interrupted_at_any_step_a_verb_harms_nobody_and_the_next_run_finishes_it(
    server: Server, moves: Callable[[Server], list[Move]], kind: str
) -> None:
    play(server, moves(server), kind, stride=9)
