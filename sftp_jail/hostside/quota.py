"""How much each user may store, enforced by the file system: by a btrfs qgroup, or a file system of his own.

Where the uploads must become another kind of thing for it, a directory a subvolume, say, they are moved: out of
everybody's reach first, then copied, and the copy put into place by one rename. Until that rename what is out of
reach is whole, and from then on it is superfluous; so whoever comes next, after a power cut as well, knows which
of the two to keep.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple, Optional

from . import accounts, btrfs, chroot, difference, files, loop, process, state, validate
from .difference import Difference, refusal
from .failure import Failure
from .state import Jail, User

FOLDER = f"{state.TOP}/quota"
"""Root's alone: each user's file system, as NAME.img, and what is being moved."""

BTRFS, LOOP, PLAIN = "btrfs", "loop", "plain"
"""What uploads can be: a subvolume, a mounted file system, a mere directory."""

LIMITS = "/etc/security/limits.d"

SLACK = 1 << 30
"""Bytes by which a single file may be longer than the quota. A file that is mostly hole counts little in any quota, so
its length needs a bound of its own (limits.conf(5), fsize); but who exceeds it loses his session (SIGXFSZ), and that
must not happen to a client which still has writes under way when the quota is reached, some 16 MiB of them."""

NEARLY_FULL = 90
"""Percent of a quota."""


def image(username: str) -> str:
    """The file system of a user whose quota is of the kind `loop`."""
    return f"{FOLDER}/{username}.img"


def differences(jail: Jail) -> Iterator[Difference]:
    """What the host must have for the kind of quotas that is wanted, and nothing of the other."""
    limited = [user.username for user in state.users() if user.quota is not None and not user.pending]
    if jail.quotas is None and limited:
        yield refusal("quotas", f"asked for: {', '.join(limited)}", "possible", _unenforced(limited))
    if jail.quotas is not None:
        yield from files.directory_differences(FOLDER, 0o700)
    if jail.quotas == BTRFS:
        yield from btrfs.differences()
    else:
        yield from btrfs.removal_differences()
    if jail.quotas == LOOP:
        yield from loop.differences()
    else:
        yield from loop.removal_differences()


def removal_differences() -> Iterator[Difference]:
    """Nothing of it on the host; the users are gone by now."""
    yield from btrfs.removal_differences()
    yield from loop.removal_differences()
    yield from files.empty_directory_differences(FOLDER)


def _unenforced(usernames: list[str]) -> Failure:
    return Failure(
        f"{', '.join(usernames)}: a quota, and this jail enforces none",
        "Set quotas: btrfs or quotas: loop for the jail; or take the quotas away first",
    )


# One user


def user_differences(user: User, jail: Jail) -> Iterator[Difference]:
    """The user's uploads of the kind that his quota needs, and of its size.

    To come before his account's differences: while the uploads are moved, the account is closed, and these open it.
    """
    if user.quota is not None and jail.quotas is None:
        yield refusal(f"quota of {user.username}", "impossible", user.quota, _unenforced([user.username]))
    yield from settling_differences(user)
    found, wanted = _kind(user), _wanted_kind(user, jail)
    resized = found == wanted == LOOP and _size(user) != loop.size(image(user.username))
    if wanted is not None and (found != wanted or resized):
        yield Difference(
            f"uploads of {user.username}",
            _describe(user, found),
            f"a file system of {user.quota}" if wanted == LOOP else _describe(user, wanted),
            lambda: _make(user, wanted),
        )
    # Not where a check has only told that it should be one.
    if wanted == BTRFS == _kind(user):
        yield from _subvolume_differences(user)
    if wanted == LOOP:
        yield from _mount_differences(user)
    yield from files.file_differences(_limits_file(user), _limits(user))
    yield from files.file_differences(f"{chroot.path(user.username)}/QUOTA", _notice(user))


def removal_differences_of(user: User) -> Iterator[Difference]:
    """The uploads gone if they are more than a directory: what was worth keeping is archived by now."""
    uploads = chroot.uploads(user.username)
    yield from files.file_differences(_limits_file(user), None)
    found = _kind(user)
    if found == BTRFS:
        yield Difference(uploads, "a subvolume", "gone", lambda: btrfs.delete(uploads))
    if found == LOOP:
        if loop.is_mounted(uploads):
            yield Difference(uploads, "mounted", "unmounted", lambda: loop.unmount(uploads))
        yield from files.file_differences(image(user.username), None)


def whole_differences(user: User) -> Iterator[Difference]:
    """All of a user's uploads where they belong, so that they can be put away, whatever was interrupted before."""
    yield from _whole_differences(user)
    if user.on_removal == "keep" and _kind(user) == BTRFS:
        yield from _subvolume_differences(user._replace(quota=None))
    if user.on_removal == "keep" and _kind(user) == LOOP:
        yield Difference(
            f"uploads of {user.username}", _describe(user, LOOP), "a directory", lambda: _make(user, PLAIN)
        )


