"""What a user leaves where root works later, or holds on to: it gives him nothing, and nothing of it lasts."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import asyncssh
import pytest

from tests.abuse.conftest import User, client, idle
from tests.conftest import Machine, call, make_key, until
from tests.hostside.conftest import add

SECRET = "/sftp/secret"
"""A file that is root's alone, with `hidden` in it."""


@pytest.fixture
def secret(jail: Machine) -> Iterator[str]:
    """What it is, as stat(1) and sha256sum(1) tell."""
    jail.root("sh", "-c", f"umask 077; echo hidden > {SECRET}")
    show = f"stat -c '%u:%g %a %i %Y' {SECRET}; sha256sum {SECRET}; stat -c '%u:%g %a' /etc /etc/passwd"
    before = jail.root("sh", "-c", show)
    yield before
    assert jail.root("sh", "-c", show) == before
    jail.root("rm", SECRET)


def archives(user: User) -> list[str]:
    """The archives of a user's uploads, the newest first."""
    found = user.machine.root("sh", "-c", f"ls -td /sftp/archive/{user.name}-*").split()
    return [path for path in found if not path.endswith(".manifest.jsonl")]


def run_everything(user: User) -> None:
    """All that root does while a user is there."""
    for verb, stdin in (("apply-user", user.spec()), ("repair", None)):
        done = user.machine.jailctl(verb, stdin)
        assert done.code == 0, done


# What is in root's way


NAMES = ("-rf", "*", "--checkpoint-action=exec=touch proof", "; touch proof", "$(touch proof)", " ", "a\nb", "\udcff")

LINKS = {"secret": SECRET, "etc": "/etc", "up": "../../..", "hers": "/sftp/jail/jill/uploads", "log": "/dev/log"}


def odd_names(joan: User) -> None:
    """Directories of these names, the last one closed to its owner himself."""
    with client(joan) as session:
        for name in NAMES:
            session(session.sftp.mkdir(b"/uploads/" + name.encode(errors="surrogateescape")))
        session(session.sftp.chmod("/uploads/*", 0))


def symbolic_links(joan: User) -> None:
    """Links to what is not his."""
    done = joan.sftp("mkdir links", *(f"symlink {target} links/{name}" for name, target in LINKS.items()))
    assert done.code == 0, done


def hard_links(joan: User) -> None:
    """A second name of a file; and one of root's, as can be made where no protected_hardlinks (proc(5)) forbid it."""
    assert joan.sftp("put /etc/hostname own", "ln own again", "mkdir names").code == 0
    joan.machine.root("ln", SECRET, f"{joan.uploads}/names/secret")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(odd_names, marks=pytest.mark.case("A 48")),
        pytest.param(symbolic_links, marks=pytest.mark.case("A 53")),
        pytest.param(hard_links, marks=pytest.mark.case("A 54")),
    ],
)
def test_root_works_around_it_and_changes_nothing_that_is_not_the_users(
    joan: User, jill: User, secret: str, make: Callable[[User], None]
) -> None:
    make(joan)
    run_everything(joan)
    listed = joan.machine.root("sh", "-c", f"cd {joan.uploads} && find . -mindepth 1 -printf '%y %l %U\n' | sort")
    joan.remove()
    in_the_archive = "mkdir /aside && tar --extract --numeric-owner --directory=/aside --file="
    find = "cd /aside/uploads && find . -mindepth 1 -printf '%y %l %U\n' | sort; rm -r /aside"
    assert joan.machine.root("sh", "-c", f"{in_the_archive}{archives(joan)[0]} && {find}") == listed
    assert joan.machine.run("find", "/", "-xdev", "-maxdepth", "2", "-name", "proof").out == ""


@pytest.mark.case("A 48", "A 53", "A 54")
@pytest.mark.parametrize("on_removal", ["keep", "delete"])
def test_it_is_put_away_or_deleted_and_nothing_else_is(joan: User, jill: User, secret: str, on_removal: str) -> None:
    machine = joan.machine
    assert jill.sftp("put /etc/hostname hers").code == 0
    for make in (odd_names, symbolic_links, hard_links):
        make(joan)
    assert machine.jailctl("apply-user", joan.spec({"onRemoval": on_removal})).code == 0
    joan.remove(onRemoval=on_removal)
    assert machine.run("test", "-e", "/sftp/jail/joan").code == 1
    if on_removal == "keep":
        assert machine.root("ls", archives(joan)[0]).count("touch proof") == 3
    assert machine.run("find", "/", "-xdev", "-maxdepth", "2", "-name", "proof").out == ""
    assert jill.sftp("rm hers").code == 0


