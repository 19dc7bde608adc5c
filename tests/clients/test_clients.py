"""Real clients of many kinds, and a jail on each Debian release, hardened as on the hosts that a stack makes."""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.clients import CLIENTS, Account, Client, Curl, Rclone, Sftp
from tests.conftest import RELEASES, Machine, call, make_key, until
from tests.hostside.conftest import JAIL, add, jailed

LOG = "/var/log/sftp.log"
UPLOADS = "/sftp/jail/jack/uploads"
HARDENED = {**JAIL, "hardening": True}


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest, machines: Callable[[str], Machine]) -> Iterator[Machine]:
    """A server with a jail."""
    with jailed(machines(request.param)) as machine:
        assert machine.jailctl("apply-jail", HARDENED).code == 0
        yield machine


@pytest.fixture(scope="module")
def jack(server: Machine, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """A user of it."""
    folder = tmp_path_factory.mktemp("jack")
    key = make_key(folder / "jack")
    add(server, "jack", laptop=key)
    return Account(server, "jack", key, folder)


def use(client: Client, account: Account, folder: Path) -> None:
    """All that a client can do, with names that are more than ASCII."""
    machine, kind = account.machine, type(client).__name__
    first, second = f"{kind} Grüße 写真.txt", f"{kind} Ünïcode é.txt"
    local, fetched = folder / "lokäl", folder / "zurück"
    local.write_bytes(random.randbytes(200_000))

    client.upload(local, first)
    assert first in client.names()
    client.rename(first, second)
    assert {first, second} & client.names() == {second}

    machine.root("truncate", "--size=150000", f"{UPLOADS}/{second}")
    client.resume(local, second)
    client.download(second, fetched)
    assert fetched.read_bytes() == local.read_bytes()
    written = 200_000 if isinstance(client, Rclone) else 50_000
    closed = machine.root("grep", " jack internal-sftp.* close ", LOG).splitlines()
    assert any(kind in line and line.endswith(f" written {written}") for line in closed)


@pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.__name__.lower())
def test_a_client_uploads_lists_renames_resumes_and_downloads(
    jack: Account, tmp_path: Path, kind: type[Client]
) -> None:
    use(kind(jack), jack, tmp_path)


def test_curl_does_too_where_sshd_is_not_hardened_and_else_with_a_new_enough_library(
    jack: Account, tmp_path: Path
) -> None:
    (version,) = re.findall(r"libssh2/(\d+)\.(\d+)", call("curl", "--version").out)
    curl = Curl(jack)
    assert (curl.run("", "--list-only").code == 0) is (tuple(map(int, version)) >= (1, 11))
    assert jack.machine.jailctl("apply-jail", JAIL).code == 0
    try:
        use(curl, jack, tmp_path)
    finally:
        assert jack.machine.jailctl("apply-jail", HARDENED).code == 0


def test_scp_copies_files_and_folders_there_and_back(jack: Account, tmp_path: Path) -> None:
    folder, fetched = tmp_path / "Förder", tmp_path / "zurück"
    (folder / "b").mkdir(parents=True)
    (folder / "写真").write_bytes(random.randbytes(100_000))
    (folder / "b" / "c").write_text("c")
    for source, target in ((folder, f"{jack.at}:"), (f"{jack.at}:{folder.name}", fetched)):
        done = call("scp", "-s", "-r", *jack.ssh_options, source, target)
        assert done.code == 0, done
    assert call("diff", "--recursive", folder, fetched).code == 0


# As much as a contractor may have


@pytest.mark.parametrize("server", ["trixie"], indirect=True)
def test_a_file_of_1_gib_arrives_whole(jack: Account, tmp_path: Path) -> None:
    big = tmp_path / "big"
    digest = hashlib.sha256()
    with open(big, "wb") as file:
        for number in range(1024):
            block = number.to_bytes(4, "big") * (1 << 18)
            file.write(block)
            digest.update(block)
    Sftp(jack).upload(big, "big")
    assert jack.machine.root("sha256sum", f"{UPLOADS}/big").split()[0] == digest.hexdigest()
    jack.machine.root("rm", f"{UPLOADS}/big")


@pytest.mark.parametrize("server", ["trixie"], indirect=True)
def test_10000_small_files_arrive_whole_and_each_is_in_the_log(jack: Account, tmp_path: Path) -> None:
    machine, many = jack.machine, tmp_path / "many"
    many.mkdir()
    for number in range(10_000):
        (many / str(number)).write_text(f"{number}\n")
    done = machine.sftp("jack", jack.key, f"put -r {many}")
    assert done.code == 0, done
    count_and_sum = "ls | wc -l && cat * | sha256sum"
    there = machine.root("sh", "-c", f"cd {UPLOADS}/many && {count_and_sum}")
    assert there == call("sh", "-c", f"cd {many} && {count_and_sum}").out
    closed = ' jack internal-sftp.* close "/uploads/many/[0-9]*" bytes read 0 written'
    until(lambda: machine.root("grep", "--count", closed, LOG) == "10000\n", "10 000 lines")
    machine.root("rm", "-r", f"{UPLOADS}/many")
