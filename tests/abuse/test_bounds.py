"""However much a user does, it has an end, and neither the other users nor the administrator notice.

How much he may store, in bytes, files and the length of one, is in tests/hostside/test_quota.py.
"""

import asyncio
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE

import asyncssh
import pytest

from tests.abuse.conftest import Client, User, client, idle
from tests.conftest import MACHINE, Machine, until
from tests.hostside.conftest import JAIL

LOG = "/var/log/sftp.log"


def assert_nobody_notices(jill: User) -> None:
    """His neighbour uploads, and the administrator logs in."""
    done = jill.sftp("put /etc/hostname file", "rm file")
    assert done.code == 0, done
    done = jill.machine.ssh("admin", jill.machine.admin_key, "true")
    assert done.code == 0, done


def processes(user: User) -> int:
    """How many the user has."""
    return int(user.machine.run("pgrep", "--count", "--uid", user.name).out)


def lines(machine: Machine, username: str) -> list[str]:
    """What the log has under a user's name, but for a line that is being written."""
    return [line for line in machine.root("cat", LOG).splitlines() if line.split()[1:2] == [username]]


# What he uploads


@pytest.mark.case("A 34")
def test_a_file_that_is_all_hole_has_a_length_that_can_be_read_to_its_end(joan: User, jill: User) -> None:
    with client(joan) as session:
        file = session(session.sftp.open("hole", "wb"))
        session(session.sftp.truncate("hole", 1 << 39))
        with pytest.raises((asyncssh.SFTPError, asyncssh.ConnectionLost)):
            session(session.sftp.truncate("hole", 4 << 60))
        assert_nobody_notices(jill)
        del file
    assert joan.machine.root("stat", "-c", "%s", f"{joan.uploads}/hole") == f"{1 << 39}\n"
    assert joan.sftp("put /etc/hostname file").code == 0
    joan.remove()
    archived = joan.machine.root("sh", "-c", "du --block-size=1M /sftp/archive/joan-*.tar | cut -f1")
    assert archived == "1\n"


@pytest.mark.case("A 35")
def test_a_tree_that_is_deeper_than_any_path_is_archived_and_removed(joan: User, jill: User) -> None:
    name = "d" * 250
    down = [f"mkdir {name}", f"cd {name}"] * 15
    done = joan.sftp("mkdir b", "cd b", *down, "mkdir /uploads/a", "cd /uploads/a", *down, "rename /uploads/b b")
    assert done.code == 0, done
    assert joan.machine.jailctl("check").out == "no difference\n"
    joan.remove()
    listing = joan.machine.root("sh", "-c", "tar tf $(ls -t /sftp/archive/joan-*.tar | head -n 1)")
    assert f"uploads/a/{'/'.join([name] * 15)}/b/{'/'.join([name] * 15)}/\n" in listing
    assert joan.machine.run("test", "-e", joan.uploads).code == 1
    assert_nobody_notices(jill)


MANY = """\
import os, sys
os.chdir(sys.argv[1])
for name in range(int(sys.argv[2])):
    if name % 50000 == 0:
        first = str(name)
        open(first, "w").close()
    else:
        os.link(first, str(name))
"""


@pytest.mark.case("A 42")
def test_a_directory_of_a_million_entries_keeps_nobody_waiting(joan: User, jill: User) -> None:
    machine = joan.machine
    # Once at its full size: what differs between the releases does not depend on that.
    entries = 1_000_000 if machine.spec["release"] == "trixie" else 100_000
    machine.root("python3", "-c", MANY, joan.uploads, entries)
    with client(joan) as session:
        listing = session.sftp.scandir("/uploads")
        assert len([session(listing.__anext__()) for _ in range(1000)]) == 1000
        assert_nobody_notices(jill)
    assert machine.jailctl("check").out == "no difference\n"
    assert machine.jailctl("apply-user", joan.spec({"onRemoval": "delete"})).code == 0
    joan.remove(onRemoval="delete")
    assert machine.run("test", "-e", joan.uploads).code == 1
    assert_nobody_notices(jill)


