"""What `pulumi up` changes in sshd stands only if `pulumi up` still gets in."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Machine, make_key, until
from tests.engine.conftest import Project
from tests.engine.test_existing import host_of, server  # noqa: F401
from tests.hostside.test_confirm import DROP_IN, TRIAL, impatient, rolled_back


@pytest.fixture(scope="module")
def agent(server: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen]:  # noqa: F811
    """An SSH agent that has the administrator's key, last of five; its socket is in `args`."""
    folder = tmp_path_factory.mktemp("agent")
    place = str(folder / "socket")
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as process:
        until(Path(place).exists, "an agent")
        wrong = [make_key(folder / str(number)) for number in range(4)]
        for key in [*wrong, server.admin_key]:
            add_key(process, str(key.path))
        yield process
        process.send_signal(signal.SIGCONT)
        process.terminate()


def add_key(agent: subprocess.Popen, *argv: str) -> None:
    subprocess.run(["ssh-add", "-q", *argv], env={**os.environ, "SSH_AUTH_SOCK": socket_of(agent)}, check=True)


def socket_of(agent: subprocess.Popen) -> str:
    assert isinstance(agent.args, list)
    return str(agent.args[-1])


@pytest.fixture(scope="module")
def shared(project: Project, server: Machine, agent: subprocess.Popen) -> Project:  # noqa: F811
    """A stack on that server, whose administrator logs in by the agent."""
    project.env["SSH_AUTH_SOCK"] = socket_of(agent)
    project.config["sftp-jail:host"] = host_of(server)
    project.user("jack", "laptop")
    return project


def connections(server: Machine) -> int:  # noqa: F811
    return server.root("journalctl", "--unit=ssh", "--output=cat", "--no-pager").count("Accepted")


def test_of_a_deployer_who_was_killed_between_the_two_steps_the_server_takes_everything_back(
    shared: Project,
    server: Machine,  # noqa: F811
    agent: subprocess.Popen,
) -> None:
    argv = [shared.pulumi, "--non-interactive", "-C", str(shared.folder), "up", "--yes", "--skip-preview"]
    with subprocess.Popen(argv, env=shared.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # The first step has its connection; the second one waits for the agent, for ever.
        until(lambda: server.run("test", "-e", TRIAL).code == 0, "a trial")
        agent.send_signal(signal.SIGSTOP)
        assert any("jail-confirm" in line and "creating" in line for line in process.stdout)
        shared.kill()
    agent.send_signal(signal.SIGCONT)
    assert "on trial" in server.jailctl("check").out
    with impatient(server):
        rolled_back(server)
    assert server.run("test", "-e", DROP_IN).code != 0
    assert server.run("id", "jack").code != 0
    assert "the jail was rolled back at 20" in server.jailctl("check").out

    before = connections(server)
    shared("cancel", "--yes")
    assert "jail-confirm" in shared.preview()
    assert connections(server) == before, "a preview connects to nobody"
    done = shared.up()
    assert "retrying create due to on-error hook request" in done.out
    assert server.jailctl("check").out == "no difference\n"
    assert server.sftp("jack", shared.key("jack", "laptop"), "ls").code == 0
    assert "retrying" not in shared.up().out


def test_a_hardening_that_shuts_the_deployer_out_is_taken_back_and_comes_when_he_fits(
    shared: Project,
    server: Machine,  # noqa: F811
    agent: subprocess.Popen,
) -> None:
    shared.up()
    before = server.root("cat", DROP_IN)
    jill = shared.user("jill", "laptop")["laptop"]
    shared.config["sftp-jail:hardening"] = True
    shared.write()
    # His agent offers four other keys first, which MaxAuthTries ends.
    done = shared("up", "--yes", "--skip-preview")
    assert done.code != 0
    assert "jail-confirm" in done.out
    assert "unable to authenticate" in done.out + done.err or "Too many authentication failures" in done.out + done.err
    assert server.run("id", "jill").code != 0
    assert server.sftp("jack", shared.key("jack", "laptop"), "ls").code == 0
    with impatient(server):
        rolled_back(server)
    assert server.root("cat", DROP_IN) == before
    argv = ["ssh", *server.ssh_options(server.admin_key)]
    plain = [str(arg) for arg in argv if arg not in ("-i", server.admin_key.path) and "IdentitiesOnly" not in str(arg)]
    env = {**os.environ, "SSH_AUTH_SOCK": socket_of(agent)}
    assert subprocess.run([*plain, f"admin@{server.address}", "true"], env=env, check=False).returncode == 0

    add_key(agent, "-D")
    add_key(agent, str(server.admin_key.path))
    shared.up()
    assert server.jailctl("check").out == "no difference\n"
    assert server.sftp("jill", jill, "ls").code == 0
    # The pinned key is ECDSA, the one that the plugin's client takes first.
    offered = server.root("/usr/sbin/sshd", "-T")
    assert "maxauthtries 4" in offered
    assert "ecdsa-sha2-nistp256" in next(line for line in offered.splitlines() if line.startswith("hostkeyalgorithms"))
    assert "ecdsa-sha2-nistp384" not in next(
        line for line in offered.splitlines() if line.startswith("hostkeyalgorithms")
    )
    assert shared("destroy", "--yes", "--skip-preview").code == 0


@pytest.mark.parametrize("release", ["bullseye", "bookworm"])
def test_the_command_plugin_gets_into_a_hardened_host_of_an_older_release(tmp_path: Path, release: str) -> None:
    project = Project(tmp_path)
    try:
        project.config["sftp-jail:host"] = {"kind": "local", "release": release}
        jack = project.user("jack", "laptop")["laptop"]
        project.up()
        assert "maxauthtries 4" in project.run("/usr/sbin/sshd", "-T").out
        assert project.sftp("jack", jack, "ls").code == 0
    finally:
        project.down()
