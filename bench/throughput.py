"""SFTP into the jail, with the full log on, beside a stock sshd on the same machine with no jail and no logging."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import Key, Machine, make_key, until
from tests.hostside.conftest import JAIL, add

STOCK_PORT = 2222
"""Where the stock sshd listens, beside the one that has the jail."""

STOCK = f"""
set -eu
cp -a /etc/ssh /root/stock
sed -i 's#/etc/ssh/sshd_config.d#/root/stock/sshd_config.d#' /root/stock/sshd_config
systemd-run --quiet --unit=stock-sshd /usr/sbin/sshd -D -f /root/stock/sshd_config -p {STOCK_PORT} -o PidFile=none
"""
"""As Debian ships it, with another port."""

MANY = "MaxStartups 100\n"
"""For both: many clients log in at the same moment."""


class Way(NamedTuple):
    """One of the two ways in: the names of the users who may, the port, and where the uploads go."""

    users: Sequence[str]
    port: int
    uploads: str


class Bench:
    """A machine with both ways in, and what is uploaded."""

    def __init__(self, folder: Path, clients: int, release: str = "trixie") -> None:
        self.folder = folder
        self.machine = Machine(folder, release)
        names = [f"client{number}" for number in range(clients)]
        self.ways = {
            "stock": Way([f"stock{number}" for number in range(clients)], STOCK_PORT, ""),
            "ours": Way(names, 22, "/uploads/"),
        }
        self.key: dict[str, Key] = {}
        try:
            self._furnish()
        except BaseException:
            self.machine.stop()
            raise

    def _furnish(self) -> None:
        machine = self.machine
        machine.root("tee", "/etc/ssh/sshd_config.d/99-bench.conf", stdin=MANY)
        machine.root("systemctl", "reload", "ssh")
        machine.root("sh", "-c", STOCK)
        machine.install()
        done = machine.jailctl("apply-jail", JAIL)
        assert done.code == 0, done
        for way in self.ways.values():
            for name in way.users:
                self.key[name] = make_key(self.folder / name)
        for name in self.ways["stock"].users:
            machine.root("useradd", "--create-home", name)
            machine.root("install", "-d", "-o", name, f"/home/{name}/.ssh")
            machine.root("tee", f"/home/{name}/.ssh/authorized_keys", stdin=f"{self.key[name].public}\n")
        for name in self.ways["ours"].users:
            add(machine, name, laptop=self.key[name])
        known = machine.known_hosts.read_text()
        machine.known_hosts.write_text(known + known.replace(machine.address, f"[{machine.address}]:{STOCK_PORT}"))

    def put(self, which: str, what: Path, clients: int) -> float:
        """MB/s of so many clients at once, each uploading all of `what`, a file or folder, into a place of its own."""
        way = self.ways[which]
        size = sum(file.stat().st_size for file in [what, *what.rglob("*")] if file.is_file()) * clients
        os.sync()
        started = time.monotonic()
        batch = f"put -r {what} {way.uploads}what\n"
        running = [self._start(way, name, batch) for name in way.users[:clients]]
        codes = [client.wait() for client in running]
        seconds = time.monotonic() - started
        assert set(codes) == {0}, codes
        self._clean(way, clients)
        return size / seconds / 1e6

    def _start(self, way: Way, name: str, batch: str) -> subprocess.Popen:
        file = self.folder / f"batch-{name}"
        file.write_text(batch)
        options = self.machine.ssh_options(self.key[name])
        argv = ["sftp", *options, "-P", way.port, "-b", file, f"{name}@{self.machine.address}"]
        return subprocess.Popen([str(word) for word in argv], stdout=subprocess.DEVNULL)

    def _clean(self, way: Way, clients: int) -> None:
        top = "/sftp/jail/$name/uploads" if way.uploads else "/home/$name"
        names = " ".join(way.users[:clients])
        self.machine.root("sh", "-c", f"for name in {names}; do rm -rf {top}/what; done")

    def lines_of(self, count: int) -> None:
        """See that so many uploads are in the log."""
        words = ["grep", "-c", "internal-sftp.* close "]
        until(
            lambda: int(self.machine.run(*words, "/var/log/sftp.log").out or 0) == count, f"{count} uploads in the log"
        )


def measure(rounds: int, gibibytes: float, small: int, clients: int, release: str = "trixie") -> dict[str, list[dict]]:
    """Each round's MB/s, by kind and way: `throughput_1GiB`, one file of so many GiB; `throughput_small`, so many files
    of 4 KiB; `throughput_clients`, as many by so many clients at once, together.

    The two ways take turns, and who begins does, too.
    """
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        place = Path(folder)
        large = place / "large"
        with open(large, "wb") as file:
            for _ in range(int(gibibytes * 1024)):
                file.write(os.urandom(1 << 20))
        all_small, share = place / "small", place / "share"
        for folder_of_small, count in ((all_small, small), (share, small // clients)):
            folder_of_small.mkdir()
            for number in range(count):
                (folder_of_small / f"file{number:05}").write_bytes(os.urandom(4096))
        bench = Bench(place, clients, release)
        found: dict[str, list[dict]] = {"throughput_1GiB": [], "throughput_small": [], "throughput_clients": []}
        uploads = 0
        try:
            for number in range(rounds):
                order = ("stock", "ours") if number % 2 else ("ours", "stock")
                for kind, what, at_once in (
                    ("throughput_1GiB", large, 1),
                    ("throughput_small", all_small, 1),
                    ("throughput_clients", share, clients),
                ):
                    found[kind].append({which: bench.put(which, what, at_once) for which in order})
                uploads += 1 + small + small // clients * clients
                bench.lines_of(uploads)
        finally:
            bench.machine.stop()
    return found
