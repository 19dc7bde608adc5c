"""One JSON object an event, for programs. Every object has all of these keys, and `raw` is the whole line of the log.

time         UTC, "2026-05-31T08:00:00.000000Z"; null where the line cannot be read
sender       the kernel's word: a user's name, "root", or "uid:N"; null where the line cannot be read
program, pid what the sender called itself
user         whom it concerns: the sender, or for a line of root whom that names; null where it names nobody
event        one of
             login, login-failed, child, pam-opened, pam-closed, disconnect, channel-opened, channel-closed (sshd)
             session-opened, session-closed, version, open, close, forced-close, opendir, closedir,
             forced-closedir, stat, lstat, set, remove, mkdir, rmdir, rename, posix-rename, hardlink, symlink,
             realpath, readlink, statvfs, fsync, expand, refused, error, status (internal-sftp)
             user-added, key-granted, key-revoked, ... (jailctl's notes, as notes.py lists them)
             gap (journald dropped lines), message (any other), unreadable
session      "USER[PID]@TIME", which no other session has; null outside a session
address      the client's address; port: its TCP port; null where the log does not tell
method       publickey, password, ...; key_type, fingerprint: the key's; key_label: what the
             operator calls it. From lines of root alone; of login-failed: what was tried
joined       how the session was joined to a login: "exact", "only", "several", "none" (join.Session); null outside
path, target names as text; a byte that is not UTF-8 is written \\xNN, and then path_base64, target_base64 have the
             bytes (null otherwise). target: the second name of rename, hardlink and symlink
read,written bytes, of close and forced-close; null where the line was cut
detail       flags and mode of open, what `set` sets, the request that was refused, a note's values in words
fields       the values of a note of jailctl's, by key; {} for any other line
result       "ok", "denied", "failed"; null for what is no request. certain: false where the status may be the
             answer to another request; status: what the client was told, null for ok
ambiguous    the line can be read in more than one way, so its names are null
cut          the line was too long for the log: path is a beginning, perhaps with what came after the name
note         what else is to be said, in words; "" for nothing
raw          the line; raw_status, the line of the status. A byte that is not UTF-8 is written \\xNN there, and then
             raw_base64 has the line's bytes (null otherwise)
"""

import base64
import json
from collections.abc import Iterable
from typing import IO, Any, Optional

from .join import Event, Item


def write(items: Iterable[Item], file: IO[str]) -> None:
    """Write the events."""
    for item in items:
        if isinstance(item, Event):
            # ASCII alone, so that a terminal may see it, too.
            print(json.dumps(record(item)), file=file)


def record(event: Event) -> "dict[str, Any]":
    """The event as an object."""
    line, said, session = event.line, event.said, event.session
    source = event.login or session
    path, path_base64 = _text(said.path)
    target, target_base64 = _text(said.target)
    raw, raw_base64 = _text(event.raw.encode("utf-8", "surrogateescape"))
    return {
        "time": None if line is None else line.time,
        "sender": None if line is None else line.user,
        "program": None if line is None else line.program,
        "pid": None if line is None else line.pid,
        "user": event.account,
        "event": event.kind,
        "session": None if session is None else session.name,
        "address": source.address if source is not None else said.address,
        "port": source.port if source is not None else said.port,
        "method": source.method if source is not None else said.method,
        "key_type": source.key_type if source is not None else said.key_type,
        "fingerprint": source.fingerprint if source is not None else said.fingerprint,
        "key_label": source.label if source is not None else said.fields.get("label"),
        "joined": None if session is None else session.joined,
        "path": path,
        "path_base64": path_base64,
        "target": target,
        "target_base64": target_base64,
        "read": said.read,
        "written": said.written,
        "detail": said.detail,
        "fields": dict(said.fields),
        "result": event.result,
        "certain": event.certain,
        "status": event.status,
        "ambiguous": said.ambiguous,
        "cut": said.cut,
        "note": event.note,
        "raw": raw,
        "raw_base64": raw_base64,
        "raw_status": None if event.answer is None else _text(event.answer.encode("utf-8", "surrogateescape"))[0],
    }


def _text(name: Optional[bytes]) -> "tuple[Optional[str], Optional[str]]":
    if name is None:
        return None, None
    try:
        return name.decode(), None
    except UnicodeDecodeError:
        return name.decode("utf-8", "backslashreplace"), base64.b64encode(name).decode()
