"""Pure checks of what an operator writes: user names, keys, password hashes, options.

Two programs share this file: the Pulumi program refuses a bad value before any resource exists, and jailctl
refuses it again on the server. So it is standard library only, imports no neighbour, and runs on Python 3.9.

A check raises `Invalid` or returns. No message, and no `shown`, ever holds a secret.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Callable

MAX_SHOWN = 60
"""Characters of a refused value that a message repeats."""


class Invalid(Exception):
    """A refused value.

    `message` says what is wrong, `remedy` what to write instead; `shown` is the value as it may be printed,
    or "" where it may be a secret.
    """

    def __init__(self, message: str, remedy: str, shown: str = "") -> None:
        super().__init__(message, remedy, shown)
        self.message = message
        self.remedy = remedy
        self.shown = shown

    def __str__(self) -> str:
        return (f"{self.shown}: " if self.shown else "") + f"{self.message}. {self.remedy}."


def show(value: object) -> str:
    """The value for a message: ASCII alone, so that a look-alike or a control character betrays itself.

    A map or a list is only called one, since there is no telling what is in it; of a private key, nothing is shown.
    """
    if looks_private(value):
        return ""
    if isinstance(value, (dict, list)):
        return "a map" if isinstance(value, dict) else "a list"
    text = ascii(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


# User names


USERNAME = r"[a-z_][a-z0-9_-]{0,31}"
"""What useradd(8) recommends, less the trailing `$`: never a number, an option or a path."""

RESERVED = {
    # base-passwd's passwd.master, on every Debian
    *("root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data"),
    *("backup", "list", "irc", "gnats", "_apt", "nobody"),
    # made by a server's packages
    *("sshd", "messagebus", "polkitd", "syslog", "uuidd", "tcpdump", "ntp", "_chrony", "landscape", "pollinate", "lxd"),
    # administrators of cloud images, and of the disposable machine
    *("admin", "debian", "ubuntu", "ec2-user"),
}
"""And whatever begins with `systemd-`."""


def check_username(value: object) -> None:
    """A jailed user's login name; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(USERNAME, value):
        raise Invalid(
            "not a user name",
            "Use 1 to 32 of a-z, 0-9, '_' and '-', the first one a letter or '_'",
            show(value),
        )
    if value in RESERVED or value.startswith("systemd-"):
        raise Invalid("an account of the system itself", "Choose a name of the user's own", show(value))


# Keys

KEY_LABEL = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"


def check_key_label(value: object) -> None:
    """The name by which an operator tells a user's keys apart; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(KEY_LABEL, value):
        raise Invalid(
            "not a label for a key",
            "Use 1 to 64 of A-Z, a-z, 0-9 and '._@-', the first one a letter or a digit, e.g. 'laptop'",
            show(value),
        )


ECDSA_POINT = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
"""Bytes of an uncompressed point (SEC 1, 2.3.3), by curve name (RFC 5656)."""

RSA_BITS = range(2048, 16384 + 1)
"""NIST SP 800-131A's floor, and the largest number that OpenSSH reads (SSHBUF_MAX_BIGNUM)."""

KEY_TYPES = frozenset(
    [
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "ssh-rsa",
    ]
)


def check_key_type(value: object) -> None:
    """Raise unless it is a type of public key that is accepted."""
    if value not in KEY_TYPES:
        raise Invalid("not a type of key that is accepted", f"Use one of {', '.join(sorted(KEY_TYPES))}", show(value))


PRIVATE_KEY = (
    r"PRIVATE KEY|PuTTY-User-Key-File|AGE-SECRET-KEY|Private-Lines:"
    # the base64 of "openssh-key-v1", and of a PKCS #1 or #8 key: what is left when the BEGIN line is
    r"|b3BlbnNzaC1rZXktdjE|^\s*MI[GIH][A-Za-z0-9+/]{20}"
)

MAKE_A_KEY = "Make one with: ssh-keygen -t ed25519; its public half is the one line of the .pub file"


def looks_private(value: object) -> bool:
    """Whether a text may be a private key, which no message may repeat."""
    return isinstance(value, str) and bool(re.search(PRIVATE_KEY, value))


