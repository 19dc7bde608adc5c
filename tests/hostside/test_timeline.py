"""`jailctl timeline` on real Debian: what a client did, whatever its files are called, and who let him in."""

import asyncio
import base64
import json
import subprocess
from subprocess import PIPE
from typing import Any

import asyncssh
import pytest

from tests.conftest import MACHINE, Key, Machine, until
from tests.hostside.conftest import JAIL, OWNER, add, on_trixie, spec
from tests.unit.internal_sftp import message

LOG = "/var/log/sftp.log"
FORGED = (
    b"\n2026-05-01T00:00:00.000000+00:00 root sshd[1]: Accepted publickey for jill from 6.6.6.6 port 6 ssh2: ED25519 "
    b"SHA256:forged"
)

NAMES = {
    "a newline": b"a\nb",
    "a line of sshd's": FORGED,
    "a line of jailctl's": b"x\nroot jailctl[9]: key-granted user=jill key=SHA256:forged",
    "ESC and BEL": b"\x1b[2J\x07",
    "quotes like the end of open": b'x" flags WRITE,CREATE,TRUNCATE mode 0666',
    "quotes like the end of close": b'a" bytes read 0 written 99',
    "quotes like a second name": b'a" new "b',
    "as long as a name can be": b"n" * 255,
    "so long that the line is cut": "ä".encode() * 120,
    "not UTF-8": b"\xff\xfe",
    "an option": b"-rf",
    "an asterisk": b"*",
    "backslashes": b"\\n\\033",
    "from right to left": "\u202egnp".encode(),
}


def empty_log(machine: Machine) -> None:
    """Nothing of what the tests before have done, rotated or not."""
    machine.root("sh", "-c", f"rm -f {LOG}.*; truncate --size=0 {LOG}")


def story(machine: Machine, *words: str) -> list[dict[str, Any]]:
    """What `jailctl timeline` tells, an object an event."""
    out = machine.root("/usr/local/sbin/jailctl", "timeline", "--format", "jsonl", *words)
    return [json.loads(line) for line in out.splitlines()]


def name_of(event: dict[str, Any], key: str = "path") -> bytes:
    encoded = event[f"{key}_base64"]
    return event[key].encode() if encoded is None else base64.b64decode(encoded)


async def handle(address: str, key: Key, data: bytes) -> None:
    """Put a file of each name, rename it, and remove it; then end the session as is proper."""
    async with (
        asyncssh.connect(
            address, username="jack", client_keys=[str(key.path)], known_hosts=None, config=None, agent_path=None
        ) as connection,
        connection.start_sftp_client(path_encoding=None) as sftp,
    ):
        for name in NAMES.values():
            async with sftp.open(b"/uploads/" + name, "wb") as file:
                await file.write(data)
            await sftp.rename(b"/uploads/" + name, b"/uploads/renamed")
            await sftp.remove(b"/uploads/renamed")


