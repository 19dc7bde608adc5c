"""`jailctl timeline`: what it makes of a log, and what no file name makes of it."""

import argparse
import base64
import bz2
import csv
import gzip
import hashlib
import io
import json
import re
import tracemalloc
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftp_jail.hostside.failure import Failure
from sftp_jail.hostside.timeline import jsonl, options, order, page, rotations, run, sheet, text
from sftp_jail.hostside.timeline.join import Event, Item, Session, Story
from tests.unit.internal_sftp import message, plain

KEY = "SHA256:jGYMO2JENIOewDBYeRxyzFGo5bgkG8z67lyA9Kqxlkw"
OTHER = "SHA256:s7Ihik0jgm0yAhbi1pbEymMdXq52TDRojAYREoHRq1w"


class Log:
    """A log that is being written: a microsecond a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 0

    def add(self, who: str, what: str, after: float = 0) -> None:
        """One line, so many seconds after the last one."""
        self.now += 1 + int(after * 1_000_000)
        self.lines.append(f"{self.stamp()} {who}: {what}")

    def stamp(self) -> str:
        """The time of the last line."""
        minutes, micros = divmod(self.now, 60_000_000)
        seconds, micros = divmod(micros, 1_000_000)
        return (
            f"2026-05-{1 + minutes // 1440:02}T{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}.{micros:06}+00:00"
        )

    def login(self, user: str = "jack", port: int = 50022, key: str = KEY, pid: int = 77) -> None:
        """sshd lets somebody in."""
        accepted = f"Accepted publickey for {user} from 203.0.113.5 port {port} ssh2: ED25519 {key}"
        self.add(f"root sshd-session[{pid}]", accepted)

    def channel(self, user: str = "jack", port: int = 50022) -> None:
        """sshd, VERBOSE, starts a session."""
        command = "forced-command (config) 'internal-sftp -lVERBOSE'"
        self.add(
            f"{user} sshd-session[78]", f"Starting session: {command} for {user} from 203.0.113.5 port {port} id 0"
        )

    def session(self, user: str = "jack", pid: int = 123, level: str = "VERBOSE") -> str:
        """A session begins; who writes its lines."""
        who = f"{user} internal-sftp[{pid}]"
        self.add(who, f"session opened for local user {user} from [203.0.113.5]")
        if level == "VERBOSE":
            self.add(who, "received client version 3")
        return who

    def items(self) -> list[Item]:
        """The story that the log tells."""
        return list(Story().of(order.merged(self.lines)))

    def events(self) -> list[Event]:
        """Its events."""
        return [item for item in self.items() if isinstance(item, Event)]

    def event(self, kind: str) -> Event:
        """The one event of the kind."""
        [found] = [event for event in self.events() if event.kind == kind]
        return found

    def sessions(self) -> list[Session]:
        """Its sessions."""
        return sorted((item for item in self.items() if isinstance(item, Session)), key=lambda session: session.number)


def written(items: list[Item], writer: Any) -> str:
    """What a format makes of the story."""
    file = io.StringIO(newline="")
    writer.write(iter(items), file)
    return file.getvalue()


# A name that is anything a name can be


NASTY = [
    b'"',
    b'" flags WRITE,CREATE,TRUNCATE mode 0666',
    b'" bytes read 0 written 99',
    b'" new "',
    b' new "',
    b'" mode 0777',
    b'" size 0',
    b"\n",
    b"\n2026-05-01T00:00:00.000000+00:00 root sshd[1]: Accepted publickey for jill from 6.6.6.6 port 6 ssh2: ED25519 "
    b"SHA256:forged\n",
    b"2026-05-01T00:00:00.000000+00:00 root jailctl[9]: key-granted user=jack key=SHA256:forged label=x by=x",
    b"sent status Permission denied",
    b"session closed for local user jack from [203.0.113.5]",
    b"\\n",
    b"\\",
    b"\\033",
    b"\x1b[2K\x07\r",
    b"</script><script>alert(1)</script><!--",
    b"</script x",
    b"&lt;&#0;",
    b"\xff\xfe",
    "\u202e\u2066\u200b\u05e9\u05dc\u05d5\u05dd".encode(),
    b"=cmd()",
    b"-rf",
    b"*",
    b"/../",
    b"x" * 250,
    "ä".encode() * 60,
]

BYTES = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b""))
NAMES = st.lists(st.sampled_from(NASTY) | BYTES, max_size=6).map(b"".join)


class Operation(NamedTuple):
    """What a client did, and what internal-sftp says of it."""

    kind: str
    names: tuple[bytes, ...]
    before: str
    after: str
    denied: bool
    written: Optional[int] = None


ONE = [("open", "open", "flags READ mode 0644"), ("stat", "stat name", ""), ("remove", "remove name", ""),
       ("mkdir", "mkdir name", "mode 0777"), ("set", "set", "size 5"), ("opendir", "opendir", ""),
       ("closedir", "closedir", "")]  # fmt: skip
TWO = ["rename", "posix-rename", "hardlink", "symlink"]


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    name = draw(NAMES)
    kind = draw(st.sampled_from([*(kind for kind, _, _ in ONE), "close", *TWO]))
    denied = draw(st.booleans())
    if kind == "close":
        count = draw(st.integers(0, 2**63))
        return Operation(kind, (name,), "close", f"bytes read 7 written {count}", denied, count)
    if kind in TWO:
        return Operation(kind, (name, draw(NAMES)), f"{kind} old", "", denied)
    before, after = next((before, after) for one, before, after in ONE if one == kind)
    return Operation(kind, (name,), before, after, denied)


def logged(operation: Operation) -> str:
    """As internal-sftp would log it."""
    return message(operation.before, *operation.names, after=operation.after)


STORIES = st.lists(st.tuples(st.sampled_from(["jack", "jill"]), operations()), max_size=12)


def log_of(story: list[tuple[str, Operation]]) -> Log:
    """Two users do all this at once."""
    log = Log()
    pids = {"jack": 123, "jill": 124}
    for user, pid in pids.items():
        log.session(user, pid)
    for user, operation in story:
        who = f"{user} internal-sftp[{pids[user]}]"
        # Something between two changes of attributes, which else might be one request.
        log.add(who, 'realpath "."')
        log.add(who, logged(operation))
        if operation.denied:
            log.add(who, "sent status Permission denied")
    for user, pid in pids.items():
        log.add(f"{user} internal-sftp[{pid}]", f"session closed for local user {user} from [203.0.113.5]")
    return log


@settings(max_examples=300, deadline=None)
@given(STORIES)
def test_no_name_forges_hides_or_changes_an_event(story: list[tuple[str, Operation]]) -> None:
    log = log_of(story)
    events = log.events()
    assert len(events) + sum(operation.denied for _, operation in story) == len(log.lines)
    found = [event for event in events if event.kind not in ("session-opened", "session-closed", "version", "realpath")]
    assert [(event.account, event.kind) for event in found] == [(user, operation.kind) for user, operation in story]
    for event, (user, operation) in zip(found, story):
        assert event.session is not None
        assert (event.session.user, event.session.fingerprint, event.login) == (user, None, None)
        assert (event.result, event.certain) == ("denied" if operation.denied else "ok", True)
        assert event.said.cut == (len(logged(operation)) == 500)
        names = (event.said.path, event.said.target)[: len(operation.names)]
        if event.said.cut:
            assert event.said.written is None
            rest = plain("", *operation.names, after=operation.after)[1:]
            assert event.said.path is None or rest.startswith(event.said.path)
        elif event.said.ambiguous:
            assert len(operation.names) == 2
            assert names == (None, None)
            assert b'"' in operation.names[0] + operation.names[1]
        else:
            assert names == operation.names
            assert event.said.written == operation.written


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_no_name_breaks_out_of_a_format(story: list[tuple[str, Operation]]) -> None:
    items = log_of(story).items()
    count = sum(isinstance(item, Event) for item in items)
    lines = written(items, text).split("\n")
    assert len(lines) == count + 1
    for line in lines:
        assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in line)
        assert not any(unicodedata.bidirectional(char) in ("R", "AL") for char in line)
    head, *rows = csv.reader(io.StringIO(written(items, sheet), newline=""))
    assert [len(row) for row in rows] == [len(head)] * count
    assert not any(cell.startswith(("=", "+", "-", "@")) or not cell.isprintable() for row in rows for cell in row)
    objects = [json.loads(line) for line in written(items, jsonl).splitlines()]
    assert [one["raw"] for one in objects] == [item.raw for item in items if isinstance(item, Event)]
    shown = [one for one in objects if one["event"] not in ("session-opened", "session-closed", "version", "realpath")]
    for one, (_, operation) in zip(shown, story):
        if one["path"] is not None and not one["cut"]:
            encoded = one["path_base64"]
            assert (one["path"].encode() if encoded is None else base64.b64decode(encoded)) == operation.names[0]
    html = written(items, page)
    blocks = re.findall('^<script type="application/json">(.*)</script>$', html, re.MULTILINE)
    assert len(blocks) == 2
    # What a browser might take for the end of the block; Python's parser does not take all of it.
    assert not any(char in block for block in blocks for char in "<>&")
    seen = Seen(html)
    assert len(seen.rows("e")) == count
    assert (
        seen.tags
        == Seen(written(log_of([(u, o._replace(names=(b"x",) * len(o.names))) for u, o in story]).items(), page)).tags
    )


class Seen(HTMLParser):
    """A page as a browser without scripts takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self._open = f"{tag} {dict(attrs).get('type', '')}".strip()

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)

    def rows(self, key: str) -> list[Any]:
        """The data of one sort."""
        return [row for block in self.texts["script application/json"] for row in json.loads(block).get(key, [])]


