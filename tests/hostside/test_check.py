"""What `jailctl check` finds, and that the command which it names repairs it."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.conftest import Done, Key, Machine
from tests.hostside.conftest import add


def check(machine: Machine) -> tuple[int, dict[str, Any]]:
    """The exit status, and the report."""
    done = machine.run("/usr/local/sbin/jailctl", "check", "--format=json")
    report: dict[str, Any] = json.loads(done.out)
    return done.code, report


def type_it(machine: Machine, command: str) -> None:
    """Run a command as the administrator, who has just logged in."""
    done = machine.ssh("admin", machine.admin_key, command)
    assert done.code == 0, done


TAMPERINGS = {
    "chmod 0777 /sftp": "/sftp",
    "chmod 0775 /sftp/jail/jack": "/sftp/jail/jack",
    "chown jack /sftp/jail/jack/uploads/..": "/sftp/jail/jack",
    "chmod 02777 /sftp/jail/jack/uploads": "/sftp/jail/jack/uploads",
    "echo >> /etc/ssh/sftp-jail/keys/jack": "/etc/ssh/sftp-jail/keys/jack",
    "cp /etc/ssh/sftp-jail/keys/jack /etc/ssh/sftp-jail/keys/mallory": "/etc/ssh/sftp-jail/keys/mallory",
    "chage -E -1 jack": "account jack, expiry",
    "chage -M 30 jack": "account jack, ageing of the password",
    "gpasswd -d jack sftp-only-read": "account jack, further groups",
    "usermod -s /bin/sh jack": "account jack, shell",
    "rm /sftp/jail/jack/dev/log": "/sftp/jail/jack/dev/log",
    "systemctl disable --now sftp-jail-expiry.timer": "sftp-jail-expiry.timer",
    "rm /etc/systemd/system/sftp-jail-expiry.service": "expiry, ",
    "echo > /etc/ssh/sshd_config.d/00-sftp-jail.conf": "sshd, /etc/ssh/sshd_config.d/00-sftp-jail.conf",
}


@pytest.mark.parametrize(("tampering", "subject"), TAMPERINGS.items(), ids=TAMPERINGS)
def test_what_was_tampered_with_is_found_and_repaired_by_the_command_that_is_named(
    jail: Machine, jack: Key, tampering: str, subject: str
) -> None:
    add(jail, "jack", {"expires": "2199-12-07", "access": "read-only"}, laptop=jack)
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


def test_nobodys_jail_is_found_and_left_to_the_administrator(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("mkdir", "-p", "/sftp/jail/jill/uploads")
    code, report = check(jail)
    assert code == 1
    (found,) = report["differences"]
    assert (found["subject"], found["actual"]) == ("/sftp/jail/jill", "nobody's jail")
    assert jail.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert check(jail)[0] == 1
    jail.root("rm", "-r", "/sftp/jail/jill")
    assert check(jail)[0] == 0


def test_whose_access_ends_within_14_days_is_told_and_is_no_difference(jail: Machine, jack: Key, jill: Key) -> None:
    today = datetime.now(timezone.utc).date()
    soon, later = ((today + timedelta(days=days)).isoformat() for days in (12, 16))
    add(jail, "jack", {"expires": soon}, laptop=jack)
    add(jail, "jill", {"expires": later}, laptop=jill)
    assert check(jail) == (0, {"differences": [], "expiring": [{"username": "jack", "expires": soon}], "quotas": []})
    assert jail.jailctl("check") == Done(0, f"no difference\njack: access ends {soon}\n", "")
