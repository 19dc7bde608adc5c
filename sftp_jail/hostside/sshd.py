"""sshd's configuration: the Match blocks, and no reload before sshd itself has said what they come to.

`sshd -t` passes a group that does not exist and a chroot that cannot work; what counts is `sshd -T -C user=...`,
the effective values for one user, after every Include and every earlier Match (the first one wins).
"""

import contextlib
import fnmatch
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple, Optional

from . import chroot, confirm, files, hardening, keys, lock, services
from .accounts import ACCESS_GROUPS, GROUP, PASSWORD_GROUP, further_groups
from .difference import Difference, refusal
from .failure import Failure
from .process import run
from .state import Jail, User

CONFIG = "/etc/ssh/sshd_config"
FOLDER = "/etc/ssh/sshd_config.d"
DROP_IN = f"{FOLDER}/00-sftp-jail.conf"

ADDRESSES = f"{FOLDER}/00-sftp-jail-addresses.conf"
"""From where passwords count. It sorts before the drop-in, whose block for passwords it takes away."""

OURS = (DROP_IN, ADDRESSES)

SUBSYSTEM = "Subsystem sftp internal-sftp"
BEFORE = "# before sftp-jail: "
ADDED = "# added by sftp-jail"

A_NOBODY = "nobody"
"""An account of every Debian, lent to `sshd -T` as a jailed user while the jail has none."""


UPLOAD_ONLY = (
    # what a transfer begins with, is made of and ends with
    *("realpath", "stat", "lstat", "open", "write", "fstat", "fsetstat", "setstat", "close"),
    *("mkdir", "statvfs", "fstatvfs", "fsync", "limits"),
)
"""The requests (sftp-server(8), -Q) that uploading takes; what a later OpenSSH may add is not among them."""

RESTRICTIONS = {"read-only": " -R", "upload-only": f" -p{','.join(UPLOAD_ONLY)}"}
"""By `User.access`, the options of sftp-server(8)."""


def settings(jail: Jail, password: bool, access: str = "read-write") -> list[tuple[str, str]]:
    """What a jailed user gets, by keyword (sshd_config(5)); with a password, either that or a key lets him in."""
    return [
        ("ChrootDirectory", f"{chroot.JAILS}/%u"),
        # No blanks within an argument: OpenSSH before 10.3 keeps 8 words of it and drops the rest silently.
        ("ForceCommand", f"internal-sftp -l{jail.log_level} -u0{jail.umask}{RESTRICTIONS.get(access, '')}"),
        # Which of sshd's processes is whose, and keys that were refused.
        ("LogLevel", "VERBOSE"),
        ("AuthorizedKeysFile", f"{keys.FOLDER}/%u"),
        ("AuthorizedKeysCommand", "none"),
        ("TrustedUserCAKeys", "none"),
        ("AuthenticationMethods", "publickey password" if password else "publickey"),
        ("PubkeyAuthentication", "yes"),
        ("PasswordAuthentication", "yes" if password else "no"),
        ("PermitEmptyPasswords", "no"),
        ("KbdInteractiveAuthentication", "no"),
        ("GSSAPIAuthentication", "no"),
        ("HostbasedAuthentication", "no"),
        ("DisableForwarding", "yes"),
        ("AllowAgentForwarding", "no"),
        ("AllowStreamLocalForwarding", "no"),
        ("AllowTcpForwarding", "no"),
        ("PermitListen", "none"),
        ("PermitOpen", "none"),
        ("PermitTunnel", "no"),
        ("X11Forwarding", "no"),
        ("PermitTTY", "no"),
        ("PermitUserRC", "no"),
        # A client that has vanished, four minutes later; else its sessions would stay for hours, and count.
        ("ClientAliveInterval", "60"),
        ("ClientAliveCountMax", "3"),
    ]


class Criteria(NamedTuple):
    """The Match lines' conditions: who is jailed, and who of them has a password."""

    jailed: str = f"Group {GROUP}"
    password: str = f"Group {PASSWORD_GROUP}"


BY_GROUP = Criteria()


