"""What tests share: a disposable Debian machine, and the clients that knock at its door."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from threading import Thread
from typing import Any, NamedTuple, Optional

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]

from sftp_jail.hosts.machine import Problem, attend, inside, leader_of
from sftp_jail.jail import INSTALL, jailctl_files
from tests.results import Results

ROOT = Path(__file__).parent.parent
MACHINE = ROOT / "sftp_jail" / "hosts" / "machine.py"

RELEASES = ("bullseye", "bookworm", "trixie")
"""Every Debian that is supported."""

APART = (*RELEASES, "btrfs", "loop")
"""What in a test's name says that its file's fixtures are made for it: a Debian release, and a kind of quotas."""

TOOLS = ("tests/bench/", "tests/hosts/", "tests/toolchain/")
"""The tests of what the project is made and tested with, and not of what it is."""

LINTERS = "tests/unit/test_lint.py"

QUICK_KEX = "curve25519-sha256"

ONE_JAIL = "tests/abuse"
"""A folder whose files share a jail."""


class ByFileAndRelease(LoadScopeScheduling):
    """What runs one after the other where pytest-xdist has several workers: a file's tests of one Debian release and
    kind of quotas, and those of all files that share a jail."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        place = ONE_JAIL if file.startswith(f"{ONE_JAIL}/") else file
        return " ".join([place, *(word for word in APART if word in test.partition("[")[2])])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFileAndRelease:
    """pytest-xdist's hook."""
    return ByFileAndRelease(config, log)


def releases_of(item: pytest.Item) -> list[str]:
    """The Debian releases on which a test is run, if it is one that says so."""
    parameters = getattr(item, "callspec", None)
    return [value for value in parameters.params.values() if value in RELEASES] if parameters is not None else []


def cases_of(item: pytest.Item) -> set[str]:
    """The names of the cases that a test is of."""
    return {name for mark in item.iter_markers("case") for name in mark.args}


def pytest_addoption(parser: pytest.Parser) -> None:
    """pytest's hook."""
    parser.addoption("--results", type=Path, metavar="FILE", help="what became of each case, as a page in Markdown")


def pytest_configure(config: pytest.Config) -> None:
    """pytest's hook; pytest-xdist's workers report to the process that has started them."""
    if config.option.results is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Results(config.option.results))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """pytest's hook: has a test's report say of which cases it is, and marks as `more` whole sorts of tests, beside
    those that are marked so where they stand: of the tools; and of what no abuse and no fault is a case of, on any
    release but the newest. The linters come first: they take long, and what they find is found at once."""
    items.sort(key=lambda item: not item.nodeid.startswith(LINTERS))
    for item in items:
        cases, releases = cases_of(item), releases_of(item)
        item.user_properties += [("case", name) for name in sorted(cases)]
        item.user_properties += [("release", release) for release in releases]
        older = any(release != RELEASES[-1] for release in releases)
        hostile = any(name.startswith(("A ", "B ")) for name in cases)
        if item.nodeid.startswith(TOOLS) or (older and not hostile):
            item.add_marker("more")


class Done(NamedTuple):
    """What a program said, and how it ended."""

    code: int
    out: str
    err: str


def call(*argv: object, stdin: str = "", env: Optional[dict[str, str]] = None) -> Done:
    """Run a program to its end, or for five minutes."""
    done = subprocess.run(
        [str(arg) for arg in argv],
        input=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env=env,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_in(directory: Path, *argv: object, stdin: str = "") -> Done:
    """Run a program as root in the machine of that directory, to its end or for five minutes; 1 if it does not run."""
    try:
        command = inside(leader_of(directory), [str(arg) for arg in argv])
    except Problem as problem:
        return Done(1, "", f"{problem}\n")
    with subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True, errors="backslashreplace"
    ) as entered:
        Thread(target=attend, args=(entered,), daemon=True).start()
        try:
            out, err = entered.communicate(stdin, timeout=300)
        except BaseException:
            entered.kill()
            raise
    return Done(entered.returncode, out, err)


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait for something that happens soon, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def processes_naming(folder: Path) -> list[str]:
    """The command lines that name the folder, but ours; what has ended and waits to be reaped has none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line and process.name != str(os.getpid()):
                found.append(line)
    return found


def neighbour(address: str) -> str:
    """This computer's end of the link to a machine."""
    start, last = address.rsplit(".", 1)
    return f"{start}.{int(last) - 1}"


class Key(NamedTuple):
    """An ed25519 key pair."""

    path: Path

    @property
    def public(self) -> str:
        """As authorized_keys has it, without the comment."""
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])