# Bits and times


@pytest.mark.case("A 49")
def test_bits_that_would_give_a_program_its_owners_rights_are_kept_and_do_nothing(joan: User) -> None:
    machine, admin = joan.machine, joan.machine.admin_key
    uploaded = f"{joan.uploads}/id"
    machine.root("sh", "-c", f"cp /usr/bin/id {joan.uploads} && chown joan:sftp-only {uploaded}")
    with client(joan) as session:
        attributes = asyncssh.SFTPAttrs(permissions=0o6777)
        session(session.sftp.open("/uploads/opened", "w", attributes))
        session(session.sftp.chmod("/uploads/id", 0o6755))
    assert machine.root("stat", "-c", "%a", uploaded, f"{joan.uploads}/opened") == "6755\n6755\n"
    assert "Permission denied" in machine.ssh("admin", admin, uploaded).err
    # Elsewhere it would have: what counts is where it lies.
    machine.root("cp", "-p", uploaded, "/opt/id")
    assert "euid" in machine.ssh("admin", admin, "/opt/id").out
    machine.root("rm", "/opt/id")
    joan.remove()
    assert "Permission denied" in machine.ssh("admin", admin, "ls", archives(joan)[0]).err


@pytest.mark.case("A 50")
def test_when_something_was_archived_is_not_what_its_owner_says(joan: User) -> None:
    machine = joan.machine
    today = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    with client(joan) as session:
        session(session.sftp.mkdir("/uploads/old"))
        for path in ("/uploads/old", "/uploads"):
            session(session.sftp.utime(path, (0, 0)))
    run_everything(joan)
    joan.remove()
    newest = archives(joan)[0]
    assert newest.removeprefix("/sftp/archive/joan-") >= today
    lines = machine.root("cat", newest.replace(".tar", ".manifest.jsonl")).splitlines()
    *entries, whole = [json.loads(line) for line in lines]
    assert {entry["mtime"] for entry in entries} == {"1970-01-01T00:00:00Z"}
    assert whole["archived"].translate(str.maketrans("", "", "-:")) >= today
    assert int(machine.root("stat", "-c", "%Y", newest)) > 0


@pytest.mark.case("A 51")
@pytest.mark.parametrize("mode", ["2777", "000"])
def test_a_mode_that_a_user_gives_his_uploads_is_found_and_put_right(joan: User, mode: str) -> None:
    machine = joan.machine
    assert joan.sftp(f"chmod {mode} /uploads").code == 0
    checked = machine.jailctl("check")
    assert checked.code == 1
    assert f" {mode.zfill(4)}, should be " in checked.out
    assert add(machine, "joan", laptop=joan.key).out.startswith(joan.uploads)
    assert joan.sftp("put /etc/hostname file").code == 0


# Keys and sessions


@pytest.mark.case("A 52")
def test_a_user_gives_nobody_a_key(joan: User, tmp_path: Path) -> None:
    friends = make_key(tmp_path / "friend")
    put = f"put {friends.path}.pub"
    assert joan.sftp("mkdir .ssh", "chmod 700 .ssh", f"{put} /uploads/.ssh/authorized_keys").code == 0
    for place in ("/etc/ssh/sftp-jail/keys/joan", "../../../etc/ssh/sftp-jail/keys/joan", "/.ssh/authorized_keys"):
        assert joan.sftp(f"{put} {place}").code != 0
    assert joan.machine.sftp("joan", friends, "ls").code != 0
    assert joan.sftp("ls").code == 0
    assert joan.machine.jailctl("check").out == "no difference\n"