def drop_in(jail: Jail, criteria: Criteria = BY_GROUP, subsystem: bool = False) -> str:
    """The text of the drop-in. The first match wins, so the blocks before the last one hold only what differs, and what
    is for everybody comes before all others' files."""
    keyed = settings(jail, password=False)
    blocks = [
        (criteria.password, [setting for setting in settings(jail, password=True) if setting not in keyed]),
        *(
            (f"Group {group}", [setting for setting in settings(jail, False, access) if setting not in keyed])
            for access, group in ACCESS_GROUPS.items()
        ),
        (criteria.jailed, keyed),
    ]
    return "\n".join(
        [
            "# Written by jailctl, which puts it back when it is changed.",
            *([SUBSYSTEM] if subsystem else []),
            *(f"{keyword} {value}" for keyword, value in _hardening(jail)),
            *(
                line
                for criterion, block in blocks
                for line in (f"Match {criterion}", *(f"    {keyword} {value}" for keyword, value in block))
            ),
            "Match all",
            "",
        ]
    )


def _hardening(jail: Jail) -> list[tuple[str, str]]:
    return hardening.settings(jail, frozenset(effective("root"))) if jail.hardening else []


def wanted(jail: Optional[Jail], criteria: Criteria = BY_GROUP) -> dict[str, Optional[str]]:
    """The text of every file of sshd's that the jail has a word in; None where there should be no file."""
    own = {path: _without_us(files.read(path) or "") for path in _files() if path not in OURS}
    if jail is None:
        return {DROP_IN: None, **own}
    subsystem = any(re.search(SUBSYSTEM_LINE, text) for text in own.values())
    texts: dict[str, Optional[str]] = {DROP_IN: drop_in(jail, criteria, subsystem=not subsystem)}
    texts.update((path, re.sub(SUBSYSTEM_LINE, rf"{BEFORE}\g<0>\n{SUBSYSTEM}", text)) for path, text in own.items())
    if not _includes_drop_in(own[CONFIG]):
        texts[CONFIG] = f"{ADDED}\nInclude {DROP_IN}\n{texts[CONFIG]}"
    return texts


SUBSYSTEM_LINE = r"(?mi)^[ \t]*Subsystem[ \t]+sftp[ \t].*$"
INCLUDE_LINE = r"(?mi)^[ \t]*Include[ \t]+(.*)$"
MATCH_LINE = r"(?mi)^[ \t]*Match[ \t]"


def _without_us(text: str) -> str:
    """The file as it was before the jail."""
    text = re.sub(rf"^{ADDED}\nInclude {DROP_IN}\n", "", text, flags=re.MULTILINE)
    return re.sub(rf"^{BEFORE}(.*)\n{SUBSYSTEM}$", r"\1", text, flags=re.MULTILINE)


def _files() -> list[str]:
    names = os.listdir(FOLDER) if os.path.isdir(FOLDER) else []
    return [*sorted(f"{FOLDER}/{name}" for name in names if name.endswith(".conf")), CONFIG]


def _includes_drop_in(config: str) -> bool:
    """Whether the file includes the drop-in for everybody, before any Match."""
    everybody = re.split(MATCH_LINE, config)[0]
    patterns = [pattern.strip('"') for line in re.findall(INCLUDE_LINE, everybody) for pattern in line.split()]
    return any(fnmatch.fnmatch(DROP_IN, os.path.join("/etc/ssh", pattern)) for pattern in patterns)


def differences(jail: Optional[Jail], users: Callable[[], list[User]]) -> Iterator[Difference]:
    """sshd's files as wanted, and loaded; nothing is loaded that would not jail one of `users`."""
    texts = wanted(jail)
    changed = {path: text for path, text in texts.items() if files.read(path) != text}
    if changed:
        yield Difference(
            f"sshd, {', '.join(sorted(changed))}",
            "another configuration",
            "the jail's" if jail else "without the jail",
            lambda: _install(changed, jail, users),
        )
    if jail is None:
        yield from address_differences([])
    if services.is_marked(services.SSHD) or confirm.is_half_begun():
        yield Difference("sshd", "runs with an earlier configuration", "reloaded", lambda: _install({}, jail, users))


def address_differences(users: Iterable[User]) -> Iterator[Difference]:
    """No login by password but from where its user may come, as the key's `from=` has it for his keys.

    Not on trial: nobody's settings but those users' are in it, which is looked at before it is loaded.
    """
    blocks = [
        f"Match User {user.username} Address *,{','.join(f'!{network}' for network in user.allow_from)}\n"
        "    PasswordAuthentication no\n"
        "    AuthenticationMethods publickey\n"
        for user in users
        if user.password_hash is not None and user.allow_from is not None
    ]
    head = "# Written by jailctl, which puts it back when it is changed.\n"
    text = "".join([head, *blocks, "Match all\n"]) if blocks else None
    if files.read(ADDRESSES) != text:
        yield Difference(ADDRESSES, "another list", "the users'", lambda: _install_addresses(text))


