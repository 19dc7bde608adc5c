"""Boots a disposable Debian machine on this computer, and takes it away again without a trace.

A program of its own, standard library only, since it needs root and the program that describes a stack does not:

    python3 machine.py rootfs | start | stop    with JSON on stdin
    python3 machine.py run DIRECTORY -- COMMAND ...

A machine is one supervising process and what hangs on it. Its file system is an overlay, mounted in the
supervisor's own mount namespace, over a root file system in the cache; its network namespace belongs to
systemd-nspawn, which the kernel kills when the supervisor dies. So whatever ends the supervisor ends all of it.
A machine reaches this computer and nothing else: it has no route out. It may reboot itself: its network, its
files and its supervisor stay.

It is a library as well: `Image`, `Machine`, `bring_up` and `supervise` know nothing of the machine of `Spec`.
"""

import argparse
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import ipaddress
import itertools
import json
import math
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

NETWORK = ipaddress.IPv4Network("10.213.0.0/16")
"""All addresses of machines. The whole range is unreachable but for machines that run, so that no packet
for one that is gone ever leaves this computer."""

LINKS = ipaddress.IPv4Network("10.213.0.0/17")
"""The part of it that is dealt out to machines, a /30 each."""

NETWORK_LOCK = "/run/sftp-jail-machines.lock"
LINK_PREFIX = "sj-"

PACKAGES = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "openssh-server", "sudo"),
    *("rsyslog", "logrotate", "python3", "iproute2", "procps", "btrfs-progs", "e2fsprogs"),
)

TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2", "nsenter": "util-linux"}
"""The programs that are needed, and Debian's packages for them."""

RECIPE = """\
set -eu
rm -f "$1"/etc/ssh/ssh_host_*
: > "$1/etc/machine-id"
chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash --comment Administrator admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' > "$1/etc/sudoers.d/admin"
chmod 0440 "$1/etc/sudoers.d/admin"
install -d -m 700 -o 1000 -g 1000 "$1/home/admin/.ssh"
# Nobody sits at its console, and what needs the Internet cannot have it.
chroot "$1" systemctl mask --quiet console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer
"""
"""What is done to a fresh root file system, `$1`. The rest of it stays as Debian ships it."""

BOOT_SECONDS = 60

BOOT = """\
read -r connected || exit
while "$@" < /dev/null; code=$?; [ "$code" = 133 ]; do :; done
exit "$code"
"""
"""The first process of a machine's namespaces. It waits for the network, and boots again what asks for a reboot,
as the unit of systemd-nspawn does at this exit status (systemd-nspawn(1), --keep-unit)."""

FILES = {
    *("address", "console.log", "lock", "machine.json", "machine.partial", "supervisor.pid"),
    *("root", ".#root.lck", "upper", "work"),
}
"""All that a machine's directory holds; systemd-nspawn makes the lock beside `root`."""


class Problem(Exception):
    """A reason to give up, as one sentence with a remedy."""


class Image(NamedTuple):
    """A root file system: a Debian release, its packages, and what is done to it."""

    release: str
    packages: tuple[str, ...]
    recipe: str
    """A shell script that finishes it, run on this computer; `$1` is its place."""

    hook: str = ""
    """A shell script that runs before, where mmdebstrap's apt still reaches the mirror (mmdebstrap(1), HOOKS)."""

    @property
    def name(self) -> str:
        """It says what is in it, so that what has the name never changes."""
        parts = [*self.packages, self.recipe, *([self.hook] if self.hook else [])]
        return f"rootfs-{self.release}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"


class Machine(NamedTuple):
    """What a supervisor holds: a root file system, where its files are, and how this kind of machine differs."""

    name: str
    rootfs: Path
    directory: Path
    furnish: Callable[[Path, str, int], None]
    """Writes to its root, before it boots, what only it has. It is given the machine's address as well, and a
    process in its network namespace."""

    ready: Callable[[str, int], bool]
    """Whether it is up, of its address and the process id of its PID 1."""

    options: tuple[str, ...] = ()
    """More of systemd-nspawn's."""

    address: Optional[str] = None
    """The address to give it if nobody has it. Default: one that depends on its directory, if nobody has it."""