def _whole_differences(user: User) -> Iterator[Difference]:
    yield from settling_differences(user)
    if _kind(user) == LOOP:
        yield from _mount_differences(user)


def _kind(user: User) -> Optional[str]:
    uploads = chroot.uploads(user.username)
    if os.path.exists(image(user.username)):
        return LOOP
    if not os.path.lexists(uploads):
        return None
    return BTRFS if btrfs.is_subvolume(uploads) else PLAIN


def _wanted_kind(user: User, jail: Jail) -> Optional[str]:
    if user.quota is not None:
        return jail.quotas
    found = _kind(user)
    if found in (None, LOOP):
        # As a subvolume from the beginning, uploads need not be moved for a quota that comes later.
        return BTRFS if jail.quotas == BTRFS else (PLAIN if found == LOOP else None)
    return found


def _describe(user: User, kind: Optional[str]) -> str:
    if kind == LOOP:
        return f"a file system of {show(loop.size(image(user.username)))}"
    return {BTRFS: "a subvolume", PLAIN: "a directory", None: "missing"}[kind]


def _size(user: User) -> int:
    assert user.quota is not None
    return validate.quota_bytes(user.quota)


def _subvolume_differences(user: User) -> Iterator[Difference]:
    uploads = chroot.uploads(user.username)
    wanted = _size(user) if user.quota is not None else None
    actual = btrfs.use(uploads).limit if btrfs.counts() else None
    if actual != wanted:
        yield Difference(
            f"quota of {user.username}",
            "none" if actual is None else show(actual),
            user.quota or "none",
            lambda: btrfs.limit(uploads, wanted),
        )


def _mount_differences(user: User) -> Iterator[Difference]:
    uploads = chroot.uploads(user.username)
    if not loop.is_mounted(uploads):
        yield Difference(uploads, "not mounted", "mounted", lambda: loop.mount(image(user.username), uploads))
    elif not loop.is_harmless(uploads):
        yield Difference(uploads, "mounted with other flags", loop.OPTIONS, lambda: loop.make_harmless(uploads))


def _limits_file(user: User) -> str:
    return f"{LIMITS}/sftp-jail-{user.username}.conf"


def _limits(user: User) -> Optional[str]:
    if user.quota is None:
        return None
    return (
        "# Written by jailctl, which puts it back when it is changed.\n"
        f"{user.username} - fsize {(_size(user) + SLACK) // 1024}\n"
    )


def _notice(user: User) -> Optional[str]:
    """What the user can read of it: SFTP has no word for a quota (draft-ietf-secsh-filexfer-02, 7)."""
    if user.quota is None:
        return None
    return (
        f"All of /uploads may take {user.quota}. An upload that would take more fails with the word Failure;\n"
        "remove something, and it succeeds.\n"
    )


# Moving uploads


def _old(user: User) -> str:
    return f"{FOLDER}/{user.username}.old"


def _new(user: User) -> str:
    return f"{FOLDER}/{user.username}.new"


def settling_differences(user: User) -> Iterator[Difference]:
    """No move half done."""
    left = [f"{path}{kind}" for path in (_old(user), _new(user)) for kind in ("", ".img")]
    if any(map(os.path.lexists, left)):
        yield Difference(
            f"uploads of {user.username}", "being moved by a run that was interrupted", "whole", lambda: _settle(user)
        )


def _settle(user: User) -> None:
    """Keep of the old and the new what is whole."""
    old, new = _old(user), _new(user)
    _discard(new)
    if _kind(user) is not None:
        _discard(old)
    elif os.path.exists(f"{old}.img"):
        loop.unmount(old)
        os.rename(f"{old}.img", image(user.username))
    elif os.path.exists(old):
        os.rename(old, chroot.uploads(user.username))
    files.sync(FOLDER)


def _discard(path: str) -> None:
    """Remove a directory, subvolume or mounted file system of ours, out of everybody's reach as it is."""
    if os.path.exists(f"{path}.img"):
        loop.unmount(path)
        os.unlink(f"{path}.img")
    elif os.path.exists(path) and btrfs.is_subvolume(path):
        btrfs.delete(path)
    elif os.path.exists(path):
        process.run("rm", "-rf", "--one-file-system", "--", path, timeout=None)


