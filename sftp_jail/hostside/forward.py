"""Sends the log on to a receiver of the operator's (a SIEM), line by line, over TCP or TLS.

A program of its own, without root: `python3 -I forward.py SPEC LOG STATE`, each a path. Not rsyslog's omfwd: that one
loses the line in its hands each time a receiver goes away (rsyslog's issue 3929; tried on 8.2102 to 8.2504), needs a
package for TLS, and a queue. Here the log itself is the queue, rotated and compressed files included, and what is
remembered is how far it has been sent: a receiver may be down for as long as the log is kept.

A place in the log counts as sent when the receiver's kernel has acknowledged everything before it. What a receiver has
acknowledged and not read when it dies, TCP cannot tell (RFC 6587 has no acknowledgement of its own); after a
connection broke, the last lines before may come twice, the same to the microsecond.
"""

import fcntl
import gzip
import json
import os
import re
import select
import socket
import ssl
import struct
import sys
import termios
import time
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional, cast

LINE = re.compile(r"(\S+) (\S+) ([^\s\[:]+)(?:\[(\d+)\])?: ?(.*)", re.DOTALL)

PRIORITY = 86
"""authpriv.info (RFC 5424, 6.2.1)."""

BATCH = 64 * 1024
"""Bytes of the log that are sent before the receiver must have acknowledged them."""

TIMEOUT = 30
"""Seconds for a receiver to take what it is sent."""

PAUSE = 0.3
"""Seconds between two looks at the log."""

LONGEST_PAUSE = 30
"""Seconds between two tries to connect, at most."""


class Place(NamedTuple):
    """How far the log has been sent: a file of it, known by its first line whatever its name is by now, and an offset
    in what it holds uncompressed."""

    first: str
    offset: int


class Log:
    """The log from a place on, over all of its rotations."""

    def __init__(self, path: str, place: Optional[Place]) -> None:
        self._path = path
        self._file: Optional[IO[bytes]] = None
        self._first = place.first if place is not None else ""
        if place is not None:
            for file, first in self._files():
                if first == place.first:
                    file.seek(place.offset)
                    self._take(file, first)

    def _files(self) -> list[tuple[IO[bytes], str]]:
        """Every file with a line in it, oldest first, with that line."""
        folder, name = os.path.split(self._path)
        numbered = []
        for found in os.listdir(folder):
            match = re.fullmatch(rf"{re.escape(name)}(?:\.(\d+)(?:\.gz)?)?", found)
            if match:
                numbered.append((int(match[1] or 0), found))
        files = []
        for _, found in sorted(numbered, reverse=True):
            path = f"{folder}/{found}"
            try:
                file: IO[bytes] = open(path, "rb")  # noqa: SIM115
                if found.endswith(".gz"):
                    file = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
                first = file.readline()
            except OSError:  # renamed or compressed while we looked: the next look finds it
                return []
            file.seek(0)
            if first.endswith(b"\n"):
                files.append((file, first.decode(errors="backslashreplace")))
        return files

    def _take(self, file: IO[bytes], first: str) -> None:
        self._file, self._first = file, first

    def skip(self) -> None:
        """Go on at its present end."""
        files = self._files()
        if files:
            self._take(*files[-1])
            files[-1][0].seek(0, os.SEEK_END)

    @property
    def place(self) -> Place:
        """Where the next line begins."""
        return Place(self._first, self._file.tell() if self._file is not None else 0)

    def read(self) -> list[str]:
        """The next whole lines; none where there is none yet."""
        emptied = self._is_current() and self._is_emptied()
        lines = [] if emptied else self._lines()
        if not lines and (emptied or not self._is_current()) and self._next():
            lines = self._lines()
        return lines

    def _is_current(self) -> bool:
        """Whether this is the file that is written to, by its name."""
        # It may have no name in the middle of a rotation.
        return self._file is not None and self._has_name(self._file, otherwise=True)

    def _has_name(self, file: IO[bytes], otherwise: bool) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return otherwise

    def _is_emptied(self) -> bool:
        """Whether the file that is written to has another first line by now."""
        assert self._file is not None
        start = os.pread(self._file.fileno(), len(self._first), 0)
        return start.partition(b"\n")[0].decode(errors="backslashreplace") + "\n" != self._first

    def _lines(self) -> list[str]:
        lines: list[str] = []
        if self._file is None:
            return lines
        size, start = 0, self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                break
            lines.append(line[:-1].decode(errors="backslashreplace"))
            size += len(line)
            if size >= BATCH:
                break
        self._file.seek(start + size)
        return lines

    def _next(self) -> bool:
        """Go on with the file after this one, if somebody writes there already: then this one is complete.

        Where this one is gone, or was emptied, that is the first one that begins later, for lines begin with the time;
        else the log itself, whose first line may be one that the journal has brought late.
        """
        files = self._files()
        firsts = [first for _, first in files]
        if self._first in firsts:
            if self._lines_left():
                return True
            after = firsts.index(self._first) + 1
        else:
            log = len(files) - 1 if files and self._has_name(files[-1][0], otherwise=False) else len(files)
            after = next((number for number, first in enumerate(firsts) if first > self._first), log)
        if after == len(files):
            return False
        self._take(*files[after])
        return True

    def _lines_left(self) -> bool:
        if self._file is None:
            return False
        place = self._file.tell()
        more = bool(self._file.readline())
        self._file.seek(place)
        return more


