"""The group and the accounts, as passwd(5), shadow(5) and group(5) have them."""

import grp
import math
import os
import pwd
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial
from typing import Optional

from . import shadow, state
from .difference import REPAIR, Difference, refusal
from .failure import Failure
from .shadow import change
from .state import User
from .validate import end_of_access

GROUP = "sftp-only"
"""The primary group of every user; sshd's Match block goes by it."""

PASSWORD_GROUP = "sftp-only-password"
"""The users who may also log in with a password."""

ACCESS_GROUPS = {"read-only": "sftp-only-read", "upload-only": "sftp-only-upload"}
"""The users who may do less than read and write, by `User.access`."""

GROUPS = (GROUP, PASSWORD_GROUP, *ACCESS_GROUPS.values())

HOME = "/uploads"
"""As seen from inside the chroot: where a session begins."""

SHELL = "/usr/sbin/nologin"

DAY = 86400

EXPIRED = "0"
"""The account's expiry, as shadow(5) has it, that both pam_unix(8) and sshd's own check take for over."""

NO_PASSWORD = "*"
"""Not `!`: with `UsePAM no`, sshd takes that for a locked account and refuses its keys, too."""


def gid() -> int:
    """The id of the group; `Failure` without it."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        raise Failure(f"there is no group {GROUP}", "Repair it", REPAIR) from None


def group_differences(wanted: bool) -> Iterator[Difference]:
    """The groups there, with nobody in them whom jailctl does not know; or all gone."""
    for name in GROUPS:
        passwords = shadow.line(shadow.GSHADOW, name)
        try:
            group = grp.getgrnam(name)
        except KeyError:
            if wanted:
                yield Difference(f"group {name}", "missing", "there", partial(_add_group, name))
            elif passwords is not None:
                yield Difference(f"group {name}, line in {shadow.GSHADOW}", "left", "gone", partial(_purge_group, name))
            continue
        if wanted and passwords is None and os.path.exists(shadow.GSHADOW):
            yield Difference(
                f"group {name}, line in {shadow.GSHADOW}",
                "missing",
                "there",
                partial(change, "gpasswd", "--restrict", name),
            )
        for stranger in _strangers(group) if wanted else []:
            # Not ours to change, and not ours to jail: it may be the administrator.
            failure = Failure(
                f"account {stranger} is in group {name}, so the jail would close on it",
                "Take it out of the group",
                f"sudo gpasswd -d {stranger} {name}"
                if stranger in group.gr_mem
                else f"sudo usermod --gid nogroup {stranger}",
            )
            yield refusal(f"account {stranger}", f"in group {name}, though no jailed user", "out of it", failure)
        if not wanted:
            yield Difference(f"group {name}", "there", "gone", partial(change, "groupdel", name))


def _add_group(name: str) -> None:
    change("groupadd", "--gid", str(state.gid_of(name)), name)


def _purge_group(name: str) -> None:
    # No tool removes the one line alone.
    change("groupadd", name)
    change("groupdel", name)


def _strangers(group: grp.struct_group) -> list[str]:
    members = {*group.gr_mem, *(entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == group.gr_gid)}
    return sorted(members - {user.username for user in state.users()})


def entry(user: User) -> Optional[pwd.struct_passwd]:
    """The user's account, or None; `Failure` if the name or the uid is somebody else's."""
    try:
        found = pwd.getpwnam(user.username)
    except KeyError:
        found = None
    if found is not None and found.pw_uid != user.uid:
        raise Failure(
            f"the server has another account {user.username}, uid {found.pw_uid}",
            "Choose another username; or, if it is his, give it back its uid",
            f"sudo usermod --uid {user.uid} {user.username}",
        )
    if found is None:
        try:
            owner = pwd.getpwuid(user.uid).pw_name
        except KeyError:
            return None
        raise Failure(f"uid {user.uid} of {user.username} is now {owner}'s", "Give that account another uid")
    return found


def is_there(user: User) -> bool:
    """Whether the user has his account, and no other one has his name."""
    try:
        return pwd.getpwnam(user.username).pw_uid == user.uid
    except KeyError:
        return False


def claimed_by_others(username: str) -> bool:
    """Whether the server has an account of this name."""
    try:
        pwd.getpwnam(username)
    except KeyError:
        return False
    return True


def user_differences(user: User) -> Iterator[Difference]:
    """The user's account: nologin, in the jail's group, and with no end but the one that the spec says."""
    subject = f"account {user.username}"
    group = gid()
    found = entry(user)
    if found is None:
        yield Difference(subject, "missing", f"uid {user.uid}, group {GROUP}", lambda: _add(user))
        if entry(user) is None:
            return
    else:
        for what, actual, wanted, option in (
            ("group", found.pw_gid, group, "--gid"),
            ("home", found.pw_dir, HOME, "--home"),
            ("shell", found.pw_shell, SHELL, "--shell"),
        ):
            if actual != wanted:
                yield Difference(
                    f"{subject}, {what}",
                    str(actual),
                    str(wanted),
                    partial(change, "usermod", option, str(wanted), user.username),
                )
    in_group = {_group_name(number) for number in os.getgrouplist(user.username, group)} - {GROUP}
    yield from _membership_differences(user, f"{subject}, further groups", in_group)
    if os.path.exists(shadow.GSHADOW):
        in_gshadow = shadow.groups(shadow.GSHADOW, user.username)
        yield from _membership_differences(user, f"{subject}, further groups in {shadow.GSHADOW}", in_gshadow)
    yield from _line_differences(user)
    line = shadow.line(shadow.SHADOW, user.username)
    if line is None:
        return
    # shadow(5); a PASS_MAX_DAYS that is reached would end logins by key, too.
    _, password, changed, _, maximum, _, inactive, _, _ = line
    if password != (user.password_hash or NO_PASSWORD):
        yield Difference(
            f"{subject}, password",
            "another one",
            "none" if user.password_hash is None else "as specified",
            lambda: set_password(user.username, user.password_hash or NO_PASSWORD),
        )
    if (changed == "0", maximum, inactive) != (False, "", ""):
        yield Difference(
            f"{subject}, ageing of the password",
            f"maximum {maximum or 'none'}, inactive {inactive or 'none'}",
            "none",
            lambda: change("chage", "-d", "1970-01-02", "-M", "-1", "-I", "-1", user.username),
        )
    yield from expiry_differences(user)


def sound() -> list[User]:
    """The users whose accounts are as they should be: on a machine that is new to the jails, nobody has one yet, and
    what sshd does for somebody whose groups are wrong says nothing of the jail."""
    return [user for user in state.users() if entry(user) is not None and not any(user_differences(user))]


def others_with_passwords(user: User) -> list[User]:
    """Who else can log in with a password, by name: who is in the group that sshd lets do so. To read every user's
    record instead would take the longer, the more there are."""
    try:
        members = grp.getgrnam(PASSWORD_GROUP).gr_mem
    except KeyError:
        return []
    names = sorted(set(members) - {user.username})
    return [found for name in names if (found := state.user(name)) is not None]


def _membership_differences(user: User, subject: str, found: set[str]) -> Iterator[Difference]:
    wanted = set(further_groups(user))
    if found != wanted:
        yield Difference(
            subject,
            ",".join(sorted(found)) or "none",
            ",".join(sorted(wanted)) or "none",
            lambda: change("usermod", "--groups", ",".join(sorted(wanted)), user.username),
        )


def _line_differences(user: User) -> Iterator[Difference]:
    """The account's line in shadow(5)."""
    if shadow.line(shadow.SHADOW, user.username) is None:
        yield Difference(
            f"account {user.username}, line in {shadow.SHADOW}", "missing", "there", lambda: _give_line(user)
        )