@pytest.mark.case("A 43", "A 44", "A 45", "A 46", "A 47", "A 48")
def test_every_operation_is_told_once_under_the_right_user_whatever_the_file_is_called(
    jail: Machine, jack: Key, jill: Key
) -> None:
    machine = jail
    empty_log(machine)
    add(machine, "jack", laptop=jack)
    add(machine, "jill", laptop=jill)
    assert machine.sftp("jill", jill, "put /etc/hostname hers").code == 0
    asyncio.run(handle(machine.address, jack, b"12345"))
    # Who says the last line of a session is not certain: its own process does not wait for sshd, nor sshd for it.
    last = [f"session closed for {whom}" for whom in ("local user jack", "user jack", "local user jill", "user jill")]
    until(lambda: all(line in machine.root("cat", LOG) for line in last), "the last lines of both sessions")

    events = story(machine)
    jacks = [event for event in events if event["sender"] == "jack" and event["program"] == "internal-sftp"]
    told = [event for event in jacks if event["event"] not in ("session-opened", "session-closed", "version")]
    assert [event["event"] for event in told] == ["open", "close", "rename", "remove"] * len(NAMES)
    assert {(event["user"], event["result"], event["certain"]) for event in told} == {("jack", "ok", True)}
    for number, name in enumerate(b"/uploads/" + name for name in NAMES.values()):
        opened, closed, renamed, removed = told[4 * number : 4 * number + 4]
        # What the other tests take for internal-sftp's words are its words.
        assert closed["raw"].partition(": ")[2] == message("close", name, after="bytes read 0 written 5")
        assert renamed["raw"].partition(": ")[2] == message("rename old", name, b"/uploads/renamed")
        assert name_of(removed) == b"/uploads/renamed"
        if opened["cut"]:
            assert name == b"/uploads/" + NAMES["so long that the line is cut"]
            assert (closed["written"], closed["cut"], renamed["target"]) == (None, True, None)
            assert name.startswith(name_of(opened))
            continue
        assert (name_of(opened), name_of(closed), closed["written"]) == (name, name, 5)
        if renamed["ambiguous"]:
            assert b'" new "' in name
            continue
        assert (name_of(renamed), name_of(renamed, "target")) == (name, b"/uploads/renamed")

    hers = [event["path"] for event in events if event["user"] == "jill" and event["event"] == "close"]
    assert hers == ["/uploads/hers"]
    assert not any("forged" in json.dumps({**event, "path": "", "raw": ""}) for event in events)
    assert not any(event["event"] in ("unreadable", "status") for event in events)
    only = story(machine, "--user", "jill")
    assert [event for event in events if event["user"] == "jill"] == only
    assert story(machine, "--until", "2026-01-01") == []
    assert story(machine, "--since", events[3]["time"]) == events[3:]


def fingerprint(key: Key) -> str:
    """As ssh-keygen has it."""
    done = subprocess.run(["ssh-keygen", "-lf", f"{key.path}.pub"], stdout=PIPE, text=True, check=True)
    return done.stdout.split()[1]


def test_a_session_has_the_key_that_opened_it_and_jailctl_says_who_granted_it(
    jail: Machine, jack: Key, jill: Key
) -> None:
    machine = jail
    empty_log(machine)
    add(machine, "jack", laptop=jack, phone=jill)
    stranger_refused = machine.sftp("jack", machine.admin_key, "ls").code
    assert stranger_refused != 0
    for key in (jack, jill):
        assert machine.sftp("jack", key, "ls").code == 0
    add(machine, "jack", {"access": "read-only"}, laptop=jack, phone=jill)
    add(machine, "jack", {"access": "read-only", "expires": "2020-01-01"}, laptop=jack, phone=jill)
    machine.root("chage", "-E", "-1", "jack")  # as if it had ended only now
    machine.root("/usr/local/sbin/jailctl", "expire")
    done = machine.jailctl("remove-user", spec("jack", laptop=jack, phone=jill))
    assert done.code == 0, done
    kinds = {"user-added", "key-granted", "login", "login-failed", "session-opened", "session-closed"}
    kinds |= {"user-changed", "access-expired", "user-removed"}

    def told() -> list[dict[str, Any]]:
        return [event for event in story(machine, "--user", "jack") if event["event"] in kinds]

    until(lambda: sum(event["event"] == "login" for event in told()) == 2, "what the journal brings")
    events = told()
    assert [event["event"] for event in events if event["event"] != "login-failed"] == [
        *("user-added", "key-granted", "key-granted"),
        *("login", "session-opened", "session-closed") * 2,
        *("user-changed", "user-changed", "access-expired", "user-removed"),
    ]
    assert {event["event"] for event in events} == kinds
    assert events[0]["fields"]["by"] == OWNER
    changed = [event["fields"] for event in events if event["event"] == "user-changed"]
    assert [(fields["field"], fields["from"], fields["to"]) for fields in changed] == [
        ("access", "read-write", "read-only"),
        ("expires", "-", "2020-01-01"),
    ]
    granted = {event["fields"]["label"]: event["fingerprint"] for event in events if event["event"] == "key-granted"}
    assert granted == {"laptop": fingerprint(jack), "phone": fingerprint(jill)}
    sessions = [event for event in events if event["event"] == "session-opened"]
    assert [(event["joined"], event["fingerprint"], event["key_label"]) for event in sessions] == [
        ("exact", fingerprint(jack), "laptop"),
        ("exact", fingerprint(jill), "phone"),
    ]
    for form in ("text", "csv", "html"):
        out = machine.root("/usr/local/sbin/jailctl", "timeline", "--user", "jack", "--format", form)
        for words in (*kinds, fingerprint(jack), fingerprint(jill), "2020-01-01"):
            assert words in out, form


