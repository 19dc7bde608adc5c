"""jailctl on a real Debian 13: what a user may do, and what the administrator never notices."""

import json
import subprocess
import time

import pytest

from tests.conftest import Done, Key, Machine
from tests.hostside.conftest import JAIL, OWNER, add, on_trixie, spec

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKmqGQdRqO14agWxLuqhyPKNh2yGfAugpSZlQRmAea8N"
HASH = "$6$saltsalt$" + "a" * 86


def log_of(machine: Machine) -> list[str]:
    return machine.root("cat", "/var/log/sftp.log").splitlines()


@on_trixie
def test_user_can_upload_list_rename_and_remove(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    done = jail.sftp("jack", jack, "put /etc/hostname a", "ls", "rename a b", "rm b", "put /etc/hostname c")
    assert done.code == 0, done
    assert jail.root("stat", "-c", "%U %G", "/sftp/jail/jack/uploads/c").split() == ["jack", "sftp-only"]


@on_trixie
def test_every_operation_is_logged_under_the_users_name(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.sftp("jack", jack, "put /etc/hostname a", "rename a b", "-mkdir /x", "rm b")
    deadline = time.monotonic() + 5
    wanted = ('open "/uploads/a"', 'close "/uploads/a"', "rename old", "Permission denied", 'remove name "/uploads/b"')
    while time.monotonic() < deadline:
        lines = [line for line in log_of(jail) if line.split()[1] == "jack"]
        if all(any(words in line for line in lines) for words in wanted):
            break
        time.sleep(0.05)
    for words in wanted:
        assert any(words in line for line in lines), words


@on_trixie
def test_logging_goes_on_after_rsyslog_restarts(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("systemctl", "restart", "rsyslog", "sftp-jail-log")
    assert jail.jailctl("check").out == "no difference\n"
    jail.sftp("jack", jack, "put /etc/hostname after-the-restart")
    assert any('"/uploads/after-the-restart"' in line and " jack " in line for line in log_of(jail))


@on_trixie
def test_a_second_run_changes_nothing_and_says_so(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.jailctl("apply-jail", JAIL).out == "no change\n"
    assert add(jail, "jack", laptop=jack).out == "no change\n"
    assert jail.jailctl("check") == Done(0, "no difference\n", "")


def test_removal_ends_login_and_session_and_archives_the_uploads(jail: Machine, jack: Key, jill: Key) -> None:
    add(jail, "jack", laptop=jack)
    add(jail, "jill", laptop=jill)
    assert jail.sftp("jack", jack, "put /etc/hostname kept").code == 0
    with subprocess.Popen(
        [str(arg) for arg in ("sftp", *jail.ssh_options(jack), f"jack@{jail.address}")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("pwd\n")
        session.stdin.flush()
        assert session.stdout.readline() == "sftp> pwd\n"
        assert "/uploads" in session.stdout.readline()
        done = jail.jailctl("remove-user", spec("jack", laptop=jack))
        assert done.code == 0, done
        session.communicate("put /etc/hostname too-late\n", timeout=20)
        assert session.returncode != 0
    assert jail.sftp("jack", jack, "ls").code != 0
    assert jail.sftp("jill", jill, "ls").code == 0
    archive = jail.root("sh", "-c", "ls /sftp/archive/jack-*.tar").split()[-1]
    assert jail.root("stat", "-c", "%U %a", archive) == "root 600\n"
    assert "uploads/kept" in jail.root("tar", "tf", archive)
    left = jail.root("find", "/etc", "/home", "/run", "/sftp", "/usr/local", "/var", "-name", "*jack*").split()
    archives = jail.root("sh", "-c", "ls /sftp/archive/jack-*").split()
    assert set(left) == set(archives), "his archives alone bear his name"
    assert jail.run("grep", "-rlF", jack.public, "/etc", "/sftp", "/usr/local", "/var/lib").out == ""
    assert jail.jailctl("remove-user", spec("jack", laptop=jack)).out == "no change\n"


def test_a_uid_is_never_given_twice_not_even_by_another_jail(jail: Machine, jack: Key) -> None:
    uids = []
    for verb, stdin in (("remove-user", spec("jack", laptop=jack)), ("remove-jail", JAIL), ("apply-jail", JAIL)):
        if verb != "apply-jail":
            add(jail, "jack", laptop=jack)
            uids.append(int(jail.root("id", "-u", "jack")))
        assert jail.jailctl(verb, stdin).code == 0
    add(jail, "jack", laptop=jack)
    uids.append(int(jail.root("id", "-u", "jack")))
    assert uids == sorted(set(uids))
    # Nor does anybody else get one of them.
    jail.root("useradd", "somebody")
    theirs = int(jail.root("id", "-u", "somebody"))
    jail.root("userdel", "somebody")
    assert theirs < min(uids)


@on_trixie
@pytest.mark.case("C 15")
def test_an_account_that_is_not_ours_is_never_touched(jail: Machine, jack: Key) -> None:
    jail.root("useradd", "-m", "bob")
    before = jail.root("getent", "passwd", "bob")
    try:
        done = jail.jailctl("apply-user", spec("bob", laptop=jack))
        jail.jailctl("remove-user", spec("bob", laptop=jack))
        assert jail.root("getent", "passwd", "bob") == before
    finally:
        jail.root("userdel", "-r", "bob")
    assert done.code == 1
    assert "not ours" in done.err


@on_trixie
def test_a_password_is_set_without_ever_showing_and_taken_away_again(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    password = {"username": "jack", "passwordHash": HASH}
    done = jail.jailctl("apply-password", password)
    assert done.code == 0, done
    assert HASH not in done.out + done.err
    assert HASH in jail.root("getent", "shadow", "jack")
    effective = jail.root("/usr/sbin/sshd", "-T", "-C", "user=jack,host=localhost,addr=127.0.0.1")
    assert "passwordauthentication yes" in effective
    assert add(jail, "jack", laptop=jack).out == "no change\n"
    assert jail.jailctl("check").out == "no difference\n"
    assert jail.jailctl("remove-password", password).code == 0
    assert HASH not in jail.root("getent", "shadow", "jack")
    effective = jail.root("/usr/sbin/sshd", "-T", "-C", "user=jack,host=localhost,addr=127.0.0.1")
    assert "passwordauthentication no" in effective


@on_trixie
@pytest.mark.parametrize(
    "stdin",
    [
        "",
        "[]",
        "{}",
        json.dumps({"user": "jack"}),
        json.dumps({"user": 4711}),
        json.dumps({"user": "x/jack"}),
        json.dumps({"user": f"{OWNER}/.."}),
        json.dumps({"user": f"{OWNER}/jack", "key a": "x"}),
        json.dumps({"user": f"{OWNER}/jack", "key a b": ED25519}),
        json.dumps({"user": f"{OWNER}/jack", "keys": {}}),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(jail: Machine, stdin: str) -> None:
    before = jail.root("cat", "/etc/passwd")
    done = jail.run("/usr/local/sbin/jailctl", "apply-user", stdin=stdin)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "Traceback" not in done.err
    assert jail.root("cat", "/etc/passwd") == before


@on_trixie
def test_removing_the_jail_leaves_the_server_as_it_was(jail: Machine, jack: Key) -> None:
    manifest = (
        "find /etc /usr/local /sftp -printf '%p %y %m %u %g %s %l\\n' 2>/dev/null"
        " | grep -Ev '/etc(/|/systemd/system)? |-$|/(passwd|shadow|group|gshadow)-? '"
        " | grep -Ev '^/sftp(/(archive.*|state|state/last-id))? '"
        " | grep -Ev '^(/etc/ssh|/etc/ssh/sshd_config.d|/etc/logrotate.d|/usr/local/(s?bin|lib)) '"
        " | sort; cat /etc/passwd /etc/group /etc/ssh/sshd_config"
    )
    assert jail.jailctl("remove-jail", JAIL).code == 0
    jail.uninstall()
    before = jail.root("sh", "-c", manifest)
    jail.install()
    jail.jailctl("apply-jail", JAIL)
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "put /etc/hostname kept").code == 0
    assert jail.root("sh", "-c", manifest) != before
    assert jail.jailctl("remove-jail", JAIL).code == 0
    jail.uninstall()
    assert jail.root("sh", "-c", manifest) == before
    assert jail_is_gone(jail, jack)
    jail.install()


def jail_is_gone(machine: Machine, key: Key) -> bool:
    return machine.sftp("jack", key, "ls").code != 0 and machine.run("id", "jack").code != 0
