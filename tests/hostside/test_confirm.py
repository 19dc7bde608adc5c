"""A configuration of sshd's that nobody comes in through is taken back by the server itself; on every Debian."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import paramiko  # type: ignore[import-untyped]
import pytest

from tests.conftest import MACHINE, Done, Key, Machine, call, until
from tests.hostside.conftest import JAIL, JAILCTL, TRIAL, add, spec

DROP_IN = "/etc/ssh/sshd_config.d/00-sftp-jail.conf"
ROLLBACK = "sftp-jail-rollback.service"
TIMER = "sftp-jail-rollback.timer"

HARDENED = {**JAIL, "hardening": True}
CHANGED = {**JAIL, "umask": "027"}

OLD_CLIENT = ["-oKexAlgorithms=ecdh-sha2-nistp256", "-oLogLevel=INFO"]
"""The administrator's SSH client speaks nothing but this, which a hardened sshd does not."""


@pytest.fixture
def server(jail: Machine) -> Machine:
    """A machine with a confirmed jail, of each Debian release."""
    return jail


def apply(machine: Machine, jail: dict) -> None:
    """Apply a jail as its Command does, without the confirmation."""
    machine.root(JAILCTL, "apply-jail", stdin=json.dumps(jail))


def confirm(machine: Machine, jail: dict, *options: object) -> Done:
    """Confirm it over a new connection."""
    return administrator(machine, f"sudo -n {JAILCTL} confirm", *options, stdin=json.dumps(jail))


def administrator(machine: Machine, command: str, *options: object, stdin: str = "") -> Done:
    """The administrator's ssh; of an option that is given twice, the first counts."""
    argv = ["ssh", *options, *machine.ssh_options(machine.admin_key), f"admin@{machine.address}"]
    return call(*argv, command, stdin=stdin)


def drop_in(machine: Machine) -> str:
    return machine.root("cat", DROP_IN)


@contextlib.contextmanager
def impatient(machine: Machine) -> Iterator[None]:
    """The server waits for a confirmation for a moment only, from now on."""
    folder = f"/etc/systemd/system/{TIMER}.d"
    machine.root("mkdir", "-p", folder)
    machine.root("tee", f"{folder}/impatient.conf", stdin="[Timer]\nOnActiveSec=\nOnActiveSec=1\n")
    machine.root("systemctl", "daemon-reload")
    machine.root("systemctl", "restart", TIMER)
    try:
        yield
    finally:
        machine.root("rm", "-r", folder)
        machine.root("systemctl", "daemon-reload")


