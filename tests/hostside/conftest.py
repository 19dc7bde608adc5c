"""A server with a jail, and two who may want in."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Done, Key, Machine, make_key

OWNER = "organization/sftp-jail/test"
JAIL = {"forceDestroy": False, "jailctl": "test", "logLevel": "VERBOSE", "owner": OWNER, "umask": "022"}


@pytest.fixture
def jail(trixie: Machine) -> Iterator[Machine]:
    """A machine with a jail and no user; afterwards it is without."""
    trixie.install()
    done = trixie.jailctl("apply-jail", JAIL)
    assert done.code == 0, done
    yield trixie
    done = trixie.jailctl("remove-jail", {**JAIL, "forceDestroy": True})
    assert done.code == 0, done


@pytest.fixture
def jack(tmp_path: Path) -> Key:
    return make_key(tmp_path / "jack")


@pytest.fixture
def jill(tmp_path: Path) -> Key:
    return make_key(tmp_path / "jill")


def spec(username: str, **keys: Key) -> dict:
    return {"user": f"{OWNER}/{username}", **{f"key {label}": key.public for label, key in keys.items()}}


def add(machine: Machine, username: str, **keys: Key) -> Done:
    done = machine.jailctl("apply-user", spec(username, **keys))
    assert done.code == 0, done
    return done
