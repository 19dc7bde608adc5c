"""`python -m sftp_jail check`: the server's own answer, fetched as CI would, from a stack on a real server."""

import contextlib
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from sftp_jail import check
from tests.conftest import MACHINE, Done, call, make_key, until
from tests.engine.conftest import STACK, Project


def checked(project: Project, stack: str = STACK, *options: str) -> Done:
    """What CI types."""
    argv = ["env", "-C", str(project.folder), sys.executable, "-m", "sftp_jail", "check", "--stack", stack, *options]
    return call(*argv, env={**project.env, "PULUMI": project.pulumi})


@pytest.fixture(scope="module")
def jail(project: Project) -> Project:
    """A stack whose server has a jail."""
    project.user("jack", "laptop")
    project.up()
    return project


@pytest.fixture
def connection(jail: Project, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The administrator's connection, from the stack's state."""
    monkeypatch.chdir(jail.folder)
    for name, value in {**jail.env, "PULUMI": jail.pulumi}.items():
        monkeypatch.setenv(name, value)
    [found] = check.connections(check.resources(STACK))
    return found


def admin_key(jail: Project) -> str:
    """The text of the administrator's private key."""
    return (jail.folder / ".local" / STACK / "keys" / "admin").read_text()


def test_a_server_that_is_as_it_should_be_has_no_difference(jail: Project) -> None:
    assert checked(jail) == Done(0, "no difference\n", "")


def test_a_difference_is_told_in_jailctls_words(jail: Project) -> None:
    jail.run("chmod", "g+w", "/sftp/jail/jack")
    there = jail.check()
    done = checked(jail)
    jail.run("chmod", "g-w", "/sftp/jail/jack")
    assert "/sftp/jail/jack" in there.out
    assert done == Done(1, there.out, "")
    assert checked(jail).code == 0


def test_a_difference_is_told_to_programs_too(jail: Project) -> None:
    jail.run("chmod", "g+w", "/sftp/jail/jack")
    done = checked(jail, STACK, "--format=json")
    jail.run("chmod", "g-w", "/sftp/jail/jack")
    assert done.code == 1
    [difference] = json.loads(done.out)["differences"]
    assert (difference["subject"], difference["remedy"]) == ("/sftp/jail/jack", "sudo jailctl repair")


def test_a_stack_that_does_not_exist_or_has_no_jail_cannot_be_checked(jail: Project) -> None:
    done = checked(jail, "nowhere")
    assert (done.code, done.out) == (2, "")
    assert done.err == "check: pulumi cannot read the stack: no stack named 'nowhere' found\n"
    assert jail("stack", "init", "empty", "--no-select").code == 0
    done = checked(jail, "empty")
    assert (done.code, done.out) == (2, "")
    assert done.err == "check: the stack has no jail on any server: run pulumi up first\n"


def test_a_server_without_jailctl_gives_its_own_reason(jail: Project) -> None:
    jail.run("mv", "/usr/local/sbin/jailctl", "/usr/local/sbin/gone")
    done = checked(jail)
    jail.run("mv", "/usr/local/sbin/gone", "/usr/local/sbin/jailctl")
    assert (done.code, done.out) == (2, "")
    assert "gives no answer: sudo: /usr/local/sbin/jailctl: command not found" in done.err


def test_another_host_key_at_the_address_is_sent_nothing(jail: Project, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger").path
    place = "/etc/ssh/ssh_host_ed25519_key"
    mine = jail.run("cat", place).out
    logins = logins_of(jail)
    jail.run("tee", place, stdin=stranger.read_text())
    jail.run("systemctl", "restart", "ssh")
    done = checked(jail)
    jail.run("tee", place, stdin=mine)
    jail.run("systemctl", "restart", "ssh")
    assert (done.code, done.out) == (2, "")
    assert "shows another host key than the pinned one, so nothing was sent" in done.err
    assert done.err.count("\n") == 1
    assert logins_of(jail) == logins
    assert checked(jail).code == 0
    assert logins_of(jail) == logins + 1


def logins_of(jail: Project) -> int:
    """How often sshd has let the administrator in, or been asked to."""
    said = jail.run("journalctl", "--unit=ssh", "--output=cat", "--no-pager").out
    return sum("admin" in line and ("Accepted" in line or "[preauth]" in line) for line in said.splitlines())


@contextlib.contextmanager
def held_up(jail: Project, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A check that waits on the server for another jailctl, its temporary files in the folder."""
    machine = jail.folder / ".local" / STACK / "machine"
    hold = ["flock", "/run/sftp-jail.lock", "sh", "-c", "echo held; read line"]
    env = {**jail.env, "PULUMI": jail.pulumi, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, MACHINE, "run", machine, "--", *hold], stdin=PIPE, stdout=PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        argv = [sys.executable, "-m", "sftp_jail", "check", "--stack", STACK]
        with subprocess.Popen(argv, cwd=jail.folder, env=env, stdout=PIPE, stderr=PIPE, text=True) as running:
            until(lambda: "jailctl check" in jail.run("ps", "-eo", "args").out, "jailctl waits")
            yield running
            holder.communicate("go on\n")
            running.wait()


def test_the_private_key_is_in_one_file_of_ours_alone_and_nowhere_afterwards(jail: Project, tmp_path: Path) -> None:
    lines = admin_key(jail).splitlines()[1:-1]
    with held_up(jail, tmp_path) as running:
        [folder] = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        holding = [path for path in folder.iterdir() if lines[0] in path.read_text()]
        assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in holding] == [("server.key", 0o600)]
        shown = ""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                shown += (process / "cmdline").read_text(errors="replace")
                shown += (process / "environ").read_text(errors="replace")
        assert str(folder) in shown
        assert not any(line in shown for line in lines)
    assert running.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_is_ended_leaves_no_private_key(jail: Project, tmp_path: Path) -> None:
    with held_up(jail, tmp_path) as running:
        assert list(tmp_path.iterdir())
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=20) == 2
        assert list(tmp_path.iterdir()) == []


def test_it_goes_through_a_jump_host_that_shows_its_own_pinned_key(
    connection: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behind = {**connection, "host": "127.0.0.1", "proxy": connection}
    assert check.check(behind, "text") == 0
    assert capsys.readouterr().out == "no difference\n"
    stranger = make_key(tmp_path / "stranger").public
    with pytest.raises(check.NoAnswer, match=f"^the jump host {connection['host']} shows another host key"):
        check.check({**behind, "proxy": {**connection, "hostKey": stranger}}, "text")
    with pytest.raises(check.NoAnswer, match=r"^the server 127\.0\.0\.1 shows another host key"):
        check.check({**behind, "hostKey": stranger}, "text")


def test_without_a_key_in_the_state_the_agent_logs_in(
    jail: Project, connection: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {key: value for key, value in connection.items() if key != "privateKey"}
    place = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL) as agent:
        until(Path(place).exists, "an agent")
        monkeypatch.setenv("SSH_AUTH_SOCK", place)
        with pytest.raises(check.NoAnswer, match="does not let admin in: load the key with ssh-add"):
            check.check(without, "text")
        subprocess.run(["ssh-add", "-q", "-"], input=admin_key(jail), text=True, check=True)
        assert check.check(without, "text") == 0
        agent.terminate()


def test_a_server_that_is_gone_cannot_be_checked(connection: Mapping[str, Any]) -> None:
    with pytest.raises(check.NoAnswer, match=r"^the server 10\.213\.255\.254 cannot be reached: "):
        check.check({**connection, "host": "10.213.255.254"}, "text")


def test_the_timeline_is_told_to_the_deployer_too_and_nothing_else_on_stdout(jail: Project) -> None:
    argv = ["env", "-C", str(jail.folder), sys.executable, "-m", "sftp_jail", "timeline", "--stack", STACK]
    env = {**jail.env, "PULUMI": jail.pulumi}
    line = f'2026-05-01T00:00:00.000000+00:00 jack internal-sftp[1]: opendir "/{"x" * 100}"\n'
    jail.run("tee", "-a", "/var/log/sftp.log", stdin=line * 2000)
    there = jail.run("/usr/local/sbin/jailctl", "timeline", "--since", "2026-01-01").out
    assert there.count("opendir") == 2000
    assert call(*argv, "--since", "2026-01-01", env=env) == Done(0, there, "")
    page = call(*argv, "--format", "html", env=env)
    assert (page.code, page.err) == (0, "")
    assert page.out.startswith("<!DOCTYPE html>")
    assert page.out.endswith("</html>\n")
    assert call(*argv, "--user", "nobody-here", env=env) == Done(0, "", "")
    with subprocess.Popen([*argv, "--format", "jsonl"], env=env, stdout=PIPE, stderr=PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""
    wrong = call(*argv, "--since", "yesterday", env=env)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err.startswith("timeline: --since: 'yesterday': neither a day nor an instant")
    jail.run("mv", "/var/log/sftp.log", "/var/log/gone")
    lost = call(*argv, env=env)
    jail.run("mv", "/var/log/gone", "/var/log/sftp.log")
    assert (lost.code, lost.out) == (2, "")
    assert "there is no /var/log/sftp.log" in lost.err