def _make(user: User, kind: str) -> None:
    """Make the uploads be of this kind, with all that is in them."""
    if _kind(user) is None:
        _build(user, kind)
        return
    difference.apply(_whole_differences(user))
    _refuse_too_small(user, kind)
    closed = difference.apply(accounts.closing_differences(user))
    process.end(user.uid)
    try:
        _take(user)
        # A login that was under way may have begun since then; it has nothing of the uploads now.
        process.end(user.uid)
        _build(user, kind)
    except BaseException:
        # As it was, sessions aside; and open, if it was.
        _settle(user)
        difference.apply(_whole_differences(user))
        if closed:
            difference.apply(accounts.user_differences(user))
        raise
    _settle(user)


def _refuse_too_small(user: User, kind: str) -> None:
    if kind != LOOP:
        return
    used = int(
        process.run("du", "--summarize", "--block-size=1", chroot.uploads(user.username), timeout=None).split()[0]
    )
    if used > _size(user):
        raise Failure(
            f"{user.username} has {show(used)}, which no file system of {user.quota} can hold",
            "Let him remove something first, or choose a larger quota",
        )


def _take(user: User) -> None:
    """Move the uploads to where nobody but root gets; to be read at `_old`."""
    uploads, old = chroot.uploads(user.username), _old(user)
    if _kind(user) == LOOP:
        loop.unmount(uploads)
        os.rename(image(user.username), f"{old}.img")
        loop.mount(f"{old}.img", old)
        return
    # Not through a link, which whoever planted it could not have done in here.
    difference.apply(files.directory_differences(uploads, 0o755, user.uid, accounts.gid()))
    os.rename(uploads, old)


def _build(user: User, kind: str) -> None:
    """New uploads of this kind, filled with the old ones if there are any, and put into place when they are whole."""
    old, new = _old(user), _new(user)
    if kind == LOOP:
        loop.make(f"{new}.img", _size(user))
        loop.mount(f"{new}.img", new)
        os.rmdir(f"{new}/lost+found")
    elif kind == BTRFS:
        btrfs.make(new)
    else:
        os.mkdir(new, 0o700)
    if os.path.exists(old):
        # Nobody else reaches either, so no link can be swapped under cp(1).
        process.run("cp", "--archive", "--reflink=auto", "--", f"{old}/.", new, timeout=None)
    if kind == LOOP:
        loop.unmount(new)
    os.sync()
    if kind == LOOP:
        os.rename(f"{new}.img", image(user.username))
    else:
        os.rename(new, chroot.uploads(user.username))
        files.sync(chroot.path(user.username))
    files.sync(FOLDER)


# What is used


def mount_all() -> list[str]:
    """Mount every user's file system that is not, as after a boot; a line for each that cannot be."""
    failures = []
    for user in state.users():
        if _kind(user) == LOOP:
            try:
                difference.apply(_mount_differences(user))
            except (Failure, OSError) as failure:
                failures.append(f"{user.username}: {failure}")
    return failures


class Use(NamedTuple):
    """How much of his quota a user has used: bytes, and percent of them, or of the files that there is room for if that
    is more; both None where nothing enforces the quota."""

    username: str
    quota: str
    used: Optional[int]
    percent: Optional[int]

    def __str__(self) -> str:
        if self.used is None or self.percent is None:
            return f"{self.username}: a quota of {self.quota}, which nothing enforces"
        end = ", nearly full" if self.percent >= NEARLY_FULL else ""
        return f"{self.username}: {show(self.used)} of {self.quota} used, {self.percent} %{end}"


def uses() -> list[Use]:
    """What each user has used who has a quota."""
    return [Use(user.username, user.quota, *_used(user)) for user in state.users() if user.quota is not None]


def _used(user: User) -> tuple[Optional[int], Optional[int]]:
    uploads, kind = chroot.uploads(user.username), _kind(user)
    if kind == BTRFS and btrfs.counts():
        used = btrfs.use(uploads).used
        return used, 100 * used // _size(user)
    if kind == LOOP and loop.is_mounted(uploads):
        found = os.statvfs(uploads)
        blocks, inodes = found.f_blocks - found.f_bavail, found.f_files - found.f_ffree
        return blocks * found.f_frsize, max(100 * blocks // found.f_blocks, 100 * inodes // found.f_files)
    return None, None


def show(size: int) -> str:
    """A number of bytes for people, rounded: `4.7GiB`."""
    number, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit
