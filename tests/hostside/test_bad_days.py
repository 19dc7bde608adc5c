"""The operator's bad days: what else is wrong with a server, and what jailctl does about it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Key, Machine, call, make_key
from tests.hostside.conftest import JAIL, add, spec

OTHER_JAIL = {**JAIL, "umask": "027"}


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


def test_many_runs_at_once_wait_for_each_other_and_lose_nobody(jail: Machine, tmp_path: Path) -> None:
    keys = {f"user{number}": make_key(tmp_path / f"user{number}") for number in range(10)}
    with ThreadPoolExecutor(len(keys)) as pool:
        assert [done.code for done in pool.map(lambda name: add(jail, name, laptop=keys[name]), keys)] == [0] * 10
    assert len({jail.root("id", "-u", name) for name in keys}) == 10
    assert all(jail.sftp(name, key, "ls").code == 0 for name, key in keys.items())
    assert jail.jailctl("check").out == "no difference\n"


def test_a_missing_run_directory_of_sshd_is_made(jail: Machine) -> None:
    jail.root("rm", "-r", "/run/sshd")
    done = jail.jailctl("apply-jail", OTHER_JAIL)
    assert done.code == 0, done


def test_a_password_login_that_cloud_init_allows_is_still_none_for_the_jailed(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    text = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\n"
    with file(jail, "/etc/ssh/sshd_config.d/00-a-cloud.conf", text, "systemctl", "reload", "ssh"):
        assert jail.jailctl("check").out == "no difference\n"
        assert methods(jail, "jack") == "publickey"
        assert "password" in methods(jail, "admin")


def test_a_configuration_without_an_include_line_gets_one_and_loses_it_again(trixie: Machine, jack: Key) -> None:
    trixie.install()
    plain = "\n".join(
        line for line in trixie.root("cat", "/etc/ssh/sshd_config").splitlines() if not line.startswith("Include")
    )
    with file(trixie, "/etc/ssh/sshd_config", f"{plain}\n", "systemctl", "reload", "ssh"):
        before = trixie.root("cat", "/etc/ssh/sshd_config")
        assert trixie.jailctl("apply-jail", JAIL).code == 0
        add(trixie, "jack", laptop=jack)
        assert trixie.sftp("jack", jack, "ls").code == 0
        assert trixie.ssh("jack", jack, "id").code != 0
        assert trixie.jailctl("remove-jail", JAIL).code == 0
        assert trixie.root("cat", "/etc/ssh/sshd_config") == before


def test_an_administrator_in_the_jails_group_stops_everything(trixie: Machine) -> None:
    trixie.install()
    trixie.root("groupadd", "--system", "sftp-only")
    trixie.root("gpasswd", "--add", "admin", "sftp-only")
    try:
        done = trixie.jailctl("apply-jail", JAIL)
        assert trixie.ssh("admin", trixie.admin_key, "id", "-un").out == "admin\n"
    finally:
        trixie.root("gpasswd", "--delete", "admin", "sftp-only")
        trixie.jailctl("remove-jail", JAIL)
        trixie.run("groupdel", "sftp-only")
    assert done.code == 1
    assert "account admin is in group sftp-only" in done.err
    assert "gpasswd -d admin sftp-only" in done.err


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


def test_a_key_logs_in_where_sshd_uses_no_pam(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    with file(jail, "/etc/ssh/sshd_config.d/50-pam.conf", "UsePAM no\n", "systemctl", "reload", "ssh"):
        assert jail.sftp("jack", jack, "ls").code == 0


def test_a_user_who_was_deleted_by_hand_is_made_again_with_his_uid(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.sftp("jack", jack, "put /etc/hostname kept").code == 0
    uid = jail.root("id", "-u", "jack")
    jail.root("userdel", "--force", "jack")
    assert jail.jailctl("check").code != 0
    add(jail, "jack", laptop=jack)
    assert jail.root("id", "-u", "jack") == uid
    assert jail.sftp("jack", jack, "ls kept").code == 0


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
    debian_jail: Machine, jack: Key, link: str
) -> None:
    jail = debian_jail
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
