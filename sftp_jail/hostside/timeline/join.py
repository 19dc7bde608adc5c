"""Lines to events: a request and its answer, a session and the login that it belongs to.

A user's process tells of its own session alone, and is found by the user and the process id. sshd's lines have
other process ids, so a session is joined to a login of the same user from the same address whose connection is
still open. At sshd's log level VERBOSE, it says for each session which connection it is on (`Starting session ...
port N`), and the join is exact. Where several logins fit, all are kept, and nothing is said to be the one.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Optional, Union

from . import parse
from .order import Read
from .parse import Said

PATIENCE = 50_000
"""Events that may wait for the answer to an earlier one."""

MANY = 10_000
"""Connections and sessions that are remembered though nothing says that they ended."""


class Connection:
    """A login: sshd's word, as root. `label`: what the operator calls the key, where jailctl has said so.
    `sessions`: those that run on this connection and on no other."""

    __slots__ = (
        "account",
        "address",
        "fingerprint",
        "key_type",
        "label",
        "method",
        "monitor",
        "port",
        "sessions",
        "time",
    )

    def __init__(self, time: str, monitor: Optional[int], said: Said) -> None:
        self.time = time
        self.monitor = monitor
        self.account = said.account
        self.address = said.address
        self.port = said.port
        self.method = said.method
        self.key_type = said.key_type
        self.fingerprint = said.fingerprint
        self.label: Optional[str] = None
        self.sessions: set[Session] = set()


class Session:
    """One internal-sftp process.

    `joined`: "exact", sshd named the connection; "only", the one open login of the user from this address;
    "several", more than one fits, and `logins` has them; "none". `missing`: a login that fits is not in the log.
    `ended`: the last word of it, or of its connection; None where the log has none. `seen`: its last line.
    `whole`: whether the log has its beginning.
    """

    __slots__ = (
        "address",
        "ended",
        "joined",
        "logins",
        "missing",
        "number",
        "pending",
        "pid",
        "seen",
        "shown",
        "time",
        "user",
        "verbose",
        "whole",
    )

    def __init__(self, number: int, time: str, user: str, pid: Optional[int], whole: bool) -> None:
        self.number = number
        self.time = self.seen = time
        self.user = user
        self.pid = pid
        self.whole = whole
        self.address: Optional[str] = None
        self.logins: list[Connection] = []
        self.missing = False
        self.joined = "none"
        self.ended: Optional[str] = None
        self.verbose = False
        self.pending: list[Event] = []
        self.shown = False

    @property
    def name(self) -> str:
        """What no other session has: `USER[PID]@TIME`."""
        return f"{self.user}[{'' if self.pid is None else self.pid}]@{self.time}"

    @property
    def port(self) -> Optional[int]:
        """The client's TCP port, where it is known."""
        return self.logins[0].port if self.joined in ("exact", "only") else None

    @property
    def key_type(self) -> Optional[str]:
        """The type of the key, where it is known."""
        return self._shared("key_type")

    @property
    def fingerprint(self) -> Optional[str]:
        """The key's fingerprint, where it is known: all logins that fit have the same."""
        return self._shared("fingerprint")

    @property
    def label(self) -> Optional[str]:
        """What the operator calls the key, where it is known."""
        return self._shared("label")

    @property
    def method(self) -> Optional[str]:
        """How the user proved who he is, where it is known."""
        return self._shared("method")

    def _shared(self, name: str) -> Optional[str]:
        values = {getattr(login, name) for login in self.logins}
        return values.pop() if len(values) == 1 and not self.missing else None


class Event:
    """What one line tells, with the answer to it.

    `account`: whom it concerns; for a line of a user always himself. `result` of a request: "ok", nothing was logged
    against it; "denied" or "failed", with the `status` that the client was sent; not `certain` where that status may
    be the answer to a request that is not in the log, or to one of several.
    """

    __slots__ = (
        "account", "answer", "bucket", "certain", "line", "login", "note", "raw", "result", "said", "session", "status",
        "waiting",
    )  # fmt: skip

    def __init__(self, raw: str, line: Optional[parse.Line], said: Said) -> None:
        self.raw = raw
        self.line = line
        self.said = said
        self.account: Optional[str] = None
        self.session: Optional[Session] = None
        self.login: Optional[Connection] = None
        self.result: Optional[str] = None
        self.status: Optional[str] = None
        self.certain = True
        self.answer: Optional[str] = None
        self.note = ""
        self.waiting = False
        self.bucket = 0

    @property
    def kind(self) -> str:
        """What happened, in a word."""
        return self.said.kind


Item = Union[Event, Session]
"""A session follows its last event; so do, at the end, those that have none."""

