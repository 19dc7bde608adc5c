"""Who makes the users: each of them on a machine of its own that has the jail already, as the administrator `admin`,
over SSH."""

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Optional

import asyncssh

from bench.measure import Cost, timed
from tests.conftest import ROOT, Key, Machine, until
from tests.engine.conftest import Project
from tests.hostside.conftest import JAIL

SCRIPTS = ROOT / "bench" / "scripts"
PATIENCE = 3600
"""Seconds after which a run is given up."""


class Account(NamedTuple):
    """A user as all of them make him: account, chroot chain, upload directory, key, name in the log and link to it."""

    name: str
    uid: int
    key: str
    """`ssh-ed25519 AAAA...`"""


def make_accounts(folder: Path, count: int) -> list[Account]:
    """So many, with their private keys in the folder; the uids are above those that jailctl gives."""
    accounts = []
    for number in range(count):
        key = asyncssh.generate_private_key("ssh-ed25519")
        name = f"user{number:04}"
        (folder / name).touch(0o600)
        key.write_private_key(folder / name)
        public = key.export_public_key().decode().strip()
        (folder / f"{name}.pub").write_text(f"{public}\n")
        accounts.append(Account(name, 80000 + number, public))
    return accounts


class Contender:
    """One way to have users made."""

    name: ClassVar[str]
    largest: ClassVar[int]
    """Up to how many users it is measured."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder = folder
        self.machine = machine
        self.prepare()

    def prepare(self) -> None:
        """The jail, without a user."""
        self.machine.install()
        done = self.machine.jailctl("apply-jail", JAIL)
        assert done.code == 0, done

    def apply(self, accounts: Sequence[Account], gone: Sequence[str] = ()) -> Cost:
        """Have these users there, and no others; `gone` are those who were there before."""
        raise NotImplementedError

    def preview(self, accounts: Sequence[Account]) -> Optional[Cost]:
        """Tell what `apply` would do; None where it cannot."""
        raise NotImplementedError

    def close(self) -> None:
        """End what it has started."""


class Floor(Contender):
    """One SSH connection that runs one script."""

    name = "floor"
    largest = 500

    def apply(self, accounts: Sequence[Account], gone: Sequence[str] = ()) -> Cost:
        lines = [f"present {account.name} {account.uid} {account.key}\n" for account in accounts]
        lines += [f"absent {name}\n" for name in gone]
        script = (SCRIPTS / "floor.sh").read_text()
        options = self.machine.ssh_options(self.machine.admin_key)
        command = ["ssh", *options, f"admin@{self.machine.address}", f"sudo -n bash -c {shlex.quote(script)}"]
        return timed(self.machine, command, "".join(lines), patience=PATIENCE)

    def preview(self, accounts: Sequence[Account]) -> Optional[Cost]:
        return None


def _names(accounts: Sequence[Account]) -> str:
    """The log's table of names, as rsyslog reads it."""
    pairs = [("0", "root"), *((str(account.uid), account.name) for account in accounts)]
    pairs += [(account.name, account.name) for account in accounts]
    table = [{"index": index, "value": value} for index, value in pairs]
    return json.dumps({"version": 1, "nomatch": "", "type": "string", "table": table}) + "\n"


class Ansible(Contender):
    """ansible-core with pipelining."""

    name = "ansible"
    largest = 100

    def apply(self, accounts: Sequence[Account], gone: Sequence[str] = ()) -> Cost:
        return self._play(accounts, gone)

    def preview(self, accounts: Sequence[Account]) -> Optional[Cost]:
        return self._play(accounts, (), "--check")

    def _play(self, accounts: Sequence[Account], gone: Sequence[str], *options: str) -> Cost:
        variables = self.folder / "variables.json"
        given = {"accounts": [account._asdict() for account in accounts], "gone": gone, "names": _names(accounts)}
        variables.write_text(json.dumps(given))
        inventory = self.folder / "inventory.ini"
        inventory.write_text(
            f"server ansible_host={self.machine.address} ansible_user=admin "
            f"ansible_ssh_private_key_file={self.machine.admin_key.path} ansible_python_interpreter=/usr/bin/python3\n"
        )
        argv = [tool("ansible-playbook"), "-i", inventory, "-e", f"@{variables}", *options, SCRIPTS / "ansible.yml"]
        return timed(self.machine, argv, env=self._env(), patience=PATIENCE)

    def _env(self) -> dict[str, str]:
        known = f"-o UserKnownHostsFile={self.machine.known_hosts} -o StrictHostKeyChecking=yes -F none"
        return {
            **os.environ,
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            # As by default, but for the time that the connection stays open without use.
            "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist=5s {known}",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "ssh"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }


class Pyinfra(Contender):
    """pyinfra."""

    name = "pyinfra"
    largest = 10

    def apply(self, accounts: Sequence[Account], gone: Sequence[str] = ()) -> Cost:
        return self._deploy(accounts, gone)

    def preview(self, accounts: Sequence[Account]) -> Optional[Cost]:
        return self._deploy(accounts, (), "--dry")

    def _deploy(self, accounts: Sequence[Account], gone: Sequence[str], *options: str) -> Cost:
        data = {
            "ssh_user": "admin",
            "ssh_key": str(self.machine.admin_key.path),
            "ssh_known_hosts_file": str(self.machine.known_hosts),
            "ssh_strict_host_key_checking": "yes",
            "accounts": [account._asdict() for account in accounts],
            "gone": list(gone),
            "names": _names(accounts),
        }
        inventory = self.folder / "inventory.py"
        inventory.write_text(f"server = [({self.machine.address!r}, {data!r})]\n")
        argv = [tool("pyinfra"), "-y", *options, inventory, SCRIPTS / "pyinfra_deploy.py"]
        return timed(self.machine, argv, env={**os.environ, "LC_ALL": "C.UTF-8"}, patience=PATIENCE)


class Pulumi(Contender):
    """A Pulumi program, with a state in a folder; the administrator's key is in an SSH agent."""

    def prepare(self) -> None:
        with contextlib.ExitStack() as undo:
            agent = undo.enter_context(_agent(self.folder / "agent", self.machine.admin_key))
            (self.folder / "project").mkdir()
            self.project = Project(self.folder / "project")
            undo.callback(self.project.kill)
            self.project.env["SSH_AUTH_SOCK"] = agent
            self.furnish()
            self._undo = undo.pop_all()

    def furnish(self) -> None:
        """What comes before the first user."""
        raise NotImplementedError

    def write(self, accounts: Sequence[Account]) -> None:
        """Tell the program whom to make."""
        raise NotImplementedError

    def run(self, *argv: str) -> Cost:
        """Run pulumi."""
        command = [self.project.pulumi, "--non-interactive", "--color=never", "-C", self.project.folder, *argv]
        return timed(self.machine, command, env=self.project.env, patience=PATIENCE)

    def apply(self, accounts: Sequence[Account], gone: Sequence[str] = ()) -> Cost:
        self.write(accounts)
        return self.run("up", "--yes", "--skip-preview")

    def preview(self, accounts: Sequence[Account]) -> Optional[Cost]:
        self.write(accounts)
        return self.run("preview")

    def close(self) -> None:
        self._undo.close()


class Ours(Pulumi):
    """This project, with a stack file."""

    name = "ours"
    largest = 500

    def furnish(self) -> None:
        self.project.config["sftp-jail:host"] = {
            "kind": "existing",
            "address": self.machine.address,
            "hostKey": self.machine.host_key.public,
            "user": "admin",
        }
        self.write([])
        self.run("up", "--yes", "--skip-preview")

    def write(self, accounts: Sequence[Account]) -> None:
        users = {account.name: {"keys": {"laptop": account.key}} for account in accounts}
        self.project.config["sftp-jail:users"] = users
        self.project.write()


class Bare(Pulumi):
    """A bare program: a Command a user, which runs the floor's script."""

    name = "bare"
    largest = 500

    def furnish(self) -> None:
        Contender.prepare(self)
        self.machine.root("tee", "/usr/local/sbin/bench-floor", stdin=(SCRIPTS / "floor.sh").read_text())
        self.machine.root("chmod", "755", "/usr/local/sbin/bench-floor")
        (self.project.folder / "__main__.py").write_text((SCRIPTS / "bare.py").read_text())
        # Of this one nothing is read but the name of the project and the language.
        self.project.config = {}
        self.project.write()
        self.write([])
        self.run("up", "--yes", "--skip-preview")

    def write(self, accounts: Sequence[Account]) -> None:
        connection = {"host": self.machine.address, "user": "admin", "host_key": self.machine.host_key.public}
        given: Mapping[str, object] = {
            "connection": connection,
            "accounts": [account._asdict() for account in accounts],
        }
        (self.project.folder / "accounts.json").write_text(json.dumps(given))


def tool(name: str) -> str:
    """A program of the bench's own environment, as `toolchain/setup --for bench` has told."""
    return str(Path(os.environ["SFTP_JAIL_BENCH_PYTHON"]).with_name(name))


@contextlib.contextmanager
def _agent(place: Path, key: Key) -> Iterator[str]:
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
        try:
            until(place.exists, "an agent")
            subprocess.run(["ssh-add", "-q", key.path], env={**os.environ, "SSH_AUTH_SOCK": str(place)}, check=True)
            yield str(place)
        finally:
            process.terminate()


CONTENDERS: tuple[type[Contender], ...] = (Floor, Ours, Bare, Ansible, Pyinfra)
"""In the order in which they take turns."""
