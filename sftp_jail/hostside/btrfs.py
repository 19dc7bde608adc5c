"""Quotas by btrfs: a user's uploads are a subvolume, and its qgroup has a limit (btrfs-quota(8)).

The limit is for what the subvolume refers to, its metadata included, so that empty files count, too. Not the simple
quotas of Linux 6.7: they are an incompatible feature, and a volume that has them could not be mounted by an older
kernel on the next machine.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple, Optional

from . import files, state
from .difference import Difference, refusal
from .failure import Failure
from .process import run, succeeds

SUBVOLUME_INODE = 256
"""The inode of every subvolume's root directory (BTRFS_FIRST_FREE_OBJECTID)."""

FS_INFO = 0x8400941F
"""BTRFS_IOC_FS_INFO (linux/btrfs.h); the file system's UUID is at byte 16 of its 1024."""

OURS = f"{state.FOLDER}/btrfs-quota"
"""There if the file system counted nothing before the jail, and need not after it."""


class Use(NamedTuple):
    """Bytes that a subvolume takes, and may take; None: no limit."""

    used: int
    limit: Optional[int]


def differences() -> Iterator[Difference]:
    """The jails' file system counts what each subvolume takes."""
    reason = objection()
    if reason is not None:
        yield refusal("quotas: btrfs", reason.message, "possible", reason)
    if not counts():
        yield Difference(f"{state.TOP}, counting of what each subvolume takes", "off", "on", _enable)
    elif _is_inconsistent():
        yield Difference(f"{state.TOP}, counting of what each subvolume takes", "wrong", "done anew", _count_anew)


def removal_differences() -> Iterator[Difference]:
    """No counting, if it was not there before us."""
    if os.path.exists(OURS):
        if is_btrfs(state.TOP) and counts():
            yield Difference(
                f"{state.TOP}, counting of what each subvolume takes",
                "on",
                "off",
                lambda: run("btrfs", "quota", "disable", state.TOP),
            )
        yield from files.file_differences(OURS, None)


def objection() -> Optional[Failure]:
    """Why there can be no such quotas here; None if there can."""
    if not is_btrfs(state.TOP):
        kind = run("stat", "--file-system", "--format=%T", state.TOP).strip()
        return Failure(
            f"quotas: btrfs needs a btrfs at {state.TOP}, and the file system there is {kind}",
            f"Mount a btrfs at {state.TOP} before the jail is made, or set quotas: loop",
        )
    if not succeeds("btrfs", "--version"):
        return Failure("quotas: btrfs needs the program btrfs", "Install it", "sudo apt-get install btrfs-progs")
    return None


def is_btrfs(path: str) -> bool:
    """Whether the path is on a btrfs."""
    return run("stat", "--file-system", "--format=%T", path).strip() == "btrfs"


def is_subvolume(path: str) -> bool:
    """Whether a subvolume begins at the path."""
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_ino == SUBVOLUME_INODE and is_btrfs(path)


def make(path: str) -> None:
    """A new, empty subvolume."""
    run("btrfs", "subvolume", "create", path)


def delete(path: str) -> None:
    """Delete a subvolume with all that is in it, at once however much and however deep it is."""
    run("btrfs", "subvolume", "delete", path)


def use(path: str) -> Use:
    """What a subvolume takes and may take, by the last transaction."""
    qgroup = _qgroup(path)
    for line in run("btrfs", "qgroup", "show", "--raw", "--sync", "-r", "-f", path).splitlines():
        words = line.split()
        if words and words[0] == qgroup:
            return Use(int(words[1]), None if words[3] == "none" else int(words[3]))
    raise Failure(f"btrfs does not count what {path} takes", f"See: btrfs qgroup show {path}")


def limit(path: str, size: Optional[int]) -> None:
    """Set the limit, in bytes; None: no limit."""
    run("btrfs", "qgroup", "limit", str(size) if size is not None else "none", path)


def _qgroup(path: str) -> str:
    return f"0/{run('btrfs', 'inspect-internal', 'rootid', path).strip()}"


def counts() -> bool:
    """Whether the jails' file system counts what each subvolume takes."""
    return succeeds("btrfs", "qgroup", "show", state.TOP)


def _enable() -> None:
    files.write(OURS, "")
    run("btrfs", "quota", "enable", state.TOP)
    _count_anew()


def _count_anew() -> None:
    # Waits, as well, for a rescan that goes on already, as one does after `quota enable`.
    run("btrfs", "quota", "rescan", "-w", state.TOP, timeout=None)


def _is_inconsistent() -> bool:
    fd = os.open(state.TOP, os.O_RDONLY | os.O_DIRECTORY)
    try:
        raw = fcntl.ioctl(fd, FS_INFO, bytes(1024))
    finally:
        os.close(fd)
    digits = struct.unpack_from("16s", raw, 16)[0].hex()
    uuid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return (files.read(f"/sys/fs/btrfs/{uuid}/qgroups/inconsistent") or "0").strip() == "1"