def loaded_address_differences(users: Iterable[User]) -> Iterator[Difference]:
    """As `address_differences`, and loaded: the run that wrote the list may have been killed before sshd read it."""
    yield from address_differences(users)
    if services.is_marked(services.SSHD):
        yield Difference(
            "sshd", "runs with an earlier configuration", "reloaded", lambda: _install_addresses(files.read(ADDRESSES))
        )


def _install_addresses(text: Optional[str]) -> None:
    test()
    _require_loaded()
    with _candidate({ADDRESSES: text}) as candidate:
        test(candidate)
        _check_administrators(candidate)
    with lock.held(lock.SSHD):
        services.install(services.SSHD, {ADDRESSES: text}, test, load)


def _install(texts: dict[str, Optional[str]], jail: Optional[Jail], users: Callable[[], list[User]]) -> None:
    test()
    _require_loaded()
    with _candidate(texts) as candidate:
        test(candidate)
        _check_administrators(candidate)
        if jail is not None:
            _check_hardened(jail, candidate)
    if jail is not None:
        probe = User(A_NOBODY, 0, "", {})
        with _candidate(wanted(jail, Criteria(jailed=f"User {A_NOBODY}"))) as candidate:
            _check(probe, jail, candidate)

    def check() -> None:
        test()
        if jail is not None:
            for user in users():
                _check(user, jail)

    confirm.install(jail, list(texts), lambda: services.install(services.SSHD, texts, check, load))


def load() -> None:
    """Have sshd read its files."""
    # Not running is no fault: a socket-activated sshd reads its files at each connection.
    if services.is_active(services.SSHD_SOCKET) and services.is_active(services.SSHD):
        # The socket is systemd's: when sshd executes itself anew, it no longer knows of it, and ends. Sessions go on.
        services.act("restart", services.SSHD)
    elif services.is_active(services.SSHD):
        listener = services.main_process(services.SSHD)
        before = _image(listener)
        services.act("reload", services.SSHD)
        # The signal has been sent; a connection that comes before sshd has executed itself anew is still the old one's.
        deadline = time.monotonic() + 5
        while _image(listener) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        if not services.is_active(services.SSHD):
            raise Failure("sshd ended when it was told to load its configuration", "See: journalctl -u ssh")
    services.clear(services.SSHD)


