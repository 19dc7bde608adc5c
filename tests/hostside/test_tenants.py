"""One server, several stacks: whose user is whose, and what outlives the machine."""

import pytest

from tests.conftest import Done, Key, Machine, until
from tests.hostside.conftest import JAIL, OWNER, add, another_machine, on_trixie, spec

OTHER = "organization/sftp-jail/other"


def theirs(username: str, **keys: Key) -> dict:
    """The spec of a user of the other stack."""
    return {**spec(username, None, **keys), "user": f"{OTHER}/{username}"}


def release(machine: Machine, owner: str, force_destroy: bool = False) -> Done:
    return machine.jailctl("release", {"owner": owner, "forceDestroy": force_destroy})


@on_trixie
def test_a_name_that_another_stack_has_is_refused_and_its_user_untouched(jail: Machine, jack: Key, jill: Key) -> None:
    add(jail, "jack", laptop=jack)
    done = jail.jailctl("apply-user", theirs("jack", laptop=jill))
    assert done.code == 1
    assert f"user jack belongs to the stack {OWNER}" in done.err
    assert jail.sftp("jack", jack, "ls").code == 0
    assert jail.sftp("jack", jill, "ls").code != 0


@on_trixie
def test_a_stack_does_not_remove_the_user_of_another(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert jail.jailctl("remove-user", theirs("jack", laptop=jack)).out == "no change\n"
    assert jail.sftp("jack", jack, "ls").code == 0


@on_trixie
def test_a_host_is_let_go_when_nobody_else_has_users_there(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    assert release(jail, OWNER).code == 0
    for verb, stdin in (
        ("release", {"owner": OTHER, "forceDestroy": False}),
        ("remove-jail", {**JAIL, "owner": OTHER}),
    ):
        done = jail.jailctl(verb, stdin)
        assert done.code == 1
        assert f"other stacks have users here: {OWNER} (jack); nothing was deleted" in done.err
        assert jail.sftp("jack", jack, "ls").code == 0
    assert release(jail, OTHER, force_destroy=True).code == 0
    assert jail.jailctl("remove-jail", {**JAIL, "owner": OTHER, "forceDestroy": True}).code == 0
    assert jail.run("id", "jack").code != 0


@on_trixie
def test_a_renamed_stack_keeps_its_users_by_the_command_that_the_refusal_names(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    add(jail, "jill", laptop=jack)
    done = jail.jailctl("apply-user", theirs("jack", laptop=jack))
    command = done.err.split("run on the server: ")[1].rstrip(".\n").replace("sudo ", "")
    jail.root("sh", "-c", command)
    for username in ("jack", "jill"):
        assert jail.jailctl("apply-user", theirs(username, laptop=jack)).out == "no change\n"


@on_trixie
def test_on_another_machine_with_the_same_volume_everything_is_as_it_was(jail: Machine, jack: Key, jill: Key) -> None:
    add(jail, "jack", laptop=jack)
    add(jail, "joan", desk=jack)
    assert jail.jailctl("apply-user", theirs("jill", laptop=jill)).code == 0
    assert jail.sftp("jack", jack, "put /etc/hostname kept").code == 0
    owners = "cd /sftp/jail; stat -c '%n %u %g' j[ai]*/uploads jack/uploads/*; getent shadow jack jill"
    before = jail.root("sh", "-c", owners)
    assert jail.sftp("joan", jack, "put /etc/hostname joans").code == 0
    with another_machine(jail, "joan", "jack", "jill"):
        # Who comes first there takes the next group ids, as Debian's packages do.
        jail.root("groupadd", "--system", "newcomer")
        try:
            assert jail.sftp("jack", jack, "ls").code != 0
            done = jail.jailctl("apply-jail", JAIL)
            assert done.code == 0, done
            # The other stack's user is back, and those of the host's own stack wait for it to ask for them.
            assert jail.sftp("jill", jill, "ls").code == 0
            assert jail.sftp("jack", jack, "ls").code != 0
            assert jail.sftp("joan", jack, "ls").code != 0
            assert "user joan: the machine's before, should be asked for, or pruned" in jail.jailctl("check").out
            add(jail, "jack", laptop=jack)
            # joan was removed together with the machine, and so from nowhere.
            assert jail.jailctl("prune", {"owner": OTHER}).out == "no change\n"
            assert jail.jailctl("prune", {"owner": OWNER}).code == 0
            assert jail.run("test", "-e", "/sftp/jail/joan").code != 0
            assert "joans" in jail.root("sh", "-c", "tar tf /sftp/archive/joan-*.tar")
            assert jail.root("sh", "-c", owners) == before
            assert "kept" in jail.sftp("jack", jack, "ls").out
            assert jail.sftp("jill", jill, "put /etc/hostname more").code == 0
            assert jail.jailctl("check").out == "no difference\n"
            assert " jack " in jail.root("cat", "/var/log/sftp.log")
        finally:
            jail.root("groupdel", "newcomer")


@pytest.mark.case("B 29")
def test_nothing_is_made_beneath_a_file_system_that_is_not_mounted(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("mv", "/sftp", "/aside")
    jail.root("mkdir", "/sftp")
    jail.root("sh", "-c", "cp /etc/fstab /fstab; echo '/aside /sftp none bind,nofail 0 0' >> /etc/fstab")
    try:
        for verb, stdin in (("apply-jail", JAIL), ("apply-user", spec("jill", laptop=jack)), ("check", None)):
            done = jail.jailctl(verb, stdin)
            assert done.code == 1
            assert done.err.count("\n") == 1
            assert "/etc/fstab has a file system for /sftp, and it is not mounted" in done.err
        assert jail.root("ls", "-A", "/sftp") == ""
        jail.root("mount", "/sftp")
        assert jail.jailctl("apply-user", spec("jill", laptop=jack)).code == 0
        assert jail.jailctl("check").out == "no difference\n"
        assert jail.sftp("jack", jack, "ls").code == 0
    finally:
        # jack's session may hold it for a moment yet.
        until(lambda: jail.run("umount", "/sftp").code == 0 or jail.run("mountpoint", "/sftp").code != 0, "its end")
        jail.root("mv", "/fstab", "/etc/fstab")
        jail.root("rmdir", "/sftp")
        jail.root("mv", "/aside", "/sftp")


@pytest.mark.case("B 29")
def test_after_a_reboot_without_the_volume_nobody_gets_in_and_with_it_everything_is_back(
    jail: Machine, jack: Key
) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("sh", "-c", "systemctl stop sftp-jail-log.socket && mkdir /aside && mv /sftp /aside/disk && mkdir /sftp")
    jail.root("sh", "-c", "cp /etc/fstab /fstab && echo '/aside/disk /sftp none bind,nofail 0 0' >> /etc/fstab")
    # systemd would make a directory that is missing, but not below a file.
    jail.root("sh", "-c", "mv /aside /elsewhere && touch /aside")
    try:
        jail.reboot()
        assert jail.run("mountpoint", "/sftp").code != 0
        assert jail.sftp("jack", jack, "ls").code != 0
        assert jail.jailctl("apply-user", spec("jack", laptop=jack)).code == 1
        assert jail.root("ls", "-A", "/sftp") == ""
        # The host itself goes on, and keeps its own log.
        assert jail.ssh("admin", jail.admin_key, "true").code == 0
        until(lambda: jail.run("systemctl", "is-active", "rsyslog").out == "active\n", "rsyslog")

        jail.root("sh", "-c", "rm /aside && mv /elsewhere /aside")
        jail.reboot()
        until(lambda: jail.run("mountpoint", "/sftp").code == 0, "the mount")
        until(lambda: jail.run("systemctl", "is-active", "sftp-jail-log").out == "active\n", "the log")
        assert jail.sftp("jack", jack, "put /etc/hostname after-the-reboot").code == 0
        until(lambda: "/uploads/after-the-reboot" in jail.root("cat", "/var/log/sftp.log"), "its line in the log")
        assert jail.jailctl("check").out == "no difference\n"
    finally:
        jail.root(
            "sh",
            "-c",
            "mv /fstab /etc/fstab; systemctl stop sftp-jail-log.socket; umount /sftp; systemctl daemon-reload",
        )
        jail.root("sh", "-c", "rmdir /sftp && mv /aside/disk /sftp && rmdir /aside && systemctl start sftp-jail-log")


@on_trixie
def test_what_was_deleted_by_hand_can_still_be_removed(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("sh", "-c", "rm -r /sftp; userdel --force jack")
    done = jail.jailctl("remove-jail", JAIL)
    assert done.code == 0, done
    assert jail.run("test", "-e", "/etc/ssh/sshd_config.d/00-sftp-jail.conf").code != 0
    assert jail.run("test", "-e", "/sftp").code != 0
