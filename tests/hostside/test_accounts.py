"""What an account tool leaves behind that was killed between two of its files, or whose machine was rebooted."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from tests.conftest import Key, Machine, until
from tests.hostside.conftest import JAIL, JAILCTL, add, spec

FILES = ("passwd", "shadow", "group", "gshadow")
LIMITS: dict[str, object] = {"access": "read-only", "expires": "2199-12-07"}
UNIT = "half-done"


def files_with(machine: Machine, name: str) -> list[str]:
    """The files of accounts that speak of somebody."""
    return [file for file in FILES if machine.run("grep", "-qw", "--", name, f"/etc/{file}").code == 0]


@contextmanager
def stuck(machine: Machine, program: str, file: str, stdin: object) -> Iterator[None]:
    """A program whose account tools cannot go on when they come to write this file; killed, with them, in the end."""
    machine.root("tee", "/run/stdin", stdin=json.dumps(stdin))
    options = ("--quiet", "--collect", f"--unit={UNIT}", "--property=KillSignal=SIGKILL")
    # They write FILE+, and rename it (commonio.c); who opens a pipe to write waits for somebody to read.
    machine.root("mkfifo", f"/etc/{file}+")
    try:
        machine.root("systemd-run", *options, "sh", "-c", program)
        yield
    finally:
        machine.run("systemctl", "stop", UNIT)
        machine.root("rm", f"/etc/{file}+")


class Half(NamedTuple):
    """A program that is killed in the middle: before it writes `file`, and after it has come to what is told by where
    the user is mentioned then."""

    program: str
    file: str
    mentioned: list[str]


APPLY = f"{JAILCTL} apply-user < /run/stdin"

HALVES = {
    "useradd before shadow": Half(APPLY, "shadow", ["passwd"]),
    "usermod before gshadow": Half(APPLY, "gshadow", ["passwd", "shadow", "group"]),
    "userdel before shadow": Half("userdel jack", "shadow", ["shadow", "group", "gshadow"]),
    "userdel before group": Half("userdel jack", "group", ["group", "gshadow"]),
    "userdel before gshadow": Half("userdel jack", "gshadow", ["gshadow"]),
}


@pytest.mark.case("B 1")
@pytest.mark.parametrize("verb", ["apply-user", "remove-user"])
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_an_account_that_a_killed_tool_has_left_half_done_is_finished_by_the_next_run(
    jail: Machine, jack: Key, half: Half, verb: str
) -> None:
    wanted = spec("jack", LIMITS, laptop=jack)
    if half.program != APPLY:
        add(jail, "jack", LIMITS, laptop=jack)
    with stuck(jail, half.program, half.file, wanted):
        until(lambda: files_with(jail, "jack") == half.mentioned, "half an account")
    assert files_with(jail, "jack") == half.mentioned
    assert jail.sftp("jack", jack, "ls").code != 0
    done = jail.jailctl(verb, wanted)
    assert done.code == 0, done
    assert files_with(jail, "jack") == (list(FILES) if verb == "apply-user" else [])
    assert jail.jailctl("check").out == "no difference\n"
    assert (jail.sftp("jack", jack, "ls").code == 0) == (verb == "apply-user")
    assert pwck(jail) == "", "and nothing is wrong with the files"


def pwck(machine: Machine) -> str:
    """What Debian's own tools find wrong with anybody of ours; quiet, of a home that is seen in the chroot alone."""
    said = machine.run("pwck", "--read-only", "--quiet").out + machine.run("grpck", "--read-only").out
    return "".join(line for line in said.splitlines() if "jack" in line or "sftp-only" in line)


def test_a_line_that_is_missing_in_shadow_is_a_difference_that_repair_mends(jail: Machine, jack: Key) -> None:
    add(jail, "jack", LIMITS, laptop=jack)
    before = jail.root("getent", "shadow", "jack")
    jail.root("sed", "-i", "/^jack:/d", "/etc/shadow")
    assert jail.jailctl("check").out == (
        "account jack, line in /etc/shadow: missing, should be there; to repair: sudo jailctl repair\n"
    )
    others = jail.root("grep", "-v", "^jack:", "/etc/shadow")
    assert jail.jailctl("repair").code == 0
    # Of the days since the last change of the password nothing is known any more; nor do they count for anything.
    assert jail.root("getent", "shadow", "jack").split(":")[4:] == before.split(":")[4:]
    assert jail.root("getent", "shadow", "jack").split(":")[1] == "*"
    assert jail.root("grep", "-v", "^jack:", "/etc/shadow") == others
    assert jail.sftp("jack", jack, "ls").code == 0


LOCKS = [f"/etc/{file}.lock" for file in FILES]


def test_locks_whose_process_is_no_more_hold_nobody_up(jail: Machine, jack: Key) -> None:
    for path in LOCKS:
        jail.root("tee", path, stdin="4000000\0")
    add(jail, "jack", LIMITS, laptop=jack)
    assert jail.sftp("jack", jack, "ls").code == 0
    assert jail.run("ls", *LOCKS).out == ""


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("1\0", " is of process 1 (systemd): wait for that, or remove the lock if that changes no accounts."),
        ("", " does not say whose it is: remove it if nobody changes accounts."),
    ],
    ids=["of a process", "empty"],
)
@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_that_somebody_may_hold_stays_and_the_refusal_names_it(
    jail: Machine, jack: Key, path: str, text: str, advice: str
) -> None:
    jail.root("tee", path, stdin=text)
    try:
        done = jail.jailctl("apply-user", spec("jack", LIMITS, laptop=jack))
        assert jail.root("cat", path) == text
    finally:
        jail.root("rm", "-f", path)
    assert done.code == 1
    assert f". {path}{advice}\n" in done.err
    assert done.err.count("\n") == 1
    add(jail, "jack", LIMITS, laptop=jack)


@pytest.mark.case("B 37")
def test_a_reboot_in_the_middle_of_an_account_tool_is_made_good(jail: Machine, jack: Key) -> None:
    wanted = spec("jack", LIMITS, laptop=jack)
    with stuck(jail, APPLY, "shadow", wanted):
        until(lambda: files_with(jail, "jack") == ["passwd"], "half an account")
        jail.root("ls", *LOCKS)
        jail.reboot()
        # Else their numbers might be somebody else's by now.
        assert jail.run("ls", *LOCKS).out == ""
    done = jail.jailctl("apply-user", wanted)
    assert done.code == 0, done
    assert jail.jailctl("check").out == "no difference\n"
    assert jail.sftp("jack", jack, "ls").code == 0


def test_a_group_that_was_left_half_made_is_made_whole_and_one_half_removed_goes(jail: Machine) -> None:
    assert jail.jailctl("remove-jail", JAIL).code == 0
    with stuck(jail, f"{JAILCTL} apply-jail < /run/stdin", "gshadow", JAIL):
        until(lambda: files_with(jail, "sftp-only") == ["group"], "half a group")
    assert jail.jailctl("apply-jail", JAIL).code == 0
    assert files_with(jail, "sftp-only") == ["group", "gshadow"]
    assert jail.jailctl("check").out == "no difference\n"
    assert pwck(jail) == ""
    with stuck(jail, "groupdel sftp-only-read", "gshadow", None):
        until(lambda: files_with(jail, "sftp-only-read") == ["gshadow"], "half a group")
    assert "group sftp-only-read: missing, should be there" in jail.jailctl("check").out
    assert jail.jailctl("remove-jail", JAIL).code == 0
    assert files_with(jail, "sftp-only") == []
    assert jail.jailctl("apply-jail", JAIL).code == 0