def normalise_key(value: object) -> str:
    """A public key as `type blob`, the form that two spellings of one key have in common.

    White space around it, CRLF and the comment are dropped. The blob is decoded to its last byte, since sshd
    skips a line that it cannot read without a word to the operator. Raises `Invalid`.
    """
    if looks_private(value):
        raise Invalid(
            "a private key",
            "Give the public half, the line in the .pub file; take this pair for stolen and make a new one",
        )
    if not isinstance(value, str):
        raise Invalid("not a public key", "Write it as one string: 'ssh-ed25519 AAAA...'", show(value))
    text = value.strip()
    if not text:
        raise Invalid("an empty key", MAKE_A_KEY, show(value))
    if text.startswith("----"):
        raise Invalid(
            "a public key in RFC 4716 or PEM form, which authorized_keys cannot hold",
            "Convert it: ssh-keygen -i -f key.pub",
            show(text),
        )
    if len(text.splitlines()) > 1:
        raise Invalid("more than one line", "Give each key a label of its own; one key is one line", _head(text))
    kind, body, *_ = [*text.split(maxsplit=2), ""]
    if kind not in KEY_TYPES:
        raise _not_a_key(text)
    try:
        blob = _decode(body)
        _check_blob(kind, blob)
    except ValueError as fault:
        raise Invalid(
            f"not a whole {kind} key: {fault}", "Copy the whole line of the .pub file again", show(text)
        ) from None
    return f"{kind} {base64.b64encode(blob).decode()}"


def _not_a_key(text: str) -> Invalid:
    """Why a line begins with no key type that we accept."""
    words = text.split()
    kind = words[0]
    if kind == "ssh-dss":
        return Invalid("a DSA key, which OpenSSH has given up", MAKE_A_KEY, _head(text))
    if kind.endswith("-cert-v01@openssh.com"):
        return Invalid(
            "a certificate",
            "Give the plain public key that it was made from, the one line of the .pub file",
            kind,
        )
    if kind.split(",")[0].split("=")[0].lower() == "cert-authority":
        return Invalid(
            "a certificate authority, which could make itself any number of logins",
            "Give each user's own public key",
            _head(text),
        )
    if any(word in KEY_TYPES or word == "ssh-dss" for word in words[1:]):
        return Invalid(
            "options before the key, which the jail sets itself",
            "Begin with the key's type: 'ssh-ed25519 AAAA...'",
            _head(text),
        )
    return Invalid("not a public key of a type that is accepted", MAKE_A_KEY, _head(text))


def _head(text: str) -> str:
    """The first word of a refused key, unless it is long enough to be key material."""
    word = text.split()[0]
    return show(word if len(text.split()) == 1 else f"{word} ...") if len(word) <= 40 else ""


def _decode(body: str) -> bytes:
    """The bytes of a key's base64; ValueError unless it is whole."""
    try:
        return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("its base64 is cut or damaged") from None


def _check_blob(kind: str, blob: bytes) -> None:
    """Raise ValueError unless the blob is one whole key of this type (RFC 4253, 5656, 8709; PROTOCOL.u2f)."""
    fields = _fields(blob)

    def field(what: str) -> bytes:
        try:
            return next(fields)
        except StopIteration:
            raise ValueError(f"it ends before the {what}") from None

    inner = field("type")
    if inner != kind.encode():
        raise ValueError(f"the data inside says {show(inner.decode('ascii', 'replace'))}")
    if "ed25519" in kind:
        if len(field("key")) != 32:
            raise ValueError("an ed25519 key has 32 bytes")
    elif "ecdsa" in kind:
        curve = kind.split("@")[0].rsplit("-", 1)[1]
        if field("curve") != curve.encode():
            raise ValueError("the curve inside is another one")
        point = field("point")
        if len(point) != ECDSA_POINT[curve] or point[0] != 4:
            raise ValueError(f"a point on {curve} has {ECDSA_POINT[curve]} bytes, the first one 4")
    else:
        exponent, modulus = (int.from_bytes(field(what), "big", signed=True) for what in ("exponent", "modulus"))
        if exponent < 3 or exponent % 2 == 0 or modulus < 1 or modulus % 2 == 0:
            raise ValueError("its numbers make no RSA key")
        if modulus.bit_length() not in RSA_BITS:
            raise Invalid(
                f"an RSA key of {modulus.bit_length()} bits",
                f"An RSA key needs {RSA_BITS[0]} to {RSA_BITS[-1]} bits. {MAKE_A_KEY}",
                "'ssh-rsa ...'",
            )
    if kind.startswith("sk-") and not field("application"):
        raise ValueError("the application inside is empty")
    if next(fields, None) is not None:
        raise ValueError("data is left over after its end")


