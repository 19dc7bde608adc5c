"""No channel but SFTP: neither a command nor a tunnel nor another way to log in, on a host that allows all of it.

What jack is refused the administrator does, by the same client with the same words.
"""

import asyncio
import contextlib
import os
import shlex
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import asyncssh
import pytest

from tests.abuse.conftest import User, client
from tests.conftest import Done, Machine, call, until

LAX = """\
AllowAgentForwarding yes
AllowStreamLocalForwarding yes
AllowTcpForwarding yes
ChallengeResponseAuthentication yes
GatewayPorts yes
PasswordAuthentication yes
PermitRootLogin prohibit-password
PermitTTY yes
PermitTunnel yes
PermitUserRC yes
X11Forwarding yes
"""
"""A host's own settings, whose file comes after that of the jails."""

FILE = "/etc/ssh/sshd_config.d/50-lax.conf"
ROOT_KEYS = "/root/.ssh/authorized_keys"
ADMIN_KEYS = "/home/admin/.ssh/authorized_keys"
JACK_KEYS = "/etc/ssh/sftp-jail/keys/jack"

PROOF = "echo proof$((6 * 7))"
"""A command, which a shell answers with `proof42`."""


@pytest.fixture(scope="module")
def host(jail: Machine) -> Iterator[Machine]:
    """A host that is as lax as can be, where root gets in with the administrator's key."""
    jail.root("tee", FILE, stdin=LAX)
    jail.root("install", "-D", "-m", "600", ADMIN_KEYS, ROOT_KEYS)
    # It is asked for by the server, and not run.
    jail.root("ln", "-s", "/bin/true", "/usr/bin/xauth")
    jail.root("systemctl", "reload", "ssh")
    yield jail
    jail.root("rm", FILE, ROOT_KEYS, "/usr/bin/xauth")
    jail.root("systemctl", "reload", "ssh")


@pytest.fixture
def admin(host: Machine) -> User:
    """The administrator."""
    return User(host, "admin", host.admin_key)


@pytest.fixture
def root(host: Machine) -> User:
    """Root, with the administrator's key."""
    return User(host, "root", host.admin_key)


def ssh(who: User, *options: object, command: tuple[str, ...] = (), stdin: str = "") -> Done:
    """OpenSSH's ssh, with options of its own."""
    machine = who.machine
    return call("ssh", *options, *machine.ssh_options(who.key), f"{who.name}@{machine.address}", *command, stdin=stdin)


@contextmanager
def running(who: User, *words: object, env: "dict[str, str] | None" = None) -> "Iterator[subprocess.Popen[bytes]]":
    """A client that goes on until the end of the block; the last of the words are for its server to run."""
    options = [*who.machine.ssh_options(who.key), f"{who.name}@{who.machine.address}"]
    argv = [str(word) for word in [*words[:-1], *options, *([words[-1]] if words[-1] else [])]]
    with subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, **(env or {})}) as process:
        try:
            yield process
        finally:
            process.kill()


# Commands


@pytest.mark.parametrize(
    ("options", "command", "stdin"),
    [
        pytest.param((), (PROOF,), "", marks=pytest.mark.case("A 16"), id="a command"),
        pytest.param((), (), f"{PROOF}\n", marks=pytest.mark.case("A 17"), id="a shell"),
        pytest.param(("-tt",), (), f"{PROOF}\nexit\n", marks=pytest.mark.case("A 18"), id="a terminal"),
        pytest.param(("-tt",), (PROOF,), "", marks=pytest.mark.case("A 18"), id="a command in a terminal"),
    ],
)
def test_nothing_runs_but_what_serves_files(
    jack: User, admin: User, options: tuple[str, ...], command: tuple[str, ...], stdin: str
) -> None:
    refused = ssh(jack, *options, command=command, stdin=stdin)
    assert "proof42" not in refused.out
    assert ("PTY allocation request failed" in refused.err) is bool(options)
    assert "proof42" in ssh(admin, *options, command=command, stdin=stdin).out
    assert jack.sftp("ls").code == 0


