"""What the server must remember: the specs as applied, every uid ever given, and what is still to be loaded."""

import json
import os
import pwd
from collections.abc import Iterator
from typing import NamedTuple, Optional

from . import files
from .difference import Difference
from .failure import Failure

FOLDER = "/var/lib/sftp-jail"
JAIL = f"{FOLDER}/jail.json"
USERS = f"{FOLDER}/users"
LAST_UID = f"{FOLDER}/last-uid"

FIRST_UID = 70000
"""Above UID_MAX and systemd's ranges (systemd's UIDS-GIDS), so that no useradd but ours ever gives such a uid."""

LAST_POSSIBLE_UID = 99999
"""Below SUB_UID_MIN, where the ranges of containers begin (login.defs(5))."""


class Jail(NamedTuple):
    """The policy of the host: how much internal-sftp logs, and the umask of uploads."""

    log_level: str
    umask: str


class User(NamedTuple):
    """One login. `keys` maps label to `type blob`; `archive` is where the uploads went, once removal has begun."""

    username: str
    uid: int
    keys: dict[str, str]
    password_hash: Optional[str] = None
    archive: Optional[str] = None


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


def folder_differences() -> Iterator[Difference]:
    """The folder itself; users' records hold password hashes, so they are root's alone."""
    yield from files.directory_differences(FOLDER, 0o755)
    yield from files.directory_differences(USERS, 0o700)


def jail_differences(jail: Optional[Jail]) -> Iterator[Difference]:
    """The record of the jail; without a jail nothing is left but the uids that were given."""
    if jail is None:
        yield from files.empty_directory_differences(USERS)
    yield from files.file_differences(JAIL, None if jail is None else _text(jail), 0o600)


def user_differences(user: User) -> Iterator[Difference]:
    """The record of the user."""
    yield from files.file_differences(f"{USERS}/{user.username}.json", _text(user), 0o600)


def write_user(user: User) -> None:
    """Keep the user's record."""
    files.write(f"{USERS}/{user.username}.json", _text(user), 0o600)


def forget_user(username: str) -> None:
    """Drop the user's record; the uid stays used."""
    files.remove(f"{USERS}/{username}.json")


def next_uid() -> int:
    """A uid that this server has never given to anybody.

    A uid that came back would hand the files and the log lines of one contractor to another.
    """
    uid = max(FIRST_UID, int(files.read(LAST_UID) or 0) + 1)
    while _taken(uid):
        uid += 1
    if uid > LAST_POSSIBLE_UID:
        raise Failure(f"every uid up to {LAST_POSSIBLE_UID} has been given", "Set up a new server")
    files.write(LAST_UID, f"{uid}\n")
    return uid


def _taken(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _text(record: NamedTuple) -> str:
    return json.dumps(record._asdict(), indent=1, sort_keys=True) + "\n"


def _read(path: str) -> Optional[dict]:
    text = files.read(path)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        raise Failure(f"{path} is damaged", "Restore it from a backup, or remove it and run this again") from None