# What is believed


def test_a_line_cut_at_500_characters_is_believed_no_further_than_the_cut() -> None:
    log = Log()
    who = log.session()
    fake = '" bytes read 0 written 99'
    name = b"n" * (500 - len('close "') - len(fake)) + fake.encode() + b" and more"
    log.add(who, message("close", name, after="bytes read 0 written 5"))
    assert log.lines[-1].endswith("written 99")
    event = log.event("close")
    assert event.said.cut
    assert (event.said.read, event.said.written) == (None, None)
    assert "cut" in text.line(event)


def test_a_user_who_writes_as_sshd_or_jailctl_gives_nobody_a_key() -> None:
    log = Log()
    log.add("jack sshd[77]", f"Accepted publickey for jill from 203.0.113.5 port 1 ssh2: ED25519 {OTHER}")
    log.add("jack sshd-session[77]", f"Accepted publickey for jack from 203.0.113.5 port 1 ssh2: ED25519 {OTHER}")
    log.add("jack jailctl[9]", f"key-granted user=jill key={OTHER} label=laptop by=acme")
    log.add("uid:70009 sshd[9]", f"Accepted publickey for jack from 203.0.113.5 port 1 ssh2: ED25519 {OTHER}")
    log.session()
    log.session("jill", 124)
    events = log.events()
    assert [event.kind for event in events[:4]] == ["message"] * 4
    assert [event.account for event in events[:4]] == ["jack", "jack", "jack", "uid:70009"]
    assert OTHER not in json.dumps([{**jsonl.record(event), "raw": ""} for event in events])
    assert [session.joined for session in log.sessions()] == ["none", "none"]


