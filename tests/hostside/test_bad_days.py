"""The operator's bad days: what else is wrong with a server, and what jailctl does about it."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Key, Machine, call, make_key, until
from tests.hostside.conftest import JAIL, OWNER, add, spec

OTHER_JAIL = {**JAIL, "umask": "027"}
OTHER = "organization/sftp-jail/other"


@pytest.fixture
def bare(jail: Machine) -> Iterator[Machine]:
    """The same machine without one."""
    assert jail.jailctl("remove-jail", JAIL).code == 0
    yield jail
    assert jail.jailctl("apply-jail", JAIL).code == 0


@contextmanager
def file(machine: Machine, path: str, text: str, *reload: str) -> Iterator[None]:
    """A file of that text on the server, for as long as the block lasts."""
    machine.root("mkdir", "-p", str(Path(path).parent))
    machine.root("sh", "-c", f"[ ! -e {path} ] || cp -a {path} {path}~")
    machine.root("tee", path, stdin=text)
    if reload:
        machine.root(*reload)
    try:
        yield
    finally:
        machine.root("sh", "-c", f"if [ -e {path}~ ]; then mv {path}~ {path}; else rm {path}; fi")
        if reload:
            machine.root(*reload)


def methods(machine: Machine, username: str) -> str:
    """How somebody without a key may log in, as sshd's refusal says it."""
    argv = [
        arg for arg in machine.ssh_options(make_key(machine.folder / f"none-{username}")) if arg != "-oLogLevel=ERROR"
    ]
    refusal = call("ssh", *argv, f"{username}@{machine.address}", "true").err
    (machine.folder / f"none-{username}").unlink()
    (machine.folder / f"none-{username}.pub").unlink()
    return refusal.rpartition("Permission denied ")[2].strip(" ().\n")


@pytest.mark.case("B 8")
def test_two_stacks_at_once_on_one_host_wait_for_each_other_and_lose_nobody(jail: Machine, tmp_path: Path) -> None:
    names = [f"user{number}" for number in range(10)]
    keys = {name: make_key(tmp_path / name) for name in names}
    stacks = {name: (OWNER, OTHER)[number % 2] for number, name in enumerate(names)}

    def run(verb: str, name: str) -> int:
        return jail.jailctl(verb, {**spec(name, laptop=keys[name]), "user": f"{stacks[name]}/{name}"}).code

    with ThreadPoolExecutor(len(names) + 1) as pool:
        host = pool.submit(jail.jailctl, "apply-jail", OTHER_JAIL)
        assert list(pool.map(run, ["apply-user"] * 10, names)) == [0] * 10
        assert host.result().code == 0
    assert len({jail.root("id", "-u", name) for name in names}) == 10
    assert all(jail.sftp(name, key, "ls").code == 0 for name, key in keys.items())
    assert jail.jailctl("check").out == "no difference\n"
    with ThreadPoolExecutor(len(names)) as pool:
        verbs = ["remove-user" if stacks[name] == OTHER else "apply-user" for name in names]
        assert list(pool.map(run, verbs, names)) == [0] * 10
    assert [name for name in names if jail.run("id", name).code == 0] == names[::2]
    assert jail.jailctl("check").out == "no difference\n"


@pytest.mark.case("B 7")
def test_what_a_client_has_begun_that_went_away_is_finished_by_the_server(jail: Machine, jack: Key) -> None:
    text = json.dumps(spec("jack", laptop=jack))
    argv = [
        "ssh",
        *jail.ssh_options(jail.admin_key),
        f"admin@{jail.address}",
        "sudo -n /usr/local/sbin/jailctl apply-user",
    ]
    jail.root("systemd-run", "--quiet", "--unit=busy", "flock", "/run/sftp-jail.lock", "sleep", "infinity")
    try:
        with subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            client.stdin.write(text)
            client.stdin.close()
            until(lambda: "jailctl apply-user" in jail.run("ps", "-eo", "args").out, "a run that waits for its turn")
            client.kill()
        assert jail.run("id", "jack").code != 0
    finally:
        jail.root("systemctl", "stop", "busy")
    until(lambda: jail.run("id", "jack").code == 0, "the run of the client that is gone")
    assert add(jail, "jack", laptop=jack).out == "no change\n", "which the next one has waited for"
    assert jail.sftp("jack", jack, "ls").code == 0


