"""What the server must remember: the specs as applied, every id ever given, and what is still to be loaded.

All of it lies beside the jails, on what may be a volume that outlives the machine: on the next machine, whoever
finds the jails finds who they belong to, and `apply-jail` makes the accounts again.
"""

import contextlib
import grp
import json
import os
import pwd
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional

from . import files
from .difference import Difference
from .failure import Failure
from .validate import end_of_access

TOP = "/sftp"
"""Jails, archives and this memory. A file system of its own may be mounted here."""

FOLDER = f"{TOP}/state"
FSTAB = "/etc/fstab"
JAIL = f"{FOLDER}/jail.json"
USERS = f"{FOLDER}/users"
GROUPS = f"{FOLDER}/groups.json"
LAST_ID = f"{FOLDER}/last-id"

FIRST_ID = 70000
"""Above UID_MAX and systemd's ranges (systemd's UIDS-GIDS), so that no useradd but ours ever gives such a uid."""

LAST_POSSIBLE_ID = 99999
"""Below SUB_UID_MIN, where the ranges of containers begin (login.defs(5))."""


class Jail(NamedTuple):
    """The policy of the host: how much internal-sftp logs, and the umask of uploads; the stack that has the host, and
    the machine that it was applied to; whether sshd is hardened as a whole, and the type of the host key by which the
    deployer knows the machine; who else is sent the log (`validate.check_siem`); `quotas`, the kind of users' quotas,
    `btrfs` or `loop`."""

    log_level: str
    umask: str
    owner: str
    machine: str
    hardening: bool = False
    host_key_type: str = ""
    siem: Optional[dict[str, Any]] = None
    quotas: Optional[str] = None


class User(NamedTuple):
    """One login. `keys` maps label to `type blob`; `owner` is the stack that made it, by its fully qualified name;
    `archive` is where the uploads go, or went, once removal has come to them. `pending`: the machine before this one
    had him, and his stack has not asked for him here. `removing`: his removal has begun. The others are as validate.py
    has them; `allow_from` None: any address."""

    username: str
    uid: int
    owner: str
    keys: dict[str, str]
    password_hash: Optional[str] = None
    archive: Optional[str] = None
    pending: bool = False
    expires: Optional[str] = None
    allow_from: Optional[list[str]] = None
    access: str = "read-write"
    on_removal: str = "archive"
    quota: Optional[str] = None
    removing: bool = False

    @property
    def has_expired(self) -> bool:
        """Whether his access has ended by itself."""
        return self.expires is not None and end_of_access(self.expires) <= datetime.now(timezone.utc)


def machine() -> str:
    """What tells this machine from the next one with the same jails (machine-id(5))."""
    return (files.read("/etc/machine-id") or "").strip()


def jail() -> Optional[Jail]:
    """The jail as last applied, or None."""
    record = _read(JAIL)
    return None if record is None else Jail(**record)


def user(username: str) -> Optional[User]:
    """The user as last applied, or None where there is none."""
    record = _read(f"{USERS}/{username}.json")
    return None if record is None else User(**record)


def users() -> list[User]:
    """Every user, by name."""
    try:
        names = sorted(name[:-5] for name in os.listdir(USERS) if name.endswith(".json") and name[0] != ".")
    except FileNotFoundError:
        return []
    return [found for name in names if (found := user(name)) is not None]


def require_mounted() -> None:
    """`Failure` while the file system that belongs at `TOP` is not there: all would be made anew beneath it."""
    if TOP in _mount_points(FSTAB) and TOP not in _mount_points("/proc/self/mounts"):
        raise Failure(f"{FSTAB} has a file system for {TOP}, and it is not mounted", f"Mount it: mount {TOP}")


def _mount_points(path: str) -> list[str]:
    """The second words of a file in the form of fstab(5)."""
    lines = [line.split() for line in (files.read(path) or "").splitlines()]
    return [words[1] for words in lines if len(words) > 1 and not words[0].startswith("#")]


def folder_differences() -> Iterator[Difference]:
    """The folder itself; users' records hold password hashes, so it is root's alone."""
    yield from files.directory_differences(FOLDER, 0o700)
    yield from files.directory_differences(USERS, 0o700)


def jail_differences(jail: Optional[Jail]) -> Iterator[Difference]:
    """The record of the jail; without a jail nothing is left but the ids that were given."""
    if jail is None:
        yield from files.empty_directory_differences(USERS)
        yield from files.file_differences(GROUPS, None)
    yield from files.file_differences(JAIL, None if jail is None else _text(jail), 0o600)
    if jail is None:
        yield from files.empty_directory_differences(FOLDER)


def user_differences(user: User) -> Iterator[Difference]:
    """The record of the user."""
    yield from files.file_differences(f"{USERS}/{user.username}.json", _text(user), 0o600)


def write_user(user: User) -> None:
    """Keep the user's record."""
    files.write(f"{USERS}/{user.username}.json", _text(user), 0o600)


def begin_removal(user: User) -> None:
    """Remember, if anything can be written, that whoever comes next must not give him access again."""
    with contextlib.suppress(OSError):  # a full disk keeps nobody's access
        write_user(user._replace(removing=True))


def forget_user(username: str) -> None:
    """Drop the user's record; the uid stays used."""
    files.remove(f"{USERS}/{username}.json")


def gid_of(group: str) -> int:
    """The id of a group of ours, the same on every machine that the jails have been on: files keep it."""
    record = _read(GROUPS) or {}
    if group not in record:
        record[group] = next_id()
        files.write(GROUPS, json.dumps(record, sort_keys=True) + "\n", 0o600)
    return record[group]


def next_id() -> int:
    """A uid or gid that was never given here to anybody.

    A uid that came back would hand the files and the log lines of one contractor to another.
    """
    number = max(FIRST_ID, int(files.read(LAST_ID) or 0) + 1)
    while _taken(number):
        number += 1
    if number > LAST_POSSIBLE_ID:
        raise Failure(f"every uid up to {LAST_POSSIBLE_ID} has been given", "Set up a new server")
    files.write(LAST_ID, f"{number}\n")
    return number


def _taken(number: int) -> bool:
    for find in (pwd.getpwuid, grp.getgrgid):
        try:
            find(number)
        except KeyError:
            continue
        return True
    return False


def _text(record: NamedTuple) -> str:
    return json.dumps(record._asdict(), indent=1, sort_keys=True) + "\n"


def _read(path: str) -> Optional[dict]:
    text = files.read(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        raise Failure(f"{path} is damaged", "Restore it from a backup, or remove it and run this again") from None
