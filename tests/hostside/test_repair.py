"""The command that `jailctl check` names beside a difference repairs it, on each Debian release."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import RELEASES, Key, Machine, make_key, until
from tests.hostside.conftest import add, jailed
from tests.hostside.test_check import check


def type_it(machine: Machine, command: str) -> None:
    """Run a command as the administrator, who has just logged in."""
    done = machine.ssh("admin", machine.admin_key, command)
    assert done.code == 0, done


TAMPERINGS = {
    "chmod 0777 /sftp": "/sftp",
    "chmod g+w /sftp/jail": "/sftp/jail",
    "rm -r /sftp/jail/jack": "/sftp/jail/jack",
    "chmod 0775 /sftp/jail/jack": "/sftp/jail/jack",
    "chown jack /sftp/jail/jack/uploads/..": "/sftp/jail/jack",
    "chmod 02777 /sftp/jail/jack/uploads": "/sftp/jail/jack/uploads",
    "chmod 000 /sftp/jail/jack/uploads": "/sftp/jail/jack/uploads",
    "rm /etc/ssh/sftp-jail/keys/jack": "/etc/ssh/sftp-jail/keys/jack",
    "echo >> /etc/ssh/sftp-jail/keys/jack": "/etc/ssh/sftp-jail/keys/jack",
    "cp /etc/ssh/sftp-jail/keys/jack /etc/ssh/sftp-jail/keys/mallory": "/etc/ssh/sftp-jail/keys/mallory",
    "chage -E -1 jack": "account jack, expiry",
    "chage -M 30 jack": "account jack, ageing of the password",
    "gpasswd -d jack sftp-only-read": "account jack, further groups",
    "usermod -s /bin/sh jack": "account jack, shell",
    "usermod -g nogroup jack": "account jack, group",
    "rm /sftp/jail/jack/dev/log": "/sftp/jail/jack/dev/log",
    "systemctl disable --now sftp-jail-expiry.timer": "sftp-jail-expiry.timer",
    "rm /etc/systemd/system/sftp-jail-expiry.service": "expiry, ",
    "rm /etc/ssh/sshd_config.d/00-sftp-jail.conf": "sshd, /etc/ssh/sshd_config.d/00-sftp-jail.conf",
    "echo > /etc/ssh/sshd_config.d/00-sftp-jail.conf": "sshd, /etc/ssh/sshd_config.d/00-sftp-jail.conf",
    "touch /etc/ssh/sshd_config.d/50-theirs.conf": "/etc/ssh/sshd_config.d/50-theirs.conf",
    "chown admin /sftp/state": "/sftp/state",
    "mkdir -p /sftp/archive && chmod 0755 /sftp/archive": "/sftp/archive",
    "mkdir /elsewhere && mv /sftp/jail/jack /elsewhere && ln -s /elsewhere/jack /sftp/jail/jack": "/sftp/jail/jack",
    "mkdir -p '/sftp/jail/no body/uploads'": "/sftp/jail/no body",
    "rm /sftp/jail/jack/dev/log && mkdir /sftp/jail/jack/dev/log": "/sftp/jail/jack/dev/log",
    "userdel jack": "account jack",
    "usermod -u 5000 jack": "user jack",
    "echo jack:x | chpasswd": "account jack, password",
    "usermod -aG sudo jack": "account jack, further groups",
    "gpasswd -a backup sftp-only": "account backup",
    "useradd -g sftp-only bob": "account bob",
    "groupdel sftp-only-read": "group sftp-only-read",
    "sed -i /^sftp-only:/d /etc/group": "group sftp-only",
    "chmod 0666 /var/log/sftp.log": "/var/log/sftp.log",
    "chown admin /var/log/sftp.log": "/var/log/sftp.log",
    "cp /var/log/sftp.log /var/log/sftp.log.1 && chmod 0644 /var/log/sftp.log.1": "/var/log/sftp.log.1",
    "rm /var/log/sftp.log": "/var/log/sftp.log",
    "mv /var/log/sftp.log /var/log/sftp.log.aside": "/var/log/sftp.log",
    "rm /etc/sftp-jail/rsyslog.conf; systemctl restart sftp-jail-log || true": "log, /etc/sftp-jail/rsyslog.conf",
    "rm /sftp/log/socket": "/sftp/log/socket",
    "systemctl stop sftp-jail-log.socket": "/sftp/log/socket",
    "systemctl disable --now sftp-jail-log.service": "log",
    "systemctl disable sftp-jail-rollback-at-boot.service": "sftp-jail-rollback.service",
    "rm /etc/systemd/system/sftp-jail-rollback.timer": "sftp-jail-rollback.service",
    "mkdir /run/systemd/system/sftp-jail-expiry.timer.d && cd /run/systemd/system/sftp-jail-expiry.timer.d && "
    "printf '[Timer]\\nOnCalendar=\\nOnCalendar=yearly\\n' > x.conf && systemctl daemon-reload && "
    "systemctl restart sftp-jail-expiry.timer": "sftp-jail-expiry.timer",
    "echo > /etc/ssh/sshd_config.d/00-sftp-jail.conf; usermod -G '' jack": "account jack, further groups",
}
"""What is done to the server, and how the subject begins by which `check` tells it."""


DELAY = "/etc/systemd/logind.conf.d/delay.conf"


@contextmanager
def without_delay(machine: Machine) -> Iterator[None]:
    """Have a user's systemd end with his last session, and not ten seconds after it (logind.conf(5))."""
    machine.root("mkdir", "-p", DELAY.rpartition("/")[0])
    machine.root("tee", DELAY, stdin="[Login]\nUserStopDelaySec=0\n")
    machine.root("systemctl", "restart", "systemd-logind")
    yield
    machine.root("rm", "-r", DELAY.rpartition("/")[0])
    machine.root("systemctl", "restart", "systemd-logind")