@pytest.mark.case("A 19")
def test_scp_copies_by_sftp_and_not_as_of_old(jack: User, admin: User, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for who, option, place, works in (
        (jack, "-O", "/uploads", False),
        (jack, "-s", "/uploads", True),
        (admin, "-O", "/home/admin", True),
    ):
        to = f"{who.name}@{who.machine.address}:{place}/copied"
        done = call("scp", option, *who.machine.ssh_options(who.key), tmp_path / "file", to)
        assert (done.code == 0) is works, done
        found = "/home/admin/copied" if who is admin else f"{jack.uploads}/copied"
        assert who.machine.run("rm", found).code == (0 if works else 1)


@pytest.mark.case("A 20")
def test_rsync_gets_nowhere(jack: User, admin: User, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    said = {}
    for who in (jack, admin):
        remote = shlex.join(["ssh", *map(str, who.machine.ssh_options(who.key))])
        done = call("rsync", "-e", remote, tmp_path / "file", f"{who.name}@{who.machine.address}:")
        assert done.code != 0
        said[who.name] = done.err
    assert jack.machine.run("test", "-e", f"{jack.uploads}/file").code == 1
    # There is none on the server, as the administrator is told.
    assert "rsync: command not found" in said["admin"]
    assert "command not found" not in said["jack"]


@pytest.mark.case("A 29")
def test_a_command_that_stands_beside_a_key_is_not_run(jack: User, admin: User) -> None:
    machine = jack.machine
    for who, file, runs in ((admin, ADMIN_KEYS, True), (jack, JACK_KEYS, False)):
        before = machine.root("cat", file)
        machine.root("tee", file, stdin=f'command="{PROOF}" {who.key.public}\n')
        try:
            assert ("proof42" in who.ssh("id").out) is runs
            assert jack.sftp("ls").code == 0
            if who is jack:
                assert f"{file}: changed" in machine.jailctl("check").out
        finally:
            machine.root("tee", file, stdin=before)


# Tunnels


def answer(address: "str | tuple[str, int]", question: bytes, end: bytes) -> bytes:
    """What comes back at our own end of a tunnel, until it says the last of it or is closed."""
    said = b""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as tunnel:
        tunnel.settimeout(60)
        tunnel.connect(address)
        # The other end may have said all that it has to say, and be gone.
        with contextlib.suppress(BrokenPipeError):
            tunnel.sendall(question)
        with contextlib.suppress(ConnectionResetError):
            while end not in said and (more := tunnel.recv(100)):
                said += more
    return said


EAR = """\
import os, signal, socket, sys
os.umask(0)
for path in sys.argv[1:]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if os.fork() == 0:
        while True:
            listener.accept()[0].send(b"heard you")
signal.pause()
"""
"""A program that says this to whoever reaches one of the Unix sockets that it makes."""


@pytest.fixture
def ears(jack: User) -> Iterator[tuple[str, str]]:
    """A socket in jack's jail that says `heard you`, as root sees it; and one that is not in a jail."""
    paths = (f"{jack.uploads}/ear", "/run/ear")
    machine = jack.machine
    machine.root("systemd-run", "--quiet", "--unit=ears", "--collect", "python3", "-c", EAR, *paths)
    until(lambda: machine.run("test", "-S", paths[1]).code == 0, "the sockets")
    yield paths
    machine.root("systemctl", "stop", "ears")
    machine.root("rm", *paths)


@contextmanager
def tunnel(who: User, end: Path, to: str) -> Iterator[str]:
    """Our end of what is to lead through the server to there."""
    end.unlink(missing_ok=True)
    with running(who, "ssh", "-N", "-L", f"{end}:{to}", ""):
        until(lambda: str(end) in call("ss", "-Hlx").out, "our end of the tunnel")
        yield str(end)


BANNER = b"SSH-2.0"


@pytest.mark.case("A 21")
def test_no_port_is_reached_through_the_server(jack: User, admin: User, tmp_path: Path) -> None:
    for who, works in ((jack, False), (admin, True)):
        with tunnel(who, tmp_path / "end", "127.0.0.1:22") as end:
            assert (BANNER in answer(end, b"", BANNER)) is works


@pytest.mark.case("A 27")
def test_no_socket_is_reached_through_the_server_in_the_jail_or_out_of_it(
    jack: User, admin: User, ears: tuple[str, str], tmp_path: Path
) -> None:
    inside, outside = ears
    for who, path, works in (
        (jack, inside, False),
        (jack, "/uploads/ear", False),
        (jack, outside, False),
        (admin, outside, True),
    ):
        with tunnel(who, tmp_path / "end", path) as end:
            assert (answer(end, b"", b"heard you") == b"heard you") is works, path
    assert "ear" in jack.sftp("ls").out


@pytest.mark.case("A 22")
def test_no_port_of_the_server_leads_to_the_client(jack: User, admin: User) -> None:
    forward = ("-R", "127.0.0.1:0:127.0.0.1:9", "-oExitOnForwardFailure=yes")
    refused = ssh(jack, *forward, "-s", command=("sftp",))
    assert refused.code == 255
    assert "remote port forwarding failed" in refused.err
    assert ssh(admin, *forward, command=("true",)).code == 0


@pytest.mark.case("A 23")
def test_the_server_is_no_proxy(jack: User, admin: User) -> None:
    greeting = b"\5\1\0" + b"\5\1\0\1" + socket.inet_aton("127.0.0.1") + struct.pack(">H", 22)
    for who, works in ((jack, False), (admin, True)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with running(who, "ssh", "-N", "-D", f"127.0.0.1:{port}", ""):
            until(lambda port=port: call("ss", "-Hltn", f"sport = {port}").out, "our end")  # type: ignore[misc]
            assert (BANNER in answer(("127.0.0.1", port), greeting, BANNER)) is works


@pytest.mark.case("A 24")
def test_no_network_device_is_made(jack: User, root: User) -> None:
    for who, reason in (
        (jack, "Server has rejected tunnel device forwarding"),
        # Here, nobody has a machine where sshd can make one.
        (root, "Failed to open the tunnel device."),
    ):
        with client(who) as session:
            with pytest.raises(asyncssh.ChannelOpenError):
                session(session.connection.open_tun())
            assert reason in session.told


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    """The socket of an agent of the client's."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        until(path.exists, "the agent")
        yield str(path)
        process.kill()


@pytest.mark.parametrize(
    ("option", "query", "mark"),
    [
        pytest.param("-A", ("--unix",), "/agent.", marks=pytest.mark.case("A 25"), id="the agent"),
        pytest.param("-X", ("--tcp",), "127.0.0.1:6010", marks=pytest.mark.case("A 26"), id="the display"),
    ],
)
def test_nothing_of_the_clients_own_is_reached_from_the_server(
    jack: User, admin: User, agent: str, option: str, query: tuple[str, ...], mark: str
) -> None:
    for who, subsystem, command, hello, works in (
        (jack, ["-s"], "sftp", b"\0\0\0\5\1\0\0\0\3", False),
        (admin, [], "cat", b"hello", True),
    ):
        with running(who, "ssh", option, *subsystem, command, env={"SSH_AUTH_SOCK": agent, "DISPLAY": ":9"}) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(hello)
            process.stdin.flush()
            # What is asked for is decided before the command runs.
            assert len(process.stdout.read(5)) == 5
            assert (mark in who.machine.root("ss", "-Hln", *query)) is works


# Other ways to log in


def logs_in(who: User, password: str, method: str) -> bool:
    """Whether a password is enough."""
    options = {"known_hosts": str(who.machine.known_hosts), "config": None, "agent_path": None, "client_keys": None}

    async def try_it() -> None:
        async with asyncssh.connect(
            who.machine.address, username=who.name, password=password, preferred_auth=method, **options
        ):
            pass

    try:
        asyncio.run(try_it())
    except asyncssh.PermissionDenied:
        return False
    return True


@pytest.mark.case("A 28")
@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_a_password_is_nothing_to_a_user_who_was_granted_none(jack: User, admin: User, method: str) -> None:
    machine = jack.machine
    before = machine.root("getent", "shadow", "admin").split(":")[1]
    machine.root("chpasswd", stdin="jack:horse\nadmin:horse\n")
    try:
        assert not logs_in(jack, "horse", method)
        assert logs_in(admin, "horse", method)
        assert "account jack, password: another one" in machine.jailctl("check").out
    finally:
        machine.root("usermod", "--password", before, "admin")
        repaired = machine.root("/usr/local/sbin/jailctl", "repair")
    assert repaired == "account jack, password: none (was: another one)\n"


@pytest.mark.case("A 30")
def test_a_users_key_is_his_alone(jack: User, jill: User) -> None:
    for who, key, works in ((jack, jill.key, False), (jill, jack.key, False), (jack, jack.key, True)):
        assert (who.machine.sftp(who.name, key, "ls").code == 0) is works


@pytest.mark.case("A 31")
def test_a_jailed_users_key_does_not_make_him_root(jack: User, root: User, admin: User) -> None:
    for who in (root, admin):
        assert "Permission denied" in who.machine.ssh(who.name, jack.key, "id").err
        assert who.ssh("id").code == 0