@pytest.mark.case("A 41")
def test_of_an_upload_that_is_cut_off_what_had_come_stays_and_can_be_gone_on_with(joan: User, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.write_bytes(random.randbytes(300_000))
    with client(joan) as session:
        file = session(session.sftp.open("/uploads/whole", "wb"))
        session(file.write(whole.read_bytes()[:100_000]))
        session.connection.abort()
    machine = joan.machine
    told = ']: forced close "/uploads/whole" bytes read 0 written 100000'
    until(lambda: any(line.endswith(told) for line in lines(machine, "joan")), "the end in the log")
    assert machine.root("stat", "-c", "%s", f"{joan.uploads}/whole") == "100000\n"
    assert joan.sftp(f"reput {whole} whole").code == 0
    digest = hashlib.sha256(whole.read_bytes()).hexdigest()
    assert machine.root("sha256sum", f"{joan.uploads}/whole").split()[0] == digest


# What he asks for


def ask_until(user: User, enough: threading.Event) -> int:
    """Ask for what is denied, as fast as can be; how often it was asked."""

    async def ask(sftp: asyncssh.SFTPClient) -> int:
        asked = await asyncio.gather(*(sftp.mkdir("/x") for _ in range(100)), return_exceptions=True)
        assert all(isinstance(answer, asyncssh.SFTPPermissionDenied) for answer in asked)
        return len(asked)

    asked = 0
    with client(user) as session:
        while not enough.is_set():
            asked += session(ask(session.sftp))
    return asked


@pytest.mark.case("A 36")
def test_in_a_flood_of_log_lines_none_is_lost_and_the_others_are_among_them(joan: User, jill: User) -> None:
    machine = joan.machine
    machine.root("truncate", "--size=0", LOG)
    enough = threading.Event()
    with ThreadPoolExecutor() as pool:
        flood = pool.submit(ask_until, joan, enough)
        try:
            until(lambda: len(lines(machine, "joan")) > 2000, "the flood")
            assert_nobody_notices(jill)
            assert machine.jailctl("check").out == "no difference\n"
        finally:
            enough.set()
    asked, answer = flood.result(), "sent status Permission denied"
    until(lambda: sum(answer in line for line in lines(machine, "joan")) >= asked, "its last line")
    told = lines(machine, "joan")
    assert sum('mkdir name "/x"' in line for line in told) == asked
    assert sum(answer in line for line in told) == asked
    assert any('close "/uploads/file"' in line for line in lines(machine, "jill"))


@pytest.mark.case("A 37")
def test_a_connection_has_ten_sessions_at_most(joan: User, jill: User) -> None:
    with client(joan) as session:
        more: list[asyncssh.SFTPClient] = []
        with pytest.raises(asyncssh.ChannelOpenError):
            while len(more) < 50:
                more.append(session(session.connection.start_sftp_client()))
        assert len(more) == 9
        for sftp in (session.sftp, *more):
            assert "uploads" in session(sftp.listdir("/"))
        assert_nobody_notices(jill)


@pytest.mark.case("A 38")
def test_however_many_connections_a_user_opens_his_sessions_have_an_end(joan: User, jill: User) -> None:
    with ExitStack() as connections:
        opened: list[Client] = []
        with pytest.raises(asyncssh.ChannelOpenError):
            while len(opened) < 20:
                opened.append(connections.enter_context(client(joan)))
                for _ in range(9):
                    opened[-1](opened[-1].connection.start_sftp_client())
        assert 80 < processes(joan) <= 100
        assert_nobody_notices(jill)
        opened[0].connection.close()
        until(lambda: processes(joan) < 95, "the end of his first sessions")
        assert joan.sftp("ls").code == 0


FLOOD = """\
import socket, sys
held = [
    socket.create_connection(("127.0.0.1", 22), source_address=("127.0.0.66", 0)) for _ in range(int(sys.argv[1]))
]
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hardened(jail: Machine) -> Iterator[Machine]:
    """With a hardened sshd."""
    assert jail.jailctl("apply-jail", {**JAIL, "hardening": True}).code == 0
    yield jail
    assert jail.jailctl("apply-jail", JAIL).code == 0


@pytest.mark.case("A 39")
def test_a_flood_of_connections_that_never_log_in_keeps_nobody_out(hardened: Machine, jill: User) -> None:
    # One source has 50 places of 200, since OpenSSH 8.5. Before, it may take them all.
    bounded = "persourcemaxstartups 50" in hardened.root("/usr/sbin/sshd", "-T")
    program = ["python3", "-c", FLOOD, 250 if bounded else 90]
    argv = [sys.executable, MACHINE, "run", hardened.spec["directory"], "--", *program]
    with subprocess.Popen(list(map(str, argv)), stdin=PIPE, stdout=PIPE, text=True) as flood:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "connected\n"
        waiting = ("ss", "-Htn", "state", "established", "src", "127.0.0.66")
        until(lambda: 45 < len(hardened.root(*waiting).splitlines()) < 100, "those that are not turned away")
        for _ in range(5):
            assert_nobody_notices(jill)
        flood.communicate("")


# What he leaves


IMPATIENT = "Match Group sftp-only\n    ClientAliveInterval 1\n    ClientAliveCountMax 1\nMatch all\n"


@pytest.mark.case("A 40")
def test_an_idle_session_lasts_as_long_as_its_client_answers(jail: Machine, joan: User, jill: User) -> None:
    settings = jail.root("/usr/sbin/sshd", "-T", "-C", "user=joan,host=x,addr=192.0.2.1").splitlines()
    assert {"clientaliveinterval 60", "clientalivecountmax 3"} <= set(settings)
    # Four minutes are too long for a test.
    impatient = "/etc/ssh/sshd_config.d/00-impatient.conf"
    jail.root("tee", impatient, stdin=IMPATIENT)
    jail.root("systemctl", "reload", "ssh")
    try:
        with idle(joan) as dead, idle(jill) as alive:
            os.killpg(dead.pid, signal.SIGSTOP)
            until(lambda: jail.run("pgrep", "--uid", "joan", "--full", "sftp").code == 1, "the end of the session")
            said, _ = alive.communicate("mkdir here\nrmdir here\n")
            assert alive.returncode == 0, said
            os.killpg(dead.pid, signal.SIGCONT)
            dead.communicate("mkdir too-late\n")
            assert dead.returncode != 0
    finally:
        jail.root("rm", impatient)
        jail.root("systemctl", "reload", "ssh")