def _fields(blob: bytes) -> Iterator[bytes]:
    """The length-prefixed strings (RFC 4251, 5) that a blob is made of."""
    at = 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if at + 4 > len(blob) or end > len(blob):
            raise ValueError("it is cut short")
        yield blob[at + 4 : end]
        at = end


# Passwords

_SALT = r"[./0-9A-Za-z]"

PASSWORD_HASH = (
    # crypt(5): yescrypt and gost-yescrypt, sha512crypt, sha256crypt, bcrypt
    rf"\$g?y\${_SALT}+\${_SALT}{{1,86}}\${_SALT}{{43}}"
    rf"|\$6\$(rounds=[1-9][0-9]{{3,8}}\$)?{_SALT}{{1,16}}\${_SALT}{{86}}"
    rf"|\$5\$(rounds=[1-9][0-9]{{3,8}}\$)?{_SALT}{{1,16}}\${_SALT}{{43}}"
    rf"|\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\${_SALT}{{53}}"
)

MAKE_A_HASH = "Make one with: mkpasswd --method=yescrypt"


def check_password_hash(value: object) -> None:
    """A crypt(3) string, safe to put into /etc/shadow; raises `Invalid`, which never shows the value."""
    if not isinstance(value, str) or not value:
        raise Invalid("not a password hash", f"Write it as one string. {MAKE_A_HASH}")
    if re.fullmatch(PASSWORD_HASH, value):
        return
    if value != value.strip() or "\n" in value or ":" in value:
        raise Invalid("a password hash with white space, a line break or ':'", MAKE_A_HASH)
    if value[0] in "!*":
        raise Invalid("a locked password", "Leave passwordHash out for a user who logs in with keys alone")
    if value.startswith("$1$"):
        raise Invalid("an MD5 hash, which is broken in minutes", MAKE_A_HASH)
    if value.startswith("$"):
        raise Invalid("not a whole hash of a method that is accepted (yescrypt, SHA-512, SHA-256, bcrypt)", MAKE_A_HASH)
    raise Invalid("a plain password, or a DES hash", f"Only a strong hash is accepted. {MAKE_A_HASH}")


# What a login may do, from where, and how long

INSTANT = r"(?a:\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d))"

EXPIRY_EXAMPLES = "'2026-12-07', through that day in UTC, or '2026-12-07T18:00:00+01:00'"


def normalise_expiry(value: object) -> str:
    """When access ends: a date, which is the last day of it (UTC); or an instant, in UTC then: `2026-12-07T17:00:00Z`.

    Raises `Invalid`.
    """
    remedy = f"Write {EXPIRY_EXAMPLES}"
    if not isinstance(value, str):
        raise Invalid("not a date", f"{remedy}, in quotes", show(value))
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            return date.fromisoformat(value).isoformat()
        if re.fullmatch(INSTANT, value):
            # Python 3.9 does not know the Z.
            moment = datetime.fromisoformat(re.sub("Z$", "+00:00", value)).astimezone(timezone.utc)
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise Invalid("a day or a time that no calendar has", remedy, show(value)) from None
    if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", value, re.ASCII):
        raise Invalid("a time without a zone", "End it with Z for UTC, or with an offset: '+01:00'", show(value))
    raise Invalid("not a date", remedy, show(value))


