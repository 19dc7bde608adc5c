"""Somebody's server: used through its administrator, and left as it was, on the real engine."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT, Key, Machine, make_key, until
from tests.engine.conftest import STACK, Project

# Every path with kind, mode, owner, target and content; accounts; what is enabled, runs, is mounted and listens.
MANIFEST = """
find /etc /usr/local /var/lib /sftp -printf '%y %m %u:%g %p %l\\n' 2>/dev/null
find /etc /usr/local /var/lib /sftp -type f -exec sha256sum {} + 2>/dev/null
getent passwd; getent group; getent shadow
systemctl list-unit-files --no-legend --no-pager
systemctl list-units --type=service,socket,timer,mount --state=active --no-legend --no-pager --plain | cut -d' ' -f1
findmnt --list --noheadings --output TARGET,FSTYPE,OPTIONS
ss --listening --tcp --udp --unix --numeric --no-header | awk '{print $1, $5}' | sort -u
"""

# What `destroy` is to leave behind, and what the system writes while it runs.
EXPECTED = (
    " /sftp ",
    "/sftp/archive",
    " /sftp/state ",
    "/sftp/state/last-id",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    # What the night does.
    "/var/lib/logrotate/",
    "/var/lib/systemd/timers/",
    # logind ends these ten seconds after a login (UserStopDelaySec).
    "/run/user/",
    "run-user-",
    "user@",
    "user-runtime-dir@",
)


def live_in(machine: Machine) -> None:
    """Give a server a life of its own: host keys of every type, other accounts, rules and jails."""
    machine.root("ssh-keygen", "-A")
    machine.root("useradd", "--create-home", "--shell", "/bin/bash", "carol")
    machine.root("sh", "-c", "printf 'Match User carol\\n    X11Forwarding no\\n' >> /etc/ssh/sshd_config")
    machine.root("tee", "/etc/rsyslog.d/10-theirs.conf", stdin="local3.* /var/log/theirs.log\n")
    machine.root("systemctl", "restart", "ssh", "rsyslog")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A shared server."""
    machine = Machine(tmp_path_factory.mktemp("server"), "trixie")
    live_in(machine)
    yield machine
    machine.stop()


