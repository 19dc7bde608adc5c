"""The operator's bad days, as `pulumi up` meets them, on a server that exists."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Key, Machine, make_key, until
from tests.engine.conftest import STACK, Project
from tests.engine.test_existing import agent, host_of, server  # noqa: F401

SECOND_ADDRESS = "10.213.252.1"


@pytest.fixture(scope="module")
def shared(project: Project, server: Machine, agent: str) -> Project:  # noqa: F811
    """A stack on that server, with jack, whose administrator logs in by the agent."""
    project.env["SSH_AUTH_SOCK"] = agent
    project.config["sftp-jail:host"] = host_of(server)
    project.user("jack", "laptop")
    project.up()
    return project


@pytest.fixture
def jack(shared: Project) -> Key:
    return shared.key("jack", "laptop")


@contextlib.contextmanager
def without_route(address: str) -> Iterator[None]:
    """The address cannot be reached from this computer."""
    subprocess.run(["ip", "route", "add", "unreachable", f"{address}/32"], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "route", "del", "unreachable", f"{address}/32"], check=True)


def state(project: Project) -> dict:
    """What the state knows of the server, by name: what each Command has sent."""
    resources = json.loads(project("stack", "export").out)["deployment"]["resources"]
    commands = [resource for resource in resources if resource["type"] == "command:remote:Command"]
    return {command["urn"].rsplit("::", 1)[1]: command["inputs"].get("stdin") for command in commands}


@pytest.mark.case("B 14")
def test_an_unreachable_server_is_named_and_the_state_stays_what_it_was(
    shared: Project,
    server: Machine,  # noqa: F811
    jack: Key,
) -> None:
    before = state(shared)
    jill = shared.user("jill", "laptop")["laptop"]
    try:
        with without_route(server.address):
            done = shared("up", "--yes", "--skip-preview")
            assert done.code != 0
            assert f"{server.address}:22: connect: no route to host" in done.out + done.err
        assert state(shared) == before
        shared.up()
        assert server.sftp("jill", jill, "ls").code == 0
    finally:
        shared.drop("jill")
        shared.up()
    assert server.sftp("jack", jack, "ls").code == 0


@pytest.mark.case("B 16")
def test_another_address_of_the_same_server_makes_no_user_again(
    shared: Project,
    server: Machine,  # noqa: F811
    jack: Key,
) -> None:
    account = server.root("getent", "passwd", "jack")
    link = json.loads(subprocess.check_output(["ip", "-json", "route", "get", server.address]))[0]["dev"]
    server.root("ip", "address", "add", f"{SECOND_ADDRESS}/32", "dev", "host0")
    subprocess.run(["ip", "route", "add", f"{SECOND_ADDRESS}/32", "dev", link], check=True)
    argv = [*map(str, ["sftp", *server.ssh_options(jack)]), f"jack@{server.address}"]
    try:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdin is not None
            session.stdin.write("put /etc/hostname first\n")
            session.stdin.flush()
            until(lambda: server.run("test", "-e", "/sftp/jail/jack/uploads/first").code == 0, "a session")
            shared.config["sftp-jail:host"] = host_of(server, address=SECOND_ADDRESS)
            shared.write()
            shared.up()
            session.communicate("put /etc/hostname second\n", timeout=20)
            assert session.returncode == 0
        assert server.run("test", "-e", "/sftp/jail/jack/uploads/second").code == 0
        assert server.root("getent", "passwd", "jack") == account
        assert server.jailctl("check").out == "no difference\n"
    finally:
        shared.config["sftp-jail:host"] = host_of(server)
        shared.write()
        shared.up()
        server.root("ip", "address", "del", f"{SECOND_ADDRESS}/32", "dev", "host0")
        subprocess.run(["ip", "route", "del", f"{SECOND_ADDRESS}/32"], check=True)


@pytest.mark.case("B 17")
def test_many_users_at_once_get_past_a_server_that_drops_connections(
    shared: Project,
    server: Machine,  # noqa: F811
) -> None:
    server.root("tee", "/etc/ssh/sshd_config.d/10-few.conf", stdin="MaxStartups 2:30:100\n")
    server.root("systemctl", "restart", "ssh")
    # Two that never log in, so that sshd drops some of the others however slowly they come.
    idle = [socket.create_connection((server.address, 22)) for _ in range(2)]
    names = [f"user{number}" for number in range(20)]
    for name in names:
        shared.user(name, "laptop")
    try:
        shared.up()
        assert server.jailctl("check").out == "no difference\n"
        assert all(server.run("id", name).code == 0 for name in names)
        assert "Maxstartups" in server.root("journalctl", "--unit=ssh", "--output=cat", "--no-pager")
    finally:
        for connection in idle:
            connection.close()
        for name in names:
            shared.drop(name)
        shared.up()
        server.root("rm", "/etc/ssh/sshd_config.d/10-few.conf")
        server.root("systemctl", "restart", "ssh")


@pytest.mark.case("B 18")
def test_a_deployer_who_was_refused_too_often_gets_in_with_the_right_key(
    shared: Project,
    server: Machine,  # noqa: F811
    agent: str,  # noqa: F811
    tmp_path: Path,
) -> None:
    wrong = make_key(tmp_path / "wrong")
    env = {**os.environ, "SSH_AUTH_SOCK": agent}
    jill = shared.user("jill", "laptop")["laptop"]
    subprocess.run(["ssh-add", "-q", "-D"], env=env, check=True)
    subprocess.run(["ssh-add", "-q", wrong.path], env=env, check=True)
    done = shared("up", "--yes", "--skip-preview")
    subprocess.run(["ssh-add", "-q", server.admin_key.path], env=env, check=True)
    assert done.code != 0
    said = server.root("journalctl", "--unit=ssh", "--output=cat", "--no-pager")
    assert "penalty: failed authentication" in said, "OpenSSH 10's PerSourcePenalties"
    shared.up()
    assert server.sftp("jill", jill, "ls").code == 0
    shared.drop("jill")
    shared.up()


@pytest.mark.case("B 7")
def test_after_ctrl_c_the_next_up_finishes_the_work(shared: Project, server: Machine, jack: Key) -> None:  # noqa: F811
    names = [f"user{number}" for number in range(12)]
    keys = {name: shared.user(name, "laptop")["laptop"] for name in names}
    assert not shared.up_until(("jail-user", "created"), lambda up: up.send_signal(signal.SIGINT), "--parallel", "2")
    made = [name for name in names if server.run("id", name).code == 0]
    assert 0 < len(made) < len(names)
    shared.up()
    assert server.jailctl("check").out == "no difference\n"
    assert all(server.sftp(name, key, "ls").code == 0 for name, key in keys.items())
    for name in names:
        shared.drop(name)
    shared.up()
    assert all(server.run("id", name).code != 0 for name in names)
    assert server.sftp("jack", jack, "ls").code == 0


@pytest.mark.case("B 37")
def test_a_reboot_in_the_middle_of_up_loses_nothing(shared: Project, server: Machine, jack: Key) -> None:  # noqa: F811
    names = [f"user{number}" for number in range(12)]
    keys = {name: shared.user(name, "laptop")["laptop"] for name in names}
    shared.up_until(("jail-user", "created"), lambda _: server.reboot(), "--parallel", "2")
    shared.up()
    assert server.jailctl("check").out == "no difference\n"
    assert all(server.sftp(name, key, "ls").code == 0 for name, key in {**keys, "jack": jack}.items())
    for name in names:
        shared.drop(name)
    shared.up()


def test_the_end_of_it_leaves_nobody(shared: Project, server: Machine, jack: Key) -> None:  # noqa: F811
    assert shared("destroy", "--yes", "--skip-preview", "--stack", STACK).code == 0
    assert server.sftp("jack", jack, "ls").code != 0
