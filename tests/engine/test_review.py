"""The access review of what the real engine previews; the tests follow each other."""

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.conftest import ROOT, Done, call
from tests.engine.conftest import STACK, Project
from tests.unit import keys

# What the review makes of a preview has its tests in tests/unit/test_review.py, of previews written as these are.
pytestmark = pytest.mark.more

TODAY = "2026-11-24"

UNLIMITED = "from any address, read-write, without an end, without a quota"
"""What is said of a new user of whom nothing else is said."""


def review(project: Project, *argv: str, sames: bool = True) -> Done:
    """What the review says of a preview."""
    changes = project.preview("--json", *(["--show-sames"] if sames else []))
    return call(sys.executable, "-m", "sftp_jail", "review", "--today", TODAY, *argv, stdin=changes, env=at_root())


def at_root() -> dict[str, str]:
    """So that `python -m` finds the package, wherever pytest was started."""
    return {"PYTHONPATH": str(ROOT)}


def lines(done: Done) -> list[str]:
    """Its lines, without bullets."""
    return [line.removeprefix("- ") for line in done.out.splitlines()]


def mark(public: str) -> str:
    """The fingerprint, in ssh-keygen's opinion."""
    return call("ssh-keygen", "-lf", "-", stdin=public).out.split()[1]


def users(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.config["sftp-jail:users"]
    return found


def test_a_first_preview_says_who_is_new_with_ssh_keygen_s_fingerprints(project: Project) -> None:
    jack, jil = project.user("jack", "laptop", "desk"), project.user("jil", "laptop")
    project.user("joan", "laptop")
    done = review(project)
    desk, laptop = (f"key `{mark(jack[label].public)}` ({label})" for label in ("desk", "laptop"))
    assert f"**jack**: new, {desk}, {laptop}, {UNLIMITED}" in lines(done)
    assert f"**jil**: new, key `{mark(jil['laptop'].public)}` (laptop), {UNLIMITED}" in lines(done)
    assert "Without an end: **jack**, **jil**, **joan**" in lines(done)
    assert {"sshd: umask 022", "jail: jailctl installed", "host: new"} <= set(lines(done))
    assert "Users: 3 new. Server: " in done.out
    assert "Other resources: no change." in done.out
    assert done.code == 1


def test_a_limited_user_is_told_with_all_his_limits(project: Project) -> None:
    today = datetime.now(timezone.utc).date()
    end = today + timedelta(days=13)
    jim, ann = (project.user(name, "laptop")["laptop"] for name in ("jim", "ann"))
    users(project)["jim"] |= {
        "allowFrom": ["203.0.113.0/24"],
        "access": "read-write",
        "expires": str(end),
        "quota": "5GiB",
    }
    users(project)["ann"] |= {"access": "upload-only", "expires": "2199-12-07", "onRemoval": "delete"}
    project.config["sftp-jail:quotas"] = "loop"
    project.write()
    done = review(project, "--today", str(today))
    del project.config["sftp-jail:quotas"]
    project.drop("jim")
    project.drop("ann")
    assert {
        f"**jim**: new, key `{mark(jim.public)}` (laptop), from 203.0.113.0/24, read-write, "
        f"until {end.day} {end:%B} {end.year}, at most 5 GiB",
        f"**ann**: new, key `{mark(ann.public)}` (laptop), from any address, upload-only, until 7 December 2199, "
        "without a quota, uploads deleted on removal",
        "Uploads will be deleted with the login: **ann**",
        "For more than 30 days: **ann**",
        "Without an end: **jack**, **jil**, **joan**",
        "jail: quotas enforced by loop",
    } <= set(lines(done))


def test_thirty_users_at_once_are_thirty_sorted_lines(project: Project) -> None:
    before = dict(users(project))
    names = [f"user{number:02}" for number in range(30)]
    users(project).update(
        {name: {"keys": {"laptop": keys.ed25519(number)}} for number, name in reversed(list(enumerate(names, 1)))}
    )
    project.write()
    done = review(project)
    project.config["sftp-jail:users"] = before
    project.write()
    assert [line.split("**")[1] for line in lines(done) if ": new, key" in line] == ["jack", "jil", "joan", *names]
    assert "Users: 33 new." in done.out


def test_after_up_nothing_changes_and_there_is_nothing_to_warn_of(project: Project) -> None:
    project.up()
    for sames, unchanged in (
        (True, "3 (without an end: 3)"),
        (False, "3 (what they have is not in this preview, made without --show-sames)"),
    ):
        done = review(project, sames=sames)
        assert done.out == (
            "**Nothing to warn of.** Users: no change. Server: no change. Other resources: no change.\n\n"
            f"Unchanged users: {unchanged}\n"
        )
        assert done.code == 0


@pytest.mark.parametrize("detailed", [[], ["--diff"]], ids=["json", "json and diff"])
def test_a_changed_and_a_removed_key_a_rename_and_a_removal_are_told_apart(
    project: Project, detailed: list[str]
) -> None:
    before, old = json.dumps(project.config), project.key("jack", "laptop").public
    new = project.key("jack", "laptop-new").public
    users(project)["jack"]["keys"] = {"laptop": new}
    users(project)["jill"] = users(project).pop("jil")
    del users(project)["joan"]
    project.config["sftp-jail:umask"] = "027"
    project.write()
    changes = project.preview("--json", *detailed)
    done = call(sys.executable, "-m", "sftp_jail", "review", "--today", TODAY, stdin=changes, env=at_root())
    project.config = json.loads(before)
    project.write()
    desk = mark(project.key("jack", "desk").public)
    key = mark(project.key("jil", "laptop").public)
    assert {
        f"**jack**: key desk removed, was `{desk}`, key laptop now `{mark(new)}`, was `{mark(old)}`",
        "**jil**: removed; sessions ended, uploads archived; with the same keys as **jill**, who is new",
        f"**jill**: new, key `{key}` (laptop), {UNLIMITED}; with the same keys as **jil**, who is removed",
        "**joan**: removed; sessions ended, uploads archived",
        "sshd: umask 022 → 027",
    } <= set(lines(done))
    assert "Users: 1 new, 1 changed, 2 removed. Server: 1 change. Other resources: no change." in done.out
    assert "Without an end: **jack**, **jill**" in lines(done)
    assert done.code == 1


def test_limits_that_change_are_told_with_what_they_were(project: Project) -> None:
    project.user("jim", "laptop")
    limits = {"allowFrom": ["203.0.113.0/24"], "access": "read-only", "expires": "2199-12-07", "onRemoval": "keep"}
    users(project)["jim"].update(limits)
    project.write()
    project.up()
    del users(project)["jim"]["allowFrom"]
    users(project)["jim"].update({"access": "read-write", "expires": "2199-12-31T18:00:00+01:00"})
    project.write()
    done = review(project)
    project.drop("jim")
    gone = review(project)
    project.up()
    assert (
        "**jim**: now from any address, was from 203.0.113.0/24, now read-write, was read-only, "
        "now until 31 December 2199, 17:00 UTC, was until 7 December 2199"
    ) in lines(done)
    assert "A weaker setting: **jim** from any address, **jim** read-write" in lines(done)
    assert "**jim**: removed; sessions ended, uploads kept as they are" in lines(gone)


def test_another_release_replaces_the_host_and_all_on_it(project: Project) -> None:
    joan = users(project).pop("joan")
    project.config["sftp-jail:host"]["release"] = "bookworm"
    project.write()
    done, detailed = (review(project, sames=False), review(project))
    users(project)["joan"] = joan
    del project.config["sftp-jail:host"]["release"]
    project.write()
    assert any(line.startswith("host: replaced: ") and "release trixie → bookworm" in line for line in lines(done))
    assert {
        "The host is replaced: host",
        "Data that will be deleted: uploads on host",
        "Made anew on the new host: **jack**, **jil**",
        "**joan**: removed with its host",
        "jail: made anew on the new host",
    } <= set(lines(done))
    assert done.code == 1
    assert [line for line in lines(done) if "Unchanged" not in line] == [
        line for line in lines(detailed) if "Unchanged" not in line
    ]


def test_a_replacement_in_detail_after_a_refresh_comes_to_the_same_review(project: Project) -> None:
    project.config["sftp-jail:host"]["release"] = "bookworm"
    project.write()
    plain = review(project)
    changes = project.preview("--json", "--show-sames", "--show-replacement-steps", "--refresh")
    done = call(sys.executable, "-m", "sftp_jail", "review", "--today", TODAY, stdin=changes, env=at_root())
    del project.config["sftp-jail:host"]["release"]
    project.write()
    assert "Made anew on the new host: **jack**, **jil**, **joan**" in lines(done)
    assert done == plain


def test_another_kind_of_host_is_said_and_whose_logins_go_with_the_old_one(project: Project) -> None:
    before = project.config["sftp-jail:host"]
    host_key = project.key("elsewhere", "host").public
    project.config["sftp-jail:host"] = {"kind": "existing", "address": "203.0.113.9", "hostKey": host_key}
    project.write()
    done = review(project)
    project.config["sftp-jail:host"] = before
    project.write()
    assert "host host (`ExistingHost`): new" in lines(done)
    assert "The host is removed: host" in lines(done)
    assert any(line.startswith("Made anew on the new host: **jack**, **jil**, **joan**") for line in lines(done))


def test_a_password_is_said_to_be_there_and_nothing_else_of_it(project: Project) -> None:
    crypted = keys.STRONG_HASHES["sha512"]
    path = "sftp-jail:users.joan.passwordHash"
    done = project("config", "set", "--stack", STACK, "--secret", "--path", path, crypted)
    assert done.code == 0, done
    changes = project.preview("--json", "--show-sames")
    (secret,) = (step for step in json.loads(changes)["steps"] if step["urn"].endswith("::jail-joan.password"))
    assert secret["newState"]["inputs"]["stdin"] == "[secret]"
    assert crypted not in changes
    done = call(sys.executable, "-m", "sftp_jail", "review", "--today", TODAY, stdin=changes, env=at_root())
    project.write()
    assert "**joan**: password set" in lines(done)
    assert {"With a password: **joan**", "Without an end: **joan**"} <= set(lines(done))
    assert crypted.rsplit("$", 1)[1] not in done.out + done.err
    assert done.code == 1


def test_the_policy_refuses_a_real_change(project: Project) -> None:
    policy = project.folder / "policy.yaml"
    policy.write_text("requireExpiry: true\n")
    assert review(project, "--policy", str(policy)).code == 0
    project.user("ann", "laptop")
    done = review(project, "--policy", str(policy))
    project.drop("ann")
    assert "Without an end (requireExpiry): **ann**" in lines(done)
    assert done.code == 2


def test_a_preview_that_fails_is_no_review(project: Project) -> None:
    project.config["sftp-jail:umask"] = "999"
    project.write()
    failed = project("preview", "--json", "--show-sames")
    del project.config["sftp-jail:umask"]
    project.write()
    assert failed.code != 0
    done = call(sys.executable, "-m", "sftp_jail", "review", stdin=failed.out, env=at_root())
    assert (done.code, done.out) == (3, "")
    assert "'999': not a umask" in done.err


def test_an_empty_stack_file_removes_everybody(project: Project) -> None:
    before = dict(users(project))
    users(project).clear()
    project.write()
    done = review(project)
    users(project).update(before)
    project.write()
    assert "Users: 3 removed." in done.out
    assert "Unchanged users: 0" in lines(done)


# Five hundred users


@pytest.fixture(scope="module")
def five_hundred(project: Project) -> dict[str, Any]:
    """That many, for real: five hundred logins on the server. The state is saved once at the end, which is the only
    shortcut, since its cost would grow with the square of them."""
    users(project).clear()
    users(project).update({f"user{number:03}": {"keys": {"laptop": keys.ed25519(number)}} for number in range(500)})
    project.write()
    argv = [project.pulumi, "--non-interactive", "-C", str(project.folder), "up", "--yes", "--skip-preview"]
    env = {**project.env, "PULUMI_SKIP_CHECKPOINTS": "true"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return users(project)


def test_among_500_users_one_changed_key_is_one_line_of_the_review(
    project: Project, five_hundred: dict[str, Any]
) -> None:
    five_hundred["user007"]["keys"]["laptop"] = keys.ed25519(1007)
    project.write()
    done = review(project)
    now, was = mark(keys.ed25519(1007)), mark(keys.ed25519(7))
    assert [line for line in lines(done) if "SHA256:" in line] == [f"**user007**: key laptop now `{now}`, was `{was}`"]
    assert "Unchanged users: 499 (without an end: 499)" in lines(done)
    assert "Server: no change. Other resources: no change." in done.out


def test_among_500_users_one_changed_key_is_at_most_15_lines_of_the_preview(
    project: Project, five_hundred: dict[str, Any]
) -> None:
    five_hundred["user007"]["keys"]["laptop"] = keys.ed25519(2007)
    project.write()
    # Between them, the engine says now and then that it is still at work.
    printed = [line for line in project.preview("--diff").splitlines() if not line.startswith("@ previewing")]
    assert sum("=>" in line for line in printed) == 1
    assert len(printed) <= 15, "\n".join(printed)