@pytest.mark.parametrize(
    "said",
    [
        f"Failed publickey for invalid user x from 6.6.6.6 port 6 ssh2 from 203.0.113.5 port 5 ssh2: ED25519 {OTHER}",
        "Failed publickey for jack from 203.0.113.5 port 5 ssh2: ED25519-CERT SHA256:x ID a from 6.6.6.6 port 6 ssh2",
    ],
)
def test_a_failed_login_that_reads_two_ways_is_ambiguous(said: str) -> None:
    log = Log()
    log.add("root sshd[5]", said)
    event = log.event("login-failed")
    assert (event.said.ambiguous, event.account, event.said.address) == (True, None, None)
    assert said in text.line(event)


def test_a_failed_login_names_whom_and_from_where() -> None:
    log = Log()
    log.add("root sshd[5]", f"Failed publickey for jack from 203.0.113.5 port 5 ssh2: ED25519 {OTHER}")
    event = log.event("login-failed")
    assert (event.account, event.said.address, event.said.port, event.result) == ("jack", "203.0.113.5", 5, "denied")
    assert text.line(event).endswith(f"from 203.0.113.5 port 5, ED25519 {OTHER}")


def test_a_stranger_who_hangs_up_ends_nobodys_connection() -> None:
    log = Log()
    log.login()
    log.add("root sshd[77]", "Connection closed by authenticating user jack 203.0.113.5 port 5 [preauth]")
    log.session()
    assert log.event("disconnect").account == "jack"
    assert log.sessions()[0].fingerprint == KEY


# Sessions and logins


def test_a_session_has_the_key_of_the_only_login_that_fits() -> None:
    log = Log()
    log.login("jill", 50021, OTHER, 76)
    log.login()
    log.session()
    [session] = log.sessions()
    assert (session.joined, session.fingerprint, session.port, session.method) == ("only", KEY, 50022, "publickey")
    assert KEY in text.line(log.event("session-opened"))


