"""The log: what is in it, under whose name, and what it outlives. On every Debian that is supported."""

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple, Optional

import pytest

from tests.conftest import RELEASES, Key, Machine, make_key, until
from tests.hostside.conftest import JAIL, OWNER, add, spec

LOG = "/var/log/sftp.log"
LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00) (\S+) ([^\s\[]+)\[(\d+)\]: (.*)")

PASSWORD = {"username": "jack", "passwordHash": "$6$saltsalt$" + "a" * 86}


@pytest.fixture(scope="module", params=RELEASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server with a jail."""
    machine = Machine(tmp_path_factory.mktemp(request.param), request.param)
    machine.ban_nobody()
    machine.install()
    done = machine.jailctl("apply-jail", JAIL)
    assert done.code == 0, done
    yield machine
    machine.stop()


@pytest.fixture(scope="module")
def jack(server: Machine) -> Key:
    """A user of it."""
    key = make_key(server.folder / "jack")
    add(server, "jack", laptop=key)
    return key


@pytest.fixture(scope="module")
def joan(server: Machine) -> Key:
    """Somebody who is no user yet."""
    return make_key(server.folder / "joan")


def lines(machine: Machine) -> list[str]:
    """All of the log, rotated files included, oldest first."""
    return machine.root("sh", "-c", f"for file in $(ls -tr {LOG}*); do zcat -f $file; done").splitlines()


def entries(machine: Machine, user: str, tag: str = "") -> list[str]:
    """What the log says of a user, or root, by a program."""
    found = [LINE.fullmatch(line) for line in lines(machine)]
    return [match[5] for match in found if match and match[2] == user and match[3].startswith(tag)]


def fingerprint(key: Key) -> str:
    return subprocess.run(
        ["ssh-keygen", "-lf", f"{key.path}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]


@pytest.mark.case("A 57")
def test_every_operation_is_a_line_with_time_name_and_process(server: Machine, jack: Key) -> None:
    done = server.sftp(
        *("jack", jack, "put /etc/hostname a", "rename a b", "ln -s b c", "chmod 600 b", "mkdir d", "rmdir d"),
        *("-mkdir /x", "-put /etc/hostname /x", "-rm /dev/log", "get b /dev/null", "rm b", "rm c"),
    )
    assert done.code == 0, done
    assert all(LINE.fullmatch(line) for line in lines(server))
    told = entries(server, "jack", "internal-sftp")
    for words in (
        *(
            "session opened for local user jack from [",
            'open "/uploads/a" flags WRITE',
            'close "/uploads/a" bytes read 0',
        ),
        *('rename old "/uploads/a" new "/uploads/b"', 'symlink old "b" new "/uploads/c"', 'set "/uploads/b" mode 0600'),
        *('mkdir name "/uploads/d"', 'rmdir name "/uploads/d"', 'mkdir name "/x"', "sent status Permission denied"),
        *('open "/x"', 'remove name "/dev/log"', 'close "/uploads/b" bytes read', 'remove name "/uploads/b"'),
        "session closed for local user jack from [",
    ):
        assert any(words in message for message in told), words
    assert server.root("stat", "-c", "%U %G %a", LOG) == "root adm 640\n"


def test_a_login_can_be_followed_from_the_key_to_the_process_that_writes(server: Machine, jack: Key) -> None:
    # A process id may have been another's, before a reboot.
    before = len(lines(server))
    assert server.sftp("jack", jack, "put /etc/hostname followed").code == 0

    def root_says(words: str) -> list[re.Match[str]]:
        found = [LINE.fullmatch(line) for line in lines(server)[before:]]
        return [match for match in found if match and match[2] == "root" and words in match[5]]

    from_here = f"Accepted publickey for jack from {server.address.rsplit('.', 1)[0]}"
    until(lambda: root_says(from_here), "the login")
    accepted = root_says(from_here)[-1]
    # The end of an earlier session may come as late as this one's beginning.
    until(lambda: accepted[4] in [match[4] for match in root_says("session closed for user jack")], "the end of it")
    assert fingerprint(jack) in accepted[5]
    port = accepted[5].split(" port ")[1].split()[0]
    child = next(match for match in root_says("User child is on pid ") if match[4] == accepted[4])[5].split()[-1]
    # The child is the user's own already, and says for which connection it begins a session.
    begun = [
        line for line in lines(server)[before:] if " jack sshd" in line and f"[{child}]: Starting session: " in line
    ]
    assert f" port {port} id 0" in begun[-1]


def test_a_refused_key_and_an_unknown_one_are_in_the_log_with_their_address(server: Machine, jack: Key) -> None:
    stranger = make_key(server.folder / "stranger")
    assert server.sftp("jack", stranger, "ls").code != 0
    refused = f"{fingerprint(stranger)}"
    until(lambda: any("Failed publickey for jack" in line and refused in line for line in lines(server)), "the refusal")
    assert server.ssh("admin", server.admin_key, "true").code == 0
    assert server.ssh("admin", stranger, "true").code != 0
    assert not any("for admin " in line for line in lines(server)), "nobody else's logins are here"


@pytest.mark.case("A 58")
def test_a_local_account_cannot_forge_a_line(server: Machine, jack: Key) -> None:
    before = len(lines(server))
    forged = "Accepted publickey for jack from 192.0.2.66 port 1 ssh2: ED25519 SHA256:forged"
    send = (
        "import socket, sys\n"
        "for path in sys.argv[2:]:\n"
        "    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    try:\n        sender.connect(path); sender.send(f'<86>sshd[1]: {sys.argv[1]}'.encode())\n"
        "    except OSError as error:\n        print(type(error).__name__)\n"
    )
    as_admin = ("runuser", "-u", "admin", "--")
    server.root(*as_admin, "logger", "--id=77", "-t", "sshd", "-p", "authpriv.info", forged)
    server.root(*as_admin, "logger", "-t", "jailctl", "-p", "authpriv.info", "canary token=forged")
    sockets = ("/sftp/log/socket", "/sftp/jail/jack/dev/log")
    assert server.root(*as_admin, "python3", "-c", send, forged, *sockets).split() == ["PermissionError"] * 2
    # Who got there all the same would be named: by uid, whatever he says.
    server.root("chmod", "0711", "/sftp/log")
    try:
        assert server.root(*as_admin, "python3", "-c", send, forged, sockets[0]) == ""
    finally:
        server.root("chmod", "0700", "/sftp/log")
    assert server.jailctl("check").out == "no difference\n"  # a canary by either way has passed the forged lines
    new = [line for line in lines(server)[before:] if "forged" in line]
    assert [line.split()[1:3] for line in new] == [["uid:1000", "sshd[1]:"]]


def hostile(case: str, what: str, name: bytes, shown: str) -> object:
    """A name of a file, and how the log shows it."""
    return pytest.param(name, shown, marks=pytest.mark.case(case), id=what)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        hostile("A 43", "a newline", b"two\nlines", r"/uploads/two\nlines"),
        hostile("A 44", "escapes", b"\x1b[31mred\x07", r"/uploads/\033[31mred\a"),
        hostile("A 45", "a quote", b'a" flags READ mode 0666', '/uploads/a" flags READ mode 0666"'),
        pytest.param(b"x" * 240, "x" * 240, id="a long name"),
        hostile("A 47", "not UTF-8", b"caf\xe9", r"/uploads/caf\351"),
        hostile("A 48", "-rf", b"-rf", "/uploads/-rf"),
        hostile("A 48", "a star", b"*", "/uploads/*"),
    ],
)
def test_a_hostile_file_name_stays_within_its_line(server: Machine, jack: Key, name: bytes, shown: str) -> None:
    import asyncio

    import asyncssh

    async def put() -> None:
        async with (
            asyncssh.connect(
                server.address,
                username="jack",
                client_keys=[str(jack.path)],
                known_hosts=str(server.known_hosts),
                config=None,
            ) as connection,
            connection.start_sftp_client(path_encoding=None) as sftp,
        ):
            file = await sftp.open(b"/uploads/" + name, "wb")
            await file.close()
            await sftp.remove(b"/uploads/" + name)

    before = len(lines(server))
    asyncio.run(put())
    until(lambda: any("session closed for local user" in line for line in lines(server)[before:]), "the session's end")
    new = [line for line in lines(server)[before:] if shown in line]
    assert len([line for line in new if "]: open " in line]) == 1
    assert len([line for line in new if "]: remove name " in line]) == 1
    assert all(LINE.fullmatch(line) for line in new)


def test_what_verbs_grant_and_take_away_is_in_the_log(server: Machine) -> None:
    jill, second = make_key(server.folder / "jill"), make_key(server.folder / "jill2")
    add(server, "jill", laptop=jill)
    uid = server.root("id", "-u", "jill").strip()
    add(server, "jill", laptop=second)
    assert server.jailctl("apply-password", {**PASSWORD, "username": "jill"}).code == 0
    assert server.jailctl("remove-password", {**PASSWORD, "username": "jill"}).code == 0
    assert server.jailctl("remove-user", spec("jill", laptop=second)).code == 0
    assert server.jailctl("apply-jail", {**JAIL, "umask": "027"}).code == 0
    assert server.jailctl("apply-jail", JAIL).code == 0
    told = [message for message in entries(server, "root", "jailctl") if "jill" in message or "umask" in message]
    assert [message.removesuffix(f" by={OWNER}") for message in told][-9:] == [
        f"user-added user=jill uid={uid}",
        f"key-granted user=jill key={fingerprint(jill)} label=laptop",
        f"key-revoked user=jill key={fingerprint(jill)} label=laptop",
        f"key-granted user=jill key={fingerprint(second)} label=laptop",
        "password-granted user=jill",
        "password-revoked user=jill",
        f"user-removed user=jill uid={uid}",
        "jail-changed field=umask from=022 to=027",
        "jail-changed field=umask from=027 to=022",
    ]
    assert PASSWORD["passwordHash"] not in "".join(lines(server))


BURST = """\
import os, socket, sys
os.chroot("/sftp/jail/jack")
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for number in range(int(sys.argv[3])):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("/dev/log")
        sender.send(f"<86>Nov 24 12:00:00 internal-sftp[{os.getpid()}]: {sys.argv[2]} {number}".encode())
"""


def test_no_line_is_lost_or_doubled_while_the_log_is_rotated_and_rsyslog_restarts(server: Machine, jack: Key) -> None:
    """As syslog(3) sends, only faster; a kill loses what rsyslog has in its hands, so there is none here."""
    uid = server.root("id", "-u", "jack").strip()
    count, writers = 3000, "abcd"
    inode = server.root("stat", "-c", "%i", "/sftp/jail/jack/dev/log")
    written = threading.Event()

    def write(name: str) -> None:
        server.root("python3", "-c", BURST, uid, name, count)

    def disturb() -> int:
        rounds = 0
        while not written.is_set() or rounds < 3:
            for _ in range(3):  # the second one compresses what the first one has renamed
                server.root("logrotate", "-f", "/etc/logrotate.d/sftp-jail")
            server.root("systemctl", "reset-failed", "sftp-jail-log")
            server.root("systemctl", "restart", "sftp-jail-log")
            rounds += 1
        return rounds

    with ThreadPoolExecutor() as pool:
        disturbing = pool.submit(disturb)
        try:
            list(pool.map(write, writers))
        finally:
            written.set()
        assert disturbing.result() >= 3
    assert server.jailctl("check").out == "no difference\n"  # and with its canary, all before it is there
    wanted = Counter(f"{name} {number}" for name in writers for number in range(count))
    found = Counter(message for message in entries(server, "jack", "internal-sftp") if message[:1] in writers)
    assert Counter({message: found[message] for message in wanted}) == wanted
    assert server.root("stat", "-c", "%i", "/sftp/jail/jack/dev/log") == inode, "the socket outlives rsyslog"


@pytest.mark.case("B 23")
def test_an_upload_goes_on_over_rotation_and_restarts_of_rsyslog_and_sshd(server: Machine, jack: Key) -> None:
    with subprocess.Popen(
        [str(arg) for arg in ("sftp", "-l", "8000", *server.ssh_options(jack), "-b", "-", f"jack@{server.address}")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as session:
        assert session.stdin is not None
        big = server.folder / "big"
        big.write_bytes(b"x" * 2_000_000)
        session.stdin.write(f"put {big} rotated\nrename rotated renamed\n")
        session.stdin.close()
        until(lambda: any('open "/uploads/rotated"' in line for line in lines(server)), "the upload's beginning")
        server.root("logrotate", "-f", "/etc/logrotate.d/sftp-jail")
        server.root("systemctl", "restart", "sftp-jail-log")
        server.root("systemctl", "reload", "ssh")
        assert session.wait(60) == 0
    told = entries(server, "jack", "internal-sftp")
    assert any(message.startswith('close "/uploads/rotated" bytes read 0 written 2000000') for message in told)
    assert any('rename old "/uploads/rotated"' in message for message in told)


@pytest.mark.case("B 30")
def test_the_log_is_rotated_where_its_folder_is_a_groups_too_and_never_copied(server: Machine, jack: Key) -> None:
    theirs = "/var/log/theirs.log { size 1\n missingok }\n"
    server.root("tee", "/etc/logrotate.d/theirs", stdin=theirs)
    server.root("sh", "-c", "echo long enough > /var/log/theirs.log; chgrp adm /var/log; chmod g+w /var/log")
    try:
        assert server.sftp("jack", jack, "put /etc/hostname first").code == 0
        inode = server.root("stat", "-c", "%i", LOG)
        done = server.run("logrotate", "--force", "/etc/logrotate.d/theirs")
        assert "insecure permissions" in done.err, "of what has no `su`"
        assert server.root("logrotate", "--force", "/etc/logrotate.d/sftp-jail") == ""
        assert server.root("stat", "-c", "%i", f"{LOG}.1") == inode
        assert server.sftp("jack", jack, "put /etc/hostname second").code == 0
        assert server.root("stat", "-c", "%U %G %a", LOG) == "root adm 640\n"
        assert server.jailctl("check").out == "no difference\n"
    finally:
        server.root(
            "sh", "-c", "rm /etc/logrotate.d/theirs /var/log/theirs.log; chgrp root /var/log; chmod g-w /var/log"
        )
    assert [name for name in ("first", "second") if any(f'"/uploads/{name}"' in line for line in lines(server))] == [
        "first",
        "second",
    ]


def test_the_log_is_there_after_a_reboot_and_goes_on(server: Machine, jack: Key) -> None:
    before = lines(server)
    server.reboot()
    assert lines(server)[: len(before)] == before
    assert server.sftp("jack", jack, "put /etc/hostname rebooted").code == 0
    assert any('close "/uploads/rebooted"' in message for message in entries(server, "jack"))
    assert server.jailctl("check").out == "no difference\n"


# Logging that breaks


@contextmanager
def broken(machine: Machine, what: str, undo: str) -> Iterator[None]:
    machine.root("sh", "-c", what)
    try:
        yield
    finally:
        machine.root("sh", "-c", undo)


UNIT = "/etc/systemd/system/sftp-jail-log.service.d/broken.conf"


def drop_in(*settings: str) -> tuple[str, str]:
    """The shell lines that put a drop-in with these settings on our unit, and take it away."""
    text = "\\n".join(["[Service]", *settings])
    load = "systemctl daemon-reload; systemctl reset-failed sftp-jail-log.service sftp-jail-log.socket"
    folder = UNIT.rsplit("/", 1)[0]
    restart = f"{load}; systemctl restart sftp-jail-log"
    return f"mkdir -p {folder}; printf '{text}\\n' > {UNIT}; {restart} || true", f"rm -r {folder}; {restart}"


NO_RIGHTS, ALL_RIGHTS = drop_in("User=nobody")


class Fault(NamedTuple):
    """How logging breaks and is mended, by shell lines; what is said of it; and what `apply-jail` says, if that is
    something else: nothing where it mends it."""

    what: str
    undo: str
    reason: str
    applied: Optional[str] = None


FAULTS = {
    "rsyslogd does not start": Fault(
        *drop_in("ExecStart=", "ExecStart=/bin/false"),
        "sftp-jail-log.service is failed",
        applied="Job for sftp-jail-log.service failed",
    ),
    "rsyslogd is frozen": Fault(
        "kill -STOP $(systemctl show -p MainPID --value sftp-jail-log)",
        "kill -CONT $(systemctl show -p MainPID --value sftp-jail-log)",
        "stopped by a signal",
    ),
    "a sandbox": Fault(*drop_in("ReadOnlyPaths=/var/log"), "/var/log is read-only for rsyslogd"),
    "a sandbox with a /var/log of its own": Fault(
        *drop_in("TemporaryFileSystem=/var/log"), "rsyslogd sees another /var/log"
    ),
    # No kernel here has AppArmor. What it does and says is put in its place: opening the log is denied, and proc(5) has
    # the profile's name and mode.
    "AppArmor": Fault(
        f"{NO_RIGHTS}; echo 'rsyslogd (enforce)' > /run/profile && "
        "mount --bind /run/profile /proc/$(systemctl show -p MainPID --value sftp-jail-log)/attr/current",
        f"umount /proc/$(systemctl show -p MainPID --value sftp-jail-log)/attr/current; {ALL_RIGHTS}",
        "the AppArmor profile rsyslogd (enforce) confines rsyslogd",
    ),
    "rights that are taken away": Fault(NO_RIGHTS, ALL_RIGHTS, "open error: Permission denied"),
    "a missing socket": Fault("rm /sftp/log/socket", "true", "/sftp/log/socket is missing", applied=""),
    "something else in its place": Fault(
        "mkdir /aside; mv /var/log/sftp.log* /aside; mkdir /var/log/sftp.log; systemctl restart sftp-jail-log",
        "rmdir /var/log/sftp.log; mv /aside/* /var/log; rmdir /aside; systemctl restart sftp-jail-log",
        "/var/log/sftp.log is no file",
    ),
    "a full disk": Fault(
        "mount -t tmpfs -o size=64k full /var/log; systemctl restart sftp-jail-log; cat /dev/zero > /var/log/0 || true",
        "umount -l /var/log; systemctl restart sftp-jail-log",
        "no space is left in /var/log",
    ),
    "a journal that is not read": Fault(
        "sed -i 's/^module.load=.imjournal.*//' /etc/sftp-jail/rsyslog.conf; systemctl restart sftp-jail-log",
        "true",
        "what sshd says does not arrive",
        applied="",
    ),
}


CASES = {
    "rsyslogd does not start": "B 22",
    "rsyslogd is frozen": "B 21",
    "a sandbox": "B 28",
    "a full disk": "B 20",
    "AppArmor": "B 27",
}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=name, marks=[pytest.mark.case(CASES[name])] if name in CASES else [])
        for name, fault in FAULTS.items()
    ],
)
def test_logging_that_breaks_is_said_with_the_reason_and_an_upload_goes_on(
    server: Machine, jack: Key, joan: Key, fault: Fault
) -> None:
    with broken(server, fault.what, fault.undo):
        checked = server.jailctl("check")
        refused = server.jailctl("apply-user", spec("joan", laptop=joan))
        if "signal" not in fault.reason:
            # More lines than a socket has room for that nobody reads (512, net.unix.max_dgram_qlen in sysctl.d(5)).
            assert server.sftp("jack", jack, "put /etc/hostname unseen", *["chmod 644 unseen"] * 600).code == 0
        applied = server.run("/usr/local/sbin/jailctl", "apply-jail", stdin=json.dumps(JAIL))
    assert checked.code == 1
    assert fault.reason in checked.out
    if "sshd" not in fault.reason:
        assert refused.code == 1
        assert fault.reason in refused.err
        assert server.run("id", "joan").code != 0, "nobody is let in whom nobody could see"
    words = fault.reason if fault.applied is None else fault.applied
    assert (applied.code, words in applied.err) == (1 if words else 0, True)
    server.jailctl("remove-user", spec("joan", laptop=joan))
    assert server.jailctl("apply-jail", JAIL).code == 0
    assert server.jailctl("check").out == "no difference\n"
    assert server.sftp("jack", jack, "put /etc/hostname seen").code == 0
    assert any('close "/uploads/seen"' in message for message in entries(server, "jack"))


def test_a_log_that_was_moved_away_is_written_again_by_the_command_that_is_named(server: Machine, jack: Key) -> None:
    aside = "mv /var/log/sftp.log /var/log/sftp.log.aside; install -m 640 -g adm /dev/null /var/log/sftp.log"
    back = "cat /var/log/sftp.log >> /var/log/sftp.log.aside; mv /var/log/sftp.log.aside /var/log/sftp.log"
    with broken(server, aside, f"{back}; systemctl kill --signal=HUP sftp-jail-log"):
        report = json.loads(server.run("/usr/local/sbin/jailctl", "check", "--format=json").out)
        (found,) = report["differences"]
        assert "rsyslogd writes to /var/log/sftp.log.aside" in found["actual"]
        assert server.ssh("admin", server.admin_key, found["remedy"]).code == 0
        assert server.sftp("jack", jack, "put /etc/hostname again").code == 0
        until(lambda: 'close "/uploads/again"' in server.root("cat", LOG), "its line in the log itself")


@pytest.mark.case("B 21")
def test_a_session_waits_for_a_frozen_rsyslog_and_loses_no_line(server: Machine, jack: Key) -> None:
    before = len(entries(server, "jack", "internal-sftp"))
    main = server.root("systemctl", "show", "-p", "MainPID", "--value", "sftp-jail-log").strip()
    with ThreadPoolExecutor() as pool, broken(server, f"kill -STOP {main}", f"kill -CONT {main}"):
        session = pool.submit(server.sftp, "jack", jack, *(f"mkdir frozen-{number}" for number in range(40)))
        until(
            lambda: int(server.root("sh", "-c", "ls -d /sftp/jail/jack/uploads/frozen-* | wc -l")) > 2, "some of them"
        )
        assert not session.done()
        server.root("kill", "-CONT", main)
        assert session.result().code == 0
    server.root("sh", "-c", "rmdir /sftp/jail/jack/uploads/frozen-*")
    made = [
        message for message in entries(server, "jack", "internal-sftp")[before:] if message.startswith("mkdir name")
    ]
    assert len(made) == 40


@pytest.mark.case("B 25")
def test_the_hosts_own_rsyslog_has_no_part_in_it(server: Machine, jack: Key) -> None:
    """Whatever it is configured to do, and whether it runs; ours stays out of its way, too."""
    uid = server.root("id", "-u", "jack").strip()
    own = "$RepeatedMsgReduction on\n$EscapeControlCharactersOnReceive off\n"
    server.root("tee", "/etc/rsyslog.d/00-theirs.conf", stdin=own)
    try:
        server.root("systemctl", "restart", "rsyslog")
        server.root("python3", "-c", BURST.replace("{number}", ""), uid, "repeated", 7)
        server.root("systemctl", "stop", "rsyslog", "syslog.socket")
        server.root("python3", "-c", BURST.replace("{number}", ""), uid, "repeated", 5)
        assert server.jailctl("check").out == "no difference\n"
    finally:
        server.root("rm", "/etc/rsyslog.d/00-theirs.conf")
        server.root("systemctl", "restart", "rsyslog")
    assert len([message for message in entries(server, "jack") if message.strip() == "repeated"]) == 12


@pytest.mark.case("B 26")
def test_without_rsyslog_nothing_is_set_up_and_the_remedy_is_said(server: Machine, jack: Key) -> None:
    with broken(
        server, "mv /usr/sbin/rsyslogd /usr/sbin/rsyslogd.away", "mv /usr/sbin/rsyslogd.away /usr/sbin/rsyslogd"
    ):
        refused = server.jailctl("apply-jail", JAIL)
        assert "rsyslog: not installed" in server.jailctl("check").out
    assert refused.code == 1
    assert "apt-get install rsyslog" in refused.err