ORDER = {"size": 0, "mode": 1, "modtime": 2, "owner": 3}
"""In which internal-sftp does, and logs, what one request sets."""


class Story:
    """Reads lines in order, and tells what they come to."""

    def __init__(self) -> None:
        self._queue: deque[Item] = deque()
        self._sessions: dict[tuple[str, Optional[int]], Session] = {}
        self._open: dict[tuple[Optional[str], Optional[str]], list[Connection]] = {}
        self._monitors: dict[int, Connection] = {}
        # None: on a connection whose login is not in the log.
        self._starting: dict[tuple[Optional[str], Optional[str]], list[Optional[Connection]]] = {}
        self._labels: dict[tuple[str, str], str] = {}
        self._numbers = 0
        self._tens = ""
        self._bucket = 0

    def of(self, lines: Iterable[Read]) -> Iterator[Item]:
        """The events in the order of their lines, and the sessions."""
        for raw, line in lines:
            self._read(raw, line)
            yield from self._ready()
        for session in [*self._sessions.values()]:
            self._end(session)
        yield from self._queue

    def _ready(self) -> Iterator[Item]:
        queue = self._queue
        while queue:
            head = queue[0]
            # An answer follows its request at once; one that comes after ten seconds is an event of its own.
            if isinstance(head, Event) and head.waiting and self._bucket < head.bucket + 2 and len(queue) < PATIENCE:
                return
            queue.popleft()
            if isinstance(head, Event) and head.waiting and head.session is not None:
                self._settle(head.session)
            yield head

    def _read(self, raw: str, line: Optional[parse.Line]) -> None:
        if line is None:
            self._queue.append(Event(raw, None, Said("unreadable")))
            return
        if line.time[:18] != self._tens:
            self._tens = line.time[:18]
            self._bucket += 1
        if line.program == parse.SFTP:
            self._sftp(raw, line)
        elif line.program in parse.SSHD:
            said = parse.sshd(line.message)
            if line.user == "root":
                self._root(raw, line, said)
            else:
                self._child(raw, line, said)
        elif line.user == "root" and line.program == parse.JAILCTL:
            self._jailctl(raw, line)
        elif line.user == "root" and line.program == parse.JOURNALD:
            self._add(raw, line, Said("gap"))
        else:
            self._add(raw, line, Said("message"))

    def _add(self, raw: str, line: parse.Line, said: Said) -> Event:
        event = Event(raw, line, said)
        event.bucket = self._bucket
        if line.user != "root":
            event.account = line.user
        self._queue.append(event)
        return event

    def _jailctl(self, raw: str, line: parse.Line) -> None:
        said = parse.jailctl(line.message)
        event = self._add(raw, line, said)
        event.account = said.account
        if said.account is not None and said.fingerprint is not None and "label" in said.fields:
            self._labels[said.account, said.fingerprint] = said.fields["label"]
        if said.kind in ("user-removed", "sessions-ended"):
            for session in self._sessions.values():
                if session.user == said.account and session.ended is None:
                    session.ended = line.time

    # sshd

    def _root(self, raw: str, line: parse.Line, said: Said) -> None:
        """What sshd says as root is believed."""
        event = self._add(raw, line, said)
        event.account = said.account
        if said.kind == "login":
            self._forget(self._monitors.get(line.pid or 0))
            connection = event.login = Connection(line.time, line.pid, said)
            connection.label = self._labels.get((said.account or "", said.fingerprint or ""))
            self._open.setdefault((said.account, said.address), []).append(connection)
            if line.pid is not None:
                self._monitors[line.pid] = connection
            while len(self._monitors) > MANY:
                self._forget(self._monitors[next(iter(self._monitors))])
        elif said.kind == "child":
            if (found := self._monitors.get(line.pid or 0)) is not None:
                event.login, event.account = found, found.account
        elif said.kind in ("pam-closed", "disconnect"):
            found = self._monitors.get(line.pid or 0)
            if found is not None and said.port in (None, found.port):
                self._gone(event, found)
        elif said.kind == "login-failed":
            event.result = "denied"

    def _child(self, raw: str, line: parse.Line, said: Said) -> None:
        """What the part of sshd that runs as the user says: it can choose between his own connections, no more."""
        if said.kind not in ("disconnect", "channel-opened", "channel-closed") or said.account not in (None, line.user):
            self._add(raw, line, Said("message", cut=said.cut))
            return
        event = self._add(raw, line, said)
        place = (line.user, said.address)
        found = event.login = next((one for one in self._open.get(place, ()) if one.port == said.port), None)
        starting = self._starting.setdefault(place, [])
        if said.kind == "channel-opened":
            starting.append(found)
        elif found in starting:
            starting.remove(found)
        if not starting or len(starting) > MANY:
            del self._starting[place]
        if said.kind == "disconnect" and found is not None:
            self._gone(event, found)

    def _gone(self, event: Event, connection: Connection) -> None:
        event.login, event.account = connection, connection.account
        assert event.line is not None
        for session in connection.sessions:
            session.ended = session.ended or event.line.time
        self._forget(connection)

    def _forget(self, connection: Optional[Connection]) -> None:
        if connection is None:
            return
        place = (connection.account, connection.address)
        tables: tuple[dict[Any, list[Any]], ...] = (self._open, self._starting)
        for table in tables:
            left = [one for one in table.pop(place, ()) if one is not connection]
            if left:
                table[place] = left
        if connection.monitor is not None and self._monitors.get(connection.monitor) is connection:
            del self._monitors[connection.monitor]

    # internal-sftp

    def _sftp(self, raw: str, line: parse.Line) -> None:
        said = parse.sftp(line.message)
        place = (line.user, line.pid)
        session = self._sessions.get(place)
        if said.kind == "session-opened" and session is not None:
            self._end(session)
            session = None
        if session is None:
            session = self._begin(line, said)
        session.seen = line.time
        if said.kind == "status":
            self._answer(raw, line, said, session)
            return
        event = self._add(raw, line, said)
        event.session = session
        if said.kind in parse.VERBOSE_ONLY:
            session.verbose = True
        if not self._same_request(session, said):
            self._settle(session)
        if said.kind in parse.REQUESTS or said.kind in ("refused", "error", "message"):
            event.waiting = True
            session.pending.append(event)
        if said.kind in ("session-opened", "session-closed") and said.account != line.user:
            event.note = "the session names another user than the kernel does"
        if said.kind == "session-closed":
            session.ended = line.time
            self._end(session)

    def _begin(self, line: parse.Line, said: Said) -> Session:
        self._numbers += 1
        session = Session(self._numbers, line.time, line.user, line.pid, said.kind == "session-opened")
        self._sessions[line.user, line.pid] = session
        if said.address is not None:
            session.address = said.address
            self._join(session)
        if len(self._sessions) > MANY:
            self._end(self._sessions[next(iter(self._sessions))])
        return session

    def _join(self, session: Session) -> None:
        if not session.whole:
            return
        place = (session.user, session.address)
        starting = self._starting.get(place, [])
        fitting = list(dict.fromkeys(starting or self._open.get(place, [])))
        session.logins = [login for login in fitting if login is not None]
        session.missing = None in fitting
        if len(fitting) > 1:
            session.joined = "several"
        elif session.logins:
            session.joined = "exact" if starting else "only"
            session.logins[0].sessions.add(session)
        if len(fitting) == 1 and starting:
            starting.pop()
            if not starting:
                del self._starting[place]

    def _end(self, session: Session) -> None:
        self._settle(session)
        self._sessions.pop((session.user, session.pid), None)
        for login in session.logins:
            login.sessions.discard(session)
        self._queue.append(session)

    @staticmethod
    def _same_request(session: Session, said: Said) -> bool:
        """Whether a line may belong to the request that waits for its answer."""
        if not session.pending:
            return False
        last = session.pending[-1].said
        if said.kind == "refused":
            return last.kind == said.detail == "open"
        return (
            said.kind == last.kind == "set"
            and said.path == last.path
            and ORDER.get(said.detail.partition(" ")[0], 0) > ORDER.get(last.detail.partition(" ")[0], 9)
        )

    @staticmethod
    def _settle(session: Session) -> None:
        """What waits for an answer gets none: internal-sftp logs every answer but success."""
        for event in session.pending:
            event.waiting = False
            if event.kind == "refused":
                event.result = "denied"
            elif event.kind == "error":
                event.result = "failed"
            elif event.kind in parse.REQUESTS:
                event.result = "ok"
        session.pending = []

    def _answer(self, raw: str, line: parse.Line, said: Said, session: Session) -> None:
        status = said.detail
        result = "denied" if status == "Permission denied" else "failed"
        if not session.pending:
            event = self._add(raw, line, said)
            event.session, event.status, event.result = session, status, result
            event.note = "the answer to a request that is not in the log"
            return
        group, session.pending = session.pending, []
        certain = any(event.kind in ("refused", "error", "message") for event in group) or (
            # At INFO, the request that was refused may be one of those that are not logged. At VERBOSE, it may be one
            # on an open file; those get every answer but this one.
            session.verbose and len(group) == 1 and (result == "denied" or group[0].kind not in parse.CHANGES)
        )
        for event in group:
            event.waiting = False
            event.status, event.result, event.certain, event.answer = status, result, certain, raw