def test_where_several_logins_fit_none_is_said_to_be_the_one() -> None:
    log = Log()
    log.login()
    log.login(port=50023, key=OTHER, pid=79)
    log.session()
    [session] = log.sessions()
    assert (session.joined, session.fingerprint, session.port) == ("several", None, None)
    line = text.line(log.event("session-opened"))
    assert "several logins fit" in line
    assert KEY in line
    assert OTHER in line


def test_sshd_that_names_the_connection_settles_which_login_it_is() -> None:
    log = Log()
    log.login()
    log.login(port=50023, key=OTHER, pid=79)
    log.channel(port=50023)
    log.session()
    [session] = log.sessions()
    assert (session.joined, session.fingerprint, session.port) == ("exact", OTHER, 50023)


def test_a_session_on_a_connection_whose_login_is_missing_gets_no_other_logins_key() -> None:
    log = Log()
    log.login()
    log.channel(port=50023)
    log.session()
    log.channel()
    log.session(pid=124)
    assert [(session.joined, session.fingerprint) for session in log.sessions()] == [("none", None), ("exact", KEY)]


def test_a_login_that_is_missing_fits_as_well_as_those_that_are_there() -> None:
    log = Log()
    log.login()
    log.login(port=50024, pid=79)
    for port in (50022, 50023, 50024):
        log.channel(port=port)
    log.session()
    [session] = log.sessions()
    assert (session.joined, len(session.logins), session.fingerprint) == ("several", 2, None)


def test_two_sessions_that_begin_at_once_are_not_told_apart() -> None:
    log = Log()
    log.login()
    log.login(port=50023, key=OTHER, pid=79)
    log.channel(port=50022)
    log.channel(port=50023)
    log.session()
    log.session(pid=124)
    assert [session.joined for session in log.sessions()] == ["several", "several"]


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("root sshd-session[77]", "pam_unix(sshd:session): session closed for user jack"),
        ("jack sshd-session[78]", "Disconnected from user jack 203.0.113.5 port 50022"),
        ("jack sshd-session[78]", "Connection closed by 203.0.113.5 port 50022"),
    ],
)
def test_a_login_whose_connection_has_ended_fits_no_more(who: str, said: str) -> None:
    log = Log()
    log.login()
    log.session(pid=122)
    log.add(who, said)
    log.login(port=50023, key=OTHER, pid=79)
    log.session()
    first, second = log.sessions()
    assert (first.fingerprint, first.ended is not None) == (KEY, True)
    assert (second.joined, second.fingerprint) == ("only", OTHER)


def test_a_user_cannot_end_or_choose_the_connection_of_another() -> None:
    log = Log()
    log.login()
    log.add("jill sshd-session[1]", "Disconnected from user jack 203.0.113.5 port 50022")
    log.add("jill sshd-session[1]", "Starting session: x for jack from 203.0.113.5 port 50022 id 0")
    log.session()
    [session] = log.sessions()
    assert (session.joined, session.fingerprint) == ("only", KEY)


def test_what_sshd_said_is_in_its_place_though_the_journal_brought_it_late() -> None:
    log = Log()
    log.login()
    [late] = log.lines
    log.lines = []
    log.session()
    log.add("jack internal-sftp[123]", 'opendir "/"', after=30)
    log.lines.append(late)
    assert [event.kind for event in log.events()] == ["login", "session-opened", "version", "opendir"]
    assert log.sessions()[0].fingerprint == KEY


def test_a_clock_that_is_set_back_tears_no_request_from_its_answer() -> None:
    log = Log()
    log.add("root sshd[1]", "Accepted password for jill from 203.0.113.9 port 1 ssh2", after=5)
    who = log.session()
    log.add(who, 'mkdir name "/x" mode 0777')
    log.now -= 3_000_000
    log.add(who, "sent status Permission denied")
    log.add(who, 'mkdir name "/uploads/y" mode 0777')
    assert [event.result for event in log.events() if event.kind == "mkdir"] == ["denied", "ok"]