def _give_line(user: User) -> None:
    # chpasswd(8) makes the line where passwd(5) says that there is one.
    set_password(user.username, user.password_hash or NO_PASSWORD)
    if shadow.line(shadow.SHADOW, user.username) is None:
        raise Failure(f"account {user.username} has no line in {shadow.SHADOW}", "See what pwck says")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def expiry_differences(user: User) -> Iterator[Difference]:
    """The account's own end, which an existing account has."""
    yield from _line_differences(user)
    line = shadow.line(shadow.SHADOW, user.username)
    if line is not None and line[7] != _expiry(user):
        yield Difference(
            f"account {user.username}, expiry",
            _expiry_words(line[7]),
            _expiry_words(_expiry(user)),
            lambda: change("chage", "-E", _expiry(user) or "-1", user.username),
        )


def further_groups(user: User) -> list[str]:
    """The groups that sshd's Match blocks go by, beside the primary one."""
    return [
        *([PASSWORD_GROUP] if user.password_hash is not None else []),
        *([ACCESS_GROUPS[user.access]] if user.access in ACCESS_GROUPS else []),
    ]


def _expiry(user: User) -> str:
    """The first day without access, counted from 1970-01-01; pam_unix(8) goes by whole days in UTC."""
    if user.expires is None:
        return ""
    return EXPIRED if user.has_expired else str(math.ceil(end_of_access(user.expires).timestamp() / DAY))


def _expiry_words(days: str) -> str:
    return "never" if not days else str(date(1970, 1, 1) + timedelta(days=int(days)))


def set_password(username: str, encrypted: str) -> None:
    """Set the encrypted password, by stdin: an argument would show it to every process."""
    change("chpasswd", "--encrypted", stdin=f"{username}:{encrypted}\n")


def removal_differences(user: User) -> Iterator[Difference]:
    """The account gone; the first step of removal is `closing_differences`."""
    if entry(user) is not None:
        yield Difference(f"account {user.username}", "there", "gone", lambda: change("userdel", user.username))
    elif left := shadow.mentions(user.username):
        yield Difference(f"account {user.username}, {', '.join(left)}", "left", "gone", lambda: _purge(user))


def _purge(user: User) -> None:
    # No tool removes what is left of an account that passwd(5) has no more.
    _add(user, "nogroup")
    change("userdel", user.username)


def closing_differences(user: User) -> Iterator[Difference]:
    """The account expired and without a password, so that nobody logs in while it is being removed."""
    if entry(user) is None:
        return
    yield from _line_differences(user._replace(password_hash=None))
    line = shadow.line(shadow.SHADOW, user.username)
    if line is None:
        return
    if line[7] != EXPIRED:
        yield Difference(
            f"account {user.username}", "open", "expired", lambda: change("chage", "-E", EXPIRED, user.username)
        )
    if line[1] != NO_PASSWORD:
        yield Difference(
            f"account {user.username}, password",
            "one",
            "none",
            lambda: set_password(user.username, NO_PASSWORD),
        )


def _add(user: User, group: str = GROUP) -> None:
    change(
        *("useradd", "--uid", str(user.uid), "--gid", group, "--no-user-group", "--no-create-home"),
        # A sparse lastlog(8) of a high uid is gigabytes to a careless backup.
        *("--no-log-init", "--home-dir", HOME, "--shell", SHELL, "--comment", "sftp-jail"),
        *("--password", NO_PASSWORD, "--inactive", "-1", "--key", "PASS_MAX_DAYS=-1", user.username),
    )
