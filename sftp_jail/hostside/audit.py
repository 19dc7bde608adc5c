"""Every operation of every user, in /var/log/sftp.log, by an rsyslogd of the jails' own (`rsyslog`).

internal-sftp runs inside the chroot, where there is no /dev/log. So there is one socket, on the jails' own file system,
and each jail's dev/log is a hard link to it: no mount, and no restart for a new user. The kernel tells the uid that
sent a line, which nobody can forge, and a lookup table turns it into the name that internal-sftp's lines lack.
What sshd says of the users is in the same file (`rsyslog`), and what jailctl does for them (`notes`).
"""

import contextlib
import glob
import grp
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Optional

from . import canary, chroot, files, notes, services, siem, state
from .difference import Difference, refusal
from .failure import Failure
from .process import installed, run, succeeds
from .rsyslog import (
    CONFIG,
    CONFIG_FOLDER,
    FOLDER,
    LOG,
    NAMES,
    SERVICE,
    SOCKET,
    SOCKET_UNIT,
    UNITS,
    WORK,
    texts,
)
from .state import Jail, User

NAMES_PENDING = "log-names"
UNITS_OF_OURS = (SOCKET_UNIT, SERVICE)

ROTATION = re.compile(r"(\.[0-9]+(\.gz)?)?")
"""What logrotate (`rsyslog`) adds to the log's name."""


def differences(jail: Jail) -> Iterator[Difference]:
    """An rsyslogd of ours listening at the jails' socket, now and after a boot."""
    if not installed("rsyslogd"):
        failure = Failure(
            "rsyslog is not installed, so nothing would be logged", "Install it", "sudo apt-get install rsyslog"
        )
        yield refusal("rsyslog", "not installed", "installed", failure)
    yield from files.directory_differences(FOLDER, 0o700)
    yield from files.directory_differences(WORK, 0o700)
    if files.read(NAMES) is None:
        yield Difference(NAMES, "missing", "there", lambda: _write_names({}))
    changed = {path: text for path, text in texts().items() if files.read(path) != text}
    if changed:
        yield Difference(
            f"log, {', '.join(sorted(changed))}", "another configuration", "the jail's", lambda: _install(changed)
        )
    if services.is_marked(SERVICE):
        yield Difference("log", "runs with an earlier configuration", "restarted", _load)
    if not all(os.path.lexists(f"{UNITS}/multi-user.target.wants/{unit}") for unit in UNITS_OF_OURS):
        yield Difference("log", "not started at boot", "started", lambda: services.enable(*UNITS_OF_OURS))
    if not _is_listening() or not services.is_active(SERVICE):
        yield Difference(SOCKET, "nobody listens there, so nothing is logged", "rsyslog listens", _load)
    if services.is_marked(NAMES_PENDING):
        yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)
    yield from _file_differences()
    yield from siem.differences(jail.siem)


def _file_differences() -> Iterator[Difference]:
    """The log and its rotations, for nobody to read but adm, and for nobody to write but root."""
    if _is_missing():
        yield Difference(LOG, "missing", "there", _make_log)
    adm = grp.getgrnam("adm").gr_gid
    for path in sorted(glob.glob(f"{LOG}*")):
        if ROTATION.fullmatch(path[len(LOG) :]):
            # logrotate may have taken the oldest one away by now.
            with contextlib.suppress(FileNotFoundError):
                yield from files.owner_differences(path, 0o640, 0, adm)


def _is_missing() -> bool:
    """Whether there is no log, and not because logrotate is between its two names."""
    for _ in range(2):
        if os.path.lexists(LOG):
            return False
        time.sleep(0.2)
    return True


def _make_log() -> None:
    """A new log, and rsyslogd opens it: it would go on with what it has open, even where that has no name any more."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
    services.hang_up(SERVICE)


def _install(changed: dict[str, Optional[str]]) -> None:
    if f"{UNITS}/{SOCKET_UNIT}" in changed:
        services.mark(SOCKET_UNIT)
    services.install(SERVICE, changed, lambda: run("rsyslogd", "-N1", "-f", CONFIG), _load)


def _load() -> None:
    # By what is there: where there was nothing before, that is put back if it cannot be loaded.
    if os.path.exists(f"{UNITS}/{SERVICE}"):
        _restart()
    else:
        _stop()
    services.clear(SERVICE)


def _restart() -> None:
    services.load(*UNITS_OF_OURS)
    # Else the sixth restart in ten seconds (systemd's DefaultStartLimitBurst) would leave it down. It fails for units
    # that have never run.
    succeeds("systemctl", "reset-failed", *UNITS_OF_OURS)
    # Another socket loses what is sent until all links are to it: not without need.
    if services.is_marked(SOCKET_UNIT) or not _is_listening():
        services.act("stop", SERVICE)
        services.act("restart", SOCKET_UNIT)
        services.clear(SOCKET_UNIT)
    services.act("restart", SERVICE)


def _stop() -> None:
    # What runs when systemd finds its file gone, it does not load again once there is one (EBUSY).
    for unit in UNITS_OF_OURS:
        succeeds("systemctl", "stop", unit)
    run("systemctl", "daemon-reload")
    services.clear(SOCKET_UNIT)


def removal_differences() -> Iterator[Difference]:
    """Nothing of it left but the log."""
    yield from siem.differences(None)
    paths = [*texts(), *(f"{UNITS}/multi-user.target.wants/{unit}" for unit in UNITS_OF_OURS)]
    there = [path for path in paths if os.path.lexists(path)]
    if there:
        yield Difference(f"log, {', '.join(sorted(there))}", "there", "gone", lambda: _remove(there))
    yield from files.empty_directory_differences(CONFIG_FOLDER)
    if os.path.lexists(WORK):
        yield Difference(WORK, "there", "gone", lambda: files.remove_tree(WORK))
    for marker in filter(services.is_marked, (SERVICE, SOCKET_UNIT, NAMES_PENDING)):
        yield Difference(f"log, {marker}", "to be loaded", "gone", partial(services.clear, marker))
    yield from files.file_differences(NAMES, None)
    yield from files.file_differences(SOCKET, None)
    yield from files.empty_directory_differences(FOLDER)


def _remove(paths: list[str]) -> None:
    # Without its file, a unit cannot be told to stop.
    for unit in UNITS_OF_OURS:
        if f"{UNITS}/{unit}" in paths:
            services.disable(unit)
            services.act("stop", unit)
    for path in paths:
        files.remove(path)
    run("systemctl", "daemon-reload")


def _is_listening() -> bool:
    """Whether somebody receives what is sent to the socket; the file alone outlives its listener."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(SOCKET)
        except OSError:
            return False
    return True


