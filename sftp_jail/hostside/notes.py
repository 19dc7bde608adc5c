"""What jailctl itself puts into the log: who was given what, what was taken away, and when.

One line an event, sent by root to the jails' own socket, so that a reader may believe it:

    TIME root jailctl[PID]: EVENT KEY=VALUE KEY=VALUE ...

EVENT and KEY are words of a-z and `-`, a VALUE has neither blanks nor quotes (whatever else is percent-encoded, as in a
URL; `-` is none). A reader takes the words that he knows and skips the others. The events, and their keys:

    user-added          user uid by         by: the stack that asked, as ORGANIZATION/PROJECT/STACK
    key-granted         user key label by   key: the fingerprint as sshd logs it, SHA256:...; label: the operator's name
    key-revoked         user key label by
    password-granted    user by             also for another password
    password-revoked    user by
    user-changed        user field from to by    any other property of the user
    sessions-ended      user by             he is allowed less than when they began
    sessions-ended      user expires        his time was over
    access-expired      user expires        the account is closed
    user-removed        user uid by         sessions, keys and account are gone, the uploads archived
    jail-changed        field from to by    a property of the host's policy
    jail-removed        by
    repaired            differences         so many things were not as they should be
    name-given          user uid            sent under the USER itself: from here on lines of this uid bear the name
    canary              token               logging works; two by each `check` and `apply-jail`, one of them by way of
                                            the journal, as sshd's lines come
"""

import base64
import json
import re
from typing import Any, Optional

from .state import Jail, User

Note = str

SAFE = "/:+=@,._~-"
PLAIN = re.compile(f"[A-Za-z0-9{SAFE}]+")


def note(event: str, **values: object) -> Note:
    """One line, without time and tag."""
    return " ".join([event, *(f"{key}={_written(value)}" for key, value in values.items())])


def _written(value: object) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
    if PLAIN.fullmatch(text):
        return text
    from urllib.parse import quote

    return quote(text, safe=SAFE) or "%"


def fingerprint(key: str) -> str:
    """`SHA256:...` of a key `type blob`, as sshd and `ssh-keygen -l` write it."""
    from hashlib import sha256

    digest = sha256(base64.b64decode(key.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def user_notes(before: Optional[User], after: User) -> list[Note]:
    """What changes for a user; `before` is None where he had nothing."""
    who: dict[str, Any] = {"user": after.username}
    by = {"by": after.owner}
    notes = []
    if before is None or before.pending:
        notes.append(note("user-added", **who, uid=after.uid, **by))
        before = User(after.username, after.uid, after.owner, {})
    for label, key in sorted(before.keys.items()):
        if after.keys.get(label) != key:
            notes.append(note("key-revoked", **who, key=fingerprint(key), label=label, **by))
    for label, key in sorted(after.keys.items()):
        if before.keys.get(label) != key:
            notes.append(note("key-granted", **who, key=fingerprint(key), label=label, **by))
    if before.password_hash != after.password_hash:
        notes.append(note("password-revoked" if after.password_hash is None else "password-granted", **who, **by))
    told = {"keys", "password_hash", "archive", "pending", "removing"}
    return notes + [note("user-changed", **who, **change, **by) for change in _changes(before, after, told)]


def removal_note(user: User) -> Note:
    """That a user is gone."""
    return note("user-removed", user=user.username, uid=user.uid, by=user.owner)


def jail_notes(before: Optional[Jail], after: Jail) -> list[Note]:
    """What changes for the host."""
    return [note("jail-changed", **change, by=after.owner) for change in _changes(before, after, {"machine"})]


def _changes(before: Any, after: Any, told: set[str]) -> list[dict[str, Any]]:
    """What of a record changes, as `field`, `from` and `to`; a field of a record that was not there was None."""
    return [
        {"field": field.replace("_", "-"), "from": getattr(before, field, None), "to": value}
        for field, value in after._asdict().items()
        if field not in told and getattr(before, field, None) != value
    ]
