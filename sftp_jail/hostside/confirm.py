"""sshd's new configuration is on trial until somebody has come in through it: else the old one comes back by itself.

Nothing that is asked of a server before the reload can show that its administrator still gets in afterwards. So the
old files are kept and a timer is set before anything changes, and only a connection that is newer than the reload
ends the trial. What is kept lies on the machine's own disk, not beside the jails, which may be on a volume that is
not there, or on another machine by then. A reboot ends a trial, too: the old files are back before sshd starts.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from . import files, lock, services, state
from .difference import REPAIR, Difference
from .failure import AGAIN, Failure
from .process import run, succeeds
from .state import Jail

FOLDER = "/var/lib/sftp-jail"
TRIAL = f"{FOLDER}/trial.json"
ROLLED_BACK = f"{FOLDER}/rolled-back.json"
"""The last trial that failed (`RolledBack`); gone as soon as a jail holds again."""

SERVICE = "sftp-jail-rollback.service"
TIMER = "sftp-jail-rollback.timer"
AT_BOOT = "sftp-jail-rollback-at-boot.service"
UNITS_OF_OURS = (SERVICE, TIMER, AT_BOOT)
UNITS = "/etc/systemd/system"

PATIENCE = 110
"""Seconds that a trial lasts: with what the rollback itself takes, less than two minutes."""

TEXTS = {
    f"{UNITS}/{TIMER}": f"""\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=The time that sshd's new configuration has to prove itself
# However many changes there are: else the sixth in ten seconds would be refused (DefaultStartLimitBurst).
StartLimitIntervalSec=0
[Timer]
OnActiveSec={PATIENCE}
AccuracySec=1
""",
    f"{UNITS}/{SERVICE}": f"""\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=Put sshd's old configuration back, since nobody has come in through the new one
ConditionPathExists={TRIAL}
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/jailctl rollback
Restart=on-failure
RestartSec=5
""",
    # Not the same one: for a unit that is ordered before sshd's, systemd would not even reload sshd while it runs.
    f"{UNITS}/{AT_BOOT}": f"""\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=Put sshd's old configuration back, since the machine was rebooted before anybody came in through the new one
ConditionPathExists={TRIAL}
Before={services.SSHD}
OnFailure={SERVICE}
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/jailctl rollback
[Install]
WantedBy=multi-user.target
""",
}


class Trial(NamedTuple):
    """A configuration that nobody has come in through yet: its jail; the old text of every file that it changed (None:
    no such file); the boot in which it was loaded; whether sshd was running; and when it had been loaded, in clock
    ticks since that boot (None: not yet)."""

    jail: Jail
    texts: dict[str, Optional[str]]
    boot: str
    running: bool
    loaded: Optional[int] = None


class RolledBack(NamedTuple):
    """A trial that has failed: when that was (ISO 8601), and its jail."""

    when: str
    jail: Jail


def trial() -> Optional[Trial]:
    """The trial that is under way, or None."""
    text = files.read(TRIAL)
    if text is None:
        return None
    record = json.loads(text)
    return Trial(**{**record, "jail": Jail(**record["jail"])})


def is_half_begun() -> bool:
    """Whether a run that was interrupted has begun a trial that nobody can confirm, since it does not say when what is
    on it was loaded."""
    found = trial()
    return found is not None and found.loaded is None


def _keep(found: Optional[Trial]) -> None:
    if found is None:
        files.remove(TRIAL)
    else:
        files.write(TRIAL, json.dumps({**found._asdict(), "jail": found.jail._asdict()}) + "\n", 0o600)


def install(jail: Optional[Jail], paths: list[str], write: Callable[[], None]) -> None:
    """Let `write` change these files of sshd's, and load them; on trial, unless it takes a jail away.

    The trial that is under way, if any, becomes this one: what nobody came in through is not what comes back.
    """
    with lock.held(lock.SSHD):
        if jail is None:
            write()
            _end()
            return
        before = trial()
        old = {path: files.read(path) for path in paths}
        # The timer first: without a trial it does nothing, and there is never a trial without it.
        services.act("restart", TIMER)
        running = services.is_active(services.SSHD) or (before is not None and before.running)
        begun = Trial(jail, {**old, **(before.texts if before is not None else {})}, _boot(), running)
        _keep(begun)
        try:
            write()
        except BaseException:
            # Not where a file is in between: then the timer, or the next boot, puts it right.
            if all(files.read(path) == text for path, text in old.items()):
                _keep(before)
            raise
        _keep(begun._replace(loaded=_ticks(time.clock_gettime(time.CLOCK_BOOTTIME))))
        # Who connects as soon as this run has ended does it in a later tick, and is seen to be newer.
        time.sleep(1 / os.sysconf("SC_CLK_TCK"))


def confirm(jail: Optional[Jail]) -> Optional[Jail]:
    """End the trial of this jail, or of whichever there is, for good, and return it; None where there is nothing to
    confirm, since it is not on trial."""
    with lock.held(lock.SSHD):
        found = trial()
        if found is None or jail not in (None, found.jail) or found.loaded is None or found.boot != _boot():
            return None
        _require_new_connection(found.loaded)
        _end()
        return found.jail


def roll_back(load: Callable[[], None]) -> list[str]:
    """Put the old files back; `load` has sshd read them."""
    with lock.held(lock.SSHD):
        found = trial()
        if found is None:
            return []
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # First of all: whatever happens from here on, nobody is given access before the jail is applied again.
        files.write(ROLLED_BACK, json.dumps({"when": now, "jail": found.jail._asdict()}) + "\n", 0o600)
        files.put(found.texts)
        if services.is_active(services.SSHD):
            load()
        elif found.running and found.boot == _boot():
            services.act("start", services.SSHD)
        _end()
        return [f"{path}: as it was, since no new connection has confirmed the change" for path in sorted(found.texts)]


def _end() -> None:
    # Down to this line the timer may fire, and wait for the lock; then it finds nothing to do.
    if os.path.exists(TRIAL):
        files.remove(TRIAL)
    if services.is_active(TIMER):
        services.act("stop", TIMER)


@contextlib.contextmanager
def lock_held_after_trial() -> Iterator[None]:
    """Hold the server's lock while sshd's configuration is confirmed; `Failure` where it is not. Until then, nobody is
    given access, but whoever is to be may wait for it: another stack's `up` may have begun the trial."""
    deadline = time.monotonic() + PATIENCE + 30
    while True:
        with lock.held():
            if trial() is None or time.monotonic() > deadline:
                _require_held()
                yield
                return
        time.sleep(0.2)