@contextlib.contextmanager
def asked_for(machine: Machine, user: dict) -> Iterator["subprocess.Popen[str]"]:
    """A user whom another stack asks for while a trial is under way."""
    argv = [sys.executable, str(MACHINE), "run", machine.spec["directory"], "--", JAILCTL, "apply-user"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdin is not None
        waiting.stdin.write(json.dumps(user))
        waiting.stdin.close()
        waiting.stdin = None
        until(lambda: "jailctl apply-user" in machine.run("ps", "-eo", "args").out, "somebody who waits")
        yield waiting
        waiting.kill()


def rolled_back(machine: Machine) -> None:
    until(lambda: machine.run("test", "-e", TRIAL).code != 0, "the server's own rollback")


@pytest.mark.case("B 38")
def test_a_configuration_that_shuts_the_administrator_out_is_taken_back_by_the_server_itself(
    server: Machine, jack: Key, jill: Key
) -> None:
    add(server, "jack", laptop=jack)
    before = drop_in(server)
    assert confirm(server, JAIL, *OLD_CLIENT) == Done(0, "no change\n", "")
    argv = [str(arg) for arg in ("sftp", *server.ssh_options(jack), f"jack@{server.address}")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdin is not None
        session.stdin.write("put /etc/hostname before\n")
        session.stdin.flush()
        until(lambda: server.run("test", "-e", "/sftp/jail/jack/uploads/before").code == 0, "a session")
        apply(server, HARDENED)
        assert "no matching key exchange" in confirm(server, HARDENED, *OLD_CLIENT).err
        assert "on trial" in server.jailctl("check").out
        with asked_for(server, spec("jill", laptop=jill)) as waiting:
            assert server.sftp("jack", jack, "ls").code == 0
            assert waiting.poll() is None
            with impatient(server):
                rolled_back(server)
            assert "was rolled back at 20" in waiting.communicate(timeout=60)[1]
            assert waiting.returncode == 1
        session.communicate("put /etc/hostname after\n", timeout=20)
        assert session.returncode == 0
    assert drop_in(server) == before
    assert "as it was, since no new connection" in server.root("journalctl", f"--unit={ROLLBACK}", "--output=cat")
    assert administrator(server, "true", *OLD_CLIENT).code == 0
    checked = server.jailctl("check")
    assert checked.code == 1
    assert "the jail was rolled back at 20" in checked.out
    assert "to repair: `pulumi up` of the stack that has the host" in checked.out
    assert len(checked.out.splitlines()) == 1, "and else the server is what the record of the jail says"
    refused = server.jailctl("apply-user", spec("jill", laptop=jill))
    assert "was rolled back at 20" in refused.err
    assert server.run("id", "jill").code != 0
    assert server.sftp("jack", jack, "ls").code == 0


def test_a_confirmation_that_comes_too_late_applies_again_and_the_next_connection_confirms(
    server: Machine, jack: Key
) -> None:
    apply(server, CHANGED)
    server.root("systemctl", "start", ROLLBACK)
    assert "-u0022" in drop_in(server)
    late = confirm(server, CHANGED)
    assert late.code == 1
    assert "has been applied again. Run confirm again, over a new connection." in late.err
    assert "-u0027" in drop_in(server)
    with asked_for(server, spec("jack", laptop=jack)) as waiting:
        assert server.run("id", "jack").code != 0
        assert waiting.poll() is None
        done = confirm(server, CHANGED)
        assert done.code == 0, done
        assert waiting.communicate(timeout=60)[1] == ""
        assert waiting.returncode == 0
    assert server.jailctl("check").out == "no difference\n"
    assert server.sftp("jack", jack, "ls").code == 0
    server.root("systemctl", "start", ROLLBACK)
    assert "-u0027" in drop_in(server)


def test_neither_an_older_connection_nor_the_console_confirms(server: Machine) -> None:
    control = f"-oControlPath={server.folder}/master"
    argv = ["ssh", *server.ssh_options(server.admin_key), "-oControlMaster=yes", control, f"admin@{server.address}"]
    with subprocess.Popen([*map(str, argv), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as master:
        until((server.folder / "master").exists, "a connection")
        apply(server, CHANGED)
        old = confirm(server, CHANGED, control)
        assert "this is an SSH connection older than sshd's new configuration" in old.err
        # The listener that it came from is gone: nothing but its own age tells.
        server.root("systemctl", "restart", "ssh")
        assert "this is an SSH connection older" in confirm(server, CHANGED, control).err
        console = server.run(JAILCTL, "confirm", stdin=json.dumps(CHANGED))
        assert "this is no SSH connection" in console.err
        assert [old.code, console.code] == [1, 1]
        assert "on trial" in server.jailctl("check").out
        assert confirm(server, CHANGED).code == 0
        master.communicate(timeout=20)
    assert server.jailctl("check").out == "no difference\n"


def test_a_connection_from_before_that_logs_in_afterwards_does_not_confirm(server: Machine) -> None:
    with paramiko.Transport((server.address, 22)) as transport:
        transport.start_client(timeout=20)
        apply(server, CHANGED)
        transport.auth_publickey("admin", paramiko.Ed25519Key.from_private_key_file(str(server.admin_key.path)))
        with transport.open_session() as channel:
            channel.exec_command(f"sudo -n {JAILCTL} confirm")
            channel.sendall(json.dumps(CHANGED).encode())
            channel.shutdown_write()
            assert channel.recv_exit_status() == 1
            assert b"this is an SSH connection older" in channel.recv_stderr(10_000)
    assert confirm(server, CHANGED).code == 0


@pytest.mark.case("B 6")
def test_an_sshd_that_systemd_starts_for_a_connection_confirms_and_is_rolled_back(server: Machine) -> None:
    server.root("systemctl", "stop", "ssh.service")
    server.root("systemctl", "start", "ssh.socket")
    try:
        apply(server, CHANGED)
        done = confirm(server, CHANGED)
        assert done.code == 0, done
        apply(server, JAIL)
        server.root("systemctl", "start", ROLLBACK)
        assert "-u0027" in drop_in(server)
        assert server.ssh("admin", server.admin_key, "true").code == 0
    finally:
        server.root("systemctl", "stop", "ssh.socket", "ssh.service")
        server.root("systemctl", "start", "ssh.service")


@pytest.mark.case("B 37")
def test_a_reboot_on_trial_brings_the_old_configuration_back_before_anybody_connects(server: Machine) -> None:
    before = drop_in(server)
    apply(server, CHANGED)
    server.reboot()
    assert drop_in(server) == before
    said = server.root("journalctl", "--boot", "--unit=sftp-jail-rollback*", "--unit=ssh", "--output=cat")
    assert said.index("as it was, since no new connection") < said.index("Server listening")
    assert "rolled back" in server.jailctl("check").out
    assert confirm(server, CHANGED).code == 1
    assert confirm(server, CHANGED).code == 0


def test_an_sshd_that_the_change_has_brought_down_runs_again(server: Machine) -> None:
    apply(server, CHANGED)
    server.root("systemctl", "stop", "ssh")
    server.root("systemctl", "start", ROLLBACK)
    assert "-u0022" in drop_in(server)
    assert server.ssh("admin", server.admin_key, "true").code == 0


def test_a_trial_ends_in_time_whatever_else_goes_on_and_in_less_than_two_minutes(server: Machine) -> None:
    shown = server.root("systemctl", "show", "--property=TimersMonotonic,AccuracyUSec", TIMER)
    assert "OnActiveUSec=1min 50s" in shown
    assert "AccuracyUSec=1s" in shown
    apply(server, CHANGED)
    # Another stack's users are being removed, and their uploads archived.
    server.root("systemd-run", "--unit=busy", "flock", "/run/sftp-jail.lock", "sleep", "infinity")
    try:
        with impatient(server):
            rolled_back(server)
    finally:
        server.root("systemctl", "stop", "busy")
    assert "-u0022" in drop_in(server)


def test_any_number_of_changes_may_follow_one_another(server: Machine) -> None:
    for _ in range(6):  # as quickly as no computer makes them
        server.root("systemctl", "restart", TIMER)
    apply(server, CHANGED)
    assert confirm(server, CHANGED).code == 0
    assert server.jailctl("check").out == "no difference\n"


def test_a_second_run_changes_nothing_and_is_on_no_trial(server: Machine) -> None:
    process = "systemctl show --property=MainPID,StateChangeTimestamp ssh; cat /proc/$(pidof -s sshd)/stat"
    before = server.root("sh", "-c", f"{process} | cut -d' ' -f1-4,26-29")
    assert server.run(JAILCTL, "apply-jail", stdin=json.dumps(JAIL)).out == "no change\n"
    assert server.run("test", "-e", TRIAL).code != 0
    assert server.run("systemctl", "is-active", TIMER).code != 0
    assert confirm(server, JAIL).out == "no change\n"
    assert server.root("sh", "-c", f"{process} | cut -d' ' -f1-4,26-29") == before


def test_what_comes_back_is_what_somebody_came_in_through(server: Machine) -> None:
    apply(server, CHANGED)
    apply(server, {**JAIL, "umask": "077"})
    assert confirm(server, CHANGED).code == 1, "what it confirms is not on trial"
    server.root("systemctl", "start", ROLLBACK)
    assert "-u0022" in drop_in(server)


def test_a_jail_on_trial_can_be_removed_and_a_user_too(server: Machine, jack: Key) -> None:
    add(server, "jack", laptop=jack)
    apply(server, CHANGED)
    assert server.jailctl("remove-user", spec("jack", laptop=jack)).code == 0
    assert server.run("id", "jack").code != 0
    assert server.jailctl("remove-jail", JAIL).code == 0
    assert server.run("ls", "/var/lib/sftp-jail", DROP_IN).out == ""
    assert server.run("systemctl", "is-active", TIMER).code != 0
    assert server.jailctl("check").out == "no difference\n"


def test_an_operator_who_repairs_is_told_to_confirm_and_does_it_without_a_spec(server: Machine) -> None:
    server.root("rm", DROP_IN)
    server.root("systemctl", "reload", "ssh")
    repaired = administrator(server, f"sudo -n {JAILCTL} repair")
    assert repaired.code == 0, repaired
    assert (
        "on trial, should be confirmed by a new SSH connection in time; to repair: sudo jailctl confirm" in repaired.out
    )
    assert administrator(server, f"sudo -n {JAILCTL} confirm").out == "sshd: confirmed (was: on trial)\n"
    assert server.jailctl("check").out == "no difference\n"
    assert administrator(server, f"sudo -n {JAILCTL} confirm").out == "no change\n"


def test_a_repair_that_nobody_confirms_is_taken_back_and_can_be_done_again(server: Machine, jill: Key) -> None:
    server.root("rm", DROP_IN)
    server.root("systemctl", "reload", "ssh")
    assert administrator(server, f"sudo -n {JAILCTL} repair").code == 0
    server.root("systemctl", "start", ROLLBACK)
    assert server.run("test", "-e", DROP_IN).code != 0
    # Of a repair, Pulumi knows nothing that an `up` could do again.
    assert "Then: sudo jailctl repair." in server.jailctl("apply-user", spec("jill", laptop=jill)).err
    (rolled_back, *_) = json.loads(server.run(JAILCTL, "check", "--format=json").out)["differences"]
    assert "rolled back at 20" in rolled_back["actual"]
    assert administrator(server, rolled_back["remedy"]).code == 0
    assert administrator(server, f"sudo -n {JAILCTL} confirm").code == 0
    assert server.jailctl("check").out == "no difference\n"
    add(server, "jill", laptop=jill)


def test_who_has_no_account_yet_gets_one_when_the_configuration_is_confirmed(server: Machine, jill: Key) -> None:
    """As on a machine that is new to the jails, where the configuration that may come back jails nobody."""
    add(server, "jill", laptop=jill)
    server.root("userdel", "jill")
    server.root("rm", DROP_IN)
    server.root("systemctl", "reload", "ssh")
    for _ in range(2):
        apply(server, JAIL)
        assert server.run("id", "jill").code != 0
        server.root("systemctl", "start", ROLLBACK)
        assert server.run("id", "jill").code != 0
    apply(server, JAIL)
    done = confirm(server, JAIL)
    assert done.code == 0, done
    assert server.sftp("jill", jill, "ls").code == 0
    assert server.jailctl("check").out == "no difference\n"


def test_a_change_that_would_reach_the_administrator_or_miss_the_jailed_is_refused_before_it_is_tried(
    server: Machine, jack: Key
) -> None:
    add(server, "jack", laptop=jack)
    # Whoever types it is the administrator, whose settings must stay as they are; jack's would not.
    done = server.run("env", "SUDO_USER=jack", JAILCTL, "apply-jail", stdin=json.dumps(CHANGED))
    assert done.code == 1
    assert "the jail would change forcecommand for jack, from ['internal-sftp -lVERBOSE -u0022'] to" in done.err
    assert server.run("test", "-e", TRIAL).code != 0
    server.root("tee", "/etc/ssh/sshd_config.d/00-a.conf", stdin="Match all\n    PermitTTY yes\n")
    server.root("systemctl", "reload", "ssh")
    try:
        done = server.run(JAILCTL, "apply-jail", stdin=json.dumps(CHANGED))
    finally:
        server.root("rm", "/etc/ssh/sshd_config.d/00-a.conf")
        server.root("systemctl", "reload", "ssh")
    assert done.code == 1
    assert "PermitTTY yes instead of no (/etc/ssh/sshd_config.d/00-a.conf line 2)" in done.err
    assert server.run("test", "-e", TRIAL).code != 0
    assert "-u0022" in drop_in(server)
    assert server.run(JAILCTL, "apply-jail", stdin=json.dumps(CHANGED)).code == 0
    assert confirm(server, CHANGED).code == 0


def test_what_another_has_written_and_not_loaded_is_not_tried_out(server: Machine) -> None:
    server.root("tee", "/etc/ssh/sshd_config.d/50-theirs.conf", stdin="PubkeyAuthentication no\n")
    try:
        done = server.run(JAILCTL, "apply-jail", stdin=json.dumps(CHANGED))
        assert done.code == 1
        assert "/etc/ssh/sshd_config.d/50-theirs.conf has changed since sshd was reloaded" in done.err
        assert "/etc/ssh/sshd_config.d/50-theirs.conf: changed since sshd was reloaded" in server.jailctl("check").out
        assert server.ssh("admin", server.admin_key, "true").code == 0
        assert "-u0022" in drop_in(server)
    finally:
        server.root("rm", "/etc/ssh/sshd_config.d/50-theirs.conf")
