"""Whether a line that is sent arrives in the log, and if not, why."""

import contextlib
import os
import re
import socket
import struct
import syslog
import time
from typing import Optional

from . import files, notes
from .difference import REPAIR
from .failure import Failure
from .process import run
from .rsyslog import LOG, SERVICE, SOCKET
from .state import User

PATIENCE = 5
"""Seconds for a line to be taken, and again for it to arrive."""

PRIORITY = syslog.LOG_AUTHPRIV | syslog.LOG_INFO
TAG = f"jailctl[{os.getpid()}]"


class Log:
    """The log from here on, whatever rotation does to it."""

    def __init__(self) -> None:
        self._start = self._end_of(LOG)

    @staticmethod
    def _end_of(path: str) -> tuple[int, int]:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size

    def has(self, words: str) -> bool:
        """Whether this is the end of some line."""
        new = b""
        for path in (f"{LOG}.1", LOG):
            with contextlib.suppress(FileNotFoundError, IsADirectoryError), open(path, "rb") as log:
                inode = os.fstat(log.fileno()).st_ino
                if inode == self._start[0]:
                    log.seek(self._start[1])
                elif path != LOG:
                    continue
                new += log.read()
        return f" {words}\n".encode() in new


def tell(lines: list[notes.Note]) -> None:
    """Send the lines, and see the last one in the log; `Failure` with the reason if that cannot be."""
    log = Log()
    for line in lines:
        _send(line)
    _await(log, f"{TAG}: {lines[-1]}")


def introduce(user: User, link: str) -> None:
    """See that a line by the user's own link, under his own uid, bears his name; `Failure` with the reason if not.

    Again and again, since rsyslog does not say when it has read a new name.
    """
    log = Log()
    line = notes.note("name-given", user=user.username, uid=user.uid)
    deadline = time.monotonic() + PATIENCE
    while not log.has(f"{user.username} {TAG}: {line}"):
        if time.monotonic() > deadline:
            raise Failure(f"the lines of {user.username} do not bear his name", f"See: journalctl -u {SERVICE}")
        again = Log()
        _send(line, user.uid, link)
        _await(again, f"{TAG}: {line}")


def sing() -> None:
    """Send a canary to the jails' socket and another one to the journal, from where sshd's lines come; `Failure` with
    the reason unless both arrive."""
    log = Log()
    line = notes.note("canary", token=os.urandom(8).hex())
    by_journal = notes.note("canary", token=os.urandom(8).hex())
    _send(line)
    syslog.openlog("jailctl", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_INFO, by_journal)
    _await(log, f"{TAG}: {line}")
    try:
        _await(log, f"{TAG}: {by_journal}")
    except Failure:
        raise Failure(
            "what sshd says does not arrive in the log",
            f"See whether the journal has it: journalctl -t jailctl; and: journalctl -u {SERVICE}",
        ) from None


def _send(line: str, uid: int = 0, path: str = SOCKET) -> None:
    """As syslog(3) would, but that it does not wait for ever.

    :param uid: whose line it is; root may say so to the kernel (unix(7), SCM_CREDENTIALS)
    :param path: the socket, or a link to it
    """
    message = f"<{PRIORITY}>{time.strftime('%b %e %H:%M:%S')} {TAG}: {line}".encode()
    credentials = struct.pack("3i", os.getpid(), uid, uid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(PATIENCE)
        try:
            sender.connect(path)
            sender.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
        except OSError as error:
            raise _failure(error) from None


def _await(log: Log, words: str) -> None:
    deadline, pause = time.monotonic() + PATIENCE, 0.002
    while not log.has(words):
        if time.monotonic() > deadline:
            raise _failure(None)
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _failure(error: Optional[OSError]) -> Failure:
    reason, *way_out = _reason(error)
    return Failure(f"what is sent to the log does not arrive in {LOG}: {reason}", *way_out)


def _reason(error: Optional[OSError]) -> tuple[str, str, str]:
    """Why nothing arrives, as far as it can be seen; a way out, and its command, if there is one."""
    if isinstance(error, FileNotFoundError):
        return f"{SOCKET} is missing", "Make it again", REPAIR
    main = run("systemctl", "show", "--property=MainPID", "--value", SERVICE).strip()
    if main in ("", "0"):
        state = run("systemctl", "show", "--property=ActiveState", "--value", SERVICE).strip()
        return f"{SERVICE} is {state}{_last_words(f'--unit={SERVICE}')}", "See", f"systemctl status {SERVICE}"
    status = files.read(f"/proc/{main}/status") or ""
    if re.search(r"^State:\s+T", status, re.M):
        reason = "rsyslogd is stopped by a signal, and whoever uploads waits for it"
        return reason, "Let it go on", f"sudo kill -CONT {main}"
    place = os.path.dirname(LOG)
    seen = f"/proc/{main}/root{place}"
    if os.statvfs(place).f_bavail == 0 or os.statvfs(place).f_favail == 0:
        return f"no space is left in {place}", "Make room there; uploads go on, unlogged", ""
    if os.statvfs(seen).f_flag & os.ST_RDONLY:
        return f"{place} is read-only for rsyslogd", "See what sandboxes it", f"systemctl cat {SERVICE}"
    if not os.path.samefile(seen, place):
        return f"rsyslogd sees another {place}", "See what sandboxes it", f"systemctl cat {SERVICE}"
    profile = _profile(main)
    if profile:
        return f"the AppArmor profile {profile} confines rsyslogd", "See what it denied", "journalctl -k -g apparmor"
    if not os.path.isfile(LOG) and os.path.lexists(LOG):
        return f"{LOG} is no file", "Move away what is there", files.move_away(LOG)
    other = _other_file(main)
    if other:
        return f"rsyslogd writes to {other}", "Have it open the log", f"sudo systemctl kill --signal=HUP {SERVICE}"
    return f"nobody knows why{_last_words(f'_PID={main}')}", "See", f"journalctl -u {SERVICE}"


def _other_file(pid: str) -> str:
    """What was the log, and is not any more, and is open in a process all the same."""
    for fd in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(fd)
            if path.startswith(LOG) and not (os.path.exists(LOG) and os.path.samefile(fd, LOG)):
                return path
    return ""


def _profile(pid: str) -> str:
    """The AppArmor profile of a process, with its mode; empty where none confines it."""
    for name in ("apparmor/current", "current"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/attr/{name}") as profile:
            text = profile.read().strip("\0\n ")
            return "" if text == "unconfined" or "complain" in text else text
    return ""


def _last_words(whose: str) -> str:
    """What rsyslogd last complained of, of the log itself if it did, by what journalctl(1) takes to mean it."""
    with contextlib.suppress(Failure):
        said = run("journalctl", whose, "--priority=err", "--lines=20", "--output=cat", "--boot").strip().splitlines()
        of_the_log = [line for line in said if LOG in line]
        return "".join(f"; it says: {line}" for line in (of_the_log or said)[-1:])
    return ""
