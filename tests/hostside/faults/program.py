"""Runs jailctl on a server, and has it come to grief at a step: killed there, refused, or with no room on the disk.

A program for the machine, standard library only: one request a line on stdin, one answer a line on stdout, JSON each.
The product knows nothing of it. A step is what changes the server, or tells somebody: Python's own audit events
(PEP 578) name those of files, processes and sockets; the tools that jailctl runs are seen at `subprocess.run`.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

sys.path.insert(0, os.path.realpath("/usr/local/lib/sftp-jail/current"))

PRIVATE = ("/run/sftp-jail", "/dev/null", "/proc/")
"""Where nobody looks but jailctl itself: its locks, and the copies of sshd's configuration that it asks about."""

NEED_ROOM = ("open", "fsync", "os.mkdir", "os.link", "os.symlink")
ACCOUNT_TOOLS = ("useradd", "usermod", "userdel", "groupadd", "groupdel", "gpasswd", "chpasswd", "chage")
TOOLS_THAT_NEED_ROOM = (*ACCOUNT_TOOLS, "cp", "tar", "mkfs.ext4", "btrfs", "systemctl enable", "systemctl disable")

UNFINISHED = "/.sftp-jail-"
"""How the name of a file begins that is being written."""

QUESTIONS = (
    *("/usr/sbin/sshd", "ssh", "rsyslogd", "journalctl", "stat", "du", "findmnt"),
    *("systemctl is-active", "systemctl is-enabled", "systemctl show"),
    *("btrfs --version", "btrfs qgroup show", "btrfs inspect-internal"),
)
"""The tools that change nothing, by how their command lines begin."""


class Fault(NamedTuple):
    """What happens at a step, counted from 0 among those whose names begin with one of `at`."""

    kind: str
    """`killed` (SIGKILL), `refused` (EIO, or a tool that fails), or `full` (ENOSPC, from there to the end)."""

    step: int
    at: list[str]


class Trouble:
    """Counts the steps of this process, and lets the fault happen."""

    def __init__(self, fault: Fault, reached: int) -> None:
        self._fault = fault
        self._left = fault.step
        self._reached = reached
        self._run = subprocess.run
        self._fsync = os.fsync

    def begin(self) -> None:
        """From here on."""
        subprocess.run = self._tool  # type: ignore[assignment]
        os.fsync = self._sync  # type: ignore[assignment]
        sys.addaudithook(self._hook)

    def _meet(self, name: str, needs_room: bool) -> None:
        if not name.startswith(tuple(self._fault.at)) or (self._fault.kind == "full" and not needs_room):
            return
        self._left -= 1
        if self._left >= 0:
            return
        if self._left == -1:
            os.write(self._reached, name.encode())
        if self._fault.kind == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._left == -1 and self._fault.kind == "refused":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._left == -1:
            signal.raise_signal(signal.SIGKILL)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        place = _place(event, arguments)
        # Of a file that is being written under another name, one death is enough: when it is about to get its own.
        if place is not None and not (self._fault.kind == "killed" and event == "open" and UNFINISHED in place):
            self._meet(f"{event} {place}", event in NEED_ROOM)

    def _tool(self, argv: Any, **options: Any) -> "subprocess.CompletedProcess[Any]":
        line = " ".join(argv)
        if not line.startswith(QUESTIONS):
            try:
                self._meet(line, line.startswith(TOOLS_THAT_NEED_ROOM))
            except OSError as error:
                return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]}: {error.strerror}")
        return self._run(argv, **options)

    def _sync(self, fd: int) -> None:
        # What is killed here is as if it were killed before the next step.
        if self._fault.kind != "killed":
            self._meet(f"fsync {_named(fd)}", needs_room=True)
        self._fsync(fd)