def end_of_access(expiry: str) -> datetime:
    """The first moment without access, of what `normalise_expiry` has returned."""
    if "T" in expiry:
        return datetime.strptime(expiry, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    midnight = datetime.strptime(expiry, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    return midnight + timedelta(days=1)


def check_expiry_ahead(value: object, now: datetime) -> None:
    """An end of access that is worth making a login for; raises `Invalid`."""
    expiry = normalise_expiry(value)
    today = now.astimezone(timezone.utc).date().isoformat()
    if expiry == today:
        raise Invalid(
            "today, and the rest of a day is seldom what is meant",
            f"Write a later day; or, for hours, an instant: '{today}T18:00:00Z'",
            show(expiry),
        )
    if end_of_access(expiry) <= now:
        raise Invalid("in the past", "Write a later day; to end access now, remove the user", show(expiry))


def normalise_network(value: object) -> str:
    """A range of IP addresses in CIDR notation, as `ipaddress` writes it; raises `Invalid`."""
    example = "Write a network like '203.0.113.0/24' or '2001:db8::/32', or one address as '203.0.113.7/32'"
    if not isinstance(value, str) or value != value.strip() or "/" not in value:
        raise Invalid("not a range of IP addresses", example, show(value))
    from ipaddress import ip_network

    try:
        return str(ip_network(value))
    except ValueError:
        try:
            network = ip_network(value, strict=False)
        except ValueError:
            raise Invalid("not a range of IP addresses", example, show(value)) from None
        raise Invalid("an address with bits beyond its network", f"Did you mean '{network}'?", show(value)) from None


WIDEST = {4: 8, 6: 16}
"""By version of IP, bits of network: a range with fewer is taken for the whole Internet."""


def normalise_source(value: object) -> str:
    """A network from which a user may come, not the whole Internet; raises `Invalid`."""
    from ipaddress import ip_network

    network = ip_network(normalise_network(value))
    if network.prefixlen < WIDEST[network.version]:
        raise Invalid("the whole Internet, or much of it", "Leave allowFrom out to allow any address", show(value))
    return str(network)


ACCESS = ("read-write", "read-only", "upload-only")


def check_access(value: object) -> None:
    """What a user may do with the files; raises `Invalid`."""
    if value not in ACCESS:
        raise Invalid("not a kind of access", f"Use {', '.join(map(repr, ACCESS[:-1]))} or {ACCESS[-1]!r}", show(value))


ON_REMOVAL = ("archive", "keep", "delete")


def check_on_removal(value: object) -> None:
    """What becomes of the uploads of a user who is removed; raises `Invalid`."""
    if value not in ON_REMOVAL:
        raise Invalid(
            "nothing that can be done with uploads",
            "Use 'archive' (one file, with a list of what is in it), 'keep' (the files as they are, for root alone) or "
            "'delete' (for ever)",
            show(value),
        )


# Stacks

OWNER = r"[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){2}"


def check_owner(value: object) -> None:
    """A stack's fully qualified name, `organization/project/stack`; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(OWNER, value):
        raise Invalid("not the whole name of a stack", "Write it as ORGANIZATION/PROJECT/STACK", show(value))


STACK = rf"[A-Za-z0-9_.-]{{1,100}}|{OWNER}"


def check_stack(value: object) -> None:
    """A stack's name, alone or whole; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(STACK, value):
        raise Invalid(
            "not the name of a stack", "Write it as STACK, or whole as ORGANIZATION/PROJECT/STACK", show(value)
        )


# Options

LOG_LEVELS = ("INFO", "VERBOSE")


def check_log_level(value: object) -> None:
    """internal-sftp's log level; raises `Invalid`.

    Below INFO the server would log no operation, so there would be no audit trail; above VERBOSE it adds no
    operation, only noise.
    """
    if value not in LOG_LEVELS:
        raise Invalid(
            "not a log level that makes an audit trail",
            "Use 'INFO' (every operation), or 'VERBOSE' (denied ones by name too)",
            show(value),
        )


def check_umask(value: object) -> None:
    """The umask of uploads, three octal digits as a string; raises `Invalid`.

    The first digit is 0: a user who could not read what he uploaded, or not enter a directory that he made,
    could not finish a transfer.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        raise Invalid(
            "a number, and YAML's numbers are not always octal", "Write it in quotes, e.g. '022'", show(value)
        )
    if not isinstance(value, str) or not re.fullmatch("[0-7]{3}", value):
        raise Invalid("not a umask", "Write three octal digits in quotes, e.g. '022' or '027'", show(value))
    if value[0] != "0":
        raise Invalid("a umask that takes rights from the file's owner", "Let it begin with 0, e.g. '027'", show(value))


UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
DECIMAL_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

MIN_QUOTA = 16 << 20
"""16MiB: below it a file system's own bookkeeping leaves little room."""

MAX_QUOTA = 1 << 50

QUOTA = rf"(0|[1-9][0-9]{{0,15}})({'|'.join(UNITS)})"


def check_quota(value: object) -> None:
    """How much a user may store, e.g. '5GiB'; raises `Invalid`."""
    remedy = "Write a whole number and KiB, MiB, GiB or TiB, e.g. '5GiB'"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise Invalid("a bare number, which does not say of what", remedy, show(value))
    if not isinstance(value, str):
        raise Invalid("not a size", remedy, show(value))
    if value.lstrip().startswith("-"):
        raise Invalid("less than nothing", remedy, show(value))
    ambiguous = re.fullmatch(r"([1-9][0-9]{0,15}) ?([KMGT])B?", value, re.IGNORECASE)
    if ambiguous:
        number, letter = int(ambiguous[1]), ambiguous[2].upper()
        decimal, binary = number * DECIMAL_UNITS[f"{letter}B"], number * UNITS[f"{letter}iB"]
        raise Invalid(
            f"either {decimal} or {binary} bytes, depending on whom one asks",
            f"Write '{number}{letter}iB' for {binary} bytes, or '{max(decimal >> 20, 1)}MiB' for the other",
            show(value),
        )
    if not re.fullmatch(QUOTA, value):
        raise Invalid("not a size", remedy, show(value))
    size = quota_bytes(value)
    if not size:
        raise Invalid("no room at all", "Leave quota out for no limit, or give at least 16MiB", show(value))
    if not MIN_QUOTA <= size <= MAX_QUOTA:
        raise Invalid("not a size that can be enforced", "Give at least 16MiB and at most 1024TiB", show(value))


def quota_bytes(value: str) -> int:
    """A size that `check_quota` accepts, in bytes."""
    found = re.fullmatch(QUOTA, value)
    assert found is not None, value
    return int(found[1]) * UNITS[found[2]]


QUOTAS = ("btrfs", "loop")


def check_quotas(value: object) -> None:
    """What enforces users' quotas on a host; raises `Invalid`."""
    if not isinstance(value, str) or value not in QUOTAS:
        raise Invalid(
            "nothing that enforces quotas",
            "Use 'btrfs' where /sftp is a btrfs, or 'loop', a file system of fixed size for each user",
            show(value),
        )


# Servers

ADDRESS = r"[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,252}[A-Za-z0-9_.])?"


def check_address(value: object) -> None:
    """A host name (RFC 1123) or an IP address, with neither port nor user; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(ADDRESS, value) or (value.count(":") == 1):
        raise Invalid(
            "not the address of a server",
            "Use a host name or an IP address alone, e.g. 'staging.example.org'; port and user have keys of their own",
            show(value),
        )


def check_port(value: object) -> None:
    """A TCP port; raises `Invalid`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise Invalid("not a TCP port", "Use a number from 1 to 65535, without quotes", show(value))


def check_administrator(value: object) -> None:
    """The name of an account that exists; raises `Invalid`."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value):
        raise Invalid("not the name of an account", "Use root, or an account with passwordless sudo", show(value))


def check_private_key(value: object) -> None:
    """The text of a private key in a format of OpenSSH's, without a passphrase; raises `Invalid`, showing nothing."""
    if not isinstance(value, str) or not looks_private(value):
        raise Invalid(
            "not a private key",
            "Set the text of a key file, e.g. pulumi config set --secret --path ... < id_ed25519; or leave it out: "
            "the SSH agent is used then",
        )


# A receiver of the log

SIEM_PROTOCOLS = ("tcp", "tls")

SIEM_FORMATS = ("rfc5424", "json")


def check_siem_protocol(value: object) -> None:
    """How the receiver is spoken to; raises `Invalid`."""
    if value not in SIEM_PROTOCOLS:
        raise Invalid(
            "not a protocol that keeps what it carries",
            "Use 'tls', or 'tcp' where nobody else is on the way",
            show(value),
        )


def check_siem_format(value: object) -> None:
    """How a line is written; raises `Invalid`."""
    if value not in SIEM_FORMATS:
        raise Invalid("not a format of ours", "Use 'rfc5424', or 'json' (one object a line)", show(value))


CERTIFICATES = r"(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]{1,76}\n)+-----END CERTIFICATE-----\n?)+"


def check_certificates(value: object) -> None:
    """The certificates of authorities in PEM (RFC 7468), nothing else around them; raises `Invalid`."""
    if looks_private(value):
        raise Invalid("a private key", "Give the authority's certificate; take this key for stolen and make a new one")
    if not isinstance(value, str) or not re.fullmatch(CERTIFICATES, value):
        raise Invalid(
            "not a certificate in PEM",
            "Give the text of the authority's .pem file, from -----BEGIN CERTIFICATE----- on, all of its lines",
            show(value),
        )


SIEM_CHECKS: dict[str, Callable[[object], None]] = {
    "ca": check_certificates,
    "format": check_siem_format,
    "host": check_address,
    "port": check_port,
    "protocol": check_siem_protocol,
}
"""A check for each property of a receiver; all but `ca`, the authorities for TLS, must be there."""
