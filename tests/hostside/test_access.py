"""Access that is limited and that ends: what a user may do, from where, and until when, on each Debian release."""

import asyncio
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

import asyncssh
import pytest

from tests.conftest import Key, Machine, call, until
from tests.hostside.conftest import add, on_trixie, spec

LONG_AGO, IN_A_LONG_TIME = "2020-01-01", "2199-12-31"


def instant(**delta: float) -> str:
    """A moment from now, in UTC."""
    return (datetime.now(timezone.utc) + timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def gets_in(machine: Machine, key: Key) -> bool:
    return machine.sftp("jack", key, "ls").code == 0


def uid(machine: Machine) -> int:
    return int(machine.root("id", "-u", "jack"))


@contextmanager
def session(machine: Machine, key: Key) -> Iterator["subprocess.Popen[str]"]:
    """An SFTP session of jack's that is open and does nothing."""
    argv = ["sftp", *map(str, machine.ssh_options(key)), f"jack@{machine.address}"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as s:
        assert s.stdin is not None
        s.stdin.write("-mkdir here\npwd\n")
        s.stdin.flush()
        until(lambda: machine.run("pgrep", "--uid", "jack").code == 0, "the session")
        assert s.stdout is not None
        while "/uploads" not in s.stdout.readline():
            pass
        try:
            yield s
        finally:
            s.kill()


def assert_it_ends(machine: Machine, open_session: "subprocess.Popen[str]") -> None:
    """The server has no process of jack's any more, and the client notices at its next command."""
    until(lambda: machine.run("pgrep", "--uid", "jack").code == 1, "the end of the session")
    open_session.communicate("mkdir too-late\n", timeout=20)
    assert open_session.returncode != 0
    assert machine.run("test", "-e", "/sftp/jail/jack/uploads/too-late").code == 1


# When


def test_access_that_has_an_end_is_open_before_it_and_over_after_it(jail: Machine, jack: Key) -> None:
    add(jail, "jack", {"expires": IN_A_LONG_TIME}, laptop=jack)
    assert gets_in(jail, jack)
    add(jail, "jack", {"expires": LONG_AGO}, laptop=jack)
    assert not gets_in(jail, jack)
    add(jail, "jack", {}, laptop=jack)
    assert gets_in(jail, jack)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_the_key_alone_ends_access_to_the_minute_whatever_the_servers_zone(jail: Machine, jack: Key, zone: str) -> None:
    jail.root("cp", "/etc/localtime", "/root/localtime")
    jail.root("sh", "-c", f"cp --remove-destination /usr/share/zoneinfo/{zone} /etc/localtime")
    try:
        add(jail, "jack", {"expires": instant(minutes=5)}, laptop=jack)
        assert gets_in(jail, jack)
        add(jail, "jack", {"expires": instant(minutes=-5)}, laptop=jack)
        jail.root("chage", "-E", "-1", "jack")
        assert not gets_in(jail, jack)
    finally:
        jail.root("mv", "/root/localtime", "/etc/localtime")


def test_the_account_alone_ends_access(jail: Machine, jack: Key) -> None:
    add(jail, "jack", {"expires": LONG_AGO}, laptop=jack)
    jail.root("sed", "-i", "s/,expiry-time=[^ ]*//", "/etc/ssh/sftp-jail/keys/jack")
    assert not gets_in(jail, jack)
    jail.root("chage", "-E", "-1", "jack")
    assert gets_in(jail, jack)


def test_the_account_is_open_through_the_last_day_and_not_on_the_next(jail: Machine, jack: Key) -> None:
    today = datetime.now(timezone.utc).date()
    for expires, open_still in ((today, True), (today - timedelta(days=1), False)):
        add(jail, "jack", {"expires": expires.isoformat()}, laptop=jack)
        jail.root("sed", "-i", "s/,expiry-time=[^ ]*//", "/etc/ssh/sftp-jail/keys/jack")
        assert gets_in(jail, jack) is open_still


@pytest.mark.case("A 55")
def test_the_timer_ends_the_session_of_whoever_has_no_time_left_and_of_nobody_else(
    jail: Machine, jack: Key, jill: Key
) -> None:
    add(jail, "jill", {"expires": IN_A_LONG_TIME}, laptop=jill)
    add(jail, "jack", {"expires": instant(seconds=10)}, laptop=jack)
    argv = ["sftp", *map(str, jail.ssh_options(jill)), f"jill@{jail.address}"]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as hers,
        session(jail, jack) as his,
    ):
        assert_it_ends(jail, his)
        assert not gets_in(jail, jack)
        done = hers.communicate("mkdir still-here\n")
    assert hers.returncode == 0, done
    assert jail.run("test", "-d", "/sftp/jail/jill/uploads/still-here").code == 0
    until(lambda: "Account expires\t\t\t\t\t\t: Jan 01, 1970" in jail.root("chage", "-l", "jack"), "his account")


def test_expiry_does_not_wait_for_a_lock(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    with session(jail, jack) as his:
        record = json.loads(jail.root("cat", "/sftp/state/users/jack.json"))
        jail.root("tee", "/sftp/state/users/jack.json", stdin=json.dumps({**record, "expires": LONG_AGO}))
        jail.root("systemctl", "stop", "sftp-jail-expiry.timer")
        expire = "/usr/local/sbin/jailctl expire; ! pgrep --uid jack"
        assert jail.run("flock", "/run/sftp-jail.lock", "sh", "-c", expire).code == 0
        assert_it_ends(jail, his)


def test_the_timer_runs_again_after_a_reboot(jail: Machine) -> None:
    jail.reboot()
    until(lambda: jail.run("systemctl", "is-active", "sftp-jail-expiry.timer").code == 0, "the timer")


# From where


def test_a_user_gets_in_from_where_he_may_and_from_nowhere_else(jail: Machine, jack: Key) -> None:
    gateway = call("ip", "-json", "route", "get", jail.address).out
    here = json.loads(gateway)[0]["prefsrc"]
    add(jail, "jack", {"allowFrom": ["203.0.113.0/24", "2001:db8::/32"]}, laptop=jack)
    assert not gets_in(jail, jack)
    add(jail, "jack", {"allowFrom": ["203.0.113.0/24", f"{here}/32"]}, laptop=jack)
    assert gets_in(jail, jack)


def password_gets_in(machine: Machine, password: str) -> bool:
    async def log_in() -> None:
        options: dict[str, Any] = {"known_hosts": str(machine.known_hosts), "preferred_auth": "password"}
        options |= {"client_keys": None, "agent_path": None, "config": None}
        async with (
            asyncssh.connect(machine.address, username="jack", password=password, **options) as connection,
            connection.start_sftp_client() as sftp,
        ):
            assert "uploads" in await sftp.listdir("/")

    try:
        asyncio.run(log_in())
    except asyncssh.PermissionDenied:
        return False
    return True


@pytest.mark.case("A 28")
def test_a_password_counts_from_where_its_user_may_come_and_from_nowhere_else(jail: Machine, jack: Key) -> None:
    here = json.loads(call("ip", "-json", "route", "get", jail.address).out)[0]["prefsrc"]
    hashed = call("openssl", "passwd", "-6", "-stdin", stdin="correct horse").out.strip()
    add(jail, "jack", {"allowFrom": ["203.0.113.0/24", "2001:db8::/32"]}, laptop=jack)
    done = jail.jailctl("apply-password", {"username": "jack", "passwordHash": hashed})
    assert done.code == 0, done
    assert not password_gets_in(jail, "correct horse")
    assert jail.jailctl("check").code == 0
    add(jail, "jack", {"allowFrom": [f"{here}/32"]}, laptop=jack)
    assert password_gets_in(jail, "correct horse")
    assert not password_gets_in(jail, "battery staple")
    assert jail.jailctl("check").code == 0
    add(jail, "jack", {"allowFrom": ["203.0.113.0/24"]}, laptop=jack)
    assert not password_gets_in(jail, "correct horse")
    add(jail, "jack", laptop=jack)
    assert password_gets_in(jail, "correct horse")
    assert jail.run("ls", "/etc/ssh/sshd_config.d").out.split() == ["00-sftp-jail.conf"]
    jail.jailctl("remove-user", spec("jack", laptop=jack))
    assert jail.ssh("admin", jail.admin_key, "true").code == 0


# What


def test_who_may_only_read_changes_nothing(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "mkdir d", "put /etc/hostname a").code == 0
    add(jail, "jack", {"access": "read-only"}, laptop=jack)
    before = jail.root("find", "/sftp/jail/jack", "-printf", "%p %m %u %i %s %T@\n")
    for command in ("put /etc/hosts a", "put /etc/hosts b", "rm a", "rename a b", "rmdir d", "mkdir e", "chmod 600 a"):
        assert jail.sftp("jack", jack, command).code != 0, command
    assert jail.root("find", "/sftp/jail/jack", "-printf", "%p %m %u %i %s %T@\n") == before
    assert jail.sftp("jack", jack, "ls", "get a /dev/null").code == 0


def test_who_may_only_upload_uploads_and_no_more(jail: Machine, jack: Key) -> None:
    add(jail, "jack", {"access": "upload-only"}, laptop=jack)
    done = jail.sftp("jack", jack, "put /etc/hostname a", "mkdir d", "put -p /etc/hosts d/b")
    assert done.code == 0, done
    before = jail.root("find", "/sftp/jail/jack", "-printf", "%p %u %i %s\n")
    for command in ("ls", "ls d"):  # of which sftp(1) says that they failed, and exits with 0
        done = jail.sftp("jack", jack, command)
        assert "Permission denied" in done.err, done
        assert done.out == f"sftp> {command}\n"
    for command in ("get a /dev/null", "rm a", "rename a c", "rmdir d", "symlink a l", "ln a l", "copy a c"):
        assert jail.sftp("jack", jack, command).code != 0, command
    assert jail.root("find", "/sftp/jail/jack", "-printf", "%p %u %i %s\n") == before
    # What it does not prevent, as README says.
    assert jail.sftp("jack", jack, "put /etc/passwd a").code == 0
    assert jail.root("cat", "/sftp/jail/jack/uploads/a") == Path("/etc/passwd").read_text()
    assert asyncio.run(size_of(jail, jack, "/uploads/a")) == Path("/etc/passwd").stat().st_size


async def size_of(machine: Machine, key: Key, path: str) -> Optional[int]:
    """A file's size, as a client is told it."""
    options: dict[str, Any] = {"known_hosts": str(machine.known_hosts), "agent_path": None, "config": None}
    async with (
        asyncssh.connect(machine.address, username="jack", client_keys=[str(key.path)], **options) as connection,
        connection.start_sftp_client() as sftp,
    ):
        return (await sftp.stat(path)).size


# What is taken away ends what is open


@pytest.mark.parametrize(
    "limits",
    [{"access": "read-only"}, {"allowFrom": ["203.0.113.0/24"]}, {"expires": LONG_AGO}],
    ids=["access", "address", "time"],
)
def test_a_session_ends_when_its_user_may_do_less(jail: Machine, jack: Key, limits: dict[str, Any]) -> None:
    add(jail, "jack", laptop=jack)
    with session(jail, jack) as his:
        add(jail, "jack", limits, laptop=jack)
        assert_it_ends(jail, his)


@pytest.mark.case("A 55")
def test_a_session_ends_with_its_key_and_not_when_a_key_is_added(jail: Machine, jack: Key, jill: Key) -> None:
    add(jail, "jack", laptop=jack)
    with session(jail, jack) as his:
        add(jail, "jack", {"expires": IN_A_LONG_TIME}, laptop=jack, phone=jill)
        assert his.poll() is None
        add(jail, "jack", {"expires": IN_A_LONG_TIME}, phone=jill)
        assert_it_ends(jail, his)


# Removal


def archive_of(machine: Machine) -> list[str]:
    return machine.root("find", "/sftp/archive", "-mindepth", "1", "-maxdepth", "1", "-name", "jack-*").split()


def remove(machine: Machine, limits: dict[str, object], key: Key) -> None:
    done = machine.jailctl("remove-user", spec("jack", limits, laptop=key))
    assert done.code == 0, done


def test_who_is_removed_loses_his_way_in_then_his_sessions_and_his_account_when_all_is_safe(
    no_archives: Machine, jack: Key
) -> None:
    machine = no_archives
    add(machine, "jack", laptop=jack)
    number = uid(machine)
    with session(machine, jack) as his:
        done = machine.jailctl("remove-user", spec("jack", laptop=jack))
        assert done.code == 0, done
        assert machine.run("pgrep", "--uid", number).code == 1
        his.communicate("mkdir too-late\n", timeout=20)
        assert his.returncode != 0
    assert [line.partition(" (was")[0] for line in done.out.splitlines()[:8]] == [
        "record of jack: being removed",
        "/etc/ssh/sftp-jail/keys/jack: gone",
        "account jack: expired",
        "processes of jack: ended",
        "/sftp/archive: a directory",
        f"/sftp/jail/jack/uploads: archived as {min(archive_of(machine), key=len)}",
        "account jack: gone",
        "/sftp/jail/jack: gone",
    ]


UNDEAD = """\
import os, signal, sys
if not os.fork():
    os.setuid(int(sys.argv[1]))
    os._exit(0)
signal.pause()
"""
"""A process of the user's uid that no signal ends: nobody asks how it ended."""


def test_a_process_that_does_not_end_stops_a_removal_before_anything_is_deleted(
    no_archives: Machine, jack: Key
) -> None:
    machine = no_archives
    add(machine, "jack", laptop=jack)
    assert machine.sftp("jack", jack, "put /etc/hostname a").code == 0
    machine.root("systemd-run", "--unit=undead", "python3", "-c", UNDEAD, uid(machine))
    try:
        until(lambda: machine.run("pgrep", "--uid", "jack", "python3").code == 0, "the process")
        done = machine.jailctl("remove-user", spec("jack", laptop=jack))
        assert done.code == 1
        assert re.search(r"processes \[\d+\] of uid \d+ do not die", done.err)
        assert not gets_in(machine, jack)
        assert machine.run("test", "-e", "/sftp/archive").code == 1
        assert machine.run("test", "-e", "/sftp/jail/jack/uploads/a").code == 0
        assert machine.run("id", "jack").code == 0
    finally:
        machine.root("systemctl", "stop", "undead")
    remove(machine, {}, jack)
    assert "uploads/a" in machine.root("tar", "tf", min(archive_of(machine), key=len))
    assert machine.run("id", "jack").code == 1


@pytest.fixture
def no_archives(jail: Machine) -> Machine:
    """No archive from a test before."""
    jail.root("rm", "-rf", "/sftp/archive")
    return jail


def test_the_manifest_has_every_file_of_the_archive_with_its_hash(no_archives: Machine, jack: Key) -> None:
    machine = no_archives
    add(machine, "jack", laptop=jack)
    uploads = "/sftp/jail/jack/uploads"
    script = f"""\
cd {uploads} && mkdir -p d/e && head -c 100000 /dev/urandom > d/e/f
touch -d @0 'd/ quote" -rf' && ln -s /etc/passwd link
printf x > "$(printf 'a\\nb\\377')" && truncate -s 1G sparse && chown -hR jack:sftp-only . && sha256sum d/e/f"""
    digest = machine.root("sh", "-c", script).split()[0]
    remove(machine, {}, jack)
    tar, manifest = sorted(archive_of(machine), key=lambda path: path.endswith("jsonl"))
    assert re.fullmatch(r"/sftp/archive/jack-20\d{6}T\d{6}Z\.tar", tar)
    assert manifest == f"{tar.removesuffix('.tar')}.manifest.jsonl"
    assert machine.root("stat", "-c", "%u:%g %a", tar, manifest) == "0:0 600\n0:0 600\n"
    *entries, whole = [json.loads(line) for line in machine.root("cat", manifest).splitlines()]
    found = {entry["path"]: entry for entry in entries}
    assert found["uploads/d/e/f"]["sha256"] == digest
    assert (found["uploads/d/e/f"]["type"], found["uploads/d/e/f"]["size"]) == ("file", 100000)
    assert found['uploads/d/ quote" -rf']["mtime"] == "1970-01-01T00:00:00Z"
    assert found["uploads/link"] == {**found["uploads/link"], "type": "symlink", "target": "/etc/passwd"}
    assert found["uploads/a\nb\udcff"]["sha256"] == hashlib.sha256(b"x").hexdigest()
    zeros = hashlib.sha256()
    for _ in range(1024):
        zeros.update(bytes(1 << 20))
    assert found["uploads/sparse"]["sha256"] == zeros.hexdigest()
    assert whole["sha256"] == machine.root("sha256sum", tar).split()[0]
    assert (whole["user"], whole["entries"]) == (
        "jack",
        len(machine.root("tar", "--list", f"--file={tar}").splitlines()),
    )


def test_uploads_that_are_kept_stay_as_they_are_for_root_alone(no_archives: Machine, jack: Key) -> None:
    add(no_archives, "jack", {"onRemoval": "keep"}, laptop=jack)
    assert no_archives.sftp("jack", jack, "put /etc/hostname a").code == 0
    number = uid(no_archives)
    remove(no_archives, {"onRemoval": "keep"}, jack)
    (kept,) = archive_of(no_archives)
    assert no_archives.root("cat", f"{kept}/a") == Path("/etc/hostname").read_text()
    assert no_archives.root("stat", "-c", "%u", f"{kept}/a") == f"{number}\n"
    assert no_archives.root("stat", "-c", "%u %a", "/sftp/archive") == "0 700\n"
    assert no_archives.run("test", "-e", "/sftp/jail/jack").code == 1


def test_uploads_are_deleted_by_the_word_alone(no_archives: Machine, jack: Key) -> None:
    cases: list[tuple[dict[str, object], int]] = [({}, 2), ({"onRemoval": "delete"}, 0)]
    for limits, left in cases:
        no_archives.root("rm", "-rf", "/sftp/archive")
        no_archives.root("mkdir", "-m", "700", "/sftp/archive")
        add(no_archives, "jack", limits, laptop=jack)
        assert no_archives.sftp("jack", jack, "put /etc/hostname a").code == 0
        remove(no_archives, limits, jack)
        assert len(archive_of(no_archives)) == left


@on_trixie
@pytest.mark.parametrize(
    "limits",
    [
        {"expires": "2026-02-31"},
        {"expires": "2026-12-07T18:00:00"},
        {"allowFrom": ["203.0.113.7/24"]},
        {"allowFrom": ['203.0.113.0/24",command="id']},
        {"allowFrom": "203.0.113.0/24"},
        {"access": "write-only"},
        {"onRemoval": "burn"},
        {"Expires": IN_A_LONG_TIME},
    ],
    ids=lambda limits: json.dumps(limits),
)
def test_a_limit_that_makes_no_sense_is_refused_and_nothing_is_made(
    jail: Machine, jack: Key, limits: dict[str, Any]
) -> None:
    done = jail.jailctl("apply-user", spec("jack", limits, laptop=jack))
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert next(iter(limits)) in done.err
    assert jail.run("id", "jack").code != 0
