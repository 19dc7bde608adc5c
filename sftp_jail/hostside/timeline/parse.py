"""A line of the log, and what its message says.

internal-sftp's messages are those of OpenSSH's sftp-server.c, 8.4 to 10. Before a message reaches syslog, vis(3)
has made it ASCII on one line (log.c: VIS_CSTYLE|VIS_NL|VIS_TAB|VIS_OCTAL), and `%.500s` has cut it. Quotes are left
alone, so a name may hold anything that looks like the rest of a message. A message with one name can be told all the
same: what follows the name holds no quote, so the last quote ends it. One with two names can be told where
`" new "` is in it once.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import NamedTuple, Optional
from urllib.parse import unquote

CUT_AT = 500
"""Characters of a message that OpenSSH gives to syslog. One as long as this may have been longer, whatever it looks
like: a name can be made so that what is left of the line looks whole."""

SFTP = "internal-sftp"
SSHD = frozenset(["sshd", "sshd-session", "sshd-auth"])
JOURNALD = "systemd-journald"
JAILCTL = "jailctl"


class Line(NamedTuple):
    """One line: UTC as `YYYY-MM-DDTHH:MM:SS.ffffffZ`, the kernel's word for the sender, his own words for the rest.

    `program` is "" where the sender gave no tag as syslog knows it. Bytes that are not UTF-8 are surrogates.
    """

    time: str
    user: str
    program: str
    pid: Optional[int]
    message: str


LINE = re.compile(r"(\S+) ([a-z_][a-z0-9_.-]*\$?|uid:[0-9]+) (.*)", re.DOTALL | re.IGNORECASE)
TAGGED = re.compile(r"([^\s:\[\]]+)(?:\[([0-9]{1,10})\])?:(?: (.*)|$)", re.DOTALL)
UTC = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\.[0-9]{6}(?:\+00:00|Z)")
RFC3339 = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")


def line(text: str) -> Optional[Line]:
    """The line's parts; None where it is no line of ours."""
    parts = LINE.fullmatch(text)
    when = None if parts is None else utc(parts[1])
    if parts is None or when is None:
        return None
    tagged = TAGGED.fullmatch(parts[3])
    if tagged is None:
        return Line(when, parts[2], "", None, parts[3])
    return Line(when, parts[2], tagged[1], int(tagged[2]) if tagged[2] else None, tagged[3] or "")


