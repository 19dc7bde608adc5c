"""The log, sent on: to a real receiver, which is sometimes down."""

import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.conftest import RELEASES, Key, Machine, make_key, neighbour, until
from tests.hostside.conftest import JAIL, add

LOG = "/var/log/sftp.log"
NAME = "siem.example.org"
LINE = re.compile(r"(\S+) (\S+) ([^\s\[]+)\[(\d+)\]: (.*)")
RFC5424 = re.compile(
    r'<\d+>1 (\S+) (\S+) (\S+) (\d+) - \[sftp-jail@32473 user="([a-z0-9_:-]+)"\] (.*)',
)


class Receiver:
    """A syslog receiver over TCP: RFC 6587's octet counting, or a line each."""

    def __init__(self, address: str, counted: bool, context: Optional[ssl.SSLContext] = None) -> None:
        self.address, self.counted, self.context = address, counted, context
        self.port = 0
        self.messages: list[str] = []
        self.refused = 0

    def start(self) -> None:
        self.listener = socket.create_server((self.address, self.port))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def stop(self) -> None:
        """Gone, as when its process ends; what had arrived was read."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self.threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection = self.listener.accept()[0]
                if self.context is not None:
                    connection = self.context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                self.refused += 1
                continue
            except OSError:
                if self.listener.fileno() == -1:
                    return
                self.refused += 1
                continue
            self.connections.append(connection)
            self.threads.append(threading.Thread(target=self._read, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            try:
                while message := self._next(stream):
                    self.messages.append(message.decode())
            except OSError:
                return

    def _next(self, stream: Any) -> bytes:
        if not self.counted:
            return stream.readline().rstrip(b"\n")
        digits = b""
        while (byte := stream.read(1)) not in (b" ", b""):
            digits += byte
        return stream.read(int(digits)) if digits else b""

    def lines(self) -> list[tuple[str, ...]]:
        """Time, user, tag, process and message of each."""
        if not self.counted:
            found = [json.loads(message) for message in self.messages]
            return [tuple(entry[key] for key in ("time", "user", "tag", "pid", "message")) for entry in found]
        matches = [RFC5424.fullmatch(message) for message in self.messages]
        assert all(matches), self.messages
        return [(match[1], match[5], match[3], match[4], match[6]) for match in matches if match]


def log(machine: Machine) -> list[str]:
    """All of it, oldest first."""
    return machine.root("sh", "-c", f"for file in $(ls -tr {LOG}*); do zcat -f $file; done").splitlines()


def logged(machine: Machine, after: int) -> list[tuple[str, ...]]:
    found = [LINE.fullmatch(line) for line in log(machine)[after:]]
    return [match.groups() for match in found if match]


def count(machine: Machine) -> int:
    return len(log(machine))


def apply(machine: Machine, receiver: Optional[Receiver], **siem: Any) -> None:
    spec = {"siem": {"host": NAME, "port": receiver.port, **siem}} if receiver is not None else {}
    done = machine.jailctl("apply-jail", {**JAIL, **spec})
    assert done.code == 0, done


def authority(folder: Path, name: str) -> tuple[str, ssl.SSLContext]:
    """A certificate that signs itself, in PEM, and a server that has it."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-keyout",
                key,
                "-out",
                certificate,
            ),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate.read_text(), context


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server with a jail, which knows the receiver by a name."""
    machine = Machine(tmp_path_factory.mktemp(request.param), request.param)
    machine.root("tee", "-a", "/etc/hosts", stdin=f"{neighbour(machine.address)} {NAME}\n")
    machine.install()
    apply(machine, None)
    yield machine
    machine.stop()


@pytest.fixture(scope="module")
def jack(server: Machine) -> Key:
    key = make_key(server.folder / "jack")
    add(server, "jack", laptop=key)
    return key


@pytest.mark.parametrize("form", ["rfc5424", "json"])
def test_a_receiver_that_is_down_for_a_while_misses_nothing_and_gets_nothing_twice(
    server: Machine, jack: Key, form: str
) -> None:
    receiver = Receiver(neighbour(server.address), counted=form == "rfc5424")
    receiver.start()
    apply(server, receiver, protocol="tcp", format=form)
    start = count(server)
    hostile = 'a" user="root"] \\\\ "x":"y'
    assert server.sftp("jack", jack, "put /etc/hostname before", f"mkdir '{hostile}'", f"rmdir '{hostile}'").code == 0
    until(lambda: any('"/uploads/before" bytes' in message for *_, message in receiver.lines()), "the first lines")
    until(lambda: len(receiver.messages) >= count(server) - start, "all of them")
    receiver.stop()
    assert server.sftp("jack", jack, *(f"mkdir down-{number}" for number in range(300))).code == 0
    for _ in range(3):  # so that what it has not seen is partly in a compressed file
        server.root("systemctl", "reset-failed", "sftp-jail-log")
        server.root("systemctl", "restart", "sftp-jail-log", "sftp-jail-siem")
        server.root("logrotate", "-f", "/etc/logrotate.d/sftp-jail")
        assert server.sftp("jack", jack, "mkdir between", "rmdir between").code == 0
    assert server.sftp("jack", jack, *(f"rmdir down-{number}" for number in range(300))).code == 0
    receiver.start()
    assert server.jailctl("check").out == "no difference\n"
    wanted = logged(server, start)
    assert len(wanted) > 600
    until(lambda: set(wanted) <= set(receiver.lines()), "what was sent while it was down")
    receiver.stop()
    apply(server, None)
    got = [line for line in receiver.lines() if line in set(wanted)]
    assert sorted(got) == sorted(wanted)
    assert any("user=" in message and "root" in message for *_, message in got)
    assert {user for _, user, tag, *_ in got if tag == "internal-sftp"} == {"jack"}


@pytest.mark.parametrize("what", ["rm", "truncate --size=0"])
def test_a_log_that_somebody_deletes_or_empties_ends_nothing_and_brings_nothing_again(
    server: Machine, jack: Key, what: str
) -> None:
    receiver = Receiver(neighbour(server.address), counted=False)
    receiver.start()
    apply(server, receiver, protocol="tcp", format="json")
    server.root("logrotate", "-f", "/etc/logrotate.d/sftp-jail")  # so that there is more than the log itself

    def sent(name: str) -> int:
        assert server.sftp("jack", jack, f"mkdir {name}", f"rmdir {name}").code == 0
        until(lambda: count_of(name) > 0, f"the lines of {name}")
        return count_of(name)

    def count_of(name: str) -> int:
        return sum(message == f'rmdir name "/uploads/{name}"' for *_, message in receiver.lines())

    assert sent("first") == 1
    server.root("sh", "-c", f"{what} {LOG}")
    assert server.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert sent("second") == 1
    server.root("systemctl", "restart", "sftp-jail-siem")
    assert sent("third") == 1
    assert (count_of("first"), count_of("second")) == (1, 1)
    receiver.stop()
    apply(server, None)


RSYSLOG = r"""
module(load="imtcp")
template(name="fields" type="string"
         string="%timereported:::date-rfc3339%\t%app-name%\t%procid%\t%structured-data%\t%msg%\n")
