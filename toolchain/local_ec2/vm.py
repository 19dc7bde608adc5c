"""Part of a stand-in for EC2: one VM, a disposable machine with its volumes."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Optional

from . import network
from .amis import RELEASES
from .disposable import machine
from .image import SHOW_DEVICES, image
from .loop import Loop
from .supervisor import Boot

SHUTDOWN_SECONDS = 30
"""How long a VM may take to stop before its power is cut."""

# systemd(1), SIGNALS
POWER_OFF = signal.SIGRTMIN + 4
REBOOT = signal.SIGRTMIN + 5


class VM:
    """A machine that may be off; its disk lasts until `remove`. Every method returns when it is done."""

    def __init__(self, folder: Path, instance_id: str, image_id: str, release: str) -> None:
        """Boot nothing yet.

        :param folder: where all of it is kept
        :param release: the Debian release's code name
        """
        assert release in RELEASES.values(), release
        self.id = instance_id
        self.address: Optional[str] = None
        self._folder = folder
        self._image_id = image_id
        self._release = release
        self._directory = folder / "machine"
        self._devices = folder / "devices"
        self._loops: dict[str, Loop] = {}
        self._network = network.Network()
        self._directory.mkdir(parents=True)
        self._devices.mkdir(mode=0o755)
        (self._devices / "disk/by-id").mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a kernel without btrfs
            os.mknod(self._devices / "btrfs-control", 0o20660, os.stat("/dev/btrfs-control").st_rdev)

    def is_running(self) -> bool:
        """Whether it is on; it may have switched itself off."""
        return machine.is_running(self._directory)

    def boot(self, user_data: bytes, wanted: network.Network) -> None:
        """Switch it on, and wait until its systemd runs; `Problem` with the end of its console if that fails."""
        (self._folder / "user-data").write_bytes(user_data)
        boot = Boot(
            instance_id=self.id,
            image_id=self._image_id,
            rootfs=str(machine.ensure_rootfs(image(self._release))),
            directory=str(self._directory),
            devices=str(self._devices),
            user_data=str(self._folder / "user-data"),
            ruleset=wanted.ruleset,
            elastic=sorted(wanted.elastic),
            address=self.address,
        )
        spec = self._folder / "boot.json"
        spec.write_text(json.dumps(boot._asdict()))
        command = [sys.executable, "-m", f"{__package__}.supervisor", str(spec)]
        self.address = machine.bring_up(self._directory, command, self._folder / "console.log")["address"]
        self._network = wanted

    def shut_down(self) -> None:
        """Switch it off as one presses the button, or pulls the plug where that does not help; let its volumes go."""
        if self.is_running():
            with contextlib.suppress(ProcessLookupError, machine.Problem):
                os.kill(self._leader(), POWER_OFF)
            deadline = time.monotonic() + SHUTDOWN_SECONDS
            while self.is_running() and time.monotonic() < deadline:
                time.sleep(0.02)
        self.cut_power()

    def cut_power(self) -> None:
        """End it at once."""
        machine.end(self._directory)
        for volume_id in self.volumes():
            self._loops.pop(volume_id).release()
            self._name_of(volume_id).unlink()

    def reboot(self) -> None:
        """Have it reboot, and wait until its systemd runs again."""
        before = self._leader()
        os.kill(before, REBOOT)
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        while self._leader() == before:
            if time.monotonic() > deadline:
                raise machine.Problem(f"{self.id} did not reboot within {SHUTDOWN_SECONDS} s")
            time.sleep(0.02)

    def connect(self, wanted: network.Network) -> None:
        """Change what others reach of it."""
        if wanted != self._network:
            assert self.address is not None
            network.change(self._leader(), self.address, self._network, wanted)
            self._network = wanted

    def volumes(self) -> list[str]:
        """The ids of the volumes that it has."""
        return list(self._loops)

    def attach(self, volume_id: str, file: Path) -> None:
        """Give it a volume, named as udev does on a Nitro VM: `/dev/nvme1n1`, or the next number that is free."""
        taken = {loop.node.name for loop in self._loops.values()}
        number = next(number for number in range(1, 1000) if f"nvme{number}n1" not in taken)
        loop = self._loops[volume_id] = Loop(file, self._devices / f"nvme{number}n1")
        shutil.chown(loop.node, group="disk")
        self._name_of(volume_id).symlink_to(f"../../{loop.node.name}")
        self._show_devices()

    def detach(self, volume_id: str) -> None:
        """Take a volume away, which `is_mounted` must not say of."""
        self._loops.pop(volume_id).release()
        self._name_of(volume_id).unlink()
        self._show_devices()

    def is_mounted(self, volume_id: str) -> bool:
        """Whether the volume is in use in the VM."""
        return volume_id in self._loops and self._loops[volume_id].is_mounted()

    def grow(self, volume_id: str) -> None:
        """Show that a volume's file has grown."""
        self._loops[volume_id].grow()

    def remove(self) -> None:
        """Forget its disk; it must be off. Its console's text stays in the folder."""
        for folder in (self._directory, self._devices):
            shutil.rmtree(folder)

    def _name_of(self, volume_id: str) -> Path:
        name = f"nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        return self._devices / "disk/by-id" / name

    def _show_devices(self) -> None:
        if self.is_running() and machine.run_inside(self._leader(), [SHOW_DEVICES]):
            raise machine.Problem(f"{self.id} does not name its volumes: {SHOW_DEVICES} failed")

    def _leader(self) -> int:
        """The process id of its PID 1, once it is up."""
        deadline = time.monotonic() + machine.BOOT_SECONDS
        while (answer := machine.read_answer(self._directory)) is None:
            if not self.is_running() or time.monotonic() > deadline:
                raise machine.Problem(f"{self.id} does not run")
            time.sleep(0.02)
        return answer["leader"]