def test_the_operators_name_for_a_key_is_told_where_jailctl_has_given_it() -> None:
    log = Log()
    log.add("root jailctl[9]", f"key-granted user=jack key={KEY} label=work%20laptop by=acme/sftp-jail/staging")
    log.login()
    log.session()
    granted = log.event("key-granted")
    assert (granted.account, granted.said.fields["label"]) == ("jack", "work laptop")
    assert log.sessions()[0].label == "work laptop"
    assert f"key work laptop (ED25519 {KEY})" in text.line(log.event("session-opened"))


@pytest.mark.parametrize(
    "said", ["user-removed user=jack uid=70002 by=acme/x/y", "sessions-ended user=jack by=acme/x/y"]
)
def test_jailctl_that_ends_a_session_is_its_last_word(said: str) -> None:
    log = Log()
    log.session()
    log.add("root jailctl[9]", said, after=60)
    [session] = log.sessions()
    assert session.ended == "2026-05-01T00:01:00.000003Z"


def test_a_process_id_that_is_given_again_begins_another_session() -> None:
    log = Log()
    for _ in range(2):
        who = log.session()
        log.add(who, 'opendir "/"')
    assert len(log.sessions()) == 2
    assert len({session.name for session in log.sessions()}) == 2


# Requests and answers


def test_at_info_an_answer_may_be_to_a_request_that_is_not_logged() -> None:
    log = Log()
    who = log.session(level="INFO")
    log.add(who, 'remove name "/uploads/a"')
    log.add(who, "sent status Permission denied")
    event = log.event("remove")
    assert (event.result, event.certain) == ("denied", False)
    assert "denied?" in text.line(event)


def test_a_success_cannot_be_made_to_look_like_a_certain_failure() -> None:
    # fstat of a handle that is none: "Failure", and no line of its own at any level.
    log = Log()
    who = log.session()
    log.add(who, 'remove name "/uploads/a"')
    log.add(who, "sent status Failure")
    assert not log.event("remove").certain


def test_an_answer_to_what_sets_several_things_is_of_one_of_them() -> None:
    log = Log()
    who = log.session()
    log.add(who, 'set "/" mode 0777')
    log.add(who, 'set "/" modtime 20260501-00:00:00')
    log.add(who, "sent status Permission denied")
    assert [(event.result, event.certain) for event in log.events() if event.kind == "set"] == [("denied", False)] * 2


def test_an_error_is_what_its_status_answers_and_not_the_open_before_it() -> None:
    log = Log()
    who = log.session()
    log.add(who, 'open "/uploads/a" flags WRITE mode 0666')
    log.add(who, 'error: process_write: write "/uploads/a": Disk quota exceeded')
    log.add(who, "sent status Failure")
    assert (log.event("open").result, log.event("error").status) == ("ok", "Failure")


def test_a_request_that_is_refused_by_its_kind_is_denied() -> None:
    log = Log()
    who = log.session()
    log.add(who, "Refusing denylisted symlink request")
    log.add(who, "sent status Permission denied")
    event = log.event("refused")
    assert (event.said.detail, event.result, event.certain) == ("symlink", "denied", True)


def test_a_status_that_comes_much_later_is_an_event_of_its_own() -> None:
    log = Log()
    who = log.session()
    log.add(who, 'mkdir name "/x" mode 0777')
    for _ in range(3):
        log.add("jill internal-sftp[9]", 'opendir "/"', after=11)
    log.add(who, "sent status Permission denied")
    assert log.event("status").result == "denied"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        '2026-02-31T00:00:00.000000+00:00 jack internal-sftp[1]: opendir "/"',
        "2026-05-01T00:00:00.000000 jack internal-sftp[1]: without a zone",
        "2026-05-01T00:00:00.000000+00:00 ../x internal-sftp[1]: no user",
        "2026-05-01T00:00:00.000000+00:00",
        "\udcff\udcfe",
    ],
)
def test_a_line_that_cannot_be_read_is_shown_whoever_is_asked_for(line: str) -> None:
    wanted = options.Options(frozenset(["jack"]), "2030-01-01T00:00:00.000000Z", None, "text")
    [event] = run.chosen(Story().of(order.merged([line])), wanted)
    assert isinstance(event, Event)
    assert event.kind == "unreadable"
    assert jsonl.record(event)["time"] is None


@pytest.mark.parametrize("tag", ["", "no tag", "a b: c", "internal-sftp[x]: y", ": :", "internal-sftp[99999999999]: z"])
def test_a_tag_that_is_none_leaves_the_line_with_who_sent_it(tag: str) -> None:
    [event] = Story().of(order.merged([f"2026-05-01T00:00:00.000000+00:00 jack {tag}"]))
    assert isinstance(event, Event)
    assert (event.kind, event.account, event.session) == ("message", "jack", None)


