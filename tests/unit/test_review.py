"""The access review, on previews written by hand as Pulumi 3.259 writes them."""

import base64
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from sftp_jail.__main__ import main
from sftp_jail.review.preview import UNKNOWN
from tests.conftest import Done

from . import keys

TODAY = "2026-11-24"
SOON = "2026-12-07"
JAIL = "urn:pulumi:s::p::sftp-jail:index:SftpJail::jail"
USER = "sftp-jail:index:SftpJail$sftp-jail:index:JailUser"
MACHINE = "urn:pulumi:s::p::sftp-jail:index:LocalHost$command:local:Command::host"
INGRESS = "sftp-jail:index:AwsHost$aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
VOLUME = "sftp-jail:index:AwsHost$aws:ebs/volume:Volume"

LAPTOP, DESK = keys.ed25519(1), keys.ed25519(2)

Step = dict[str, Any]
Run = Callable[..., Done]


def mark(key: str) -> str:
    """A fingerprint, worked out by hand."""
    digest = hashlib.sha256(base64.b64decode(key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def state(inputs: Any, parent: str, more: Any) -> Step:
    return {"inputs": inputs, "parent": parent, **(more or {})}


def step(
    op: str,
    types: str,
    name: str,
    before: Any = None,
    after: Any = None,
    parent: str = "",
    reasons: tuple[str, ...] = (),
    was: Optional[Step] = None,
    becomes: Optional[Step] = None,
) -> Step:
    """One entry of `steps`; `was` and `becomes` are more of the two states."""
    found: Step = {"op": op, "urn": f"urn:pulumi:s::p::{types}::{name}", "detailedDiff": None}
    if before is not None:
        found["oldState"] = state(before, parent, was)
    if after is not None:
        found["newState"] = state(after, parent, becomes)
    if reasons:
        found["detailedDiff"] = {reason: {"kind": "update", "inputDiff": False} for reason in reasons}
    return found


def command(spec: Any) -> Optional[Step]:
    """The inputs of a Command, whose stdin is JSON unless it is a text already."""
    if spec is None:
        return None
    return {"connection": "[secret]", "stdin": spec if isinstance(spec, str) else json.dumps(spec, sort_keys=True)}


def sent(spec: Step) -> Step:
    """The spec of a user as his Command has it."""
    others = {key: value for key, value in spec.items() if key not in ("keys", "owner", "username")}
    keys_by_label = {f"key {label}": key for label, key in spec["keys"].items()}
    return {**others, **keys_by_label, "user": f"{spec['owner']}/{spec['username']}"}


def spec_of(username: str, more: dict[str, Any]) -> Step:
    return {"keys": {"laptop": LAPTOP}, "owner": "o/p/s", "username": username, "expires": SOON, **more}


def user(op: str, username: str, before: Any = None, after: Any = None, **more: Any) -> Step:
    """A user's Command. A map is what differs from a plain user, whose end is near; a text is the whole stdin."""
    old, new = (sent(spec_of(username, spec)) if isinstance(spec, dict) else spec for spec in (before, after))
    parent = f"urn:pulumi:s::p::{USER}::jail-{username}"
    return step(
        op, f"{USER}$command:remote:Command", f"jail-{username}", command(old), command(new), parent=parent, **more
    )


def password(op: str, username: str, before: bool, after: bool, **more: Any) -> Step:
    """The Command of a password."""
    found = user(op, username, "[secret]" if before else None, "[secret]" if after else None, **more)
    return {**found, "urn": f"{found['urn']}.password"}


def policy_command(op: str, before: Any = None, after: Any = None, name: str = "jail-policy", **more: Any) -> Step:
    """One of the jail's own Commands."""
    types = "sftp-jail:index:SftpJail$command:remote:Command"
    return step(op, types, name, command(before), command(after), parent=JAIL, **more)


def stack(*users: str) -> Step:
    """The stack's own entry, which is always there, and always `same`."""
    found = step("same", "pulumi:pulumi:Stack", "p-s", {}, {})
    found["oldState"]["outputs"] = {"users": {name: {"sftp": f"sftp {name}"} for name in users}}
    return found


def digest(*steps: Step, hidden: int = 0) -> str:
    """A whole preview, of whose unchanged resources so many are not shown."""
    summary: dict[str, int] = {"same": hidden}
    for one in steps:
        summary[one["op"]] = summary.get(one["op"], 0) + 1
    return json.dumps({"config": {}, "steps": list(steps), "duration": 1, "changeSummary": summary})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line on a text."""

    def review(text: "str | bytes", *argv: str) -> Done:
        stdin = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "argv", ["sftp_jail", "review", "--today", TODAY, *argv])
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return review


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], str]:
    """Writes a policy file."""

    def write(text: str) -> str:
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        return str(path)

    return write


def lines(done: Done) -> list[str]:
    return [line.removeprefix("- ") for line in done.out.splitlines()]


# Users


def test_a_new_user_is_one_line_with_openssh_s_fingerprint(run: Run) -> None:
    done = run(digest(stack(), user("create", "jack", after={})))
    words = "from any address, read-write, until 7 December 2026, without a quota"
    assert f"**jack**: new, key `{mark(LAPTOP)}` (laptop), {words}" in lines(done)
    assert "Users: 1 new." in done.out
    assert done.code == 0


def test_everything_that_a_user_may_have_is_said(run: Run) -> None:
    more = {"allowFrom": ["203.0.113.0/24"], "access": "read-write", "quota": "5GiB"}
    done = run(digest(stack(), user("create", "jack", after=more), password("create", "jack", False, True)))
    key = f"key `{mark(LAPTOP)}` (laptop)"
    words = "has a password, from 203.0.113.0/24, read-write, until 7 December 2026, at most 5 GiB"
    assert f"**jack**: new, {key}, {words}" in lines(done)


def test_a_key_of_the_json_that_nobody_has_heard_of_is_shown_as_it_is(run: Run) -> None:
    done = run(digest(stack(), user("create", "jack", after={"shell": "/bin/bash", "sudo": {"all": True}})))
    assert 'shell: `/bin/bash`, sudo: `{"all": true}`' in done.out
    done = run(digest(stack(), user("update", "jack", {"sudo": False}, {"shell": "x"})))
    assert "now shell: x, was without shell, now without sudo, was sudo: false" in done.out


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("expires", "2026-12-07T18:00:00+01:00", "until 7 December 2026, 18:00 +01:00"),
        ("expires", "2026-12-07T18:00:30Z", "until 7 December 2026, 18:00:30 UTC"),
        ("expires", "whenever", "expires: whenever"),
        ("expires", "2026-12-07T18:00:00", "expires: `2026-12-07T18:00:00`"),
        ("expires", 5, "expires: 5"),
        ("allowFrom", ["10.0.0.0/8", "2001:db8::/32"], "from 10.0.0.0/8 and `2001:db8::/32`"),
        ("allowFrom", [f"10.0.0.{n}/32" for n in range(12)], "10.0.0.9/32 and 2 more"),
        ("allowFrom", "10.0.0.0/8", "`allowFrom`: 10.0.0.0/8"),
        ("access", "upload-only", "upload-only"),
        ("access", "root", "access: root"),
        ("quota", "none", "quota: none"),
        ("quota", ["5GiB"], 'quota: `["5GiB"]`'),
        ("keys", {}, "no key"),
        ("keys", {"laptop": "ssh-ed25519 AAA"}, "key unreadable, `ssh-ed25519 AAA` (laptop)"),
    ],
)
def test_a_value_is_said_in_words_or_as_it_is(run: Run, key: str, value: object, shown: str) -> None:
    assert shown in run(digest(stack(), user("create", "jack", after={key: value}))).out


def test_changed_keys_are_named_with_old_and_new_fingerprint(run: Run) -> None:
    before = {"keys": {"desk": DESK, "laptop": LAPTOP}}
    after = {"keys": {"laptop": keys.ed25519(3), "phone": keys.ed25519(4)}}
    done = run(digest(stack("joan", "ann"), user("update", "joan", before, after), hidden=4))
    phone = keys.ed25519(4)
    desk, laptop = f"key desk removed, was `{mark(DESK)}`", f"key laptop now `{mark(keys.ed25519(3))}`"
    assert f"**joan**: {desk}, {laptop}, was `{mark(LAPTOP)}`, key phone added, `{mark(phone)}`" in lines(done)
    assert "Users: 1 changed." in done.out
    assert "Unchanged users: 1 " in done.out


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"expires": "2026-12-10"}, "now until 10 December 2026, was until 7 December 2026"),
        ({}, {"expires": None}, "now expires: null, was until 7 December 2026"),
        ({"access": "read-only"}, {}, "now read-write, was read-only"),
        ({}, {"allowFrom": ["10.0.0.0/8"]}, "now from 10.0.0.0/8, was from any address"),
        ({"quota": "1GiB"}, {}, "now without a quota, was at most 1 GiB"),
        ({"username": "jon"}, {}, "now username: joan, was username: jon"),
    ],
)
def test_a_changed_setting_is_said_with_what_it_was(run: Run, before: Any, after: Any, words: str) -> None:
    assert f"**joan**: {words}" in lines(run(digest(stack(), user("update", "joan", before, after))))


def test_a_login_that_gets_another_name_stays_on_the_server_and_is_warned_of(run: Run) -> None:
    done = run(digest(stack(), user("update", "joan", {"username": "jon"}, {})))
    assert "Stays on the server, with nobody to remove it: **jon**" in lines(done)


@pytest.mark.parametrize(
    ("op", "before", "after", "words"),
    [
        ("create", False, True, "password set"),
        ("update", True, True, "password changed"),
        ("delete", True, False, "password removed"),
    ],
)
def test_of_a_password_only_its_coming_and_going_is_said(
    run: Run, op: str, before: bool, after: bool, words: str
) -> None:
    done = run(digest(stack("joan"), password(op, "joan", before, after, reasons=("stdin",)), hidden=2))
    # The account is not in such a preview, so the name is that of the resource.
    assert f"**jail-joan**: {words}" in lines(done)
    assert ("With a password" in done.out) == after


def test_a_password_that_is_only_set_again_elsewhere_is_no_change_of_it(run: Run) -> None:
    account = user("update", "joan", {}, {}, reasons=("connection",))
    done = run(digest(stack(), account, password("update", "joan", True, True, reasons=("connection",))))
    assert "password changed" not in done.out
    assert "Set up again, since this changes: connection: **joan**" in lines(done)


def test_a_removed_user_s_sessions_end_and_his_uploads_are_kept(run: Run) -> None:
    done = run(digest(stack("jill"), user("delete", "jill", {})))
    assert "**jill**: removed; sessions ended, uploads archived" in lines(done)
    assert "Users: 1 removed." in done.out
    assert done.code == 0


def test_a_removed_user_whose_uploads_go_is_warned_of(run: Run) -> None:
    done = run(digest(stack("jill"), user("delete", "jill", {"onRemoval": "delete"})))
    assert "**jill**: removed; sessions ended, uploads deleted" in lines(done)
    assert "Data that will be deleted: uploads of **jill**" in lines(done)


def test_a_user_who_is_only_forgotten_keeps_the_login_and_is_warned_of(run: Run) -> None:
    done = run(digest(stack("jill"), user("delete", "jill", {}, was={"retainOnDelete": True})))
    assert "**jill**: removed from the stack alone: the login stays on the server" in lines(done)
    assert "Stays on the server, with nobody to remove it: **jill**" in lines(done)
    assert done.code == 1


def test_a_rename_is_two_facts_and_no_guess(run: Run) -> None:
    done = run(digest(stack("jil"), user("delete", "jil", {}), user("create", "jill", after={})))
    assert ("**jil**: removed; sessions ended, uploads archived; with the same keys as **jill**, who is new") in lines(
        done
    )
    (new,) = (line for line in lines(done) if line.startswith("**jill**: new,"))
    assert new.endswith("; with the same keys as **jil**, who is removed")
    assert "rename" not in done.out


def test_another_person_s_removal_is_not_taken_for_a_rename(run: Run) -> None:
    done = run(digest(stack("jil"), user("delete", "jil", {}), user("create", "jill", after={"keys": {"a": DESK}})))
    assert "keys" not in done.out


def test_some_of_the_keys_in_common_are_counted(run: Run) -> None:
    both = {"keys": {"a": DESK, "b": LAPTOP}}
    done = run(digest(stack("jil"), user("delete", "jil", both), user("create", "jill", after={})))
    assert "with 1 of the keys of **jill**, who is new" in done.out


def test_one_name_removed_and_made_anew_is_warned_of_since_the_removal_comes_last(run: Run) -> None:
    gone = user("delete", "jack", {})
    gone["urn"] = gone["urn"].replace("jail-jack", "old-jack")
    gone["oldState"]["parent"] = gone["oldState"]["parent"].replace("jail-jack", "old-jack")
    done = run(digest(stack("jack"), gone, user("create", "jack", after={})))
    assert "Removed and made anew in one run, where the removal comes last: **jack**" in lines(done)


def test_the_owner_is_shown_only_when_it_changes_and_once_for_all(run: Run) -> None:
    assert "o/p/s" not in run(digest(stack(), user("create", "jack", after={}))).out
    changed = [user("update", name, {}, {"owner": "o/p/t"}) for name in ("jill", "jack")]
    done = run(digest(stack(), *changed))
    assert "Now owner: `o/p/t`, was owner: `o/p/s`: **jack**, **jill**" in lines(done)
    assert done.code == 0


def test_many_users_are_sorted_one_line_each(run: Run) -> None:
    names = [f"user{number:03}" for number in range(300)]
    done = run(digest(stack(), *(user("create", name, after={}) for name in reversed(names))))
    assert [line.split("**")[1] for line in lines(done) if ": new, key" in line] == names
    assert "Users: 300 new." in done.out
    resources = {"a": "zed", "b": "ann"}
    done = run(digest(stack(), *(user("create", name, after={"username": own}) for name, own in resources.items())))
    assert [line.split("**")[1] for line in lines(done) if ": new, key" in line] == ["ann", "zed"]


@pytest.mark.parametrize("stdin", ["[secret]", UNKNOWN, "{", "[]"])
@pytest.mark.parametrize("op", ["create", "update"])
def test_settings_that_cannot_be_read_are_warned_of_and_refused_by_any_policy(
    run: Run, policy: Callable[[str], str], stdin: str, op: str
) -> None:
    text = digest(stack(), user(op, "jack", {} if op == "update" else None, stdin))
    done = run(text)
    assert done.code == 1
    assert "Not readable in this preview, so not reviewed: **ja" in done.out
    assert run(text, "--policy", policy("maxDays: 30")).code == 2


def test_secret_settings_that_change_are_a_change_though_they_look_alike(run: Run) -> None:
    done = run(digest(stack(), user("update", "jack", "[secret]", "[secret]", reasons=("stdin",))))
    assert "**jail-jack**: settings changed, which are a secret" in lines(done)
    assert done.code == 1


# Every op


@pytest.mark.parametrize(
    ("op", "before", "after", "words"),
    [
        ("same", True, True, None),
        ("refresh", True, True, None),
        ("read", True, True, None),
        ("read", False, True, None),
        ("read-replacement", True, True, None),
        ("discard", True, False, None),
        ("discard-replaced", True, False, None),
        ("diff", True, True, None),
        ("extend-parameterize", True, True, None),
        ("create", False, True, "**jack**: new, key"),
        ("import", False, True, "**jack**: new, key"),
        ("delete", True, False, "**jack**: removed"),
        ("update", True, True, "Changed in what this preview does not show: **jack**"),
        ("replace", True, True, "Made anew on the new host: **jack**"),
        ("create-replacement", True, True, "Made anew on the new host: **jack**"),
        ("import-replacement", True, True, "Made anew on the new host: **jack**"),
        ("delete-replaced", True, False, "What an interrupted replacement left is deleted: **jack**"),
        ("remove-pending-replace", True, False, "What an interrupted replacement left is deleted: **jack**"),
        ("teleport", True, True, "Pulumi's operation teleport: **jack**"),
    ],
)
def test_every_op_on_a_user_is_said_or_is_no_change(
    run: Run, op: str, before: bool, after: bool, words: Optional[str]
) -> None:
    done = run(digest(stack(), user(op, "jack", {} if before else None, {} if after else None)))
    if words is None:
        assert "**jack**" not in done.out
        assert "Users: no change." in done.out
    else:
        assert any(line.startswith(words) for line in lines(done)), done.out
        assert "Users: no change." not in done.out


@pytest.mark.parametrize(
    ("op", "before", "after", "words"),
    [
        ("same", True, True, None),
        ("refresh", True, True, None),
        ("read", True, True, None),
        ("create", False, True, "new"),
        ("import", False, True, "taken over as it is"),
        ("delete", True, False, "removed"),
        ("update", True, True, "changed: size 1 → 2"),
        ("replace", True, True, "replaced: size 1 → 2"),
        ("delete-replaced", True, False, "what an interrupted replacement left is deleted"),
        ("teleport", True, True, "Pulumi's operation teleport: size 1 → 2"),
    ],
)
def test_every_op_on_another_resource_is_said_or_is_no_change(
    run: Run, op: str, before: bool, after: bool, words: Optional[str]
) -> None:
    disk = step(op, "x:y:Disk", "big", {"size": 1} if before else None, {"size": 2} if after else None)
    done = run(digest(stack(), disk))
    if words is None:
        assert "Other resources: no change." in done.out
    else:
        assert f"big (`x:y:Disk`): {words}" in lines(done)
        assert "Other resources: 1 change." in done.out


def test_a_replacement_shown_in_detail_is_one_replacement(run: Run) -> None:
    new = {"keys": {"laptop": DESK}}
    made, whole = (user(op, "jack", {}, new) for op in ("create-replacement", "replace"))
    gone = user("delete-replaced", "jack", {}, was={"delete": True})
    done = run(digest(stack(), user("refresh", "jack", {}, {}), made, whole, gone))
    key = f"key laptop now `{mark(DESK)}`, was `{mark(LAPTOP)}`"
    assert f"**jack**: made anew on the new host, {key}" in lines(done)
    assert "Users: 1 changed." in done.out


def test_what_an_interrupted_replacement_left_is_no_removal_of_the_user(run: Run) -> None:
    left = user("delete", "jack", {}, was={"delete": True})
    done = run(digest(stack("jack"), left, hidden=2))
    assert "removed" not in done.out
    assert "What an interrupted replacement left is deleted: **jack**" in lines(done)
    assert done.code == 1


def test_what_a_refresh_finds_gone_is_made_again(run: Run) -> None:
    done = run(digest(stack("jack"), user("delete", "jack", {}), user("create", "jack", after={})))
    assert "Made anew on the new host: **jack**" in lines(done)


def test_a_second_command_of_one_user_is_not_hidden_by_the_first(run: Run) -> None:
    first, second = user("create", "jack", after={}), user("create", "jack", after={})
    second["urn"] += "-too"
    done = run(digest(stack(), first, second))
    assert "jail-jack-too (`command:remote:Command`): new" in lines(done)


# The server


def test_the_jail_s_settings_are_said_in_sshd_s_words(run: Run) -> None:
    before, after = {"umask": "022", "logLevel": "INFO"}, {"umask": "027", "logLevel": "VERBOSE"}
    done = run(digest(stack(), policy_command("update", before, after)))
    assert "sshd: umask 022 → 027" in lines(done)
    assert "sshd: log level `INFO` → `VERBOSE`" in lines(done)
    assert done.code == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"umask": "027"}, {"umask": "022"}),
        ({"umask": "027"}, {"umask": "072"}),
        ({"umask": "027"}, {"umask": "what"}),
        ({}, {"umask": "002"}),
        ({"logLevel": "VERBOSE"}, {"logLevel": "INFO"}),
        ({"siem": {"host": "siem.example.org"}}, {}),
        ({"forceDestroy": False}, {"forceDestroy": True}),
        ({}, {"forceDestroy": True}),
        ({"hardening": True}, {"hardening": False}),
    ],
)
@pytest.mark.parametrize("new", [False, True], ids=["changed", "new"])
def test_a_weaker_setting_of_the_jail_is_warned_of(run: Run, before: Any, after: Any, new: bool) -> None:
    op, was = ("create", None) if new else ("update", before)
    done = run(digest(stack(), policy_command(op, was, {"logLevel": "VERBOSE", **after})))
    weaker_than_default = not (new and after in ({}, {"umask": "022"}, {"umask": "072"}, {"hardening": False}))
    assert ("A weaker setting: " in done.out) == weaker_than_default
    assert done.code == int(weaker_than_default)


def test_a_jail_that_is_new_lists_its_settings_and_one_that_goes_says_so(run: Run) -> None:
    program = {"install.py": "a", "x.py": "b"}
    settings = {"umask": "022", "logLevel": "VERBOSE", "forceDestroy": False, "jailctl": "abc", "owner": "o/p/s"}
    made = [policy_command("create", None, program, "jail-install"), policy_command("create", None, settings)]
    done = run(digest(stack(), *made))
    assert {"jail: jailctl installed", "sshd: umask 022", "sshd: log level `VERBOSE`"} <= set(lines(done))
    assert "o/p/s" not in done.out
    gone = [policy_command("delete", program, None, "jail-install"), policy_command("delete", settings)]
    assert "jail: removed from the server, sshd as it was before" in lines(run(digest(stack(), *gone)))


def test_an_upgrade_of_jailctl_names_the_files_and_not_their_text(run: Run) -> None:
    before = {"install.py": "a", "archive": "e", "x.py": "b", "y.py": "c"}
    after = {"install.py": "a", "archive": "f", "x.py": "B", "z.py": "d"}
    upgrade = policy_command("update", before, after, "jail-install")
    again = policy_command("update", {"jailctl": "abc"}, {"jailctl": "def"})
    done = run(digest(stack(), upgrade, again))
    assert "jail: jailctl upgraded (files `x.py`, `y.py`, `z.py` changed)" in lines(done)
    assert "abc" not in done.out


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "removed from the server, sshd as it was before"),
        ({"deletedWith": MACHINE}, "removed with its host"),
        ({"retainOnDelete": True}, "no longer in the stack, but kept on the server"),
    ],
)
def test_how_a_jail_ends_depends_on_the_host_and_on_what_pulumi_is_told(run: Run, state: Any, words: str) -> None:
    types = "sftp-jail:index:LocalHost$command:local:Command"
    gone = [step("delete", types, "host", command({})), policy_command("delete", {"umask": "022"}, was=state)]
    assert f"jail: {words}" in lines(run(digest(stack(), *gone)))


def test_an_op_that_nobody_has_heard_of_is_shown_of_the_jail_too(run: Run) -> None:
    done = run(digest(stack(), policy_command("teleport", {}, {})))
    assert "jail: Pulumi's operation teleport" in lines(done)


def test_an_unknown_setting_of_the_jail_is_shown(run: Run) -> None:
    done = run(digest(stack(), policy_command("update", {"shells": 1}, {"shells": 2, "banner": "hi"})))
    assert {"jail: banner (none) → hi", "jail: shells 1 → 2"} <= set(lines(done))


def test_a_jail_whose_settings_are_unknown_is_warned_of(run: Run) -> None:
    done = run(digest(stack(), policy_command("update", {}, UNKNOWN)))
    assert "jail: jail-policy changed, which is not readable" in lines(done)
    assert done.code == 1


def test_the_jails_of_a_stack_with_two_are_told_apart(run: Run) -> None:
    second = policy_command("update", {"umask": "022"}, {"umask": "027"}, "b-policy")
    second["oldState"]["parent"] = second["newState"]["parent"] = JAIL.replace("::jail", "::b")
    done = run(digest(stack(), policy_command("update", {"umask": "022"}, {"umask": "077"}), second))
    assert {"sshd (jail): umask 022 → 077", "sshd (b): umask 022 → 027"} <= set(lines(done))


def test_a_replaced_local_host_is_warned_of_with_the_data_on_it_and_takes_its_users_along(run: Run) -> None:
    types = "sftp-jail:index:LocalHost$command:local:Command"
    old, new = ({**(command({"release": name}) or {}), "triggers": [name]} for name in ("trixie", "bookworm"))
    machine = step("replace", types, "host", old, new, reasons=("triggers[0]",))
    on_it = {"deletedWith": MACHINE}
    done = run(digest(stack(), machine, user("replace", "ann", {}, {}), user("delete", "jill", {}, was=on_it)))
    assert "host: replaced: release trixie → bookworm" in lines(done)
    assert {"The host is replaced: host", "Data that will be deleted: uploads on host"} <= set(lines(done))
    assert "**jill**: removed with its host" in lines(done)
    assert "Made anew on the new host: **ann**" in lines(done)
    assert done.code == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("jailctl apply-user # on i-1", "jailctl apply-user # on i-2", "Made anew on the new host: **ann**"),
        ("jailctl apply-user # on i-1", UNKNOWN, "Made anew on the new host: **ann**"),
        (
            "jailctl apply-user # on i-1",
            "jailctl add-user # on i-1",
            "Set up again, since this changes: create: **ann**",
        ),
        ("jailctl apply-user", UNKNOWN, "Set up again, since this changes: create: **ann**"),
    ],
    ids=["another machine", "one that is not there yet", "another verb", "a machine that stays, left for another"],
)
def test_a_user_on_another_machine_is_made_anew(run: Run, old: str, new: str, words: str) -> None:
    change = user("update", "ann", {}, {})
    change["oldState"]["inputs"]["create"], change["newState"]["inputs"]["create"] = old, new
    done = run(digest(stack(), change))
    assert words in lines(done)
    assert "Users: 1 set up again." in done.out


def test_a_user_who_is_removed_while_the_vm_is_replaced_has_his_uploads_archived(run: Run) -> None:
    types = "sftp-jail:index:AwsHost$aws:ec2/instance:Instance"
    vm = step("replace", types, "host", {"ami": "a"}, {"ami": "b"})
    done = run(digest(stack(), vm, user("delete", "jill", {}, was={"deletedWith": vm["urn"]})))
    assert "**jill**: removed; sessions ended, uploads archived" in lines(done)
    assert {"The host is replaced: AWS host (`Instance`)", "AWS host (`Instance`): replaced: ami a → b"} <= set(
        lines(done)
    )
    assert "Data that will be deleted" not in done.out


@pytest.mark.parametrize("op", ["delete", "replace"])
@pytest.mark.parametrize("kept", [False, True], ids=["deleted", "kept"])
def test_a_data_volume_that_goes_is_warned_of_unless_it_is_kept(run: Run, op: str, kept: bool) -> None:
    after = {"size": 21} if op == "replace" else None
    volume = step(
        op, VOLUME, "host", {"size": 20}, after, was={"retainOnDelete": kept}, becomes={"retainOnDelete": kept}
    )
    done = run(digest(stack(), volume))
    assert ("Data that will be deleted" in done.out) == (not kept)
    assert ("but kept" in done.out) == (kept and op == "delete")


def test_a_volume_that_stays_but_is_to_be_deleted_some_day_is_a_weaker_setting(run: Run) -> None:
    volume = step("same", VOLUME, "host", {}, {}, was={"retainOnDelete": True}, becomes={})
    done = run(digest(stack(), volume))
    assert "AWS host (`Volume`): kept when it leaves the stack: no, was yes" in lines(done)
    assert "A weaker setting: AWS host (`Volume`) kept when it leaves the stack: no" in lines(done)


def rule(cidr: Any, description: Any = "SSH for users") -> Step:
    return {"cidrIpv4": cidr, "fromPort": 22, "toPort": 22, "ipProtocol": "tcp", "description": description}


def test_a_port_is_said_to_open_and_to_close(run: Run) -> None:
    old, new = rule("203.0.113.0/24"), rule("198.51.100.0/24")
    assert "AWS: port 22 opened to 203.0.113.0/24 (`SSH for users`)" in lines(
        run(digest(stack(), step("create", INGRESS, "r", None, old)))
    )
    assert "AWS: port 22 closed to 203.0.113.0/24 (`SSH for users`)" in lines(
        run(digest(stack(), step("delete", INGRESS, "r", old)))
    )
    done = run(digest(stack(), step("update", INGRESS, "r", old, new)))
    opened, closed = (f"to {cidr} (`SSH for users`)" for cidr in ("198.51.100.0/24", "203.0.113.0/24"))
    assert f"AWS: port 22 opened {opened}, closed {closed}" in lines(done)
    assert done.code == 0


def test_a_rule_without_ports_is_every_port(run: Run) -> None:
    everything = {"cidrIpv4": "203.0.113.0/24", "ipProtocol": "-1"}
    assert "AWS: every port opened to 203.0.113.0/24" in lines(
        run(digest(stack(), step("create", INGRESS, "r", None, everything)))
    )


def test_a_changed_connection_is_warned_of_since_a_server_that_is_left_keeps_its_logins(run: Run) -> None:
    done = run(digest(stack(), user("update", "ann", {}, {}, reasons=("connection",))))
    assert "Reached in another way; a server that is left keeps its logins: the server" in lines(done)
    assert done.code == 1


# Warnings and policy


@pytest.mark.parametrize(
    ("after", "warning"),
    [
        ({"expires": None}, "Without an end"),
        ({"expires": "2026-12-25"}, "For more than 30 days"),
        ({"expires": "2026-11-23"}, "With an end that is past"),
        ({"expires": "soon"}, "With an end that is not readable"),
        ({"allowFrom": ["10.0.0.0/8", "0.0.0.0/0"]}, "Open to anyone"),
        ({"allowFrom": ["::/0"]}, "Open to anyone"),
        ({"allowFrom": ["0::0/0"]}, "Open to anyone"),
        ({"allowFrom": "0.0.0.0/0"}, "Open to anyone"),
        ({"onRemoval": "delete"}, "Uploads will be deleted with the login"),
        ({"keys": {"a": "ssh-ed25519 !"}}, "With a key that is not readable"),
    ],
)
@pytest.mark.parametrize("op", ["create", "update"])
def test_what_a_user_ought_not_to_have_is_warned_of(run: Run, op: str, after: Any, warning: str) -> None:
    before = {"keys": {"laptop": DESK}} if op == "update" else None
    done = run(digest(stack(), user(op, "jack", before, after)))
    assert f"{warning}: **jack**" in lines(done)
    assert "**1 warning.**" in done.out
    assert done.code == 1


@pytest.mark.parametrize(
    ("limited", "weaker"),
    [
        ({"allowFrom": ["203.0.113.0/24"]}, "from any address"),
        ({"access": "read-only"}, "read-write"),
        ({"quota": "5GiB"}, "without a quota"),
    ],
)
def test_a_limit_that_is_taken_away_is_a_weaker_setting(run: Run, limited: Any, weaker: str) -> None:
    done = run(digest(stack(), user("update", "jack", limited, {})))
    assert f"A weaker setting: **jack** {weaker}" in lines(done)
    assert done.code == 1
    assert run(digest(stack(), user("update", "jack", {}, limited))).code == 0
    same = user("update", "jack", {"access": "read-write"}, {})
    assert run(digest(stack(), same)).code == 0


@pytest.mark.parametrize("end", ["2026-12-24", "2026-11-24", "2026-12-24T23:59:00+14:00"])
def test_a_grant_of_thirty_days_is_not_warned_of(run: Run, end: str) -> None:
    assert run(digest(stack(), user("create", "jack", after={"expires": end}))).code == 0


def test_unchanged_users_with_a_problem_are_counted_and_not_warned_of(run: Run) -> None:
    same = [user("same", name, {"expires": None}, {"expires": None}) for name in ("a", "b")]
    again = user("replace", "c", {"expires": None}, {"expires": None})
    secret = password("same", "a", True, True)
    done = run(digest(stack(), *same, secret, user("same", "d", {}, {}), again, user("create", "new", after={})))
    assert "Unchanged users: 4 (with a password: 1; without an end: 3)" in lines(done)
    assert "Warnings" not in done.out
    assert done.code == 0


def test_unchanged_users_that_are_not_in_the_preview_are_counted_by_the_stack_s_outputs(run: Run) -> None:
    steps = [stack("jack", "jill", "joan"), user("delete", "jill", {})]
    assert "Unchanged users: 2 (what they have is not in this preview" in run(digest(*steps, hidden=4)).out
    del steps[0]["oldState"]["outputs"]
    assert "Unchanged users: not in this preview, made without --show-sames" in run(digest(*steps, hidden=4)).out


@pytest.mark.parametrize("types", [INGRESS, "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"])
def test_a_rule_for_anyone_is_warned_of_and_refused(run: Run, policy: Callable[[str], str], types: str) -> None:
    text = digest(stack(), step("create", types, "r", None, rule("0.0.0.0/0")))
    assert run(text).code == 1
    assert run(text, "--policy", policy("forbidAnyone: true")).code == 2
    six = {**rule(None), "cidrIpv6": "::/0"}
    assert run(digest(stack(), step("update", types, "r", rule("10.0.0.0/8"), six))).code == 1
    assert run(digest(stack(), step("delete", types, "r", rule("0.0.0.0/0")))).code == 0
    unknown = digest(stack(), step("create", types, "r", None, rule(UNKNOWN)))
    assert run(unknown).code == 1
    assert run(unknown, "--policy", policy("forbidAnyone: true")).code == 2


@pytest.mark.parametrize(
    ("types", "inputs", "warned"),
    [
        ("aws:ec2/securityGroup:SecurityGroup", {"ingress": [{"cidrBlocks": ["0.0.0.0/0"]}]}, True),
        ("aws:ec2/securityGroup:SecurityGroup", {"egress": [{"cidrBlocks": ["0.0.0.0/0"]}]}, False),
        ("aws:ec2/securityGroupRule:SecurityGroupRule", {"type": "ingress", "ipv6CidrBlocks": ["::/0"]}, True),
        ("aws:ec2/securityGroupRule:SecurityGroupRule", {"type": "egress", "cidrBlocks": ["0.0.0.0/0"]}, False),
        ("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", {"cidrIpv4": "0.0.0.0/0"}, False),
    ],
)
def test_what_lets_in_is_looked_at_and_what_lets_out_is_not(run: Run, types: str, inputs: Any, warned: bool) -> None:
    assert run(digest(stack(), step("create", types, "g", None, inputs))).code == int(warned)


@pytest.mark.parametrize(
    ("rules", "after", "refused"),
    [
        ("maxDays: 13", {}, False),
        ("maxDays: 12", {}, True),
        ("maxDays: 12", {"expires": None}, True),
        ("maxDays: 12", {"expires": "?"}, True),
        ("requireExpiry: true", {}, False),
        ("requireExpiry: true", {"expires": None}, True),
        ("requireExpiry: true", {"expires": "?"}, True),
        ("requireExpiry: false", {"expires": None}, False),
        ("forbidAnyone: true", {"allowFrom": ["10.0.0.0/8"]}, False),
        ("forbidAnyone: true", {"allowFrom": ["0.0.0.0/0"]}, True),
        ("forbidPasswords: true", {}, False),
    ],
)
def test_the_policy_refuses_what_it_says_and_nothing_else(
    run: Run, policy: Callable[[str], str], rules: str, after: Any, refused: bool
) -> None:
    done = run(digest(stack(), user("create", "jack", after=after)), "--policy", policy(rules))
    assert (done.code == 2) == refused
    assert ("Refused by policy" in done.out) == refused
    same = user("same", "jack", after, after)
    assert run(digest(stack(), same), "--policy", policy(rules)).code == 0


def test_the_policy_refuses_a_password(run: Run, policy: Callable[[str], str]) -> None:
    text = digest(stack(), user("create", "jack", after={}), password("create", "jack", False, True))
    assert run(text).code == 1
    assert run(text, "--policy", policy("forbidPasswords: true")).code == 2


def test_what_the_policy_must_know_and_the_preview_does_not_show_is_refused(
    run: Run, policy: Callable[[str], str]
) -> None:
    key = user("update", "jack", {}, {"keys": {"laptop": DESK}})
    hidden, shown = digest(stack("jack"), key, hidden=3), digest(stack("jack"), key)
    done = run(hidden, "--policy", policy("forbidPasswords: true"))
    assert "Not known without --show-sames: **jack**" in lines(done)
    assert done.code == 2
    assert run(shown, "--policy", policy("forbidPasswords: true")).code == 0
    secret = password("update", "jack", True, True, reasons=("stdin",))
    assert run(digest(stack("jack"), secret, hidden=3), "--policy", policy("maxDays: 30")).code == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "maxDay: 5",
        "forbidPassword: true",
        "maxDays: 0",
        "maxDays: yes",
        "maxDays: '5'",
        "requireExpiry: 1",
        "forbidAnyone:",
        "{",
        "\0",
    ],
)
def test_a_policy_that_is_not_wholly_understood_is_an_error(run: Run, policy: Callable[[str], str], text: str) -> None:
    done = run(digest(stack()), "--policy", policy(text))
    assert (done.code, done.out) == (3, "")
    assert "the policy " in done.err


# Hostile input

HOSTILE = [
    "`rm -rf`",
    "``` \n# heading",
    "a|b",
    "<script>alert(1)</script>",
    "<!-- hidden",
    "@everyone",
    "#123",
    "GH-1",
    "gh-1",
    "a-gh-1",
    "deadbeef",
    "1234567",
    "org/repo#1",
    "[click](https://evil.example)",
    "https://evil.example",
    "www.evil.example",
    "![x](https://evil.example/x.png)",
    "**bold** __x__",
    ":+1:",
    "&#64;everyone",
    "line\nline",
    "- item\r\n- item",
    "tab\tbell\x07esc\x1b[31m",
    "\x9b31m",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "p\u0430ypal",
    "\ud800",
    "\u2028line",
    "**: new, key `SHA256:x` (laptop)",
    "a" * 5000,
    "\u202e" * 5000,
    "",
    " ",
    "\\",
]


def unbroken(text: str, style: str) -> None:
    """Assert that nothing but what a review itself writes is markup."""
    assert all(character.isprintable() or character == "\n" for character in text)
    assert set(text) - {"→"} <= set(map(chr, range(32, 127))) | {"\n"}
    assert max(map(len, text.splitlines())) < 1500
    if style == "markdown":
        for line in text.splitlines():
            assert line.count("`") % 2 == 0
            outside = "".join(line.split("`")[::2])
            assert not set(outside) & set("@#<>[]|&!~\\_"), outside
            assert "://" not in outside
            assert "www." not in outside
            assert not re.search(r"gh-[0-9]|\b[0-9a-f]{7}", outside.lower())
            assert ":+1:" not in outside


@pytest.mark.parametrize("style", ["markdown", "text"])
@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:30])
def test_no_value_breaks_out_of_its_place(run: Run, value: str, style: str) -> None:
    hostile = {
        "username": value,
        "owner": value,
        "keys": {value: LAPTOP, "a": value},
        "allowFrom": [value],
        "access": value,
        "expires": value,
        "quota": value,
        f"{value}x": value,
        "y": {value: [value]},
    }
    steps = [
        stack(value),
        user("create", "a", after=hostile),
        user("delete", "b", hostile),
        user("update", "c", {**hostile, "username": "c"}, {**hostile, "keys": {value: DESK}}),
        user("update", "d", {}, {"owner": value}),
        user("create", f"e{value}", after=value),
        user(f"op{value}", "f", {}, {}),
        policy_command("update", {"umask": value, value: value}, {"umask": "022", "logLevel": value}),
        policy_command("update", {"install.py": "", value: "a"}, {"install.py": ""}, f"{value}-install"),
        policy_command("create", None, UNKNOWN, f"{value}-guard"),
        step("create", INGRESS, value, None, rule(value, value)),
        step("update", f"x:{value}:Y", value, {value: value, "z": value}, {value: 1, "z": f"{value}2"}),
        step("update", "sftp-jail:index:AwsHost$aws:ec2/instance:Instance", value, {"ami": "a"}, {"ami": value}),
    ]
    done = run(digest(*steps), "--format", style)
    assert done.code == 1, done.err
    unbroken(done.out, style)
    assert len([line for line in lines(done) if line.startswith(("sshd: umask", "jail:", "AWS"))]) >= 4


def test_a_value_that_is_empty_is_said_to_be(run: Run) -> None:
    done = run(digest(stack(), user("create", "a", after={"username": "", "access": ""})))
    assert "**(empty)**: new, " in done.out
    assert "access: (empty)" in done.out


def test_a_forged_line_in_a_name_stays_one_line(run: Run) -> None:
    name = "x\n- **jack**: unchanged\n"
    done = run(digest(stack(), user("create", "a", after={"username": name})))
    assert r"**`x\n- **jack**: unchanged\n`**: new" in done.out


def test_text_format_has_no_markup_and_quotes_what_is_no_plain_word(run: Run) -> None:
    done = run(digest(stack(), user("create", "jack", after={"keys": {"a), key b (c": LAPTOP}})), "--format", "text")
    assert f'jack: new, key {mark(LAPTOP)} ("a), key b (c")' in done.out
    assert "`" not in done.out
    assert "*" not in done.out


# What is no review


WHOLE = digest(stack(), user("create", "jack", after={}))


@pytest.mark.parametrize("cut", [1, 10, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_cut_preview_is_an_error_and_no_review(run: Run, cut: int) -> None:
    done = run(WHOLE[:cut])
    assert (done.code, done.out) == (3, "")
    assert "not JSON" in done.err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"steps": None}, "not the whole output"),
        ({"steps": {}}, "not the whole output"),
        ({"changeSummary": None}, "not the whole output"),
        ({"changeSummary": {"create": 2}}, "counts 2 of the operation create, and describes 1"),
        ({"changeSummary": {"create": "2"}}, "no number"),
        ({"changeSummary": {"delete": 1}}, "counts 1 of the operation delete"),
        ({"maybeCorrupt": True}, "corrupt"),
        ({"diagnostics": [{"severity": "error", "message": "error: boo\x1b[31m"}]}, "the preview failed"),
        ({"diagnostics": ["boo"]}, "diagnostics"),
        ({"steps": [{"op": "create"}]}, "no op or no urn"),
        ({"steps": [{"op": "create", "urn": "x"}]}, "no urn of a resource"),
        ({"steps": [{"op": 1, "urn": "a::b::c::d"}]}, "no op or no urn"),
        ({"steps": ["create"]}, "no op or no urn"),
        ({"steps": [step("create", USER, "x")]}, "does not say what"),
        ({"steps": [step("update", USER, "x", None, {})]}, "does not say what"),
        ({"steps": [step("delete", USER, "x")]}, "does not say what"),
        ({"steps": [{**step("create", USER, "x"), "newState": []}]}, "not a map"),
        ({"steps": [step("create", USER, "x", None, {}, becomes={"inputs": [1]})]}, "not a map"),
    ],
)
def test_a_preview_that_is_not_whole_is_an_error_and_no_review(run: Run, change: Any, why: str) -> None:
    done = run(json.dumps({**json.loads(WHOLE), **change}))
    assert (done.code, done.out) == (3, "")
    assert why in done.err
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "null",
        "[]",
        "5",
        "hello",
        WHOLE * 2,
        "[" * 100_000,
        b"\xff\xfe",
        "Previewing update (local):\n" + WHOLE,
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_no_preview_is_an_error_and_no_review(run: Run, text: "str | bytes") -> None:
    done = run(text)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("review: ")


def test_a_warning_of_pulumi_s_is_no_failure(run: Run) -> None:
    whole = {**json.loads(WHOLE), "diagnostics": [{"severity": "warning", "message": "old plugin"}]}
    assert run(json.dumps(whole)).code == 0


def test_a_file_that_is_missing_and_an_option_that_is_wrong_are_3_and_never_2(run: Run, tmp_path: Path) -> None:
    assert run("", str(tmp_path / "none")).code == 3
    assert run(WHOLE, "--policy", str(tmp_path / "none")).code == 3
    assert run(WHOLE, "--today", "tomorrow").code == 3
    assert run(WHOLE, "--format", "html").code == 3
    assert run(WHOLE, "--bogus").code == 3


def test_a_file_is_read_like_standard_input(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "preview.json"
    path.write_text(WHOLE)
    assert run("", str(path)).out == run(WHOLE).out
