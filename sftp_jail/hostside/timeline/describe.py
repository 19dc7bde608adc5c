"""An event in words: what the formats for people have in common. Nothing here is escaped."""

from typing import Optional

from .join import Connection, Event, Session

JOINED = {
    "only": "the only login open from there",
    "several": "several logins fit",
    "none": "no login for it in the log",
}


def who(event: Event) -> str:
    """Whose doing: the kernel's word, and the process."""
    if event.session is not None:
        return f"{event.session.user}[{'' if event.session.pid is None else event.session.pid}]"
    if event.account is not None:
        return event.account
    return "?" if event.line is None else event.line.user


def result(event: Event) -> str:
    """`ok`, `denied`, `failed`; with a question mark where it may be the answer to another request."""
    return "" if event.result is None else event.result + ("" if event.certain else "?")


def size(event: Event) -> str:
    """The bytes of a file that was closed."""
    if event.kind not in ("close", "forced-close"):
        return ""
    if event.said.written is None or event.said.read is None:
        return "unknown"
    parts = [f"{word} {count}" for word, count in (("up", event.said.written), ("down", event.said.read)) if count]
    return " ".join(parts) or "0"


def more(event: Event) -> str:
    """What else there is to say; where the line cannot be told for certain, the line itself."""
    said = event.said
    parts = [said.detail] if said.path is not None or said.kind == "refused" or said.fields else []
    if said.kind == "session-opened" and event.session is not None:
        parts.append(session(event.session))
    elif event.login is not None:
        parts.append(connection(event.login))
    elif said.kind == "login-failed" and not said.ambiguous:
        parts += [f"from {said.address} port {said.port}", key(said.method, said.key_type, said.fingerprint, None)]
    elif said.kind not in ("session-closed", "version", "status", "refused") and said.path is None and not said.fields:
        parts.append("" if said.ambiguous else shown(event))
    parts += [event.status or "", event.note]
    if said.cut:
        parts.append("cut: the line was too long for the log")
    if said.ambiguous:
        parts.append(f"ambiguous: {shown(event)}")
    return ", ".join(part for part in parts if part)


def shown(event: Event) -> str:
    """The line's message; the whole line where it has none, or where a program says it that is not known."""
    if event.line is None:
        return event.raw
    return event.line.message if event.line.program else event.raw


def session(session: Session) -> str:
    """Where a session comes from, and by which login."""
    parts = [f"from {session.address or 'UNKNOWN'}" + (f" port {session.port}" if session.port is not None else "")]
    parts.append(key(session.method, session.key_type, session.fingerprint, session.label))
    parts.append(JOINED.get(session.joined, ""))
    if session.fingerprint is None and session.joined == "several":
        parts.append("; ".join(connection(login) for login in session.logins))
    return ", ".join(part for part in parts if part)


def connection(login: Connection) -> str:
    """Where a login comes from, and with which key."""
    return ", ".join(
        [f"from {login.address} port {login.port}", key(login.method, login.key_type, login.fingerprint, login.label)]
    )


def key(method: Optional[str], key_type: Optional[str], fingerprint: Optional[str], label: Optional[str]) -> str:
    """How somebody proved who he is."""
    if fingerprint is None:
        return method or ""
    return f"{key_type} {fingerprint}" if label is None else f"key {label} ({key_type} {fingerprint})"