def frame(line: str, form: str, host: str) -> bytes:
    """The line as it is sent: RFC 5424 with octet counting (RFC 5425, 4.3), or JSON, one object a line."""
    match = LINE.fullmatch(line)
    when, user, tag, pid, message = match.groups() if match else ("-", "-", "-", None, line)
    if form == "json":
        entry = {"time": when, "host": host, "user": user, "tag": tag, "pid": pid, "message": message}
        return json.dumps(entry).encode() + b"\n"
    # The value of a parameter needs three escapes (RFC 5424, 6.3.3); no name of ours has any of them. 32473 is the
    # enterprise number of examples (RFC 5612): the project has none.
    quoted = re.sub(r'(["\\\]])', r"\\\1", user)
    text = f'<{PRIORITY}>1 {when} {host} {tag} {pid or "-"} - [sftp-jail@32473 user="{quoted}"] {message}'.encode()
    return b"%d %b" % (len(text), text)


def connect(spec: dict[str, Any], authorities: Optional[str]) -> socket.socket:
    """A connection to the receiver; over TLS, to nobody but the bearer of its name."""
    connection = socket.create_connection((spec["host"], spec["port"]), TIMEOUT)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TIMEOUT * 1000)
    if spec["protocol"] != "tls":
        return connection
    try:
        context = ssl.create_default_context(cafile=authorities)
        return context.wrap_socket(connection, server_hostname=spec["host"])
    except BaseException:
        connection.close()
        raise


def require_open(connection: socket.socket, seconds: float) -> None:
    """Wait, and raise ConnectionError if the receiver closes meanwhile: what is sent then is lost."""
    if not select.select([connection], [], [], seconds)[0]:
        return
    connection.setblocking(False)
    try:
        if not connection.recv(4096):
            raise ConnectionResetError("the receiver closed the connection")
    except (BlockingIOError, ssl.SSLWantReadError):
        pass  # a record of TLS itself
    finally:
        connection.settimeout(TIMEOUT)


def deliver(connection: socket.socket, data: bytes) -> None:
    """Send it, and wait until the receiver's kernel has acknowledged all of it (tcp(7), SIOCOUTQ)."""
    connection.sendall(data)
    deadline = time.monotonic() + TIMEOUT
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > deadline:
            raise TimeoutError("the receiver does not take what it is sent")
        require_open(connection, 0.002)


def recall(path: Path) -> Optional[Place]:
    """The place as remembered, or None."""
    try:
        return Place(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remember(path: Path, place: Place) -> None:
    """Keep the place, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(place._asdict()))
    new.replace(path)


def run(spec_path: str, log_path: str, state: str) -> None:
    """Send for ever."""
    spec = json.loads(Path(spec_path).read_text())
    memory = Path(state, "place.json")
    place = recall(memory)
    if place is None:
        log = Log(log_path, None)
        log.skip()
        place = log.place
        remember(memory, place)
    authorities = str(Path(spec_path).with_suffix(".pem")) if spec.get("ca") else None
    host = socket.gethostname()
    pause, complaint = 1.0, ""
    while True:
        try:
            with connect(spec, authorities) as connection:
                print(f"connected to {spec['host']}:{spec['port']}", flush=True)
                pause, complaint = 1.0, ""
                log = Log(log_path, place)
                while True:
                    lines = log.read()
                    require_open(connection, 0 if lines else PAUSE)
                    if lines:
                        deliver(connection, b"".join(frame(line, spec["format"], host) for line in lines))
                        place = log.place
                        remember(memory, place)
        except OSError as error:
            if str(error) != complaint:
                complaint = str(error)
                print(f"{spec['host']}:{spec['port']}: {complaint}; the log waits", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


if __name__ == "__main__":
    run(*sys.argv[1:])
