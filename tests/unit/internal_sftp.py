"""What internal-sftp makes of a message before syslog has it, written down from OpenSSH's log.c and vis.c."""

CSTYLE = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r"}


def message(before: str, *names: bytes, after: str = "") -> str:
    """The message as syslog has it: made in 1024 bytes, then visible, then cut at 500 characters."""
    return visible(plain(before, *names, after=after)[:1023])[:500]


def plain(before: str, *names: bytes, after: str = "") -> bytes:
    """A message with one name, or with two as `old` and `new`."""
    quoted = b" new ".join(b'"' + name + b'"' for name in names)
    return b" ".join(part for part in (before.encode(), quoted, after.encode()) if part)


def visible(plain: bytes) -> str:
    """vis(3) with VIS_CSTYLE, VIS_NL, VIS_TAB and VIS_OCTAL."""
    return "".join(_one(byte) for byte in plain)


def _one(byte: int) -> str:
    if byte == ord("\\"):
        return "\\\\"
    if 32 <= byte < 127:
        return chr(byte)
    return f"\\{CSTYLE[byte]}" if byte in CSTYLE else f"\\{byte:03o}"