def _place(event: str, arguments: tuple[Any, ...]) -> Optional[str]:
    """Where an event changes something, or tells it; None where it does not."""
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return None
    if event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "shutil.rmtree"):
        place = arguments[0] if isinstance(arguments[0], str) else ""
        # What has no slash in it is below a tree that is being removed, which is a step of its own.
        nothing = (event == "os.mkdir" and os.path.isdir(place)) or (
            event == "os.remove" and not os.path.lexists(place)
        )
        return place if "/" in place and not place.startswith(PRIVATE) and not nothing else None
    if event in ("os.chmod", "os.chown"):
        place = _named(arguments[0])
        nothing = event == "os.chown" and (os.stat(place).st_uid, os.stat(place).st_gid) == arguments[1:3]
        return place if UNFINISHED not in place and not nothing else None
    if event == "os.kill":
        return str(arguments[0])
    if event == "socket.sendmsg":
        return "the log"
    return None


def _named(file: Any) -> str:
    return os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else str(file)


def run(verb: str, spec: Optional[str], fault: Optional[list[Any]], canary: bool = True) -> dict[str, Any]:
    """Run a verb in a process of its own: how it ended, and the step of the fault, empty if it never came to that.

    :param canary: whether it looks if the log is complete, as it always does else; that waits for the journal
    """
    out, err, reached = (os.memfd_create(name) for name in ("out", "err", "reached"))
    pid = os.fork()
    if pid == 0:
        os.dup2(out, 1)
        os.dup2(err, 2)
        code = 70
        try:
            if not canary:
                jailctl.audit.canary.sing = lambda: None
            code = _main(verb, spec or "", Trouble(Fault(*fault), reached) if fault is not None else None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    answer: dict[str, Any] = {"code": status}
    for name, fd in (("out", out), ("err", err), ("reached", reached)):
        with open(fd, "rb") as file:
            file.seek(0)
            answer[name] = file.read().decode(errors="backslashreplace")
    return answer


def _main(verb: str, spec: str, trouble: Optional[Trouble]) -> int:
    sys.stdin, sys.argv = io.StringIO(spec), ["jailctl", verb]
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
    jailctl.audit.canary.TAG = f"jailctl[{os.getpid()}]"
    if trouble is not None:
        trouble.begin()
    return jailctl.main()


def shell(command: str) -> dict[str, Any]:
    """Run a shell command, which ends at the first part of it that fails."""
    done = subprocess.run(["sh", "-ec", command], capture_output=True, text=True, check=False)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


# What the server is, seen from outside of jailctl


def facts(usernames: list[str]) -> dict[str, Any]:
    """What decides who gets in, and to what."""
    test = subprocess.run(["/usr/sbin/sshd", "-t"], capture_output=True, text=True, check=False)
    return {
        "sshd": test.stderr,
        "admin": [line for line in _effective("admin", NEAR) if not line.startswith("subsystem ")],
        "users": {name: found for name in usernames if (found := _access(name)) is not None},
    }


def _access(username: str) -> Optional[dict[str, Any]]:
    """How somebody gets in, and to what; None if he does not."""
    account = _line("/etc/passwd", username)
    shadow = _line("/etc/shadow", username)
    keys = sorted(filter(None, _read(f"/etc/ssh/sftp-jail/keys/{username}").splitlines()))
    if account is None or shadow is None or shadow[7] == "0" or (not keys and shadow[1] == "*"):
        return None
    return {"keys": keys, "password": shadow[1], "near": _jail(username, NEAR), "far": _jail(username, FAR)}


NEAR, FAR = "10.213.0.1", "192.0.2.1"
"""From where everybody may come here, and from where not everybody may."""

WORDS = (
    *("chrootdirectory", "forcecommand", "authenticationmethods", "passwordauthentication", "disableforwarding"),
    *("permittty", "authorizedkeysfile", "allowtcpforwarding", "x11forwarding", "permittunnel"),
)


def _jail(username: str, address: str) -> list[str]:
    return [line for line in _effective(username, address) if line.split()[0] in WORDS]


def _effective(username: str, address: str) -> list[str]:
    argv = ["/usr/sbin/sshd", "-T", "-C", f"user={username},host=localhost,addr={address}"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def _line(path: str, name: str) -> Optional[list[str]]:
    return next((line.split(":") for line in _read(path).splitlines() if line.startswith(f"{name}:")), None)


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    import jailctl.__main__ as jailctl  # type: ignore[import-not-found]

    answers: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "shell": shell, "facts": facts}
    for request in sys.stdin:
        name, *arguments = json.loads(request)
        print(json.dumps(answers[name](*arguments)), flush=True)
