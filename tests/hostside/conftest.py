"""A server with a jail, and two who may want in."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.conftest import Done, Key, Machine, make_key

OWNER = "organization/sftp-jail/test"
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


@pytest.fixture
def jail(trixie: Machine) -> Iterator[Machine]:
    """A Debian 13 with a jail."""
    with jailed(trixie) as machine:
        yield machine


@pytest.fixture
def debian_jail(debian: Machine) -> Iterator[Machine]:
    """A jail on each Debian release."""
    with jailed(debian) as machine:
        yield machine


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
