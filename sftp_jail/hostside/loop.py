"""Quotas by a file system for each user: a file of a fixed size, mounted where his uploads are.

The file's blocks are allocated when it is made, so nobody's quota is promised twice. Its inodes are as fixed as its
blocks. Whatever is uploaded there is neither a program nor a device nor does it give another's rights (mount(8)).
"""

import os
from collections.abc import Iterator
from typing import Optional

from . import files, services, state
from .difference import Difference, refusal
from .failure import Failure
from .process import installed, run, succeeds

SERVICE = "sftp-jail-quota.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
UNIT_TEXT = """\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=Mount the uploads of jailed SFTP users who have a quota
RequiresMountsFor=/usr/local
After=sftp.mount
# Nobody logs in before his uploads are there.
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/jailctl mount
[Install]
WantedBy=multi-user.target
"""

OPTIONS = "loop,nosuid,nodev,noexec,errors=remount-ro"
FLAGS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC

BYTES_PER_INODE = 16384
"""mke2fs.conf(5)'s for a file system of this kind, whatever its size."""

MKFS = "mkfs.ext4"
CONTROL = "/dev/loop-control"


def differences() -> Iterator[Difference]:
    """The host can have such file systems, and mounts them when it boots."""
    reason = objection()
    if reason is not None:
        yield refusal("quotas: loop", reason.message, "possible", reason)
    yield from files.file_differences(UNIT, UNIT_TEXT)
    if not succeeds("systemctl", "is-enabled", "--quiet", SERVICE):
        yield Difference(SERVICE, "disabled", "enabled", lambda: services.enable(SERVICE))


def removal_differences() -> Iterator[Difference]:
    """Nothing is mounted at boot any more."""
    if os.path.exists(UNIT):
        yield Difference(SERVICE, "there", "gone", _remove_unit)


def _remove_unit() -> None:
    services.disable(SERVICE)
    files.remove(UNIT)
    run("systemctl", "daemon-reload")


def objection() -> Optional[Failure]:
    """Why there can be no such quotas here; None if there can."""
    if not installed(MKFS):
        return Failure(f"quotas: loop needs the program {MKFS}", "Install it", "sudo apt-get install e2fsprogs")
    try:
        # Loads the kernel's module, where that is not built in (modprobe(8), static device nodes).
        os.close(os.open(CONTROL, os.O_RDWR))
    except OSError as error:
        return Failure(
            f"quotas: loop needs loop devices, and {CONTROL}: {error.strerror}", "Load the module", "sudo modprobe loop"
        )
    return None


def size(image: str) -> int:
    """The size of a user's file system, in bytes."""
    return os.stat(image).st_size


def make(image: str, size: int) -> None:
    """A new file system of that many bytes, all of them allocated.

    :raises Failure: where they are not free; nothing is left of it then
    """
    fd = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        found = os.fstatvfs(fd)
        free = found.f_bavail * found.f_frsize
        if size > free:
            raise Failure(
                f"a file system of {size} bytes does not fit into the {free} that {state.TOP} has left",
                "Choose a smaller quota, or make room: also to change a quota, the new file system is made first",
            )
        os.posix_fallocate(fd, 0, size)
        # No block is kept for root: the quota is the user's. A smaller inode, as of old in a file system so small, has
        # no room for the fraction of a second, nor for a year after 2037.
        run(MKFS, "-q", "-F", "-m", "0", "-I", "256", "-i", str(BYTES_PER_INODE), image)
        os.fsync(fd)
    except BaseException:
        os.unlink(image)
        raise
    finally:
        os.close(fd)


def is_mounted(path: str) -> bool:
    """Whether something is mounted at the path."""
    return os.path.ismount(path)


def mount(image: str, path: str) -> None:
    """Mount the file system at a directory, which is made if it is missing, and is root's alone beneath."""
    os.makedirs(path, 0o700, exist_ok=True)
    run("mount", "-t", "ext4", "-o", OPTIONS, image, path)


def unmount(path: str) -> None:
    """Unmount what is mounted at the path, and remove the empty directory beneath."""
    if is_mounted(path):
        run("umount", path)
    if os.path.isdir(path):
        os.rmdir(path)


def is_harmless(path: str) -> bool:
    """Whether what is mounted there has the flags that `OPTIONS` gave it."""
    return os.statvfs(path).f_flag & FLAGS == FLAGS


def make_harmless(path: str) -> None:
    """Give it these flags."""
    run("mount", "-o", f"remount,{OPTIONS.replace('loop,', '')}", path)