def canary_differences() -> Iterator[Difference]:
    """What is sent to the log arrives there."""
    try:
        canary.sing()
    except Failure as failure:
        yield refusal(LOG, failure.message, "complete", failure)


def user_differences(user: User) -> Iterator[Difference]:
    """The user's dev/log and name."""
    link = _link_of(user)
    if os.path.isdir(link) and not os.path.islink(link):
        yield refusal(link, "a directory", "a link to the log socket", files.foreign(link))
    elif not _is_linked(link):
        yield Difference(link, "no link to the log socket", "linked", lambda: _link(link))
    names = _names()
    if names.get(str(user.uid)) != user.username:
        yield Difference(f"name of uid {user.uid} in {LOG}", "missing", user.username, lambda: _give_name(user, names))
    if services.is_marked(NAMES_PENDING):
        yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)


def _give_name(user: User, names: Mapping[str, str]) -> None:
    _write_names({**names, str(user.uid): user.username, user.username: user.username})
    _load_names()
    canary.introduce(user, _link_of(user))


def user_removal_differences(user: User) -> Iterator[Difference]:
    """No name for the uid, which nobody has any more."""
    names = dict(_names())
    if names.pop(str(user.uid), None) is not None:
        names.pop(user.username, None)
        yield Difference(f"name of uid {user.uid} in {LOG}", user.username, "none", lambda: _write_names(names))
    if services.is_marked(NAMES_PENDING):
        yield Difference(NAMES, "an earlier one is loaded", "loaded", _load_names)


def note(*lines: notes.Note) -> None:
    """Put lines of `notes` into the log, and see them there; without any, a canary. `Failure` with the reason if that
    cannot be."""
    if lines:
        canary.tell(list(lines))
    else:
        canary.sing()


def try_to_note(*lines: notes.Note) -> list[str]:
    """As `note`, for what must be done whether or not it can be logged: the end of somebody's access. Returns what to
    tell the operator."""
    try:
        note(*lines)
    except Failure as failure:
        return [f"{LOG}: not told ({failure})"]
    return []


def relink() -> None:
    """Give every jail the socket that systemd has just made.

    Takes no lock: it runs within a restart that a lock's holder may be waiting for. Each link is one rename.
    """
    for user in state.users():
        link = _link_of(user)
        if os.path.isdir(os.path.dirname(link)) and not _is_linked(link):
            _link(link)


def _link_of(user: User) -> str:
    return f"{chroot.path(user.username)}/dev/log"


def _is_linked(link: str) -> bool:
    try:
        return os.path.samestat(os.lstat(link), os.lstat(SOCKET))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _link(link: str) -> None:
    if not os.path.exists(SOCKET):
        raise Failure(f"{SOCKET} is missing, so nothing would be logged", f"See: systemctl status {SOCKET_UNIT}")
    temporary = f"{link}.new"
    files.discard(temporary)
    os.link(SOCKET, temporary)
    os.rename(temporary, link)


def _names() -> Mapping[str, str]:
    text = files.read(NAMES)
    return {} if text is None else _table(text)


@lru_cache(maxsize=1)
def _table(text: str) -> Mapping[str, str]:
    # Parsed once for all users that a check walks through.
    return {row["index"]: row["value"] for row in json.loads(text)["table"]}


def _write_names(names: Mapping[str, str]) -> None:
    """The lookup table in rsyslog's own form: names by uid, and each name by itself, to know the jailed in what sshd
    says. root is in it since rsyslog refuses an empty one."""
    table = [{"index": uid, "value": name} for uid, name in sorted({"0": "root", **names}.items())]
    text = json.dumps({"version": 1, "nomatch": "", "type": "string", "table": table})
    services.mark(NAMES_PENDING)
    files.write(NAMES, text + "\n", 0o644)


def _load_names() -> None:
    services.hang_up(SERVICE)
    services.clear(NAMES_PENDING)
