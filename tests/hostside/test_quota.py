"""How much a user may store, on real file systems: the refusal, who notices, and what becomes of his files."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import NamedTuple, Optional

import asyncssh
import pytest

from tests.conftest import RELEASES, Done, Key, Machine, make_key
from tests.disks import MachineWithDisks
from tests.hostside.conftest import JAIL, another_machine, put_right, remove_everybody, spec
from tests.hostside.faults.driver import KILLED, Fault, driving
from tests.hostside.faults.rounds import EVERY_STEP

KINDS = ["btrfs", "loop"]

STRIDE = 1 if EVERY_STEP else 3
"""How many steps from one that is interrupted to the next."""

on_trixie = pytest.mark.parametrize("machine", ["trixie"], indirect=True)
with_btrfs = pytest.mark.parametrize("host", ["btrfs"], indirect=True)
with_loop = pytest.mark.parametrize("host", ["loop"], indirect=True)

UPLOADS = "/sftp/jail/jack/uploads"

ENOUGH = 40 << 20
"""Bytes that are more than any quota here."""


class Server(NamedTuple):
    """A machine whose jail enforces quotas of a kind, and its jack."""

    machine: Machine
    kind: str
    key: Key

    def apply_jail(self, kind: Optional[str] = None) -> Done:
        return self.machine.jailctl("apply-jail", {**JAIL, "quotas": kind if kind is not None else self.kind})

    def spec(self, username: str, quota: Optional[str]) -> dict:
        return {**spec(username, laptop=self.key), **({"quota": quota} if quota is not None else {})}

    def try_to_add(self, quota: Optional[str] = None, username: str = "jack") -> Done:
        return self.machine.jailctl("apply-user", self.spec(username, quota))

    def add(self, quota: Optional[str] = None, username: str = "jack") -> Done:
        done = self.try_to_add(quota, username)
        assert done.code == 0, done
        return done

    def sftp(self, *commands: str, username: str = "jack") -> Done:
        return self.machine.sftp(username, self.key, *commands)

    @contextmanager
    def session(self) -> Iterator[subprocess.Popen]:
        """An interactive session of jack's, who is in his uploads."""
        argv = ["sftp", *self.machine.ssh_options(self.key), f"jack@{self.machine.address}"]
        with subprocess.Popen(list(map(str, argv)), stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            session.stdin.write("pwd\n")
            session.stdin.flush()
            while "/uploads" not in session.stdout.readline():
                pass
            yield session

    def check(self) -> str:
        return self.machine.jailctl("check").out

    def as_jack(self, program: str) -> str:
        """What a Python program says that runs in the uploads, as jack."""
        return self.machine.root(
            *("env", f"--chdir={UPLOADS}", "setpriv", "--reuid=jack", "--regid=sftp-only", "--clear-groups"),
            *("python3", "-c", program),
        )


def loop_devices(machine: Machine) -> list[str]:
    """The loop devices whose files are in the machine's /sftp; it sees those of the other machines here as well."""
    device = int(machine.root("sh", "-c", "touch /sftp/probe && stat --format=%d /sftp/probe && rm /sftp/probe"))
    own = f"{os.major(device)}:{os.minor(device)}"
    listed = machine.root("losetup", "--list", "--noheadings", "--raw", "--output=BACK-MAJ:MIN,BACK-FILE")
    return [line for line in listed.splitlines() if line.split()[0] == own]


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Debian with disks."""
    machine = MachineWithDisks(tmp_path_factory.mktemp(request.param), request.param)
    machine.ban_nobody()
    yield machine
    machine.stop()


class Host(NamedTuple):
    """A machine whose jail enforces quotas of a kind."""

    machine: Machine
    kind: str

    @property
    def jail(self) -> dict:
        """What jailctl is told of it."""
        return {**JAIL, "quotas": self.kind}


@pytest.fixture(scope="module", params=KINDS)
def host(machine: Machine, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A jail with quotas of either kind, which the tests share; in the end, nothing is left of it but archives."""
    machine.install()
    if request.param == "btrfs":
        machine.root("sh", "-c", "mkdir /sftp && mount --bind /btrfs /sftp")
    host = Host(machine, request.param)
    put_right(machine, host.jail)
    yield host
    put_right(machine, host.jail)
    Server(machine, host.kind, make_key(tmp_path_factory.mktemp("last") / "jack")).add("16MiB")
    done = machine.jailctl("remove-jail", {**JAIL, "forceDestroy": True})
    left = machine.root("sh", "-c", "ls -A /sftp /sftp/state; ls -A /etc/security/limits.d /etc/systemd/system").split()
    mounts = machine.root("findmnt", "--output=TARGET")
    attached = loop_devices(machine)
    counts = machine.run("btrfs", "qgroup", "show", "/btrfs").code == 0
    machine.root("sh", "-c", "rm -rf /sftp/*; ! mountpoint -q /sftp || umount /sftp; rmdir /sftp")
    assert done.code == 0, done
    assert set(left) & {"quota", "jail", "log", "users"} == set()
    assert [name for name in left if "sftp-jail" in name] == []
    assert "/sftp/" not in mounts
    assert attached == []
    assert not counts


@pytest.fixture
def server(host: Host, jack: Key) -> Iterator[Server]:
    """The same, with nobody in it and no archive."""
    put_right(host.machine, host.jail)
    yield Server(host.machine, host.kind, jack)
    remove_everybody(host.machine)
    host.machine.root("sh", "-c", "rm -rf /sftp/archive/*")


@pytest.fixture
def big(tmp_path: Path) -> str:
    """A file of more bytes than any quota here."""
    path = tmp_path / "big"
    path.write_bytes(bytes(ENOUGH))
    return str(path)


@pytest.mark.case("A 32")
def test_who_fills_his_quota_is_told_and_can_go_on_when_he_has_removed_something(server: Server, big: str) -> None:
    server.add("24MiB")
    server.add(username="jill")
    done = server.sftp(f"-put {big} big", "ls -l big", "-put /etc/hostname more", "-put /etc/hostname even-more")
    # SFTP has no status for it (draft-ietf-secsh-filexfer-02, 7).
    assert 'write remote "/uploads/big": Failure' in done.err
    assert 20 << 20 < int(server.machine.root("stat", "-c", "%s", f"{UPLOADS}/big")) < 24 << 20
    reason = {"btrfs": "Disk quota exceeded", "loop": "No space left on device"}[server.kind]
    log = server.machine.root("cat", "/var/log/sftp.log")
    assert any(reason in line and line.split()[1] == "jack" for line in log.splitlines())
    assert "used, " in server.check()
    assert "nearly full" in server.check()
    report = json.loads(server.machine.root("/usr/local/sbin/jailctl", "check", "--format=json"))
    ((username, quota, used, percent),) = [tuple(use.values()) for use in report["quotas"]]
    assert (username, quota) == ("jack", "24MiB")
    assert used > 20 << 20
    assert percent >= 90
    assert "may take 24MiB" in server.machine.root("cat", "/sftp/jail/jack/QUOTA")
    # The others notice nothing.
    done = server.sftp(f"put {big} big", "ls -l big", username="jill")
    assert str(ENOUGH) in done.out
    assert server.sftp("rm big", "put /etc/passwd small").code == 0
    assert server.check().startswith("no difference\njack: ")


@pytest.mark.case("A 33")
def test_empty_files_count_too_and_who_has_no_room_for_one_more_can_remove_them(server: Server) -> None:
    server.add("16MiB")
    program = """
import os
made = 0
try:
    while made < 200000:
        os.close(os.open(f"f{made}", os.O_CREAT | os.O_WRONLY))
        made += 1
except OSError as error:
    print(made, error.strerror)
"""
    made, _, reason = server.as_jack(program).partition(" ")
    assert 500 < int(made) < 100000
    assert reason.strip() in ("Disk quota exceeded", "No space left on device")
    assert "nearly full" in server.check()
    assert server.sftp("put /etc/hostname one-more").code != 0
    server.as_jack("import os; [os.unlink(name) for name in os.listdir() if name != 'f0']")
    assert server.sftp("put /etc/hostname one-more", "ls f0").code == 0


@pytest.mark.case("A 34")
def test_a_file_that_is_all_hole_is_bounded_and_who_makes_one_loses_his_session_alone(server: Server) -> None:
    server.add("16MiB")
    server.add("16MiB", username="jill")

    async def truncate(size: int) -> None:
        async with (
            asyncssh.connect(
                server.machine.address,
                username="jack",
                client_keys=[str(server.key.path)],
                known_hosts=str(server.machine.known_hosts),
                config=None,
            ) as connection,
            connection.start_sftp_client() as sftp,
            sftp.open("hole", "w"),
        ):
            await sftp.truncate("hole", size)

    asyncio.run(truncate(17 << 20))
    with pytest.raises((asyncssh.SFTPError, asyncssh.ConnectionLost)):
        asyncio.run(truncate(4 << 60))
    assert int(server.machine.root("stat", "-c", "%s", f"{UPLOADS}/hole")) <= (16 << 20) + (1 << 30)
    assert server.sftp("rm hole", "put /etc/hostname a").code == 0
    assert server.sftp("ls", username="jill").code == 0


def test_removal_archives_what_a_full_quota_holds_and_nothing_is_left(server: Server, big: str) -> None:
    server.add("24MiB")
    server.sftp("put /etc/hostname kept", f"-put {big} big")
    done = server.machine.jailctl("remove-user", server.spec("jack", None))
    assert done.code == 0, done
    listing = server.machine.root("sh", "-c", "tar tf /sftp/archive/jack-*.tar").split()
    assert {"uploads/kept", "uploads/big"} <= set(listing)
    assert server.machine.root("find", "/sftp/jail", "/sftp/quota", "/etc/security", "-name", "*jack*") == ""
    assert "/sftp/jail" not in server.machine.root("findmnt", "--output=TARGET")


@pytest.mark.case("A 35", "A 42")
@on_trixie
def test_removal_copes_with_a_tree_deeper_than_any_path_and_a_directory_of_100000(server: Server) -> None:
    server.add("64MiB" if server.kind == "btrfs" else None)
    name = "d" * 250
    down = [f"mkdir {name}", f"cd {name}"] * 15
    done = server.sftp("mkdir b", "cd b", *down, "mkdir /uploads/a", "cd /uploads/a", *down, "rename /uploads/b b")
    assert done.code == 0, done
    server.as_jack("import os; os.mkdir('many'); [os.close(os.open(f'many/{n}', os.O_CREAT)) for n in range(100000)]")
    done = server.machine.jailctl("remove-user", server.spec("jack", None))
    assert done.code == 0, done
    listing = server.machine.root("sh", "-c", "tar tf /sftp/archive/jack-*.tar")
    assert listing.count("uploads/many/") == 100001
    assert f"/b/{'/'.join([name] * 15)}/\n" in listing
    assert server.machine.run("test", "-e", "/sftp/jail/jack").code == 1


@on_trixie
def test_uploads_that_are_to_be_kept_are_kept_unpacked_and_count_no_more(server: Server) -> None:
    server.add("16MiB")
    assert server.sftp(*PARTS).code == 0
    kept = {**server.spec("jack", "16MiB"), "onRemoval": "keep"}
    assert server.machine.jailctl("apply-user", kept).code == 0
    done = server.machine.jailctl("remove-user", kept)
    assert done.code == 0, done
    assert server.machine.root("sh", "-c", "cat /sftp/archive/jack-*/folder/group") != ""
    # Root adds more than the quota was.
    server.machine.root("sh", "-c", "cd /sftp/archive/jack-* && head -c 20000000 /dev/zero > more && sync")


@pytest.mark.case("A 49")
@with_loop
def test_what_is_uploaded_into_a_file_system_of_ones_own_is_neither_program_nor_device(server: Server) -> None:
    server.add("16MiB")
    assert server.sftp("put /bin/true", "chmod 4755 true").code == 0
    options = server.machine.root("findmnt", "--noheadings", "--output=OPTIONS", UPLOADS)
    assert {"nosuid", "nodev", "noexec"} <= set(options.strip().split(","))
    done = server.machine.run(f"{UPLOADS}/true")
    assert done.code != 0
    assert "Permission denied" in done.err
    server.machine.root("mount", "-o", "remount,suid,dev,exec", UPLOADS)
    assert "mounted with other flags" in server.check()
    assert server.apply_jail().code == 0
    assert server.machine.run(f"{UPLOADS}/true").code != 0
    assert server.check().startswith("no difference\n")


# A quota that comes, changes and goes


PARTS = ["put /etc/passwd kept", "mkdir folder", "put /etc/group folder/group", "symlink kept link", "chmod 600 kept"]
MANIFEST = f"cd {UPLOADS} && find . -mindepth 1 -printf '%p %y %m %u %g %T@ %l\\n' | sort && cat kept folder/group"


def test_a_quota_comes_changes_and_goes_and_every_file_stays(server: Server, big: str) -> None:
    machine = server.machine
    # As whoever was there before the jail had quotas.
    assert machine.jailctl("apply-jail", JAIL).code == 0
    server.add()
    assert server.apply_jail().code == 0
    server.add()
    assert server.sftp(*PARTS).code == 0
    files = machine.root("sh", "-c", MANIFEST)
    # Reached at each size before the next one.
    for quota, fits in (("16MiB", False), ("64MiB", True), ("32MiB", False), (None, True)):
        server.add(quota)
        assert server.add(quota).out == "no change\n"
        assert machine.root("sh", "-c", MANIFEST) == files, quota
        assert (server.sftp(f"put {big} big").code == 0) == fits, quota
        assert server.check().startswith("no difference\n")
        assert server.sftp("rm big").code == 0
    assert machine.root("ls", "-A", "/sftp/quota") == ""


@on_trixie
@with_btrfs
def test_who_is_made_where_btrfs_has_the_quotas_keeps_his_session_when_he_gets_one(server: Server, big: str) -> None:
    server.add()
    with server.session() as session:
        server.add("16MiB")
        said, _ = session.communicate(f"put {big} big\nput /etc/hostname small\n", timeout=60)
    assert 'write remote "/uploads/big": Failure' in said
    assert "big" in server.sftp("ls").out


@on_trixie
def test_a_quota_below_what_is_used_takes_nothing_away(server: Server, big: str) -> None:
    server.add("64MiB")
    assert server.sftp(f"put {big} big").code == 0
    done = server.try_to_add("16MiB")
    if server.kind == "btrfs":
        # As quotas are everywhere: what is there stays, and nothing is added.
        assert done.code == 0, done
        assert "nearly full" in server.check()
        assert server.sftp("put /etc/hostname more").code != 0
    else:
        assert done.code == 1
        assert "jack has " in done.err
        assert "Let him remove something first" in done.err
        assert server.sftp("put /etc/hostname more").code == 0
    assert str(ENOUGH) in server.sftp("ls -l big").out
    assert server.sftp("rm big").code == 0
    server.add("16MiB")
    assert server.sftp("put /etc/hostname more").code == 0


@on_trixie
@with_loop
def test_what_does_not_fit_is_refused_and_everything_is_as_before(server: Server, jill: Key) -> None:
    server.add()
    assert server.sftp(*PARTS).code == 0
    files = server.machine.root("sh", "-c", MANIFEST)
    for username, quota, words in (
        ("jack", "1024TiB", "Choose a smaller quota"),
        ("jill", "1024TiB", "Choose a smaller quota"),
    ):
        done = server.try_to_add(quota, username)
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert words in done.err
    assert server.machine.root("ls", "-A", "/sftp/quota") == ""
    assert server.machine.run("id", "jill").code == 1
    # More inodes than the new file system has.
    server.as_jack("import os; os.mkdir('many'); [os.close(os.open(f'many/{n}', os.O_CREAT)) for n in range(5000)]")
    done = server.try_to_add("16MiB")
    assert done.code == 1
    assert "No space left on device" in done.err
    server.as_jack("import shutil; shutil.rmtree('many')")
    assert server.machine.root("sh", "-c", MANIFEST) == files
    assert server.sftp("put /etc/hostname more").code == 0
    assert server.check() == "no difference\n"


STEPS = (
    *("os.rename", "os.mkdir", "os.rmdir", "os.remove"),
    *("btrfs", "chage", "cp", "mkfs.ext4", "mount", "rm", "tar", "umount", "userdel"),
)
"""What changes a file system, or who gets at it."""


def killed(machine: Machine, verb: str, stdin: dict, step: int, at: tuple[str, ...] = STEPS) -> bool:
    """Run a verb and kill it before a step, counted from 0; False if it ends before."""
    with driving(machine) as driver:
        done, reached = driver.run(verb, stdin, Fault(KILLED, step, at))
    assert done.code == (-9 if reached else 0), done
    return bool(reached)


@pytest.mark.case("B 1")
@on_trixie
@pytest.mark.parametrize(
    ("host", "change"),
    [("btrfs", "comes"), ("loop", "comes"), ("loop", "changes"), ("loop", "goes")],
    indirect=["host"],
)
def test_killed_at_any_step_of_a_change_nothing_is_lost_and_the_next_run_finishes_it(
    server: Server, change: str
) -> None:
    machine = server.machine
    before, after = {"comes": (None, "16MiB"), "changes": ("16MiB", "24MiB"), "goes": ("16MiB", None)}[change]
    if change == "comes":
        assert machine.jailctl("apply-jail", JAIL).code == 0
        server.add()
        server.apply_jail()
    server.add(before)
    assert server.sftp(*PARTS).code == 0
    files = machine.root("sh", "-c", MANIFEST)
    steps, uploaded = 0, []
    while killed(machine, "apply-user", server.spec("jack", after), steps):
        # Whoever gets in meanwhile uploads to where it stays, or not at all.
        if server.sftp(f"put /etc/hostname while-{steps}").code == 0:
            uploaded.append(f"while-{steps}")
        server.add(after)
        assert server.check().startswith("no difference\n"), steps
        assert server.sftp(*(f"rm {name}" for name in uploaded)).code == 0
        assert machine.root("sh", "-c", MANIFEST) == files, steps
        uploaded.clear()
        server.add(before)
        steps += STRIDE
    assert steps > 3
    assert server.check().startswith("no difference\n")


@pytest.mark.case("B 1")
@on_trixie
def test_killed_at_any_step_of_a_removal_the_next_run_finishes_it_with_a_whole_archive(server: Server) -> None:
    machine = server.machine
    steps, whole = 0, False
    while not whole:
        server.add("16MiB")
        assert server.sftp(*PARTS).code == 0
        whole = not killed(machine, "remove-user", server.spec("jack", None), steps)
        assert machine.jailctl("remove-user", server.spec("jack", None)).code == 0
        archive = machine.root("sh", "-c", "ls /sftp/archive/jack-*.tar | tail -n 1").strip()
        assert "uploads/folder/group" in machine.root("tar", "tf", archive), steps
        assert machine.root("find", "/sftp/jail", "/sftp/quota", "-name", "jack*") == "", steps
        assert UPLOADS not in machine.root("findmnt", "--output=TARGET")
        machine.root("sh", "-c", "rm /sftp/archive/*")
        steps += STRIDE


@on_trixie
@with_loop
@pytest.mark.parametrize("trouble", ["killed while the uploads are moved", "not mounted"])
def test_who_is_removed_when_his_uploads_are_not_in_place_has_them_archived(server: Server, trouble: str) -> None:
    machine = server.machine
    server.add(None if trouble.startswith("killed") else "16MiB")
    assert server.sftp(*PARTS).code == 0
    if trouble.startswith("killed"):
        assert killed(machine, "apply-user", server.spec("jack", "16MiB"), 0, at=("cp",))
        assert machine.run("test", "-e", UPLOADS).code == 1
    else:
        machine.root("umount", UPLOADS)
    assert "should be" in server.check()
    done = machine.jailctl("remove-user", server.spec("jack", None))
    assert done.code == 0, done
    assert "uploads/folder/group" in machine.root("sh", "-c", "tar tf /sftp/archive/jack-*.tar")
    assert machine.root("find", "/sftp/jail", "/sftp/quota", "-name", "jack*") == ""


@on_trixie
@with_loop
def test_a_session_does_not_go_on_writing_to_uploads_that_are_moved(server: Server) -> None:
    server.add()
    with server.session() as session:
        server.add("16MiB")
        session.communicate("put /etc/hostname lost\n", timeout=60)
        assert session.returncode != 0
    assert "lost" not in server.sftp("ls").out


# Machines that reboot, and come anew


@on_trixie
@with_loop
def test_after_a_reboot_the_quota_holds_and_without_its_file_system_nobody_uploads(server: Server, big: str) -> None:
    machine = server.machine
    server.add("16MiB")
    server.add("16MiB", username="jill")
    assert server.sftp("put /etc/hostname kept").code == 0
    machine.root("mv", "/sftp/quota/jill.img", "/sftp/quota/aside")
    machine.root("sh", "-c", "head -c 1000000 /dev/zero > /sftp/quota/jill.img")
    machine.reboot()
    assert "kept" in server.sftp("ls").out
    assert server.sftp(f"put {big} big").code != 0
    assert server.sftp("put /etc/hostname x", username="jill").code != 0
    assert server.sftp("put /etc/hostname /uploads/x", username="jill").code != 0
    assert "/sftp/jail/jill/uploads: not mounted, should be mounted" in server.check()
    machine.root("mv", "/sftp/quota/aside", "/sftp/quota/jill.img")
    assert server.apply_jail().code == 0
    assert server.sftp("put /etc/hostname x", username="jill").code == 0
    assert server.check().startswith("no difference\n")


@on_trixie
def test_on_another_machine_with_the_same_volume_the_quota_holds_again(server: Server, big: str) -> None:
    machine = server.machine
    server.add("16MiB")
    assert server.sftp(*PARTS).code == 0
    files = machine.root("sh", "-c", MANIFEST)
    machine.root("sh", "-c", f"umount {UPLOADS} || true")
    with another_machine(machine, "jack"):
        assert server.apply_jail().code == 0
        server.add("16MiB")
        assert machine.root("sh", "-c", MANIFEST) == files
        assert server.sftp(f"put {big} big").code != 0
        assert server.check().startswith("no difference\n")


# Hosts that can enforce nothing


@with_loop
def test_a_host_that_cannot_enforce_a_quota_refuses_with_the_reason(server: Server) -> None:
    machine = server.machine
    done = server.apply_jail("btrfs")
    assert done.code == 1
    assert "quotas: btrfs needs a btrfs at /sftp, and the file system there is overlayfs" in done.err
    mkfs = machine.root("which", "mkfs.ext4").strip()  # in /sbin, or where that is /usr/sbin
    for hidden, words in ((mkfs, "apt-get install e2fsprogs"), ("/dev/loop-control", "modprobe loop")):
        folder = Path(hidden).parent
        machine.root("sh", "-c", f"mkdir {folder}/aside && mv {hidden} {folder}/aside")
        try:
            done = server.apply_jail()
        finally:
            machine.root("sh", "-c", f"mv {folder}/aside/* {folder} && rmdir {folder}/aside")
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert words in done.err
    assert machine.jailctl("apply-jail", JAIL).code == 0
    done = server.try_to_add("16MiB")
    assert done.code == 1
    assert "jack: a quota, and this jail enforces none. Set quotas: btrfs or quotas: loop" in done.err
    assert machine.run("id", "jack").code == 1


@on_trixie
@with_btrfs
def test_quotas_are_not_taken_from_the_jail_while_a_user_has_one(server: Server) -> None:
    server.add("16MiB")
    done = server.machine.jailctl("apply-jail", JAIL)
    assert done.code == 1
    assert "jack: a quota, and this jail enforces none" in done.err
    assert server.check().startswith("no difference\n")
    server.add()
    assert server.machine.jailctl("apply-jail", JAIL).code == 0
    assert server.machine.run("btrfs", "qgroup", "show", "/sftp").code != 0


@on_trixie
@with_btrfs
def test_a_jail_can_change_from_one_kind_to_the_other(server: Server, big: str) -> None:
    server.add("16MiB")
    assert server.sftp(*PARTS).code == 0
    files = server.machine.root("sh", "-c", MANIFEST)
    for kind in ("loop", "btrfs"):
        done = server.apply_jail(kind)
        assert done.code == 0, done
        assert server.machine.root("sh", "-c", MANIFEST) == files
        assert server.sftp(f"put {big} big").code != 0
        assert server.sftp("rm big").code == 0
        assert server.check().startswith("no difference\n")
        assert server.apply_jail(kind).out == "no change\n"


@pytest.mark.parametrize(
    "tamper",
    [
        "btrfs qgroup limit none {uploads}",
        "btrfs qgroup limit 1G {uploads}",
        "btrfs quota disable /sftp",
        "btrfs subvolume delete {uploads}",
        "rm /etc/security/limits.d/sftp-jail-jack.conf",
        "rm /sftp/jail/jack/QUOTA",
    ],
)
@with_btrfs
def test_check_names_a_quota_that_was_tampered_with_and_repair_mends_it(server: Server, big: str, tamper: str) -> None:
    server.add("16MiB")
    server.machine.root("sh", "-c", tamper.format(uploads=UPLOADS))
    assert "; to repair: sudo jailctl repair\n" in server.check()
    assert server.machine.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert server.check().startswith("no difference\n")
    assert server.sftp(f"put {big} big").code != 0


@pytest.mark.parametrize("tamper", ["umount {uploads}", "rm /etc/systemd/system/sftp-jail-quota.service"])
@with_loop
def test_check_names_a_file_system_that_is_not_there_and_apply_mends_it(server: Server, big: str, tamper: str) -> None:
    server.add("16MiB")
    server.machine.root("sh", "-c", tamper.format(uploads=UPLOADS))
    assert "should be" in server.check()
    assert server.apply_jail().code == 0
    assert server.check().startswith("no difference\n")
    assert server.sftp(f"put {big} big").code != 0


@on_trixie
@with_loop
@pytest.mark.parametrize("quota", ["5GB", "0GiB", "-1GiB", "5", "1MiB"])
def test_a_quota_that_says_nothing_clear_is_refused_on_the_server_too(server: Server, quota: str) -> None:
    done = server.try_to_add(quota)
    assert done.code == 1
    assert done.err.startswith("jailctl apply-user: quota: ")
    assert done.err.count("\n") == 1