# What is asked for


def asked(*words: str) -> options.Options:
    parser = argparse.ArgumentParser()
    options.add(parser)
    return options.read(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "since", "until"),
    [
        (["--since", "2026-05-01"], "2026-05-01T00:00:00.000000Z", None),
        (["--until", "2026-05-01"], None, "2026-05-01T23:59:59.999999Z"),
        (["--since", "2026-05-01T10:00:00+02:00"], "2026-05-01T08:00:00.000000Z", None),
        (["--until", "2026-05-01T10:00Z"], None, "2026-05-01T10:00:00.000000Z"),
        (
            ["--since", "2026-05-01", "--until", "2026-05-01"],
            "2026-05-01T00:00:00.000000Z",
            "2026-05-01T23:59:59.999999Z",
        ),
    ],
)
def test_a_day_is_a_whole_day_in_utc_and_an_instant_has_its_zone(
    words: list[str], since: Optional[str], until: Optional[str]
) -> None:
    assert asked(*words)[1:3] == (since, until)


@pytest.mark.parametrize(
    "words",
    [
        ["--since", "yesterday"],
        ["--since", "2026-02-31"],
        ["--until", "2026-05-01T10:00:00"],
        ["--since", "0001-01-01T00:00:00+14:00"],
        ["--until", "9999-12-31T23:00:00-14:00"],
        ["--since", "2026-05-02", "--until", "2026-05-01"],
        ["--user", "../x"],
        ["--user", ""],
        ["--user", "jack\n"],
    ],
)
def test_what_makes_no_sense_is_refused_with_the_option_and_the_value(words: list[str]) -> None:
    with pytest.raises(Failure, match=f"^{words[0]}: '"):
        asked(*words)


def test_the_options_survive_the_way_to_the_server() -> None:
    words = ["--user", "jack", "--user", "uid:70002", "--since", "2026-05-01", "--format", "html"]
    parser = argparse.ArgumentParser()
    options.add(parser)
    assert options.arguments(parser.parse_args(words)) == words


def test_a_user_and_a_time_choose_events_and_a_session_keeps_the_login_before_them() -> None:
    log = Log()
    log.login()
    log.login("jill", 50023, OTHER, 79)
    who = log.session()
    jill = log.session("jill", 124)
    log.add(who, 'opendir "/"', after=86400)
    log.add(jill, 'opendir "/"')
    chosen = list(run.chosen(iter(log.items()), asked("--user", "jack", "--since", "2026-05-02")))
    assert [type(item) for item in chosen] == [Event, Session]
    assert isinstance(chosen[0], Event)
    assert jsonl.record(chosen[0])["fingerprint"] == KEY


# The files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of five lines in four files, whose numbers are no help."""
    lines = [
        f'2026-05-0{day}T00:00:00.000000+00:00 jack internal-sftp[1]: opendir "/{day}"\n'.encode()
        for day in range(1, 6)
    ]
    (tmp_path / "sftp.log.2.gz").write_bytes(gzip.compress(lines[1]))
    (tmp_path / "sftp.log.10.bz2").write_bytes(bz2.compress(lines[0]))
    (tmp_path / "sftp.log-20260503").write_bytes(lines[2])
    (tmp_path / "sftp.log").write_bytes(lines[3] + lines[4])
    (tmp_path / "sftp.log.backup").write_bytes(b"not a rotation\n")
    (tmp_path / "other.log").write_bytes(b"another log\n")
    (tmp_path / "sftp.log.3").write_bytes(b"")
    return tmp_path


def read(folder: Path) -> list[str]:
    return [re.sub(r'.*"/(.*)"', r"\1", line) for line in rotations.lines(rotations.files(str(folder / "sftp.log")))]


def test_rotations_are_read_in_the_order_of_what_is_in_them(folder: Path) -> None:
    assert read(folder) == ["1", "2", "3", "4", "5"]


def test_a_line_that_came_late_does_not_put_its_file_before_the_one_of_its_time(folder: Path) -> None:
    third = folder / "sftp.log-20260503"
    third.write_bytes(b'2026-05-01T12:00:00.000000+00:00 root sshd[2]: late "/late"\n')
    with open(third, "ab") as file:
        file.write(b'2026-05-03T00:00:00.000000+00:00 jack internal-sftp[1]: opendir "/3"\n')
    assert read(folder) == ["1", "2", "late", "3", "4", "5"]


