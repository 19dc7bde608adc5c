"""A jail of each Debian release for all that is tried on it, and those who try it."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, NamedTuple, TypeVar

import asyncssh
import pytest

from tests.conftest import RELEASES, Done, Key, Machine, make_key
from tests.hostside.conftest import add, jailed, spec

Result = TypeVar("Result")


@pytest.fixture(scope="package", params=RELEASES)
def jail(request: pytest.FixtureRequest, machines: Callable[[str], Machine]) -> Iterator[Machine]:
    """A jail of each Debian release, on a file system that sets no bounds of its own to a file or a directory."""
    machine = machines(request.param)
    machine.root("sh", "-c", "mkdir -p /sftp && mount -t tmpfs -o mode=755,nr_inodes=0 abuse /sftp")
    try:
        with jailed(machine):
            # The kernel counts a uid's processes in all machines together: let nobody else have these.
            machine.root("tee", "/sftp/state/last-id", stdin=str(random.randrange(80000, 99000)))
            yield machine
    finally:
        machine.root("sh", "-c", "umount /sftp && rmdir --ignore-fail-on-non-empty /sftp")


class User(NamedTuple):
    """A jailed user and his key."""

    machine: Machine
    name: str
    key: Key

    @property
    def uploads(self) -> str:
        """The directory that is his own, as root sees it."""
        return f"/sftp/jail/{self.name}/uploads"

    def sftp(self, *commands: str) -> Done:
        """OpenSSH's sftp."""
        return self.machine.sftp(self.name, self.key, *commands)

    def ssh(self, *argv: object, stdin: str = "") -> Done:
        """OpenSSH's ssh."""
        return self.machine.ssh(self.name, self.key, *argv, stdin=stdin)

    def spec(self, limits: "dict[str, object] | None" = None) -> dict:
        """What jailctl was told of him, or is to be."""
        return spec(self.name, limits, laptop=self.key)

    def remove(self, **limits: object) -> Done:
        """Take him away, which must succeed."""
        done = self.machine.jailctl("remove-user", self.spec(limits))
        assert done.code == 0, done
        return done


@contextlib.contextmanager
def user(machine: Machine, name: str, folder: Path) -> Iterator[User]:
    """A new user, who is gone afterwards."""
    key = make_key(folder / name)
    add(machine, name, laptop=key)
    new = User(machine, name, key)
    yield new
    new.remove()


@pytest.fixture(scope="package")
def jack(jail: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody who is there all the time."""
    with user(jail, "jack", tmp_path_factory.mktemp("jack")) as jack:
        yield jack


@pytest.fixture(scope="package")
def jill(jail: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """And his neighbour."""
    with user(jail, "jill", tmp_path_factory.mktemp("jill")) as jill:
        yield jill


@pytest.fixture
def joan(jail: Machine, tmp_path: Path) -> Iterator[User]:
    """Somebody who is new in each test."""
    with user(jail, "joan", tmp_path) as joan:
        yield joan


class _Listener(asyncssh.SSHClient):
    def __init__(self, told: list[str]) -> None:
        self._told = told

    def debug_msg_received(self, msg: str, lang: str, always_display: bool) -> None:
        self._told.append(msg)


class Client:
    """An SFTP session that is held open by a client which checks nothing itself."""

    def __init__(self, machine: Machine, username: str, key: Key) -> None:
        self._loop = asyncio.new_event_loop()
        self.told: list[str] = []
        """What sshd says to a client about its requests."""
        options: dict[str, Any] = {"known_hosts": str(machine.known_hosts), "client_keys": [str(key.path)]}
        options |= {"config": None, "agent_path": None, "client_factory": lambda: _Listener(self.told)}
        self.connection = self(asyncssh.connect(machine.address, username=username, **options))
        try:
            self.sftp = self(self.connection.start_sftp_client())
        except BaseException:
            self.connection.abort()
            raise

    def __call__(self, request: Awaitable[Result]) -> Result:
        """What becomes of a request."""
        return self._loop.run_until_complete(request)

    def close(self) -> None:
        """End the session and its connection."""
        self.sftp.exit()
        self.connection.close()
        self(self.connection.wait_closed())
        self._loop.close()


@contextlib.contextmanager
def client(user: User) -> Iterator[Client]:
    """A session of the user's."""
    with contextlib.closing(Client(user.machine, user.name, user.key)) as opened:
        yield opened


@contextlib.contextmanager
def idle(user: User) -> Iterator["subprocess.Popen[str]"]:
    """A session that is open and does nothing."""
    argv = ["sftp", *map(str, user.machine.ssh_options(user.key)), f"{user.name}@{user.machine.address}"]
    with subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True, start_new_session=True) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("pwd\n")
        session.stdin.flush()
        while "/uploads" not in session.stdout.readline():
            pass
        try:
            yield session
        finally:
            if session.poll() is None:
                os.killpg(session.pid, signal.SIGKILL)