def _image(pid: int) -> list[str]:
    """What tells a process from the same one after execve(2): where its stack begins (proc(5))."""
    return (files.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split(" ")[26:27]


def _require_loaded() -> None:
    """`Failure` where somebody else has changed a file since sshd loaded it: our reload would try that out, too, and
    putting our own files back would not undo it."""
    for path in _unloaded():
        raise _not_ours_to_load(path)


def unloaded_differences() -> Iterator[Difference]:
    """sshd has loaded what others have written: else what it does is not what its files say."""
    for path in _unloaded():
        yield refusal(path, "changed since sshd was reloaded", "loaded", _not_ours_to_load(path))


def _unloaded() -> list[str]:
    if services.is_marked(services.SSHD) or not services.is_active(services.SSHD):
        return []
    loaded = services.changed(services.SSHD)
    return [path for path in _files() if path not in OURS and os.stat(path).st_ctime > loaded]


def _not_ours_to_load(path: str) -> Failure:
    return Failure(
        f"{path} has changed since sshd was reloaded, and is not ours to try out",
        "Load it, and see that you still get in",
        "sudo systemctl reload ssh",
    )


def test(config: str = CONFIG) -> None:
    """`sshd -t`; `Failure` with sshd's own message."""
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    try:
        run("/usr/sbin/sshd", "-t", "-f", config)
    except Failure as failure:
        raise Failure(
            f"sshd refuses its configuration, so nothing was changed: {failure.message}",
            "Put that right first",
        ) from None


@contextlib.contextmanager
def _candidate(texts: dict[str, Optional[str]]) -> Iterator[str]:
    """A copy of sshd's configuration with these texts in it, to be asked before any file of the real one changes."""
    # Always the same, so that a run that was killed leaves no more than one.
    folder = "/run/sftp-jail-candidate"
    if os.path.lexists(folder):
        files.remove_tree(folder)
    os.mkdir(folder, 0o700)
    try:
        copy = f"{folder}/sshd_config.d"
        os.mkdir(copy)
        current = {path: files.read(path) for path in _files()}
        for path, text in {**current, **texts}.items():
            if text is None:
                continue
            text = re.sub(
                INCLUDE_LINE, lambda line: re.sub(rf"({FOLDER}|(?<=\s)sshd_config\.d)/", f"{copy}/", line[0]), text
            )
            place = f"{folder if path == CONFIG else copy}/{os.path.basename(path)}"
            with open(place, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
        yield f"{folder}/sshd_config"
    finally:
        files.remove_tree(folder)


def effective(username: str, config: str = CONFIG, address: str = "127.0.0.1") -> dict[str, list[str]]:
    """What sshd would do for a user, by lower-case keyword; some keywords have several values."""
    values: dict[str, list[str]] = {}
    connection = f"user={username},host=localhost,addr={address}"
    for line in run("/usr/sbin/sshd", "-T", "-f", config, "-C", connection).splitlines():
        keyword, _, value = line.partition(" ")
        values.setdefault(keyword, []).append(value)
    return values


def _check_administrators(candidate: str) -> None:
    """The administrator's and root's settings as they were, but for the hardening, old and new."""
    ours = {"subsystem"}
    for path in (DROP_IN, f"{candidate}.d/{os.path.basename(DROP_IN)}"):
        everybody = re.split(MATCH_LINE, files.read(path) or "")[0]
        ours.update(line.split()[0].lower() for line in everybody.splitlines() if line[:1] not in ("", "#"))
    for name in {os.environ.get("SUDO_USER", "root"), "root"}:
        before, after = effective(name), effective(name, candidate)
        for keyword in sorted({*before, *after} - ours):
            if before.get(keyword) != after.get(keyword):
                raise Failure(
                    f"the jail would change {keyword} for {name}, from {before.get(keyword)} to {after.get(keyword)}",
                    f"See what in {CONFIG} or {FOLDER} depends on the order of the files",
                )


def _check_hardened(jail: Jail, candidate: str) -> None:
    values = effective("root", candidate)
    for keyword, value in _hardening(jail):
        # sshd completes this one with its defaults.
        if keyword != "PerSourcePenalties" and values.get(keyword.lower()) != [value]:
            raise Failure(
                f"sshd would have {keyword} {' '.join(values.get(keyword.lower(), []))} instead of {value}"
                f"{_culprit(keyword)}",
                "Take that out, or set hardening: false; the first match wins",
            )


def user_differences(user: User, jail: Jail) -> Iterator[Difference]:
    """What sshd would do for the user, where that is not the jail; no jailctl can mend another's configuration."""
    try:
        _check(user, jail)
    except Failure as failure:
        yield refusal(f"sshd for {user.username}", failure.message, "the jail", failure)


def _check(user: User, jail: Jail, config: str = CONFIG) -> None:
    address = user.allow_from[0].partition("/")[0] if user.allow_from is not None else "127.0.0.1"
    values = effective(user.username, config, address)
    for keyword, value in settings(jail, user.password_hash is not None, user.access):
        actual = values.get(keyword.lower(), ["nothing"])
        if actual != [value]:
            raise Failure(
                f"sshd would give {user.username} {keyword} {' '.join(actual)} instead of {value}{_culprit(keyword)}",
                f"Let that spare the group {GROUP}, for the first match wins, and load it: sudo systemctl reload ssh",
            )
    groups = [GROUP, *further_groups(user)]
    for keyword, names in (("DenyUsers", [user.username]), ("DenyGroups", groups)):
        if _names_any(values.get(keyword.lower(), []), names):
            raise Failure(f"{keyword} shuts {user.username} out{_culprit(keyword)}", f"Let it spare the group {GROUP}")
    for keyword, names in (("AllowUsers", [user.username]), ("AllowGroups", groups)):
        allowed = values.get(keyword.lower(), [])
        if allowed and not _names_any(allowed, names):
            raise Failure(
                f"{keyword} does not let {user.username} in{_culprit(keyword)}",
                f"Add the group {GROUP}, or the user",
            )


def _names_any(patterns: list[str], names: list[str]) -> bool:
    # A pattern USER@HOST is read as if the host were right: sshd knows better which hosts there are.
    return any(fnmatch.fnmatchcase(name, pattern.split("@")[0]) for pattern in patterns for name in names)


def _culprit(keyword: str) -> str:
    """Where the keyword first stands in somebody else's file, as ", FILE line N"."""
    for path in _files():
        for number, line in enumerate((files.read(path) or "").splitlines(), 1):
            if path not in OURS and re.match(rf"\s*{keyword}\b", line, re.IGNORECASE):
                return f" ({path} line {number})"
    return ""