def make_key(path: Path) -> Key:
    """A new key pair at the path."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
    return Key(path)


class Machine:
    """A booted Debian, reached as root from beside it, and as anybody else through its sshd."""

    def __init__(self, folder: Path, release: str, admin_key: Optional[Key] = None) -> None:
        self.folder = folder
        self.admin_key = admin_key if admin_key is not None else make_key(folder / "admin")
        self.host_key = make_key(folder / "host")
        self.spec = {
            "name": "machine",
            "release": release,
            "directory": str(folder / "machine"),
            "adminKey": self.admin_key.public,
            "hostKeyFile": str(self.host_key.path),
        }
        self.address = self.boot()
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(f"{self.address} {self.host_key.public}\n")

    def boot(self) -> str:
        """Boot it; its address."""
        env = {**os.environ, "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
        done = subprocess.run(
            [sys.executable, MACHINE, "start"],
            input=json.dumps(self.spec),
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            check=True,
        )
        return json.loads(done.stdout)["address"]

    def stop(self) -> None:
        """Stop it; nothing of it is left."""
        subprocess.run([sys.executable, MACHINE, "stop"], input=json.dumps(self.spec), text=True, check=True)

    def run(self, *argv: object, stdin: str = "") -> Done:
        """Run a program in the machine, as root."""
        return run_in(Path(self.spec["directory"]), *argv, stdin=stdin)

    def root(self, *argv: object, stdin: str = "") -> str:
        """What a program says in the machine, which must succeed."""
        done = self.run(*argv, stdin=stdin)
        assert done.code == 0, f"{argv}: {done}"
        return done.out

    def reboot(self) -> None:
        """Have it reboot itself, until its sshd answers again."""
        boot_id = "/proc/sys/kernel/random/boot_id"
        before = self.root("cat", boot_id)
        self.run("systemctl", "reboot")
        until(lambda: self.run("cat", boot_id).out not in ("", before), "the next boot")
        until(lambda: self.run("systemctl", "is-active", "ssh").code == 0, "sshd")

    def ban_nobody(self) -> None:
        """Have its sshd refuse nobody for what was refused before, as it does since OpenSSH 9.8: what a test sees is
        then the refusal that it means, however fast it knocks."""
        if "persourcepenalties" in self.root("/usr/sbin/sshd", "-T"):
            self.root("tee", "-a", "/etc/ssh/sshd_config", stdin="PerSourcePenalties no\n")
            self.root("systemctl", "reload", "ssh")

    def install(self) -> str:
        """Install jailctl as the Pulumi program does."""
        return self._bootstrap("install")

    def uninstall(self) -> str:
        """Take jailctl away as the Pulumi program does."""
        return self._bootstrap("uninstall")

    def _bootstrap(self, verb: str) -> str:
        return self.root("sh", "-c", f"{INSTALL} {verb}", stdin=jailctl_files())

    def jailctl(self, verb: str, spec: Optional[dict[str, Any]] = None) -> Done:
        """Run one of jailctl's verbs; like the Pulumi program, confirm over a new connection what it applies."""
        stdin = json.dumps(spec) if spec is not None else ""
        done = self.run("/usr/local/sbin/jailctl", verb, stdin=stdin)
        if verb != "apply-jail" or done.code != 0:
            return done
        confirmed = self.ssh("admin", self.admin_key, "sudo -n /usr/local/sbin/jailctl confirm", stdin=stdin)
        return done if confirmed.code == 0 else confirmed

    def ssh_options(self, key: Key) -> list[object]:
        """A client that trusts the machine's own key and nothing else, and never asks."""
        options = {
            "UserKnownHostsFile": self.known_hosts,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            # A second apart: where sshd reloads, nobody listens for a moment.
            "ConnectionAttempts": "3",
            "LogLevel": "ERROR",
            # What OpenSSH 9 prefers takes its client six times as long as all else about a login.
            "KexAlgorithms": QUICK_KEX,
        }
        return ["-F", "none", "-i", key.path, *(f"-o{name}={value}" for name, value in options.items())]

    def ssh(self, username: str, key: Key, *argv: object, stdin: str = "") -> Done:
        """OpenSSH's ssh."""
        return call("ssh", *self.ssh_options(key), f"{username}@{self.address}", *argv, stdin=stdin)

    def sftp(self, username: str, key: Key, *commands: str) -> Done:
        """OpenSSH's sftp, ending at the first command that fails unless it begins with `-`."""
        batch = "\n".join(commands) + "\n"
        return call("sftp", *self.ssh_options(key), "-b", "-", f"{username}@{self.address}", stdin=batch)


@pytest.fixture(scope="session")
def trixie(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Debian 13, shared by the tests that leave it as they found it."""
    machine = Machine(tmp_path_factory.mktemp("trixie"), "trixie")
    machine.ban_nobody()
    yield machine
    machine.stop()


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory, trixie: Machine) -> Iterator[Callable[[str], Machine]]:
    """A machine of each Debian release, booted when it is first asked for, shared like `trixie`."""
    booted = {"trixie": trixie}

    def of(release: str) -> Machine:
        if release not in booted:
            booted[release] = Machine(tmp_path_factory.mktemp(release), release)
            booted[release].ban_nobody()
        return booted[release]

    yield of
    for release, machine in booted.items():
        if release != "trixie":
            machine.stop()


@pytest.fixture(params=RELEASES)
def debian(request: pytest.FixtureRequest, machines: Callable[[str], Machine]) -> Machine:
    """The same test on each Debian release that is supported."""
    return machines(request.param)
