"""Part of a stand-in for EC2: a file as a block device that the kernel takes away when nobody has it open any more."""

import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

from .disposable import machine

# linux/loop.h, linux/major.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_SET_CAPACITY = 0x4C07
LO_FLAGS_AUTOCLEAR = 4
LOOP_MAJOR = 7
LOOP_CONFIG = struct.Struct("=II5Q4I64s64s32s2Q8Q")
"""struct loop_config: file, block size; struct loop_info64; reserved."""


class Loop:
    """A loop device, which lasts while this object, a process that has it open, or a mount holds it."""

    def __init__(self, file: Path, node: Path) -> None:
        """Attach a file, and make a device node for it.

        :raises OSError: where the kernel has no loop devices, or we are not root
        """
        self.node = node
        with open(file, "r+b") as backing, open("/dev/loop-control", "rb") as control:
            while True:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                node.unlink(missing_ok=True)
                os.mknod(node, stat.S_IFBLK | 0o660, os.makedev(LOOP_MAJOR, number))
                self._device = os.open(node, os.O_RDWR)
                info = (0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR, os.fsencode(file.name)[:63], b"", b"", 0, 0)
                try:
                    fcntl.ioctl(self._device, LOOP_CONFIGURE, LOOP_CONFIG.pack(backing.fileno(), 0, *info, *[0] * 8))
                    return
                except OSError as fault:
                    os.close(self._device)
                    if fault.errno != errno.EBUSY:  # somebody else was quicker to take this one
                        raise

    def grow(self) -> None:
        """See that the file is larger."""
        fcntl.ioctl(self._device, LOOP_SET_CAPACITY)

    def is_mounted(self) -> bool:
        """Whether a file system or the like has claimed it."""
        try:
            os.close(os.open(self.node, os.O_RDONLY | os.O_EXCL))
        except OSError as fault:
            if fault.errno == errno.EBUSY:
                return True
            raise
        return False

    def release(self) -> None:
        """Let go of it and remove the node, when no file system has it: the kernel unmounts behind a VM's end."""
        deadline = time.monotonic() + 10
        while self.is_mounted():
            if time.monotonic() > deadline:
                raise machine.Problem(f"{self.node.name} is still mounted")
            time.sleep(0.01)
        os.fsync(self._device)
        os.close(self._device)
        self.node.unlink()
