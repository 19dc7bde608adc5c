#!/usr/bin/env python3
"""100 000 operations by 20 users at once, over SFTP to a disposable machine: is every one in the log and in the
timeline, once, under the right name, while the log is rotated and its rsyslogd restarts?

Prints one JSON line of counts and ratios; exit status 1 if an operation is missing, doubled or under a wrong name.
"""

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import asyncssh

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.conftest import Key, Machine, make_key
from tests.hostside.conftest import JAIL, add

LINE = re.compile(r'\S+ (\S+) internal-sftp\[\d+\]: (mkdir name|rmdir name) "/uploads/([a-z0-9-]+)"')


Operation = tuple[str, str, str]
"""A user, what he did, and the name of what he did it to."""

DOOR = asyncio.Semaphore(5)
"""sshd drops some of ten logins that are under way (MaxStartups 10:30:100)."""


async def connect(machine: Machine, username: str, key: Key) -> asyncssh.SSHClientConnection:
    """A connection, logged in."""
    async with DOOR:
        return await asyncssh.connect(
            machine.address,
            username=username,
            client_keys=[str(key.path)],
            known_hosts=str(machine.known_hosts),
            config=None,
        )


async def work(machine: Machine, username: str, key: Key, operations: int, at_once: int) -> None:
    """One user's operations, half of them mkdir, half of them rmdir, each of a name of its own."""
    async with await connect(machine, username, key) as connection, connection.start_sftp_client() as sftp:

        async def one(number: int) -> None:
            await sftp.mkdir(f"/uploads/{username}-{number}")
            await sftp.rmdir(f"/uploads/{username}-{number}")

        for start in range(0, operations // 2, at_once):
            await asyncio.gather(*map(one, range(start, min(start + at_once, operations // 2))))


async def disturb(machine: Machine, done: asyncio.Event) -> int:
    """Rotate the log and restart its rsyslogd until the work is done; how often."""
    rounds = 0
    while not done.is_set():
        await asyncio.to_thread(machine.root, "logrotate", "-f", "/etc/logrotate.d/sftp-jail")
        await asyncio.to_thread(machine.root, "systemctl", "reset-failed", "sftp-jail-log")
        await asyncio.to_thread(machine.root, "systemctl", "restart", "sftp-jail-log")
        rounds += 1
        try:
            await asyncio.wait_for(done.wait(), 5)
        except asyncio.TimeoutError:
            continue
    return rounds


async def run(machine: Machine, keys: dict[str, Key], operations: int) -> int:
    """All users at once; how often the log was disturbed meanwhile."""
    done = asyncio.Event()
    disturbing = asyncio.create_task(disturb(machine, done))
    await asyncio.gather(*(work(machine, name, key, operations // len(keys), 50) for name, key in keys.items()))
    done.set()
    return await disturbing


def against(wanted: set[Operation], found: "Counter[Operation]") -> dict[str, object]:
    """What is there of the operations."""
    there = sum(found[operation] > 0 for operation in wanted)
    return {
        "there": there,
        "there per operation": there / len(wanted),
        "twice": sum(count > 1 for count in found.values()),
        "under a wrong name": sum(not what.startswith(f"{name}-") for name, _, what in found),
    }


def measure(machine: Machine, folder: Path, operations: int, users: int) -> dict[str, object]:
    """The figures."""
    machine.install()
    assert machine.jailctl("apply-jail", JAIL).code == 0
    keys = {f"user{number}": make_key(folder / f"user{number}") for number in range(users)}
    for username, key in keys.items():
        add(machine, username, laptop=key)
    rounds = asyncio.run(run(machine, keys, operations))
    checked = machine.jailctl("check")  # its canary comes after all else
    text = machine.root("sh", "-c", "zcat -f /var/log/sftp.log*")
    log = Counter((match[1], match[2], match[3]) for match in map(LINE.match, text.splitlines()) if match)
    events = map(json.loads, machine.root("/usr/local/sbin/jailctl", "timeline", "--format", "jsonl").splitlines())
    timeline = Counter(
        (event["user"], f"{event['event']} name", event["path"].removeprefix("/uploads/"))
        for event in events
        if event["event"] in ("mkdir", "rmdir")
    )
    each = operations // users // 2
    wanted = {
        (name, verb, f"{name}-{number}")
        for name in keys
        for verb in ("mkdir name", "rmdir name")
        for number in range(each)
    }
    return {
        "bench": "log",
        "release": machine.spec["release"],
        "users": users,
        "operations": len(wanted),
        "log": against(wanted, log),
        "timeline": against(wanted, timeline),
        "rotations and restarts meanwhile": rounds,
        "check": checked.out.strip(),
    }


def main() -> int:
    """Boot a machine, measure, and take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--release", default="trixie")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sftp-jail-bench-") as folder:
        machine = Machine(Path(folder), args.release)
        try:
            figures = measure(machine, Path(folder), args.operations, args.users)
        finally:
            machine.stop()
    print(json.dumps(figures))
    perfect = {"there": figures["operations"], "there per operation": 1.0, "twice": 0, "under a wrong name": 0}
    return 0 if figures["log"] == figures["timeline"] == perfect else 1


if __name__ == "__main__":
    sys.exit(main())