@pytest.mark.case("A 55")
@pytest.mark.parametrize("end", ["another key", "less time", "removal"])
def test_a_session_that_is_held_open_ends_when_what_let_it_in_ends(joan: User, tmp_path: Path, end: str) -> None:
    machine = joan.machine
    uid = machine.root("id", "-u", "joan").strip()
    with idle(joan) as session:
        assert session.stdin is not None
        machine.root("systemctl", "reload", "ssh")
        session.stdin.write("mkdir in-time\n")
        session.stdin.flush()
        until(lambda: machine.run("test", "-e", f"{joan.uploads}/in-time").code == 0, "what he does in time")
        if end == "another key":
            add(machine, "joan", laptop=make_key(tmp_path / "other"))
        elif end == "less time":
            add(machine, "joan", {"expires": "2020-01-01"}, laptop=joan.key)
        else:
            joan.remove()
        session.communicate("mkdir too-late\n")
        assert session.returncode != 0
    assert machine.run("pgrep", "--uid", uid).code == 1
    assert joan.sftp("ls").code != 0
    joan.remove()
    listing = machine.root("tar", "tf", archives(joan)[0])
    assert "uploads/in-time/" in listing
    assert "too-late" not in listing


@pytest.mark.case("A 56")
def test_a_key_that_stands_there_again_without_options_gives_nothing_more(joan: User) -> None:
    machine, file = joan.machine, "/etc/ssh/sftp-jail/keys/joan"
    before = machine.root("cat", file)
    assert before.startswith("restrict ")
    tunnel = ("ssh", "-W", "127.0.0.1:22", *machine.ssh_options(joan.key), f"joan@{machine.address}")
    # Of two lines, sshd takes the first.
    machine.root("tee", file, stdin=f"{joan.key.public}\n{before}")
    assert joan.sftp("ls").code == 0
    assert "uid=" not in joan.ssh("id").out
    assert "SSH-2.0" not in call(*tunnel).out
    assert f"{file}: changed" in machine.jailctl("check").out
    assert machine.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert machine.root("cat", file) == before


@pytest.mark.case("A 56")
def test_a_key_by_two_names_is_taken_away_with_the_last_of_them(joan: User) -> None:
    machine = joan.machine
    add(machine, "joan", laptop=joan.key, phone=joan.key)
    assert joan.sftp("ls").code == 0
    add(machine, "joan", phone=joan.key)
    assert joan.sftp("ls").code == 0
    assert machine.root("cat", "/etc/ssh/sftp-jail/keys/joan").count("restrict") == 1


# Links that change


def swap_until(user: User, enough: threading.Event) -> int:
    """Have a directory and a link change places all the time, and a file and a link; how often they did."""
    swaps = 0
    with client(user) as session, contextlib.suppress(OSError, asyncssh.Error):
        sftp = session.sftp
        session(sftp.makedirs("/uploads/directory/secret"))
        session(sftp.symlink("/etc", "/uploads/etc"))
        session(sftp.symlink(SECRET, "/uploads/link"))
        session(sftp.put("/etc/hostname", "/uploads/file"))
        while not enough.is_set():
            for one, other in (("directory", "etc"), ("file", "link")):
                for old, new in ((one, "aside"), (other, one), ("aside", other)):
                    session(sftp.rename(f"/uploads/{old}", f"/uploads/{new}"))
            swaps += 1
    return swaps


@pytest.mark.case("A 59")
def test_who_swaps_files_under_whoever_reads_them_shows_nothing_that_is_not_his(joan: User, secret: str) -> None:
    machine, enough = joan.machine, threading.Event()
    assert joan.sftp(f"symlink {SECRET} careless").code == 0
    assert machine.root("cat", f"{joan.uploads}/careless") == "hidden\n"
    # As the README tells an operator to do.
    careful = "tar --create --directory=/sftp/jail/joan uploads 2> /dev/null | grep -c hidden"
    with ThreadPoolExecutor() as pool:
        swapping = pool.submit(swap_until, joan, enough)
        try:
            until(lambda: machine.run("test", "-L", f"{joan.uploads}/file").code == 0, "the first swap")
            assert machine.root("sh", "-c", f"for round in $(seq 50); do {careful}; done; true").split() == ["0"] * 50
            run_everything(joan)
            joan.remove()
        finally:
            enough.set()
        assert swapping.result() > 50
    assert machine.run("grep", "-q", "hidden", archives(joan)[0]).code == 1