@pytest.fixture(scope="module", params=RELEASES)
def server(
    request: pytest.FixtureRequest, machines: Callable[[str], Machine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Key]]:
    """A jail of each Debian release, with jack in it, for all that is done to it here."""
    with jailed(machines(request.param)) as machine, without_delay(machine):
        jack = make_key(tmp_path_factory.mktemp("keys") / "jack")
        add(machine, "jack", {"expires": "2199-12-07", "access": "read-only"}, laptop=jack)
        yield machine, jack
        machine.root("sh", "-c", "userdel bob; rm -rf /root/* /elsewhere /etc/ssh/sshd_config.d/50-theirs.conf")


@pytest.mark.case("B 24")
@pytest.mark.case("B 33")
@pytest.mark.parametrize(
    ("server", "tampering", "subject"),
    [
        pytest.param(release, tampering, subject, id=f"{release}-{tampering}")
        for offset, release in enumerate(RELEASES)
        for number, (tampering, subject) in enumerate(TAMPERINGS.items())
        # What differs between the releases is the tools, and each of those is in more than one of them.
        if release == "trixie" or number % 4 == offset
    ],
    indirect=["server"],
    scope="module",  # else pytest makes each test a jail of its own
)
def test_what_was_tampered_with_is_found_and_repaired_by_the_command_that_is_named(
    server: tuple[Machine, Key], tampering: str, subject: str
) -> None:
    jail, jack = server
    until(lambda: jail.run("pgrep", "--uid", "jack").code == 1, "the end of the session of the test before")
    jail.root("sh", "-c", tampering)
    code, report = check(jail)
    assert code == 1
    found = [difference for difference in report["differences"] if difference["subject"].startswith(subject)]
    assert found, report
    type_it(jail, found[0]["remedy"])
    code, report = check(jail)
    if code:  # what it has changed of sshd is on trial
        assert [difference["actual"] for difference in report["differences"]] == ["on trial"]
        type_it(jail, report["differences"][0]["remedy"])
    assert check(jail) == (0, {"differences": [], "expiring": [], "quotas": []})
    assert jail.sftp("jack", jack, "ls").code == 0
    assert jail.root("systemctl", "show", "--property=TimersCalendar", "sftp-jail-expiry.timer").count("*:*:00") == 1


def test_a_timer_is_started_again_however_often_it_was(server: tuple[Machine, Key]) -> None:
    """systemd refuses the sixth start in ten seconds, by default."""
    jail, _ = server
    timer = "sftp-jail-expiry.timer"
    jail.root("sh", "-c", f"for n in 1 2 3 4 5; do systemctl restart {timer}; done; systemctl disable --now {timer}")
    jail.root("/usr/local/sbin/jailctl", "repair")
    assert jail.root("systemctl", "is-active", timer) == "active\n"
    assert check(jail)[0] == 0


def test_a_rule_of_somebody_elses_that_defeats_the_jail_is_found_by_user_file_and_line(
    server: tuple[Machine, Key],
) -> None:
    jail, _ = server
    place = "/etc/ssh/sshd_config.d/00-a.conf"
    jail.root("tee", place, stdin="# theirs\nMatch User jack\n    ForceCommand none\n")
    jail.root("systemctl", "reload", "ssh")
    try:
        code, report = check(jail)
    finally:
        jail.root("rm", place)
        jail.root("systemctl", "reload", "ssh")
    assert code == 1
    (found,) = report["differences"]
    assert found["subject"] == "sshd for jack"
    assert f"ForceCommand none instead of internal-sftp -lVERBOSE -u0022 -R ({place} line 3)" in found["actual"]
    assert "sudo systemctl reload ssh" in found["remedy"]
    assert check(jail)[0] == 0


def test_one_thing_that_is_so_wrong_that_it_cannot_be_told_hides_no_other(server: tuple[Machine, Key]) -> None:
    jail, _ = server
    uid = jail.root("id", "--user", "jack").strip()
    until(lambda: jail.run("pgrep", "--uid", "jack").code == 1, "the end of the session of the test before")
    jail.root("sh", "-c", "usermod -u 5000 jack; chmod 0700 /sftp")
    jail.root("sh", "-c", "echo '{' > /sftp/state/users/jill.json; systemctl disable --now sftp-jail-expiry.timer")
    code, report = check(jail)
    subjects = [difference["subject"] for difference in report["differences"]]
    jail.root("rm", "/sftp/state/users/jill.json")
    code_without, report_without = check(jail)
    jail.root("usermod", "--uid", uid, "jack")
    jail.root("/usr/local/sbin/jailctl", "repair")
    assert (code, code_without) == (1, 1)
    assert {"/sftp", "sftp-jail-expiry.timer", "jail"} <= set(subjects), report
    assert {"/sftp", "sftp-jail-expiry.timer", "user jack"} <= {one["subject"] for one in report_without["differences"]}
    assert check(jail)[0] == 0
