"""A server with a jail, and two who may want in."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.conftest import RELEASES, Done, Key, Machine, make_key

OWNER = "organization/sftp-jail/test"
JAILCTL = "/usr/local/sbin/jailctl"
TRIAL = "/var/lib/sftp-jail/trial.json"
JAIL = {
    "forceDestroy": False,
    "hardening": False,
    "hostKeyType": "ssh-ed25519",
    "jailctl": "test",
    "logLevel": "VERBOSE",
    "owner": OWNER,
    "umask": "022",
}


@contextlib.contextmanager
def jailed(machine: Machine) -> Iterator[Machine]:
    """A machine with a jail and no user; afterwards it is without."""
    machine.install()
    done = machine.jailctl("apply-jail", JAIL)
    assert done.code == 0, done
    yield machine
    done = machine.jailctl("remove-jail", {**JAIL, "forceDestroy": True})
    assert done.code == 0, done


@pytest.fixture(scope="module", params=RELEASES)
def module_jail(request: pytest.FixtureRequest, machines: Callable[[str], Machine]) -> Iterator[Machine]:
    """A jail on each Debian release, which a module's tests share."""
    with jailed(machines(request.param)) as machine:
        yield machine


on_trixie = pytest.mark.parametrize("module_jail", ["trixie"], indirect=True)
"""For a test of what is the same on every release."""


@pytest.fixture
def jail(module_jail: Machine) -> Iterator[Machine]:
    """A jail on each Debian release, as `JAIL` has it and with nobody in it."""
    put_right(module_jail, JAIL)
    yield module_jail
    remove_everybody(module_jail)


def put_right(machine: Machine, jail: dict) -> None:
    """Apply the jail again, whatever a test before has done to it."""
    done = machine.run(JAILCTL, "apply-jail", stdin=json.dumps(jail))
    if done.out != "no change\n" or machine.run("test", "-e", TRIAL).code == 0:
        done = machine.jailctl("apply-jail", jail)
    assert done.code == 0, done


def remove_everybody(machine: Machine) -> None:
    """Remove the users that a test has left."""
    for user in json.loads(machine.root("python3", "-c", RECORDS)):
        done = machine.jailctl("remove-user", {"user": f"{user['owner']}/{user['username']}"})
        assert done.code == 0, done


RECORDS = "import json, glob; print(json.dumps([json.load(open(path)) for path in glob.glob('/sftp/state/users/*')]))"


@contextlib.contextmanager
def another_machine(machine: Machine, *usernames: str) -> Iterator[None]:
    """All but /sftp is another machine's: none of these accounts, no group, and nothing of ours in /etc."""
    identity = machine.root("cat", "/etc/machine-id")
    machine.root("tee", "/etc/machine-id", stdin=f"{'0' * 31}1\n")
    machine.root("systemctl", "restart", "systemd-journald")
    for username in usernames:
        machine.root("userdel", "--force", username)
    machine.root("groupdel", "sftp-only")
    machine.root("groupdel", "sftp-only-password")
    machine.root("systemctl", "stop", "sftp-jail-log.socket")
    machine.root("sh", "-c", "find /etc -name '*sftp-jail*' -prune -exec rm -r {} +; systemctl daemon-reload")
    machine.root("sh", "-c", "rm -r /var/log/sftp.log /var/lib/sftp-jail; systemctl reload ssh")
    try:
        yield
    finally:
        machine.root("tee", "/etc/machine-id", stdin=identity)
        machine.root("systemctl", "restart", "systemd-journald", "sftp-jail-log")


@pytest.fixture
def jack(tmp_path: Path) -> Key:
    return make_key(tmp_path / "jack")


@pytest.fixture
def jill(tmp_path: Path) -> Key:
    return make_key(tmp_path / "jill")


def spec(username: str, limits: Optional[dict[str, object]] = None, **keys: Key) -> dict:
    return {
        "user": f"{OWNER}/{username}",
        **{f"key {label}": key.public for label, key in keys.items()},
        **(limits or {}),
    }


def add(machine: Machine, username: str, limits: Optional[dict[str, object]] = None, **keys: Key) -> Done:
    done = machine.jailctl("apply-user", spec(username, limits, **keys))
    assert done.code == 0, done
    return done
