"""Mounts a data volume at /sftp: run on a new VM by `python3 -c`, with itself and its spec as its input.

Not imported by anything: a one-line command reads a JSON map from stdin, and executes its `program`, with the map in
`spec`: `device`, the path of the volume; `size`, its GiB, there so that a volume that has grown is used to its end.
A blank volume is formatted; one that has a file system keeps it, and all that is on it. Standard library only.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

TARGET = "/sftp"
FSTAB = Path("/etc/fstab")
FILE_SYSTEM = "btrfs"
OPTIONS = ",".join(
    [
        # Whatever a user uploads is neither a program nor a device, whatever its bits say.
        *("nosuid", "nodev", "noexec"),
        # Without the volume the machine is to come up all the same, and to log in to.
        *("nofail", "x-systemd.device-timeout=30s"),
        *("x-systemd.before=ssh.service", "x-systemd.before=rsyslog.service"),
    ]
)
PATIENCE = 600
"""Seconds for cloud-init, which installs packages."""


class Problem(Exception):
    """A reason to give up, as one sentence."""


def call(*argv: str, accepted: "tuple[int, ...]" = (0,)) -> str:
    """A tool's standard output; `Problem` unless it ends as accepted."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode not in accepted:
        raise Problem(f"{' '.join(argv[:2])}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout.strip()


def mount(device: str) -> str:
    """Mount the volume now and at every boot; what was done."""
    # 2: it is done, and has something to warn of.
    call("cloud-init", "status", "--wait", "--long", accepted=(0, 2))
    wait_for(device)
    done = []
    # 2: there is nothing on it that blkid(8) knows.
    kind = call("blkid", "--probe", "--match-tag", "TYPE", "--output", "value", device, accepted=(0, 2))
    if not kind:
        # Refuses, without --force, whatever blkid may have overlooked.
        call(f"mkfs.{FILE_SYSTEM}", "--quiet", device)
        done.append("formatted")
    elif kind != FILE_SYSTEM:
        raise Problem(f"{device} has a {kind} file system, and {FILE_SYSTEM} is wanted: give another volume")
    uuid = call("blkid", "--probe", "--match-tag", "UUID", "--output", "value", device)
    if not os.path.ismount(TARGET):
        if os.path.isdir(TARGET) and os.listdir(TARGET):
            raise Problem(f"{TARGET} has something in it, which the volume would hide: move it away")
        os.makedirs(TARGET, exist_ok=True)
        write_fstab(f"UUID={uuid} {TARGET} {FILE_SYSTEM} {OPTIONS} 0 0")
        call("systemctl", "daemon-reload")
        call("mount", TARGET)
        done.append("mounted")
    call("btrfs", "filesystem", "resize", "max", TARGET)
    return f"data volume: {', '.join(done) or 'there already'}"


def wait_for(device: str) -> None:
    """Wait until the volume shows up; it is attached to a machine that runs."""
    deadline = time.monotonic() + 120
    while not os.path.exists(device):
        if time.monotonic() > deadline:
            raise Problem(f"there is no {device}: the instance type must be one on AWS's Nitro system")
        time.sleep(0.2)


def write_fstab(line: str) -> None:
    """Have this line for the mount point, in one step, and no other."""
    lines = FSTAB.read_text().splitlines() if FSTAB.exists() else []
    others = [old for old in lines if old.split()[1:2] != [TARGET]]
    new = FSTAB.with_name(".fstab.new")
    new.write_text("\n".join([*others, line, ""]))
    new.replace(FSTAB)


if __name__ == "__main__":
    try:
        print(mount(spec["device"]))  # type: ignore[name-defined]  # noqa: F821
    except (Problem, OSError, subprocess.TimeoutExpired) as problem:
        sys.exit(f"data volume: {problem}")