class Spec(NamedTuple):
    """One machine: its host name, its Debian release, the directory of its files, and who may log in as `admin`."""

    name: str
    release: str
    directory: Path
    admin_key: str
    host_key_file: Path


def say(text: str) -> None:
    """A line of progress."""
    print(f"machine: {text}", file=sys.stderr, flush=True)


def call(*argv: object, **options: object) -> str:
    """A tool's standard output; `Problem` unless it succeeds."""
    words = [str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise Problem(f"{' '.join(words[:3])} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextlib.contextmanager
def locked(path: "str | Path") -> Iterator[None]:
    """Hold a lock file; it ends with the process."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# The root file system


def cache() -> Path:
    """Where root file systems are kept."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sftp-jail")
    return Path(os.environ.get("SFTP_JAIL_CACHE") or default)


def ensure_tools() -> None:
    """Install what is missing of `TOOLS`."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise Problem(f"this computer lacks {', '.join(missing)}, and has no apt-get to install it")
    say(f"installing {', '.join(missing)}, which a disposable machine needs")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    call("apt-get", "-qq", "update", env=environment)
    call("apt-get", "-qq", "install", "--no-install-recommends", *missing, env=environment)


def plain_image(release: str) -> Image:
    """What `start` boots: Debian with sshd, rsyslog, and the administrator `admin`."""
    return Image(release, PACKAGES, RECIPE)


def ensure_rootfs(image: Image) -> Path:
    """The image's root file system, made if it is missing."""
    rootfs = cache() / image.name
    cache().mkdir(parents=True, exist_ok=True)
    with locked(f"{rootfs}.lock"):
        if rootfs.is_dir():
            return rootfs
        for left in cache().glob(f".partial-{rootfs.name}-*"):
            shutil.rmtree(left)
        say(f"making the root file system of Debian {image.release}; it takes a minute and is kept in {cache()}")
        partial = Path(tempfile.mkdtemp(prefix=f".partial-{rootfs.name}-", dir=cache()))
        try:
            target = partial / "root"
            call(
                # What it mounts ends with it: this computer's /dev/shm, too, which clearing away would empty.
                *("unshare", "--mount"),
                *("mmdebstrap", "--variant=minbase", f"--include={','.join(image.packages)}", image.release, target),
                *mirrors(),
                *([f"--customize-hook={image.hook}"] if image.hook else []),
            )
            call("sh", "-c", image.recipe, "recipe", target)
            os.sync()
            target.rename(rootfs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return rootfs


def mirrors() -> list[str]:
    """The mirrors of this computer's own apt that carry Debian."""
    wanted = ("apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages")
    lines = call(*wanted)
    if not lines:  # a fresh computer has no lists
        call("apt-get", "-qq", "update")
        lines = call(*wanted)
    found = sorted({line.split()[1] for line in lines.splitlines() if line.startswith("Debian ")})
    if not found:
        raise Problem("apt on this computer knows no Debian mirror: add one to /etc/apt/sources.list.d")
    return found[:1]


# One machine


def start(spec: Spec) -> dict:
    """Boot it, unless it runs: its address, port and the process id of its PID 1."""
    refuse_foreign(spec.directory)
    owner()
    ensure_tools()
    rootfs = ensure_rootfs(plain_image(spec.release))
    spec.directory.mkdir(parents=True, exist_ok=True)
    supervisor = [sys.executable, os.path.abspath(__file__), "supervise", str(rootfs), *map(str, spec)]
    try:
        return bring_up(spec.directory, supervisor, spec.directory / "console.log")
    except Problem:
        stop(spec.directory)
        raise


def owner() -> Optional[int]:
    """The process that everything ends with, $SFTP_JAIL_UNTIL_PID; `Problem` if it does not run."""
    given = os.environ.get("SFTP_JAIL_UNTIL_PID")
    if given and not (given.isdecimal() and Path("/proc", given).exists()):
        raise Problem(f"SFTP_JAIL_UNTIL_PID: {given!r} is no running process: give the id of one, or unset it")
    return int(given) if given else None


def bring_up(directory: Path, supervisor: list[str], log: Path) -> dict:
    """Have the machine of the directory run, by a command that calls `supervise`, and wait until it is up.

    :param log: where the command's output goes, which is the machine's console
    :raises Problem: if it does not boot; it has been ended then
    """
    # It runs already, or boots, where an earlier `start` was killed.
    launched = None if is_running(directory) else launch(supervisor, directory / "machine.json", log)
    deadline = time.monotonic() + BOOT_SECONDS + 10
    while (answer := read_answer(directory)) is None:
        ended = (launched is None or launched.poll() is not None) and not is_running(directory)
        if ended or time.monotonic() > deadline:
            end(directory)
            console = log.read_text(errors="replace")[-2000:]
            raise Problem(f"the machine did not boot; the end of its console:\n{console}")
        time.sleep(0.02)
    return answer


def read_answer(directory: Path) -> Optional[dict]:
    """The address, port and leader of a machine that is up; None while it boots."""
    try:
        return json.loads((directory / "machine.json").read_text())
    except FileNotFoundError:
        return None


def launch(supervisor: list[str], answer: Path, log: Path) -> subprocess.Popen:
    """Start the machine's supervisor, which writes to `answer` when the machine is up."""
    answer.unlink(missing_ok=True)
    with open(log, "w") as console:
        return subprocess.Popen(
            supervisor,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def is_running(directory: Path) -> bool:
    """Whether a supervisor holds the machine's lock."""
    try:
        with open(directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop(directory: Path) -> None:
    """End it if it runs, and remove its files."""
    refuse_foreign(directory)
    end(directory)
    shutil.rmtree(directory, ignore_errors=True)


def end(directory: Path) -> None:
    """End it if it runs, at once, as if its power had failed; its files stay."""
    while is_running(directory):
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int((directory / "supervisor.pid").read_text()), signal.SIGTERM)
        time.sleep(0.02)
    remove_groups(control_groups(directory))
    address = directory / "address"
    if address.exists():  # its supervisor was killed, or else it would have taken the link away itself
        release_network(address.read_text() or None)
        address.unlink(missing_ok=True)


def refuse_foreign(directory: Path) -> None:
    """`Problem` if the directory holds anything but a machine's files, because `stop` removes all of it."""
    foreign = sorted({path.name for path in directory.iterdir()} - FILES) if directory.exists() else []
    if foreign:
        raise Problem(f"{directory} is no machine's directory, {foreign[0]!r} is in it: name another")


def run(directory: Path, command: list[str]) -> int:
    """Run a command in the machine as root, without its sshd; the exit status is the command's."""
    return run_inside(leader_of(directory), command)


def leader_of(directory: Path) -> int:
    """The process id of the machine's PID 1; `Problem` if it does not run."""
    answer = read_answer(directory)
    if not is_running(directory) or answer is None:
        raise Problem(f"no machine runs in {directory}: start it first")
    return answer["leader"]


def run_inside(leader: int, command: list[str]) -> int:
    """Run a command in the machine of a PID 1 as root, in an environment of its own; the exit status."""
    entered = subprocess.Popen(inside(leader, command))
    attend(entered)
    return entered.wait()


def inside(leader: int, command: list[str]) -> list[str]:
    """The command line by which that is done; `attend` to its process."""
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ["nsenter", f"--target={leader}", "--all", "env", "-i", path, *command]


def attend(entered: subprocess.Popen) -> None:
    """Wait for the end of a process that is inside, which `entered` can tell then."""
    # A machine that shuts down stops all of its processes for a moment. nsenter(1) stops itself when its child does,
    # and must go on: the machine's process namespace cannot end before the child is reaped.
    seen = os.WEXITED | os.WSTOPPED | os.WNOWAIT
    with contextlib.suppress(ChildProcessError):  # somebody else has seen its end
        while (change := os.waitid(os.P_PID, entered.pid, seen)) is not None and change.si_code == os.CLD_STOPPED:
            os.waitid(os.P_PID, entered.pid, os.WSTOPPED)
            entered.send_signal(signal.SIGCONT)


def supervise(machine: Machine) -> None:
    """Hold the machine: boot it, wait for its end or a reason to end it, and leave nothing."""
    asked, asking = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(asking, b"x"))
    until = owner()
    ends = [asked, *([os.pidfd_open(until)] if until is not None else [])]
    directory = machine.directory
    answer = directory / "machine.json"
    with sole_supervisor(directory):
        (directory / "supervisor.pid").write_text(str(os.getpid()))
        root = mount(machine.rootfs, directory)
        groups = control_groups(directory)
        for group in groups:
            group.mkdir(exist_ok=True)
        payload = subprocess.Popen(
            [
                # The machine outlives a systemd-nspawn that is killed, but not the process namespace around both.
                *("unshare", "--net", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--propagation=slave"),
                *("sh", "-c", BOOT, "boot"),
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
                *("--network-namespace-path=/proc/self/ns/net", "--console=pipe", f"--directory={root}"),
                *(f"--machine={machine.name}", *machine.options),
            ],
            stdin=subprocess.PIPE,
            text=True,
            # Without it, where this computer has control groups of both kinds, the machine's systemd is not told when
            # a session has ended, and its shutdown waits for that.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=functools.partial(begin_payload, os.getpid(), groups),
        )
        address = None
        try:
            address = connect(payload.pid, directory, machine.address)
            machine.furnish(root, address, payload.pid)
            assert payload.stdin is not None
            payload.stdin.write("connected\n")
            payload.stdin.close()
            hold(machine, payload, address, ends)
        finally:
            # Its namespace's first process, so that unshare(1) is there to reap it.
            with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
                os.kill(child(payload.pid), signal.SIGKILL)
            payload.wait()
            remove_groups(groups)
            release_network(address)
            answer.unlink(missing_ok=True)
            (directory / "address").unlink(missing_ok=True)


def hold(machine: Machine, payload: subprocess.Popen, address: str, ends: list[int]) -> None:
    """Keep `machine.json` true, over reboots, until the machine is off or one of `ends` is readable."""
    answer = machine.directory / "machine.json"
    leader = boot(machine, payload, address, ends, seconds=BOOT_SECONDS)
    if leader is None:
        raise Problem("the machine did not come up")
    while leader is not None:
        partial = answer.with_suffix(".partial")
        partial.write_text(json.dumps({"address": address, "port": 22, "leader": leader}))
        partial.replace(answer)
        with contextlib.suppress(ProcessLookupError), open(os.pidfd_open(leader)) as gone:
            select.select([*ends, gone.fileno()], [], [])
        answer.unlink()
        leader = boot(machine, payload, address, ends, seconds=math.inf)


@contextlib.contextmanager
def sole_supervisor(directory: Path) -> Iterator[None]:
    """Hold the machine's lock; `Problem` if another supervisor does."""
    with open(directory / "lock", "w") as lock:
        for _ in range(10):  # `is_running` takes it for a moment to look
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        else:
            raise Problem(f"the machine of {directory} runs already")
        yield


def own_mounts() -> None:
    """Have what is mounted from now on be seen by this process and its children alone, and end with them."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):  # CLONE_NEWNS, sched.h
        raise Problem(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    # What this computer has mounted, and unmounts one day, must not stay here.
    call("mount", "--make-rslave", "/")


def mount(rootfs: Path, directory: Path) -> Path:
    """The machine's own view of the root file system, in a mount namespace that ends with this process."""
    own_mounts()
    root, upper, work = (directory / name for name in ("root", "upper", "work"))
    for folder in (root, upper, work):
        folder.mkdir(exist_ok=True)
    options = f"lowerdir={rootfs},upperdir={upper},workdir={work}"
    call("mount", "-t", "overlay", "-o", options, "overlay", root)
    return root


def furnish(root: Path, spec: Spec) -> None:
    """Its name, its host key and its administrator's key."""
    (root / "etc/hostname").write_text(f"{spec.name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n")
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    for source, target, mode in (
        (spec.host_key_file, host_key, 0o600),
        (Path(f"{spec.host_key_file}.pub"), Path(f"{host_key}.pub"), 0o644),
    ):
        shutil.copyfile(source, target)
        target.chmod(mode)
    authorized = root / "home/admin/.ssh/authorized_keys"
    authorized.write_text(f"{spec.admin_key}\n")
    os.chown(authorized, 1000, 1000)


def control_groups(directory: Path) -> list[Path]:
    """The groups that are a machine's alone, in each hierarchy where systemd-nspawn makes some below its own.

    With --keep-unit it gives all machines the same names there, and each machine's systemd ends what it finds.
    """
    name = f"sftp-jail-{digest(directory)}"
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, mounted = line.split(" - ")
        kind, _, options = mounted.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place.split()[4], name))
    return found


def remove_groups(groups: list[Path]) -> None:
    """Remove a dead machine's groups; a process leaves its group a moment after it has died."""
    deadline = time.monotonic() + 2
    for group in groups:
        while group.exists() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            time.sleep(0.005)


def begin_payload(parent: int, groups: list[Path]) -> None:
    """Have the kernel put this process into the groups, and kill it when its parent is gone."""
    for group in groups:
        (group / "cgroup.procs").write_text("0")
    die_with(parent)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is gone (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it had gone already
        os.kill(os.getpid(), signal.SIGKILL)


def connect(pid: int, directory: Path, wanted: Optional[str]) -> str:
    """A link between this computer and the network namespace of a process; the address of that end.

    :param wanted: the address that it gets if nobody has it
    """
    own = os.stat("/proc/self/ns/net").st_ino
    while os.stat(f"/proc/{pid}/ns/net").st_ino == own:  # unshare(1) has not got that far
        time.sleep(0.005)
    # Before anything is made, so that `stop` knows of it wherever this process is killed.
    place = directory / "address"
    place.touch()
    with locked(NETWORK_LOCK):
        call("ip", "route", "replace", "unreachable", NETWORK)
        taken = {
            ipaddress.ip_address(info["local"])
            for link in json.loads(call("ip", "-json", "address"))
            for info in link["addr_info"]
        }
        first = [ipaddress.IPv4Network(f"{wanted}/30", strict=False)] if wanted is not None else []
        ours, theirs = next(
            pair for net in itertools.chain(first, links_of(directory)) if not taken & {*(pair := tuple(net.hosts()))}
        )
        place.write_text(str(theirs))
        link = link_to(theirs)
        call("ip", "link", "add", link, "type", "veth", "peer", "name", "host0", "netns", pid)
        call("ip", "address", "add", f"{ours}/30", "dev", link)
        call("ip", "link", "set", link, "up")
    for words in (
        ["address", "add", f"{theirs}/30", "dev", "host0"],
        ["link", "set", "host0", "up"],
        ["link", "set", "lo", "up"],
    ):
        call("nsenter", f"--target={pid}", "--net", "ip", *words)
    return str(theirs)


def links_of(directory: Path) -> list[ipaddress.IPv4Network]:
    """Where a machine's link may be, the best first: it is the same again after a while without the machine, since
    others begin elsewhere."""
    links = list(LINKS.subnets(new_prefix=30))
    start = int(digest(directory), 16) % len(links)
    return links[start:] + links[:start]


def digest(directory: Path) -> str:
    """What tells a machine from others where a path is too long."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:12]


def link_to(address: ipaddress.IPv4Address) -> str:
    """The name of this computer's end of the link to a machine."""
    return f"{LINK_PREFIX}{int(address) & 0xFFFF:04x}"


def release_network(address: "str | None") -> None:
    """Wait until a dead machine's link is gone, and take the range's route away if it was the last.

    The kernel removes the link, a moment after the last process in the machine's network namespace.
    """
    own = link_to(ipaddress.IPv4Address(address)) if address is not None else None
    deadline = time.monotonic() + 2
    while own in machine_links() and time.monotonic() < deadline:
        time.sleep(0.02)
    with locked(NETWORK_LOCK):
        if not machine_links():
            subprocess.run(["ip", "route", "del", "unreachable", str(NETWORK)], capture_output=True, check=False)


def machine_links() -> list[str]:
    """The links to all machines of this computer."""
    names = [link["ifname"] for link in json.loads(call("ip", "-json", "link"))]
    return [name for name in names if name.startswith(LINK_PREFIX)]


def boot(machine: Machine, payload: subprocess.Popen, address: str, ends: list[int], seconds: float) -> Optional[int]:
    """Wait until the machine is up; the process id of its PID 1, or None if it ends, is to end, or takes too long."""
    deadline = time.monotonic() + seconds
    while payload.poll() is None and time.monotonic() < deadline and not select.select(ends, [], [], 0)[0]:
        with contextlib.suppress(OSError, IndexError):
            # unshare(1), the shell of `BOOT`, systemd-nspawn
            leader = child(child(child(payload.pid)))
            if is_first(leader) and machine.ready(address, leader):
                return leader
        time.sleep(0.05)
    return None


def sshd_answers(address: str, _leader: int) -> bool:
    """Whether somebody speaks SSH at the address."""
    with socket.create_connection((address, 22), timeout=1) as connection:
        return connection.recv(8).startswith(b"SSH-2.0-")


def is_first(pid: int) -> bool:
    """Whether a process is PID 1 of its namespace, as the helpers of systemd-nspawn are not."""
    return re.search(r"^NSpid:.*\t1$", Path(f"/proc/{pid}/status").read_text(), re.M) is not None


def child(pid: int) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


# The program


FIELDS = ("name", "release", "directory", "adminKey", "hostKeyFile")
"""What `start` reads: JSON names of the fields of `Spec`. The others read those of them that they need."""


HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""One label of RFC 1123."""


def read(text: str, *names: str) -> list[str]:
    """Those fields of the JSON on stdin, each of them a string."""
    try:
        given = json.loads(text)
    except ValueError as fault:
        raise Problem(f"stdin is not JSON: {fault}") from None
    if not isinstance(given, dict):
        raise Problem("stdin is not a JSON object")
    for name in given:
        if name not in FIELDS:
            raise Problem(f"stdin has an unknown field {name!r}; known are {', '.join(FIELDS)}")
    for name in names:
        if not isinstance(given.get(name), str) or not given[name]:
            raise Problem(f"stdin lacks the string {name!r}")
        if not given[name].isprintable():
            raise Problem(f"{name}: {given[name]!r} has a control character")
        if name == "release" and not re.fullmatch("[a-z]+", given[name]):
            raise Problem(f"release: {given[name]!r} is no Debian release: use small letters, such as trixie")
    return [given[name] for name in names]


def read_spec(text: str) -> Spec:
    """The spec on stdin."""
    name, release, directory, admin_key, host_key_file = read(text, *FIELDS)
    if not HOST_NAME.fullmatch(name):
        raise Problem(
            f"name: {name!r} is no host name: use 1 to 63 letters, digits and '-', not beginning or ending with '-'"
        )
    if set(directory) & set(",\\"):
        raise Problem(f"directory: {directory!r} has a comma or backslash, which mount(8) takes for its own")
    for file in (host_key_file, f"{host_key_file}.pub"):
        if not Path(file).is_file():
            raise Problem(f"hostKeyFile: there is no {file}; make both with ssh-keygen -t ed25519 -N ''")
    return Spec(name, release, Path(directory).resolve(), admin_key, Path(host_key_file).resolve())


def main() -> int:
    """Run one verb."""
    parser = argparse.ArgumentParser(description="Boot a disposable Debian machine, or take it away.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("rootfs", "start", "stop"):
        verbs.add_parser(verb)
    runs = verbs.add_parser("run")
    runs.add_argument("directory", type=Path)
    runs.add_argument("command", nargs=argparse.REMAINDER)
    supervises = verbs.add_parser("supervise")
    supervises.add_argument("rootfs", type=Path)
    supervises.add_argument("spec", nargs=len(Spec._fields))
    args = parser.parse_args()
    try:
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Problem("a disposable machine needs root on Linux: run this as root there")
        if args.verb == "run":
            return run(args.directory, args.command[1:] if args.command[:1] == ["--"] else args.command)
        if args.verb == "supervise":
            name, release, directory, admin_key, host_key_file = args.spec
            spec = Spec(name, release, Path(directory), admin_key, Path(host_key_file))
            supervise(Machine(name, args.rootfs, spec.directory, lambda root, *_: furnish(root, spec), sshd_answers))
        elif args.verb == "start":
            print(json.dumps(start(read_spec(sys.stdin.read()))))
        elif args.verb == "stop":
            stop(Path(read(sys.stdin.read(), "directory")[0]).resolve())
        else:
            (release,) = read(sys.stdin.read(), "release")
            ensure_tools()
            ensure_rootfs(plain_image(release))
    except (Problem, OSError) as problem:
        say(str(problem))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