@on_trixie
def test_at_info_a_denial_is_told_and_said_to_be_no_certain_answer(jail: Machine, jack: Key) -> None:
    assert jail.jailctl("apply-jail", {**JAIL, "logLevel": "INFO"}).code == 0
    empty_log(jail)
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "-mkdir /x", "put /etc/hostname a").code == 0
    [denied] = [event for event in story(jail, "--user", "jack") if event["path"] == "/x"]
    assert (denied["event"], denied["result"], denied["certain"]) == ("mkdir", "denied", False)
    [closed] = [event for event in story(jail, "--user", "jack") if event["event"] == "close"]
    assert (closed["result"], closed["written"]) == (
        "ok",
        int(jail.root("stat", "-c", "%s", "/sftp/jail/jack/uploads/a")),
    )


@on_trixie
def test_the_story_goes_through_rotations_and_on_when_the_jail_is_gone(jail: Machine, jack: Key) -> None:
    empty_log(jail)
    add(jail, "jack", laptop=jack)
    for number in range(4):
        assert jail.sftp("jack", jack, f"put /etc/hostname {number}").code == 0
        if number < 3:
            inode = jail.root("stat", "-c", "%i", LOG)
            jail.root("logrotate", "--force", "/etc/logrotate.d/sftp-jail")
            until(lambda before=inode: jail.root("stat", "-c", "%i", LOG) != before, "a new log")  # type: ignore[misc]
    assert jail.jailctl("remove-jail", {**JAIL, "forceDestroy": True}).code == 0
    assert len(jail.root("sh", "-c", f"ls {LOG}.*.gz").split()) == 2
    closed = [event["path"] for event in story(jail, "--user", "jack") if event["event"] == "close"]
    assert closed == [f"/uploads/{number}" for number in range(4)]


@on_trixie
def test_it_waits_for_nobody_and_changes_nothing(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "put /etc/hostname a").code == 0
    before = jail.root("stat", "-c", "%n %s %Z", "/sftp/state", "/sftp/state/users/jack.json")
    logged = jail.root("cat", LOG)
    hold = ["flock", "/run/sftp-jail.lock", "sh", "-c", "echo held; read line"]
    argv = ["python3", str(MACHINE), "run", jail.spec["directory"], "--", *hold]
    with subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        page = jail.root("/usr/local/sbin/jailctl", "timeline", "--format", "html")
        holder.communicate("go on\n")
    assert page.startswith("<!DOCTYPE html>")
    assert page.endswith("</html>\n")
    assert jail.root("stat", "-c", "%n %s %Z", "/sftp/state", "/sftp/state/users/jack.json") == before
    # The last lines of the session may have come only now.
    assert jail.root("cat", LOG).startswith(logged)


@on_trixie
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--since", "yesterday"), "--since: 'yesterday': neither a day nor an instant with its zone"),
        (("--until", "2026-05-01T10:00:00"), "--until: '2026-05-01T10:00:00': neither a day"),
        (("--user", "../x"), "--user: '../x': no user's name"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(jail: Machine, words: tuple[str, str], reason: str) -> None:
    done = jail.run("/usr/local/sbin/jailctl", "timeline", *words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"jailctl timeline: {reason}")
    assert done.err.count("\n") == 1


@on_trixie
def test_only_root_is_told_the_story(jail: Machine) -> None:
    done = jail.run("runuser", "-u", "admin", "--", "/usr/local/sbin/jailctl", "timeline")
    assert done.code == 1
    assert "only root" in done.err
