"""Machines that have disks: a btrfs at /btrfs, and loop devices for file systems of their own.

Run as a program, it is the process that one such machine hangs on, and so do its disks: the btrfs is mounted in this
process's own mount namespace, and whatever the machine mounts in the machine's. When the process ends, however it
ends, the kernel unmounts all of it, and lets go of the loop devices beneath (losetup(8), autoclear).
"""

import json
import os
import sys
from pathlib import Path

from sftp_jail.hosts import machine
from tests.conftest import ROOT, Machine

DISK = "/btrfs"
"""Where the machine has its btrfs."""

DISK_SIZE = 1 << 30

LOOP_DEVICES = 64

NODES = f"""\
[Unit]
Description=Stand-in for udev: the nodes of loop devices
DefaultDependencies=no
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'mknod /dev/loop-control c 10 237; \\
    for number in $(seq 0 {LOOP_DEVICES - 1}); do mknod -m 660 /dev/loop$$number b 7 $$number; done'
[Install]
RequiredBy=local-fs.target
"""


class MachineWithDisks(Machine):
    """A booted Debian with a btrfs and loop devices."""

    def boot(self) -> str:
        """Boot it; its address."""
        environment = ["env", f"PYTHONPATH={ROOT}", f"SFTP_JAIL_UNTIL_PID={os.getpid()}"]
        supervisor = [*environment, sys.executable, "-m", "tests.disks", json.dumps(self.spec)]
        directory = Path(self.spec["directory"])
        directory.mkdir()
        return machine.bring_up(directory, supervisor, self.folder / "console.log")["address"]


def furnish(spec: machine.Spec, root: Path) -> None:
    """What every machine has, and the nodes of its loop devices."""
    machine.furnish(root, spec)
    unit = root / "etc/systemd/system/loop-devices.service"
    unit.write_text(NODES)
    wanted = root / "etc/systemd/system/local-fs.target.requires"
    wanted.mkdir(exist_ok=True)
    (wanted / unit.name).symlink_to(f"../{unit.name}")


def main() -> None:
    """Hold the machine until it is off, or whoever wanted it is gone."""
    spec = machine.read_spec(sys.argv[1])
    disk = spec.directory.parent / "disk"
    disk.mkdir()
    file = disk.with_suffix(".img")
    with open(file, "wb") as image:
        image.truncate(DISK_SIZE)
    machine.call("mkfs.btrfs", "--quiet", file)
    machine.own_mounts()
    machine.call("mount", "-o", "loop", file, disk)
    machine.supervise(
        machine.Machine(
            name=spec.name,
            rootfs=machine.ensure_rootfs(machine.plain_image(spec.release)),
            directory=spec.directory,
            furnish=lambda root, *_: furnish(spec, root),
            ready=machine.sshd_answers,
            options=(f"--bind={disk}:{DISK}",),
        )
    )


if __name__ == "__main__":
    main()