def test_a_copy_that_logrotate_has_not_finished_is_not_told_twice(folder: Path) -> None:
    whole = (folder / "sftp.log-20260503").read_bytes()
    (folder / "sftp.log-20260503.gz").write_bytes(gzip.compress(whole)[:-9])
    assert read(folder) == ["1", "2", "3", "4", "5"]


def test_a_rotation_that_is_damaged_says_so_where_it_ends(folder: Path) -> None:
    whole = gzip.compress(
        b"".join(f"2026-05-02T00:00:0{n}.000000+00:00 jack x[1]: {n}\n".encode() for n in range(9)), 0
    )
    (folder / "sftp.log.2.gz").write_bytes(whole[:150])
    lines = list(rotations.lines(rotations.files(str(folder / "sftp.log"))))
    assert any("cannot be read" in line for line in lines)
    assert lines[-1].endswith('"/5"')


def test_no_log_is_a_failure_and_an_empty_one_is_none(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"there is no .*sftp\.log"):
        rotations.files(str(tmp_path / "sftp.log"))
    (tmp_path / "sftp.log").touch()
    assert read(tmp_path) == []


def test_no_link_is_followed(folder: Path) -> None:
    (folder / "sftp.log.4").symlink_to(folder / "other.log")
    with pytest.raises(OSError, match=r"sftp\.log\.4"):
        read(folder)


def many(count: int) -> Iterator[str]:
    """A long log, a second a line."""
    log = Log()
    for number in range(count):
        if number % 100 == 0:
            log.login(port=1000 + number % 50000, pid=number)
            who = log.session(pid=number + 1)
        log.add(who, f'open "/uploads/{number}" flags WRITE,CREATE mode 0644', after=1)
        if number % 100 == 99:
            log.add(who, "session closed for local user jack from [203.0.113.5]")
            log.add(f"root sshd-session[{number - 99}]", "pam_unix(sshd:session): session closed for user jack")
        yield from log.lines
        log.lines = []


@pytest.mark.parametrize("writer", [text, sheet, jsonl, page])
def test_a_log_twice_as_long_takes_no_more_memory(writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WITHOUT_SCRIPTS", 10)
    monkeypatch.setattr(page, "BLOCK", 100)
    peaks = []
    for count in (4000, 8000):
        tracemalloc.start()
        with open("/dev/null", "w") as file:
            writer.write(Story().of(order.merged(many(count))), file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2


# The page


def test_the_page_runs_its_own_script_alone_and_fetches_nothing() -> None:
    log = Log()
    log.login()
    log.session()
    html = written(log.items(), page)
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert html.index("<script") > policy.start() < html.index("<style")
    for tag in ("script", "style"):
        [inline] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    assert "unsafe" not in policy[1]
    seen = Seen(html)
    assert not {"src", "href", "style", "onclick"} & {name for _, names in seen.tags for name in names}
    assert re.findall("https?://[^\"' ]*", html) == ["http://www.w3.org/2000/svg"]


def test_the_page_has_each_users_totals_and_a_row_for_each_session() -> None:
    log = Log()
    log.login()
    who = log.session()
    for name, count in ((b"a", 1000), (b"b", 2500), ("ä".encode() * 130, 4)):
        log.add(who, message("close", name, after=f"bytes read 0 written {count}"))
    log.add(who, message("close", b"c", after="bytes read 7 written 0"))
    log.add(who, 'mkdir name "/x" mode 0777')
    log.add(who, "sent status Permission denied")
    log.add("root sshd[5]", "Failed publickey for jack from 203.0.113.5 port 5 ssh2: ED25519 SHA256:x")
    log.add("root sshd[5]", "Failed none for invalid user oracle from 203.0.113.5 port 5 ssh2")
    seen = Seen(written(log.items(), page))
    [session] = seen.rows("s")
    assert session[1] == "jack"
    assert session[5:13] == ["203.0.113.5", f"ED25519 {KEY}, the only login open from there", 2, 3500, 1, 7, 1, 1]
    cells = [cell for tag in ("bdi", "td") for cell in seen.texts[tag]]
    assert {"jack", "(nobody here)", "≥ 3.5 kB", "≥ 7 B"} <= set(cells)
    assert "oracle" not in [
        user for block in seen.texts["script application/json"] for user in json.loads(block).get("m", {})
    ]