@pytest.mark.case("B 4")
def test_a_missing_run_directory_of_sshd_is_made(jail: Machine) -> None:
    jail.root("rm", "-r", "/run/sshd")
    done = jail.jailctl("apply-jail", OTHER_JAIL)
    assert done.code == 0, done


@pytest.mark.case("B 11")
def test_a_password_login_that_cloud_init_allows_is_still_none_for_the_jailed(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    text = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\n"
    with file(jail, "/etc/ssh/sshd_config.d/00-a-cloud.conf", text, "systemctl", "reload", "ssh"):
        assert jail.jailctl("check").out == "no difference\n"
        assert methods(jail, "jack") == "publickey"
        assert "password" in methods(jail, "admin")


@pytest.mark.case("B 12")
def test_a_configuration_without_an_include_line_gets_one_and_loses_it_again(bare: Machine, jack: Key) -> None:
    plain = "\n".join(
        line for line in bare.root("cat", "/etc/ssh/sshd_config").splitlines() if not line.startswith("Include")
    )
    with file(bare, "/etc/ssh/sshd_config", f"{plain}\n", "systemctl", "reload", "ssh"):
        before = bare.root("cat", "/etc/ssh/sshd_config")
        assert bare.jailctl("apply-jail", JAIL).code == 0
        add(bare, "jack", laptop=jack)
        assert bare.sftp("jack", jack, "ls").code == 0
        assert bare.ssh("jack", jack, "id").code != 0
        assert bare.jailctl("remove-jail", JAIL).code == 0
        assert bare.root("cat", "/etc/ssh/sshd_config") == before


@pytest.mark.case("B 13")
def test_an_administrator_in_the_jails_group_stops_everything(bare: Machine) -> None:
    bare.root("groupadd", "--system", "sftp-only")
    bare.root("gpasswd", "--add", "admin", "sftp-only")
    try:
        done = bare.jailctl("apply-jail", JAIL)
        assert bare.ssh("admin", bare.admin_key, "id", "-un").out == "admin\n"
    finally:
        bare.root("gpasswd", "--delete", "admin", "sftp-only")
        bare.jailctl("remove-jail", JAIL)
        bare.run("groupdel", "sftp-only")
    assert done.code == 1
    assert "account admin is in group sftp-only" in done.err
    assert "gpasswd -d admin sftp-only" in done.err


@pytest.mark.case("B 5")
def test_a_reload_that_fails_puts_the_old_files_back_and_says_so(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    before = jail.root("cat", "/etc/ssh/sshd_config.d/00-sftp-jail.conf")
    unit = "[Service]\nExecReload=\nExecReload=/bin/false\n"
    with file(jail, "/etc/systemd/system/ssh.service.d/broken.conf", unit, "systemctl", "daemon-reload"):
        done = jail.jailctl("apply-jail", OTHER_JAIL)
        assert jail.root("cat", "/etc/ssh/sshd_config.d/00-sftp-jail.conf") == before
    assert done.code == 1
    assert "systemctl reload" in done.err
    assert jail.ssh("admin", jail.admin_key, "true").code == 0
    assert jail.jailctl("apply-jail", OTHER_JAIL).code == 0
    assert jail.jailctl("check").out == "no difference\n"


def test_a_first_log_that_cannot_be_loaded_is_taken_back_and_comes_when_it_can(jail: Machine) -> None:
    assert jail.jailctl("remove-jail", {**JAIL, "forceDestroy": True}).code == 0
    unit = "[Service]\nExecStart=\nExecStart=/bin/false\n"
    with file(jail, "/etc/systemd/system/sftp-jail-log.service.d/broken.conf", unit, "systemctl", "daemon-reload"):
        done = jail.jailctl("apply-jail", JAIL)
        assert jail.run("systemctl", "is-active", "sftp-jail-log.socket").code != 0
    assert done.code == 1
    assert "sftp-jail-log.service failed" in done.err
    assert jail.jailctl("apply-jail", JAIL).code == 0
    assert jail.jailctl("check").out == "no difference\n"


@pytest.mark.case("B 19")
def test_a_full_disk_leaves_the_old_drop_in_whole(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    folder = "/etc/ssh/sshd_config.d"
    before = jail.root("cat", f"{folder}/00-sftp-jail.conf")
    full = f"mkdir /run/keep && cp -a {folder}/. /run/keep && mount -t tmpfs -o size=16k full {folder} && "
    jail.root("sh", "-c", f"{full} cp -a /run/keep/. {folder} && cat /dev/zero > {folder}/filler || true")
    try:
        done = jail.jailctl("apply-jail", OTHER_JAIL)
        assert jail.root("cat", f"{folder}/00-sftp-jail.conf") == before
        assert jail.sftp("jack", jack, "ls").code == 0
    finally:
        jail.root("sh", "-c", f"umount {folder} && rm -r /run/keep")
    assert done.code == 1
    assert "No space left on device" in done.err
    assert jail.jailctl("apply-jail", OTHER_JAIL).code == 0


@pytest.mark.case("B 32")
def test_a_key_logs_in_where_sshd_uses_no_pam(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    with file(jail, "/etc/ssh/sshd_config.d/50-pam.conf", "UsePAM no\n", "systemctl", "reload", "ssh"):
        assert jail.sftp("jack", jack, "ls").code == 0


@pytest.mark.case("B 36")
def test_a_user_who_was_deleted_by_hand_is_made_again_with_his_uid(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "put /etc/hostname kept").code == 0
    uid = jail.root("id", "-u", "jack")
    jail.root("userdel", "--force", "jack")
    assert jail.jailctl("check").code != 0
    add(jail, "jack", laptop=jack)
    assert jail.root("id", "-u", "jack") == uid
    assert jail.sftp("jack", jack, "ls kept").code == 0


@pytest.mark.case("B 36")
def test_removing_a_user_who_was_deleted_by_hand_archives_what_he_left(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "put /etc/hostname left").code == 0
    jail.root("userdel", "--force", "jack")
    done = jail.jailctl("remove-user", spec("jack", laptop=jack))
    assert done.code == 0, done
    assert "uploads/left" in jail.root("sh", "-c", "tar tf $(ls -t /sftp/archive/jack-*.tar | head -n 1)")
    assert jail.run("test", "-e", "/sftp/jail/jack").code == 1


@pytest.mark.case("C 41")
@pytest.mark.parametrize("link", ["/sftp", "/sftp/jail", "/sftp/jail/jack", "/sftp/jail/jack/uploads"])
def test_a_symbolic_link_in_the_chain_is_found_and_refused_and_not_followed(
    jail: Machine, jack: Key, link: str
) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("sh", "-c", f"mv {link} /aside && mkdir -m 0755 /elsewhere && ln -s /elsewhere {link}")
    try:
        done = jail.jailctl("apply-jail", JAIL)
        assert done.code == 1
        assert f"{link} is not what belongs there" in done.err
        remedy = f"sudo mv {link} /root/ && sudo jailctl repair"
        assert f"{link}: a symbolic link, should be a directory; to repair: {remedy}\n" in jail.jailctl("check").out
        assert jail.root("sh", "-c", "ls -A /elsewhere; stat -c %a:%u /elsewhere") == "755:0\n"
        assert jail.sftp("jack", jack, "put /etc/hostname x").code != 0
    finally:
        jail.root("sh", "-c", f"rm {link} && mv /aside {link} && rm -r /elsewhere")


@pytest.mark.case("B 3")
def test_a_broken_sshd_configuration_stops_everything_with_sshds_own_words(jail: Machine, jack: Key) -> None:
    jail.root("sh", "-c", "echo Nonsense yes > /etc/ssh/sshd_config.d/99-broken.conf")
    before = jail.root("systemctl", "show", "-p", "MainPID,ExecMainStartTimestamp", "ssh")
    try:
        done = jail.jailctl("apply-user", spec("jack", laptop=jack))
        again = jail.jailctl("apply-jail", {**JAIL, "logLevel": "INFO"})
    finally:
        jail.root("rm", "/etc/ssh/sshd_config.d/99-broken.conf")
    for refused in (done, again):
        assert refused.code == 1
        assert "99-broken.conf" in refused.err
        assert "Bad configuration option: Nonsense" in refused.err
    assert jail.run("id", "jack").code != 0
    assert jail.root("systemctl", "show", "-p", "MainPID,ExecMainStartTimestamp", "ssh") == before
    assert jail.jailctl("check").out == "no difference\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("Match all\n  ForceCommand none\n", "ForceCommand", marks=pytest.mark.case("B 9")),
        pytest.param("Match User jack\n  ChrootDirectory /tmp\n", "ChrootDirectory", marks=pytest.mark.case("B 9")),
        pytest.param("AllowUsers admin\n", "AllowUsers", marks=pytest.mark.case("B 10")),
        pytest.param("DenyUsers j*\n", "DenyUsers", marks=pytest.mark.case("B 10")),
        pytest.param("AllowGroups admin\n", "AllowGroups", marks=pytest.mark.case("B 10")),
        pytest.param("DenyGroups sftp-only\n", "DenyGroups", marks=pytest.mark.case("B 10")),
    ],
)
def test_an_earlier_rule_that_defeats_the_jail_is_refused_by_file_and_line(
    jail: Machine, jack: Key, text: str, words: str
) -> None:
    jail.root("tee", "/etc/ssh/sshd_config.d/00-a.conf", stdin=text)
    try:
        done = jail.jailctl("apply-user", spec("jack", laptop=jack))
    finally:
        jail.root("rm", "/etc/ssh/sshd_config.d/00-a.conf")
    assert done.code == 1
    assert words in done.err
    assert "/etc/ssh/sshd_config.d/00-a.conf line" in done.err
    assert jail.run("id", "jack").code != 0
    assert jail.jailctl("check").out == "no difference\n"


@pytest.mark.case("B 1")
def test_a_tool_that_outlives_a_jailctl_that_was_killed_holds_the_next_one_up(jail: Machine, jack: Key) -> None:
    jail.root("tee", "/run/spec", stdin=json.dumps(spec("jack", laptop=jack)))
    # useradd writes this one last, and waits for a reader of it.
    jail.root("mkfifo", "/etc/shadow+")
    try:
        run = "exec /usr/local/sbin/jailctl apply-user < /run/spec"
        options = ("--quiet", "--collect", "--unit=half-done", "--property=KillMode=process")
        jail.root("systemd-run", *options, "sh", "-c", run)
        until(lambda: jail.run("grep", "-q", "^jack:", "/etc/passwd").code == 0, "a useradd that waits")
        main = jail.root("systemctl", "show", "--property=MainPID", "--value", "half-done").strip()
        useradd = jail.root("ps", "--ppid", main, "-o", "pid=").strip()
        jail.root("kill", "-KILL", main)
        until(lambda: jail.run("test", "-e", f"/proc/{main}").code != 0, "its end")
        assert jail.run("flock", "--nonblock", "/run/sftp-jail.lock", "true").code == 1
        jail.root("kill", "-KILL", useradd)
        until(lambda: jail.run("flock", "--nonblock", "/run/sftp-jail.lock", "true").code == 0, "the lock")
    finally:
        jail.root("rm", "/etc/shadow+")
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "ls").code == 0


@pytest.mark.case("B 24")
@pytest.mark.parametrize(
    ("missing", "ends"),
    [
        ("/sftp/jail/jack/dev", "well"),
        ("/sftp/jail/jack/uploads", "in a failure"),
        ("/sftp/jail/jack", "in no login"),
        ("/sftp/jail", "in no login"),
    ],
)
def test_a_directory_that_is_missing_is_named_and_made_again_and_harms_nobody_else(
    jail: Machine, jack: Key, jill: Key, missing: str, ends: str
) -> None:
    add(jail, "jack", laptop=jack)
    add(jail, "jill", laptop=jill)
    jail.root("mv", missing, "/aside")
    try:
        assert f"{missing}: missing, should be a directory" in jail.jailctl("check").out
        codes = {"well": 0, "in a failure": 1, "in no login": 255}
        assert jail.sftp("jack", jack, "put /etc/hostname /uploads/x").code == codes[ends]
        assert (jail.sftp("jill", jill, "ls").code == 0) == (missing != "/sftp/jail")
        assert jail.ssh("admin", jail.admin_key, "true").code == 0
        assert jail.jailctl("repair").code == 0
        assert jail.jailctl("check").out == "no difference\n"
        assert jail.sftp("jack", jack, "put /etc/hostname y").code == 0
        assert jail.sftp("jill", jill, "ls").code == 0
    finally:
        jail.root("rm", "-r", "/aside")


@pytest.mark.case("B 31")
def test_the_age_of_a_password_ends_nobodys_access(jail: Machine, jack: Key) -> None:
    with file(jail, "/etc/login.defs", "PASS_MAX_DAYS 1\nUID_MIN 1000\nUID_MAX 60000\n"):
        add(jail, "jack", laptop=jack)
        jail.root("chage", "-d", "2001-01-01", "jack")
        assert jail.sftp("jack", jack, "ls").code == 0
    jail.root("chage", "-M", "1", "jack")
    assert jail.sftp("jack", jack, "ls").code != 0
    assert "account jack, ageing of the password: maximum 1" in jail.jailctl("check").out
    assert jail.jailctl("repair").code == 0
    assert jail.sftp("jack", jack, "ls").code == 0


PROGRAMS = ("/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth")
"""Where a release has them."""


@pytest.mark.case("B 34")
def test_an_openssh_that_was_upgraded_and_not_restarted_is_changed_and_confirmed_all_the_same(
    jail: Machine, jack: Key
) -> None:
    add(jail, "jack", laptop=jack)
    for program in PROGRAMS:
        jail.root("sh", "-c", f"[ ! -e {program} ] || {{ cp {program} {program}~ && mv {program}~ {program}; }}")
    listener = jail.root("systemctl", "show", "--property=MainPID", "--value", "ssh").strip()
    assert jail.root("readlink", f"/proc/{listener}/exe") == "/usr/sbin/sshd (deleted)\n"
    assert jail.jailctl("check").out == "no difference\n"
    done = jail.jailctl("apply-jail", OTHER_JAIL)
    assert done.code == 0, done
    assert jail.sftp("jack", jack, "ls").code == 0
    assert jail.ssh("admin", jail.admin_key, "true").code == 0
    assert jail.jailctl("check").out == "no difference\n"


@pytest.mark.case("B 35")
def test_who_is_removed_while_he_uploads_is_out_and_what_has_arrived_is_archived(
    jail: Machine, jack: Key, tmp_path: Path
) -> None:
    add(jail, "jack", laptop=jack)
    uid = jail.root("id", "-u", "jack").strip()
    big = tmp_path / "big"
    big.write_bytes(b"x" * 20_000_000)
    slow = ["sftp", "-l", "8000", *jail.ssh_options(jack), "-b", "-", f"jack@{jail.address}"]
    jail.root("rm", "-rf", "/sftp/archive")
    with subprocess.Popen([str(arg) for arg in slow], stdin=subprocess.PIPE, text=True) as session:
        assert session.stdin is not None
        session.stdin.write(f"put {big}\n")
        session.stdin.close()
        until(lambda: jail.run("test", "-s", "/sftp/jail/jack/uploads/big").code == 0, "an upload")
        done = jail.jailctl("remove-user", spec("jack", laptop=jack))
        assert done.code == 0, done
        assert session.wait(20) != 0
    assert jail.run("ps", "-U", uid).code == 1, "nothing of his runs"
    assert jail.sftp("jack", jack, "ls").code != 0
    size = int(jail.root("sh", "-c", "tar xOf /sftp/archive/jack-*.tar uploads/big | wc -c"))
    assert 0 < size < 20_000_000