def utc(text: str) -> Optional[str]:
    """An RFC 3339 instant as UTC with six decimals, which sorts as time does; None where it is none."""
    parts = RFC3339.fullmatch(text)
    if parts is None:
        return None
    try:
        if UTC.fullmatch(text):
            datetime.fromisoformat(text[:26])
            return f"{text[:26]}Z"
        when = datetime.fromisoformat(parts[1] + (parts[3] if parts[3] != "Z" else "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return f"{when.strftime('%Y-%m-%dT%H:%M:%S')}{(parts[2] or '.')[:7].ljust(7, '0')}Z"


class Said(NamedTuple):
    """What a message says. Names are the bytes that the client sent.

    `kind`: see the tables below; "message" is what none of them knows. `path` is a prefix of the name, perhaps with
    what followed it, where the line was `cut`. `account`: the user whom a line of root concerns.
    """

    kind: str
    path: Optional[bytes] = None
    target: Optional[bytes] = None
    read: Optional[int] = None
    written: Optional[int] = None
    detail: str = ""
    account: Optional[str] = None
    address: Optional[str] = None
    port: Optional[int] = None
    method: Optional[str] = None
    key_type: Optional[str] = None
    fingerprint: Optional[str] = None
    fields: Mapping[str, str] = {}
    ambiguous: bool = False
    cut: bool = False


FLAGS = "(?:READ|WRITE|APPEND|CREATE|TRUNCATE|EXCL|,)*"
BYTES = r" bytes read (?P<read>[0-9]+) written (?P<written>[0-9]+)"

ONE_NAME = {
    'open "': ("open", f" (?P<detail>flags {FLAGS} mode 0[0-7]*)"),
    'close "': ("close", BYTES),
    'forced close "': ("forced-close", BYTES),
    'opendir "': ("opendir", ""),
    'closedir "': ("closedir", ""),
    'forced closedir "': ("forced-closedir", ""),
    'stat name "': ("stat", ""),
    'lstat name "': ("lstat", ""),
    'set "': ("set", r" (?P<detail>size [0-9]+|mode [0-7]+|modtime [0-9:-]+|owner [0-9]+ group [0-9]+)"),
    'remove name "': ("remove", ""),
    'mkdir name "': ("mkdir", " (?P<detail>mode 0[0-7]*)"),
    'rmdir name "': ("rmdir", ""),
    'realpath "': ("realpath", ""),
    'readlink "': ("readlink", ""),
    'statvfs "': ("statvfs", ""),
    'fsync "': ("fsync", ""),
    'expand "': ("expand", ""),
}
"""By what comes before the name: the kind, and what comes after the quote that ends the name."""

TWO_NAMES = {
    'rename old "': "rename",
    'posix-rename old "': "posix-rename",
    'hardlink old "': "hardlink",
    'symlink old "': "symlink",
}
"""By what comes before the first name: the kind. For symlink, the first is what the link says, the second the link."""

BETWEEN = '" new "'

REQUESTS = frozenset([*(kind for kind, _ in ONE_NAME.values()), *TWO_NAMES.values()]) - {
    "forced-close",
    "forced-closedir",
}
"""What a client asked for, and gets an answer to."""

CHANGES = frozenset(["open", "close", "set", "remove", "mkdir", "rmdir", "fsync", *TWO_NAMES.values()])
"""The requests that may leave something changed."""

VERBOSE_ONLY = frozenset(["version", "stat", "lstat", "realpath", "readlink", "expand"])
"""What internal-sftp says at log level VERBOSE alone."""

TAILS = {before: re.compile(f'(?P<path>.*)"{after}', re.DOTALL) for before, (_, after) in ONE_NAME.items()}
SESSION = re.compile(r"session (opened|closed) for local user (\S+) from \[([^\]\s]*)\]")
VERSION = re.compile(r"received client version [0-9]+")
STATUS = re.compile(r"sent status ([A-Z][A-Za-z ]+)")
REFUSED = re.compile(r"Refusing (?:denylisted |non-allowlisted )?([a-z-]+) request(?: in read-only mode)?")


def sftp(message: str) -> Said:
    """What internal-sftp says of its user, for whom it works."""
    cut = len(message) >= CUT_AT
    before, quote, rest = message.partition('"')
    before += quote
    if before in ONE_NAME:
        kind = ONE_NAME[before][0]
        if cut:
            return Said(kind, unescaped(rest, cut=True), cut=True)
        found = TAILS[before].fullmatch(rest)
        if found is None:
            return Said(kind, ambiguous=True)
        parts = found.groupdict()
        return Said(
            kind,
            unescaped(parts["path"]),
            read=int(parts["read"]) if "read" in parts else None,
            written=int(parts["written"]) if "written" in parts else None,
            detail=parts.get("detail", ""),
        )
    if before in TWO_NAMES:
        return _two_names(TWO_NAMES[before], rest, cut)
    if (session := SESSION.fullmatch(message)) is not None:
        return Said(f"session-{session[1]}", account=session[2], address=session[3])
    if (status := STATUS.fullmatch(message)) is not None:
        return Said("status", detail=status[1])
    if VERSION.fullmatch(message):
        return Said("version")
    if (refused := REFUSED.fullmatch(message)) is not None:
        return Said("refused", detail=refused[1])
    return Said("error" if message.startswith("error: ") else "message", cut=cut)


def _two_names(kind: str, rest: str, cut: bool) -> Said:
    # Overlaps count, too: `" new " new "` can be split at either.
    splits = [found.start() for found in re.finditer(f"(?={re.escape(BETWEEN)})", rest)]
    if cut:
        return Said(kind, None if splits else unescaped(rest, cut=True), ambiguous=bool(splits), cut=True)
    if len(splits) != 1 or not rest.endswith('"') or splits[0] + len(BETWEEN) > len(rest) - 1:
        return Said(kind, ambiguous=True)
    return Said(kind, unescaped(rest[: splits[0]]), unescaped(rest[splits[0] + len(BETWEEN) : -1]))


ESCAPE = re.compile(rb"\\(?:([0-7]{3})|([0-7]{0,2}\Z)|(.))", re.DOTALL)
LETTERS = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"b": b"\b", b"a": b"\a", b"v": b"\v", b"t": b"\t", b"f": b"\f"}


def unescaped(text: str, cut: bool = False) -> bytes:
    """The bytes that vis(3) has made the text of; an escape that was cut in the middle is dropped."""
    plain = text.encode("utf-8", "surrogateescape")
    if b"\\" not in plain:
        return plain

    def one(found: "re.Match[bytes]") -> bytes:
        if found[1] is not None:
            return bytes([int(found[1], 8) & 0xFF])
        if found[2] is not None:
            return b"" if cut else found[0]
        return LETTERS.get(found[3], found[0])

    return ESCAPE.sub(one, plain)


ACCEPTED = re.compile(
    r"Accepted ([a-z][a-z/-]*) for (\S+) from (\S+) port ([0-9]+) ssh2(?:: (\S+) (\S+).*)?", re.DOTALL
)
FAILED = re.compile(
    r"Failed ([a-z][a-z/-]*) for (?:invalid user )?(.*) from (\S+) port ([0-9]+) ssh2"
    r"(?:: (?:([A-Z0-9-]+) (SHA256:[A-Za-z0-9+/]+)|.*))?",
    re.DOTALL,
)
FROM = re.compile(r"(?= from \S+ port [0-9]+ ssh2)")
CHILD = re.compile(r"User child is on pid ([0-9]+)")
PAM = re.compile(r"pam_unix\(sshd:session\): session (opened|closed) for user ([^\s(]+).*")
GONE = re.compile(
    r"(?:Disconnected from|Connection (?:closed|reset) by) (?:(?:(?:authenticating|invalid) )?user (\S+) )?"
    r"(\S+) port ([0-9]+)(?: \[preauth\])?"
)
CHANNEL = re.compile(
    r"(?:Starting session: .* for|Close session: user) (\S+) from (\S+) port ([0-9]+) id [0-9]+", re.DOTALL
)


def sshd(message: str) -> Said:
    """What sshd says; who says it, root or a user, is for the caller to weigh.

    A user name that does not exist is the client's own text, and so is the id in a certificate that was refused;
    where that text makes a second reading possible, neither is taken.
    """
    cut = len(message) >= CUT_AT
    if (accepted := ACCEPTED.fullmatch(message)) is not None and not cut:
        method, account, address, port, key_type, fingerprint = accepted.groups()
        return Said(
            "login",
            account=account,
            address=address,
            port=int(port),
            method=method,
            key_type=key_type,
            fingerprint=fingerprint,
        )
    if message.startswith("Failed "):
        failed = FAILED.fullmatch(message)
        if failed is None or cut or len(FROM.findall(message)) != 1:
            return Said("login-failed", ambiguous=True, cut=cut)
        method, account, address, port, key_type, fingerprint = failed.groups()
        return Said(
            "login-failed",
            account=account,
            address=address,
            port=int(port),
            method=method,
            key_type=key_type,
            fingerprint=fingerprint,
        )
    if (child := CHILD.fullmatch(message)) is not None:
        return Said("child", detail=child[1])
    if (pam := PAM.fullmatch(message)) is not None:
        return Said("pam-opened" if pam[1] == "opened" else "pam-closed", account=pam[2])
    if (gone := GONE.fullmatch(message)) is not None:
        return Said("disconnect", account=gone[1], address=gone[2], port=int(gone[3]))
    if (channel := CHANNEL.fullmatch(message)) is not None and not cut:
        kind = "channel-opened" if message.startswith("Starting") else "channel-closed"
        return Said(kind, account=channel[1], address=channel[2], port=int(channel[3]))
    return Said("message", cut=cut)


NOTE = re.compile(r"([a-z][a-z-]*)((?: [a-z][a-z-]*=[^\s\"=]*)*)")


def jailctl(message: str) -> Said:
    """What jailctl says of itself: `EVENT KEY=VALUE ...`, values percent-encoded (notes.py); the event is the kind."""
    found = NOTE.fullmatch(message)
    if found is None:
        return Said("message", cut=len(message) >= CUT_AT)
    fields = {}
    for word in found[2].split():
        key, _, value = word.partition("=")
        fields[key] = unquote(value, errors="surrogateescape")
    return Said(
        found[1],
        account=fields.get("user"),
        fingerprint=fields.get("key"),
        detail=", ".join(f"{key} {value}" for key, value in fields.items() if key != "user"),
        fields=fields,
    )