def _require_held() -> None:
    if trial() is not None:
        raise Failure(
            "sshd's configuration is new and not confirmed, so nobody is given access yet",
            f"See: systemctl status {TIMER}. {RUN_UP}",
        )
    failed = _rolled_back()
    if failed is not None:
        raise Failure(
            f"sshd's configuration was rolled back at {failed.when}, since nobody came in through the new one, so "
            "nobody is given access",
            f"See what kept the deployer out. Then: {_way_back(failed)}",
        )


CONFIRM = "sudo jailctl confirm"
RUN_UP = "`pulumi up` of the stack that has the host applies the jail again"


def trial_differences() -> Iterator[Difference]:
    """A trial that is under way, or that has failed: nothing on the server itself ends it well."""
    failed = _rolled_back()
    if trial() is not None:
        yield Difference("sshd", "on trial", "confirmed by a new SSH connection in time", lambda: None, CONFIRM)
    elif failed is not None:
        actual = f"the jail was rolled back at {failed.when}, since no new connection confirmed it"
        yield Difference("sshd", actual, "applied again", lambda: None, _way_back(failed))


def _way_back(failed: RolledBack) -> str:
    """What puts on trial again what has failed: of a repair, which went by the jail of before, no `up` knows."""
    return REPAIR if failed.jail == state.jail() else RUN_UP


def _rolled_back() -> Optional[RolledBack]:
    text = files.read(ROLLED_BACK)
    if text is None:
        return None
    record = json.loads(text)
    return RolledBack(record["when"], Jail(**record["jail"]))


def held_differences() -> Iterator[Difference]:
    """The jail holds: what was rolled back before it is history."""
    yield from files.file_differences(ROLLED_BACK, None)


def differences() -> Iterator[Difference]:
    """All that a trial needs, before there is one."""
    yield from files.directory_differences(FOLDER, 0o700)
    changed: dict[str, Optional[str]] = {path: text for path, text in TEXTS.items() if files.read(path) != text}
    if changed or services.is_marked(SERVICE) or not succeeds("systemctl", "is-enabled", "--quiet", AT_BOOT):
        yield Difference(
            SERVICE,
            "not as it should be",
            "ready",
            lambda: services.install(SERVICE, changed, lambda: None, _load_units),
        )


def _load_units() -> None:
    services.load(*map(os.path.basename, TEXTS))
    services.enable(AT_BOOT)
    services.clear(SERVICE)


def removal_differences() -> Iterator[Difference]:
    """Nothing of it, once sshd is as it was before the jail."""
    if any(map(os.path.exists, TEXTS)):
        yield Difference(SERVICE, "there", "gone", _remove_units)
    yield from files.file_differences(TRIAL, None)
    yield from files.file_differences(ROLLED_BACK, None)
    yield from files.empty_directory_differences(FOLDER)


def _remove_units() -> None:
    if services.is_active(TIMER):
        services.act("stop", TIMER)
    if os.path.exists(f"{UNITS}/{AT_BOOT}"):
        services.disable(AT_BOOT)
    files.put(dict.fromkeys(TEXTS))
    run("systemctl", "daemon-reload")
    services.clear(SERVICE)


def again() -> Failure:
    """The jail has just been applied, so that there is something to confirm: by the next connection."""
    return Failure(AGAIN, "Run confirm again, over a new connection")


# Where this process comes from


class Process(NamedTuple):
    """A process of proc(5); `started` in clock ticks since boot."""

    program: str
    title: str
    parent: int
    started: int


def _require_new_connection(loaded: int) -> None:
    """`Failure` unless this process runs on an SSH connection that sshd took after that moment."""
    connection = _connection()
    if connection is None or connection.started <= loaded:
        what = "no SSH connection" if connection is None else "an SSH connection older than sshd's new configuration"
        raise Failure(
            f"this is {what}, and does not show that anybody can still come in", "Run confirm over a new SSH connection"
        )


def _connection() -> Optional[Process]:
    """The process that sshd's listener, or systemd in its place, has forked for the connection that this process runs
    on. sudo and shells are between here and there; a listener is named so by itself (sshd.c), since OpenSSH 8.2."""
    found = None
    pid = os.getpid()
    while pid > 1:
        process = _process(pid)
        if process.program in ("sshd", "sshd-session") and "[listener]" not in process.title:
            found = process
        pid = process.parent
    return found


def _process(pid: int) -> Process:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        # The name, in brackets, may have any character in it.
        fields = stat.read().rpartition(")")[2].split()
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as cmdline:
        title = cmdline.read()
    # " (deleted)" follows while an upgrade of OpenSSH has replaced the file.
    program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).partition(" ")[0]
    return Process(program, title, int(fields[1]), int(fields[19]))


def _ticks(seconds: float) -> int:
    return int(seconds * os.sysconf("SC_CLK_TCK"))


def _boot() -> str:
    return (files.read("/proc/sys/kernel/random/boot_id") or "").strip()
