"""A hardened sshd: what ssh-audit says of it, and that every client which the README names still gets in."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import paramiko  # type: ignore[import-untyped]
import pytest

from tests.conftest import RELEASES, Done, Key, Machine, call, make_key
from tests.hostside.conftest import JAIL, OWNER, add

HARDENED = {**JAIL, "hardening": True}

KEPT = {"curve25519-sha256", "curve25519-sha256@libssh.org"}
"""What ssh-audit warns of, and stays, for the clients below: hardening.py says why."""

WARNING = "does not provide protection against post-quantum attacks"

CLIENTS = {
    # golang.org/x/crypto/ssh, the defaults in common.go; without mlkem768x25519-sha256, which it has since Go 1.24, and
    # OpenSSH since 9.9.
    "Go": {
        "KexAlgorithms": "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
        "ecdh-sha2-nistp521,diffie-hellman-group14-sha256,diffie-hellman-group14-sha1",
        "Ciphers": "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,"
        "aes256-ctr",
        "MACs": "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1",
    },
    # WinSCP 6: source/putty/crypto in github.com/winscp/winscp, and winscp.net/eng/docs/ui_login_kex; without
    # curve448 and 3DES, which this ssh has not.
    "WinSCP": {
        "KexAlgorithms": "sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org,"
        "ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,"
        "diffie-hellman-group18-sha512,diffie-hellman-group16-sha512,diffie-hellman-group14-sha256",
        "Ciphers": "aes256-ctr,aes192-ctr,aes128-ctr,aes256-gcm@openssh.com,aes128-gcm@openssh.com,"
        "chacha20-poly1305@openssh.com",
        "MACs": "hmac-sha2-256,hmac-sha2-512,hmac-sha1,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com",
    },
    # FileZilla 3: src/putty/ssh2transport.c, and wiki.filezilla-project.org/SFTP_specifications (RFC 4344, 5656, 8731).
    "FileZilla": {
        "KexAlgorithms": "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
        "ecdh-sha2-nistp521,diffie-hellman-group-exchange-sha256,diffie-hellman-group14-sha256",
        "Ciphers": "aes256-ctr,aes192-ctr,aes128-ctr",
        "MACs": "hmac-sha2-256,hmac-sha1,hmac-sha2-256-etm@openssh.com",
    },
}
"""The algorithms of clients that are not here, in the words of OpenSSH's client."""


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine of each Debian release with a hardened sshd."""
    machine = Machine(tmp_path_factory.mktemp(request.param), request.param)
    # As somebody's server has it; the first key is what the deployer pins.
    machine.root("ssh-keygen", "-A")
    machine.root("systemctl", "restart", "ssh")
    machine.install()
    done = machine.jailctl("apply-jail", HARDENED)
    assert done.code == 0, done
    yield machine
    machine.stop()


@pytest.fixture(scope="module")
def jack(server: Machine, tmp_path_factory: pytest.TempPathFactory) -> Key:
    key = make_key(tmp_path_factory.mktemp("jack") / "jack")
    add(server, "jack", laptop=key)
    return key


def effective(machine: Machine) -> dict[str, str]:
    lines = machine.root("/usr/sbin/sshd", "-T", "-C", "user=admin,host=x,addr=192.0.2.1").splitlines()
    return dict(line.partition(" ")[::2] for line in lines)


def audit(machine: Machine) -> dict:
    done = call(sys.executable, "-m", "ssh_audit", "-jj", "--skip-rate-test", machine.address)
    assert done.code in (0, 2, 3), done
    return json.loads(done.out)


def notes(report: dict, kind: str) -> dict[str, list[str]]:
    """By algorithm, what ssh-audit finds of that kind."""
    found = [entry for part in ("kex", "key", "enc", "mac") for entry in report[part]]
    return {entry["algorithm"]: entry["notes"][kind] for entry in found if kind in entry.get("notes", {})}


def test_ssh_audit_fails_nothing_and_warns_only_of_what_stays_for_clients_that_are_named(server: Machine) -> None:
    report = audit(server)
    assert notes(report, "fail") == {}
    assert notes(report, "warn") == {name: [WARNING] for name in KEPT}
    assert report["cves"] == []


def test_ssh_audit_would_have_found_fault_before(server: Machine) -> None:
    plain = {**JAIL, "hardening": False}
    assert server.jailctl("apply-jail", plain).code == 0
    try:
        before = audit(server)
        assert notes(before, "fail") != {}
        assert effective(server)["maxauthtries"] == "6"
    finally:
        assert server.jailctl("apply-jail", HARDENED).code == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_with_these_algorithms_gets_in(server: Machine, jack: Key, client: str) -> None:
    options = [f"-o{name}={value}" for name, value in CLIENTS[client].items()]
    argv = ["sftp", *options, *server.ssh_options(jack), "-b", "-", f"jack@{server.address}"]
    done = call(*argv, stdin="ls\n")
    assert done.code == 0, done


@pytest.mark.parametrize("client", CLIENTS)
def test_without_the_key_exchange_that_stays_only_winscp_would_get_in_and_not_everywhere(
    server: Machine, jack: Key, client: str
) -> None:
    others = [name for name in CLIENTS[client]["KexAlgorithms"].split(",") if name not in KEPT]
    argv = ["sftp", f"-oKexAlgorithms={','.join(others)}", *server.ssh_options(jack), "-b", "-"]
    done = call(*argv, f"jack@{server.address}", stdin="ls\n")
    assert (done.code == 0) == (client == "WinSCP" and server.spec["release"] != "bullseye"), done


def test_openssh_paramiko_and_asyncssh_get_in(server: Machine, jack: Key) -> None:
    assert server.sftp("jack", jack, "ls").code == 0

    with paramiko.SSHClient() as client:
        client.load_host_keys(str(server.known_hosts))
        client.connect(server.address, username="jack", key_filename=str(jack.path), allow_agent=False)
        assert client.open_sftp().getcwd() is None

    async def list_uploads() -> list[str]:
        keys = {"known_hosts": str(server.known_hosts), "client_keys": [str(jack.path)], "config": None}
        async with (
            asyncssh.connect(server.address, username="jack", agent_path=None, **keys) as connection,
            connection.start_sftp_client() as sftp,
        ):
            return [str(name) for name in await sftp.listdir()]

    assert set(asyncio.run(list_uploads())) >= {"."}


def test_a_client_that_knows_nothing_of_this_century_does_not(server: Machine, jack: Key) -> None:
    for old in (
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "MACs=hmac-sha1",
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
    ):
        ciphers = ["-oCiphers=aes256-ctr"] if "MACs" in old else []
        done = call("sftp", f"-o{old}", *ciphers, *server.ssh_options(jack), "-b", "-", f"jack@{server.address}")
        assert done.code == 255, (old, done)


@pytest.mark.parametrize("kind", [["-t", "ecdsa"], ["-t", "rsa", "-b", "2048"]], ids=["ECDSA", "RSA-2048"])
def test_a_users_key_that_a_stack_file_may_have_gets_in(server: Machine, tmp_path: Path, kind: list[str]) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-C", "", "-f", path], check=True)
    add(server, "jill", laptop=Key(path))
    try:
        assert server.sftp("jill", Key(path), "ls").code == 0
    finally:
        server.jailctl("remove-user", {"user": f"{OWNER}/jill", "key laptop": Key(path).public})


def test_a_host_key_that_the_deployer_pins_stays(server: Machine, tmp_path: Path) -> None:
    assert server.jailctl("apply-jail", {**HARDENED, "hostKeyType": "ecdsa-sha2-nistp256"}).code == 0
    try:
        known_hosts = tmp_path / "known_hosts"
        key = server.root("cut", "-d ", "-f1,2", "/etc/ssh/ssh_host_ecdsa_key.pub")
        known_hosts.write_text(f"{server.address} {key}")
        options = [f"-oUserKnownHostsFile={known_hosts}", "-oHostKeyAlgorithms=ecdsa-sha2-nistp256"]
        argv = ["ssh", *options, *server.ssh_options(server.admin_key), f"admin@{server.address}", "true"]
        assert call(*argv).code == 0
    finally:
        assert server.jailctl("apply-jail", HARDENED).code == 0


@pytest.mark.case("B 17")
@pytest.mark.case("B 18")
def test_a_deployer_who_logs_in_for_every_one_of_many_users_is_never_kept_out(server: Machine, tmp_path: Path) -> None:
    wrong = make_key(tmp_path / "wrong")

    def log_in(number: int) -> tuple[bool, Done]:
        # As many as, by OpenSSH's own penalties, keep out everybody else from there.
        fails = number < 40 and number % 5 == 0
        return fails, server.ssh("admin", wrong if fails else server.admin_key, "true")

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(log_in, range(120)))
    assert [result for fails, result in done if not fails and result.code != 0] == []
    assert all("Permission denied" in result.err for fails, result in done if fails)


def test_the_limits_are_those_that_this_openssh_has(server: Machine) -> None:
    limits = effective(server)
    assert limits["logingracetime"] == "30"
    assert limits["maxauthtries"] == "4"
    assert limits["maxstartups"] == "100:30:200"
    assert limits.get("persourcemaxstartups", "50") == "50"
    assert "authfail:1 " in limits.get("persourcepenalties", "authfail:1 ")


def test_a_setting_of_somebody_else_that_wins_is_refused_by_file_and_line(server: Machine) -> None:
    server.root("tee", "/etc/ssh/sshd_config.d/00-a.conf", stdin="# theirs\nCiphers aes128-cbc\n")
    server.root("systemctl", "reload", "ssh")
    try:
        done = server.jailctl("apply-jail", {**HARDENED, "umask": "027"})
        assert done.code == 1
        assert "Ciphers aes128-cbc instead of chacha20-poly1305@openssh.com" in done.err
        assert "(/etc/ssh/sshd_config.d/00-a.conf line 2)" in done.err
    finally:
        server.root("rm", "/etc/ssh/sshd_config.d/00-a.conf")
        server.root("systemctl", "reload", "ssh")
    assert server.jailctl("check").out == "no difference\n"
