"""A stack per contractor: each attached to the host of another, on the real engine."""

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT, Done, Key
from tests.engine.conftest import STACK, Project

CONTRACTORS = [f"contractor{number}" for number in range(10)]


def attach(project: Project, stack: str, username: str, host: str = STACK) -> Key:
    """A stack that is to hold that one user; his key."""
    key = project.key(username, stack)
    # The stack file that is there to be copied, with what everybody has to fill in.
    config = yaml.safe_load((ROOT / "stacks/Pulumi.jack.yaml").read_text())["config"]
    config["sftp-jail:host"]["stack"] = host
    config["sftp-jail:users"] = {username: {"keys": {"laptop": key.public}}}
    project.write(stack, config)
    assert project("stack", "init", stack, "--no-select").code == 0
    return key


def up(project: Project, stack: str) -> Done:
    return project("up", "--yes", "--skip-preview", "--stack", stack)


def destroy(project: Project, stack: str) -> Done:
    return project("destroy", "--yes", "--skip-preview", "--stack", stack)


@pytest.fixture(scope="module")
def staging(project: Project) -> Project:
    """The stack that has the host, with a user of its own."""
    project.user("joan", "laptop")
    project.up()
    return project


def test_a_stack_of_his_own_gives_a_contractor_access_and_its_destroy_ends_it(staging: Project) -> None:
    jack = attach(staging, "jack", "jack")
    done = up(staging, "jack")
    assert done.code == 0, done.out + done.err
    assert staging.sftp("jack", jack, "put /etc/hostname mine").code == 0
    outputs = json.loads(staging("stack", "output", "--json", "--stack", "jack").out)
    argv = outputs["users"]["jack"]["sftp"].split()
    argv[1:1] = ["-i", str(jack.path), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-b", "-"]
    assert "mine" in subprocess.run(argv, input="ls\n", cwd=staging.folder, capture_output=True, text=True).stdout
    # It holds nothing of the host's.
    types = {resource["type"] for resource in _resources(staging, "jack")}
    assert types == {
        "pulumi:pulumi:Stack",
        "pulumi:pulumi:StackReference",
        "pulumi:providers:command",
        "pulumi:providers:pulumi",
        "sftp-jail:index:StackHost",
        "sftp-jail:index:SftpJail",
        "sftp-jail:index:JailUser",
        "command:remote:Command",
    }
    assert destroy(staging, "jack").code == 0
    assert staging.sftp("jack", jack, "ls").code != 0
    assert staging.sftp("joan", staging.key("joan", "laptop"), "ls").code == 0
    assert "uploads/mine" in staging.run("sh", "-c", "tar tf /sftp/archive/jack-*.tar").out


def test_the_administrators_key_is_a_secret_in_every_stack(staging: Project) -> None:
    # By the whole name, as Pulumi Cloud has it.
    attach(staging, "jill", "jill", host=f"organization/sftp-jail/{STACK}")
    assert up(staging, "jill").code == 0
    body = (staging.folder / ".local" / STACK / "keys" / "admin").read_text().splitlines()[2]
    for stack in (STACK, "jill"):
        shown = staging("stack", "output", "--json", "--stack", stack).out
        kept = staging("stack", "export", "--stack", stack).out
        assert body not in shown + kept
    assert destroy(staging, "jill").code == 0


@pytest.mark.case("B 8")
def test_ten_stacks_at_the_same_moment_all_get_in(staging: Project) -> None:
    keys = {name: attach(staging, name, name) for name in CONTRACTORS}
    with ThreadPoolExecutor(len(CONTRACTORS)) as pool:
        for done in pool.map(lambda name: up(staging, name), CONTRACTORS):
            assert done.code == 0, done.out + done.err
        for done in pool.map(lambda name: staging.sftp(name, keys[name], "put /etc/hostname mine"), CONTRACTORS):
            assert done.code == 0, done
    assert staging.check().out == "no difference\n"


def test_a_name_that_another_stack_has_is_refused_by_that_stacks_name(staging: Project) -> None:
    attach(staging, "second", CONTRACTORS[0])
    done = up(staging, "second")
    assert done.code != 0
    assert f"user {CONTRACTORS[0]} belongs to the stack organization/sftp-jail/{CONTRACTORS[0]}" in done.out + done.err
    assert destroy(staging, "second").code == 0
    assert staging.sftp(CONTRACTORS[0], staging.key(CONTRACTORS[0], CONTRACTORS[0]), "ls").code == 0


def test_a_stack_without_a_host_is_named(staging: Project) -> None:
    attach(staging, "lost", "jack", host="second")
    done = up(staging, "lost")
    assert done.code != 0
    assert "The stack organization/sftp-jail/second has no host. Run: pulumi up -s second" in done.out + done.err


def test_the_host_is_not_destroyed_under_attached_stacks_unless_its_config_says_so(staging: Project) -> None:
    before = {resource["urn"] for resource in _resources(staging, STACK)}
    done = destroy(staging, STACK)
    assert done.code != 0
    said = done.out + done.err
    assert all(f"organization/sftp-jail/{name} ({name})" in said for name in CONTRACTORS)
    assert {resource["urn"] for resource in _resources(staging, STACK)} == before
    for name in (CONTRACTORS[0], "joan"):
        key = staging.key(name, "laptop" if name == "joan" else name)
        assert staging.sftp(name, key, "ls").code == 0
    # Only some of them go: that is no reason to let the host go.
    assert destroy(staging, CONTRACTORS[0]).code == 0
    assert destroy(staging, STACK).code != 0

    staging.config["sftp-jail:forceDestroy"] = True
    staging.write()
    staging.up()
    done = destroy(staging, STACK)
    assert done.code == 0, done.out + done.err


def _resources(project: Project, stack: str) -> list[dict]:
    return json.loads(project("stack", "export", "--stack", stack).out)["deployment"].get("resources", [])