ruleset(name="received") { action(type="omfile" file="/run/received" template="fields") }
input(type="imtcp" address="127.0.0.1" port="6514" ruleset="received")
"""
"""A receiver that somebody else has written, and what it makes of each line."""


def test_an_rsyslogd_takes_every_line_apart_as_it_was_written(server: Machine, jack: Key) -> None:
    def received() -> list[tuple[str, ...]]:
        found = [line.split("\t") for line in server.run("cat", "/run/received").out.splitlines()]
        users = [re.fullmatch(r'\[sftp-jail@32473 user="([^"]+)"\]', data) for *_, data, _ in found]
        assert all(users), found
        return [
            (time, user[1], tag, pid, message.removeprefix(" "))
            for user, (time, tag, pid, _, message) in zip(users, found)
            if user
        ]

    server.root("tee", "/run/receiver.conf", stdin=RSYSLOG)
    server.root("systemd-run", "--unit=receiver", "rsyslogd", "-n", "-iNONE", "-f", "/run/receiver.conf")
    siem = {"host": "127.0.0.1", "port": 6514, "protocol": "tcp", "format": "rfc5424"}
    done = server.jailctl("apply-jail", {**JAIL, "siem": siem})
    assert done.code == 0, done
    start = count(server)
    names = ['a"] b', '[x y=\\"z\\"]', "<13>1 - root sshd", "ä" * 100]
    assert server.sftp("jack", jack, *(f"{verb} '{name}'" for name in names for verb in ("mkdir", "rmdir"))).code == 0
    wanted = logged(server, start)
    assert sum("mkdir name" in message for *_, message in wanted) == len(names)
    until(lambda: set(wanted) <= set(received()), "every line")
    got = [line for line in received() if line in set(wanted)]
    assert sorted(got) == sorted(wanted)
    # However often it has died.
    assert server.root("systemctl", "show", "--property=StartLimitIntervalUSec", "sftp-jail-siem").endswith("=0\n")
    said = server.run("sh", "-c", "systemd-analyze verify /etc/systemd/system/sftp-jail-*")
    assert [line for line in said.err.splitlines() if "Unknown" in line] == []
    server.root("systemctl", "stop", "sftp-jail-siem")
    assert "sftp-jail-siem.service: not running, should be running" in server.jailctl("check").out
    assert server.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert server.jailctl("check").out == "no difference\n"
    apply(server, None)
    server.root("systemctl", "stop", "receiver")


def test_over_tls_it_goes_to_the_receiver_with_the_right_certificate_and_to_no_other(
    server: Machine, jack: Key
) -> None:
    ca, context = authority(server.folder, NAME)
    _, impostor_context = authority(server.folder, f"not.{NAME}")
    impostor = Receiver(neighbour(server.address), True, impostor_context)
    impostor.start()
    apply(server, impostor, protocol="tls", format="rfc5424", ca=ca)
    start = count(server)
    assert server.sftp("jack", jack, "put /etc/hostname secret").code == 0
    until(lambda: impostor.refused + len(impostor.connections) > 0, "the attempt")
    impostor.stop()
    assert impostor.messages == []
    receiver = Receiver(neighbour(server.address), True, context)
    receiver.port = impostor.port
    receiver.start()
    wanted = logged(server, start)
    until(lambda: set(wanted) <= set(receiver.lines()), "the lines over TLS", seconds=90)
    apply(server, None)
    receiver.stop()