@contextlib.contextmanager
def agent_with(key: Key, folder: Path) -> Iterator[str]:
    """The socket of an SSH agent that has the key."""
    place = str(folder / "socket")
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
        try:
            until(Path(place).exists, "an agent")
            subprocess.run(["ssh-add", "-q", key.path], env={**os.environ, "SSH_AUTH_SOCK": place}, check=True)
            yield place
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def agent(server: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of an SSH agent that has the administrator's key."""
    with agent_with(server.admin_key, tmp_path_factory.mktemp("agent")) as place:
        yield place


@pytest.fixture(scope="module")
def shared(project: Project, server: Machine, agent: str) -> Project:
    """A stack on that server, whose administrator logs in by the agent."""
    project.env["SSH_AUTH_SOCK"] = agent
    # The stack file that is there to be copied, with what everybody has to fill in.
    project.config = yaml.safe_load((ROOT / "stacks/Pulumi.shared.yaml").read_text())["config"]
    project.config["sftp-jail:host"] |= host_of(server)
    project.user("jack", "laptop")
    return project


def host_of(server: Machine, **other: Any) -> dict[str, Any]:
    """The stack file's `host`."""
    host_key = server.root("cut", "-d ", "-f1,2", "/etc/ssh/ssh_host_ecdsa_key.pub").strip()
    return {"kind": "existing", "address": server.address, "user": "admin", "hostKey": host_key, **other}


def manifest(server: Machine) -> set[str]:
    """What there is on the server, less what may change."""
    lines = server.root("sh", "-c", MANIFEST).splitlines()
    return {line for line in lines if not any(path in line for path in EXPECTED)}


def test_up_gives_access_and_destroy_leaves_the_server_as_it_was(shared: Project, server: Machine) -> None:
    before = manifest(server)
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(
            subprocess.Popen(
                ["ssh", *map(str, server.ssh_options(server.admin_key)), f"admin@{server.address}", "cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        shared.up()
        jack = shared.key("jack", "laptop")
        assert server.sftp("jack", jack, "put /etc/hostname kept").code == 0
        assert manifest(server) != before
        server.root("logger", "-p", "local3.info", "still theirs")
        for _ in range(2):
            assert shared("destroy", "--yes", "--skip-preview").code == 0
        out, _ = session.communicate("a session lives through all of it\n", timeout=20)
        assert out == "a session lives through all of it\n"
    assert manifest(server) - before == set()
    assert before - manifest(server) == set()
    assert server.sftp("jack", jack, "ls").code != 0
    assert "uploads/kept" in server.root("sh", "-c", "tar tf /sftp/archive/jack-*.tar")
    assert "still theirs" in server.root("cat", "/var/log/theirs.log")


def test_it_is_reached_through_a_jump_host(shared: Project, server: Machine) -> None:
    jump = host_of(server)
    del jump["kind"]
    shared.config["sftp-jail:host"] = host_of(server, address="127.0.0.1", proxy=jump)
    shared.write()
    shared.up()
    assert server.sftp("jack", shared.key("jack", "laptop"), "ls").code == 0
    assert json.loads(shared("stack", "output", "--json").out)["address"] == "127.0.0.1"
    # And so is it by a stack that is attached to this one.
    jill = shared.key("jill", "laptop")
    users = {"jill": {"keys": {"laptop": jill.public}}}
    shared.write("jill", {"sftp-jail:host": {"kind": "stack", "stack": STACK}, "sftp-jail:users": users})
    assert shared("stack", "init", "jill", "--no-select").code == 0
    done = shared("up", "--yes", "--skip-preview", "--stack", "jill")
    assert done.code == 0, done.out + done.err
    assert server.sftp("jill", jill, "ls").code == 0
    assert shared("destroy", "--yes", "--skip-preview", "--stack", "jill").code == 0
    assert server.sftp("jill", jill, "ls").code != 0
    assert shared("destroy", "--yes", "--skip-preview").code == 0


@pytest.mark.case("B 15")
def test_another_machine_at_its_address_is_left_alone(shared: Project, server: Machine, tmp_path: Path) -> None:
    before = manifest(server)
    stranger = make_key(tmp_path / "stranger").public
    shared.config["sftp-jail:host"] = host_of(server, hostKey=stranger)
    shared.write()
    done = shared("up", "--yes", "--skip-preview")
    assert done.code != 0
    assert "host key mismatch" in done.out + done.err
    assert manifest(server) == before


def test_a_system_that_is_not_supported_is_refused_and_left_alone(shared: Project, server: Machine) -> None:
    shared.config["sftp-jail:host"] = host_of(server)
    shared.write()
    server.root("cp", "--remove-destination", "/usr/lib/os-release", "/etc/os-release")
    server.root("sed", "-i", 's/^VERSION_ID=.*/VERSION_ID="10"/', "/etc/os-release")
    before = manifest(server)
    done = shared("up", "--yes", "--skip-preview")
    after = manifest(server)
    server.root("ln", "-sf", "../usr/lib/os-release", "/etc/os-release")
    assert done.code != 0
    assert "this server is debian 10, and nothing was changed; it must be one of debian 11" in done.out + done.err
    assert after == before


def test_a_server_that_was_installed_anew_gets_everything_by_another_up(
    shared: Project, server: Machine, tmp_path: Path
) -> None:
    shared.config["sftp-jail:host"] = host_of(server)
    shared.write()
    shared.up()
    # As if installed anew: nothing of ours is on it, and its host key is another one.
    anew = Machine(tmp_path, "trixie", admin_key=server.admin_key)
    try:
        anew.root("ssh-keygen", "-A")
        anew.root("systemctl", "restart", "ssh")
        shared.config["sftp-jail:host"] = host_of(anew)
        shared.write()
        shared.up()
        assert anew.sftp("jack", shared.key("jack", "laptop"), "ls").code == 0
        assert anew.jailctl("check").out == "no difference\n"
    finally:
        anew.stop()


@pytest.mark.case("B 14")
def test_of_a_server_that_is_gone_for_good_the_stack_can_be_forgotten(shared: Project) -> None:
    done = shared("destroy", "--yes", "--skip-preview")
    assert done.code != 0
    assert "no route to host" in done.out + done.err
    assert "jail-jack" in shared("stack", "export").out
    assert shared("stack", "rm", STACK, "--force", "--yes", "--preserve-config").code == 0
