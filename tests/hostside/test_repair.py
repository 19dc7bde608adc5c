"""The command that `jailctl check` names beside a difference repairs it, on each Debian release."""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import RELEASES, Key, Machine, make_key
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
    "echo > /etc/ssh/sshd_config.d/00-sftp-jail.conf; usermod -G '' jack": "account jack, further groups",
}


@pytest.fixture(scope="module", params=RELEASES)
def server(
    request: pytest.FixtureRequest, machines: Callable[[str], Machine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Machine, Key]]:
    """A jail of each Debian release, with jack in it, for all that is done to it here."""
    with jailed(machines(request.param)) as machine:
        jack = make_key(tmp_path_factory.mktemp("keys") / "jack")
        add(machine, "jack", {"expires": "2199-12-07", "access": "read-only"}, laptop=jack)
        yield machine, jack


@pytest.mark.case("B 24")
@pytest.mark.case("B 33")
@pytest.mark.parametrize(("tampering", "subject"), TAMPERINGS.items(), ids=TAMPERINGS)
def test_what_was_tampered_with_is_found_and_repaired_by_the_command_that_is_named(
    server: tuple[Machine, Key], tampering: str, subject: str
) -> None:
    jail, jack = server
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
