"""What README.md tells a newcomer to type, typed."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Done, call, neighbour, processes_naming
from tests.engine.conftest import STACK, Project


class Clone:
    """A copy of what is in the checkout now, as `git clone` would give it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True)
        for name in filter(None, listed.split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)

    def make(self, target: str) -> Done:
        """Run a target of the Makefile."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        return call("make", "-C", self.folder, target, env={**env, "SFTP_JAIL_UNTIL_PID": str(os.getpid())})


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone, and nothing of it is left running."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    yield clone
    assert clone.make("down").code == 0


@pytest.fixture(scope="module")
def demo(clone: Clone) -> str:
    """What `make demo` says."""
    done = clone.make("demo")
    assert done.code == 0, done.out + done.err
    return done.out


@pytest.mark.more
def test_the_aws_stack_is_shown_from_up_to_destroy_and_leaves_nothing(clone: Clone) -> None:
    done = clone.make("demo-aws")
    assert done.code == 0, done.out + done.err
    stops = [part for part in done.out.split("\n== ") if "sftp> ls -l" in part]
    assert len(stops) == 2, "on the first VM, and on the one that replaced it"
    assert all("report.txt" in part for part in stops)
    assert re.search("The data volume vol-[0-9a-f]+ stays in the account", done.out)
    assert not (clone.folder / ".local" / "demo-aws").exists()
    assert processes_naming(clone.folder) == []


def stop(demo: str, title: str) -> str:
    """One stop of the tour."""
    found = re.search(rf"^== {re.escape(title)}[^\n]*\n(.*?)(?=^== |\Z)", demo, re.DOTALL | re.MULTILINE)
    assert found, demo
    return found[1]


def test_the_tour_uploads_lists_and_renames(demo: str) -> None:
    said = stop(demo, "jack uploads")
    assert re.search(r"-rw-\S+ .* 18 .* draft\.txt\n", said)
    assert re.search(r"-rw-\S+ .* 18 .* report\.txt\n", said)


def test_the_tour_shows_each_refusal_in_the_servers_words(demo: str) -> None:
    assert "This service allows sftp connections only." in stop(demo, "jack tries a shell")
    said = stop(demo, "jack tries the host's files")
    assert 'File "/etc/passwd" not found.' in said
    assert 'Can\'t ls: "/sftp/jail/jill/uploads" not found' in said
    assert 'remote mkdir "/etc": Permission denied' in said
    assert "stdio forwarding failed" in stop(demo, "jack tries a tunnel")


def test_the_timeline_has_jacks_name_on_every_line_and_his_key_and_the_whole_upload(demo: str) -> None:
    lines = stop(demo, "what the server says").strip().splitlines()
    assert all(re.match(r" *\S+Z +jack[ \[]", line) for line in lines), lines
    for words in (
        r" login +from 10\.213\.\S+ port \d+, key \S+ \(ED25519 SHA256:",
        r' open +ok +"/uploads/draft\.txt" +flags WRITE,CREATE,TRUNCATE',
        r' close +ok +up 18 +"/uploads/draft\.txt"',
        r' posix-rename +ok +"/uploads/draft\.txt" -> "/uploads/report\.txt"',
        r' mkdir +denied +"/etc" +mode 0777, Permission denied',
    ):
        assert any(re.search(words, line) for line in lines), (words, lines)


def test_what_the_tour_says_to_type_next_works(clone: Clone, demo: str) -> None:
    commands = dict(re.findall(r"^  ([a-z ]+): +(\S.*)$", stop(demo, "what to type next"), re.MULTILINE))
    login = commands["log in as jack"].replace("sftp ", "sftp -b - ", 1)
    done = call("sh", "-c", f"cd {clone.folder} && echo ls | {login}")
    assert "report.txt" in done.out, done
    done = call("sh", "-c", f"cd {clone.folder} && {commands['see what would change']}")
    assert "unchanged" in done.out, done
    done = call("sh", "-c", f"cd {clone.folder} && {commands['see it as a page']} && cat timeline.html")
    assert done.out.startswith("<!DOCTYPE html>"), done
    follow = commands["follow the log"].replace("tail -f", "tail -n 1")
    assert "jack" in call("sh", "-c", f"cd {clone.folder} && {follow}").out


def test_a_second_demo_changes_nothing_and_tours_again(clone: Clone, demo: str) -> None:
    done = clone.make("demo")
    assert done.code == 0, done.out + done.err
    assert re.search(r"Resources:\n +\d+ unchanged\n", done.out)
    assert "report.txt" in stop(done.out, "jack uploads")


def test_make_down_leaves_nothing_and_may_be_typed_twice(clone: Clone, demo: str) -> None:
    address = re.search(r'address *: "(10\.213\.[0-9.]+)"', demo)
    assert address
    gateway = neighbour(address[1])
    assert f" {gateway}/" in call("ip", "-o", "-4", "addr").out
    assert processes_naming(clone.folder)
    for _ in range(2):
        done = clone.make("down")
        assert done.code == 0, done.out + done.err
    assert f" {gateway}/" not in call("ip", "-o", "-4", "addr").out
    assert processes_naming(clone.folder) == []
    assert str(clone.folder) not in Path("/proc/mounts").read_text()
    assert not (clone.folder / ".local" / STACK).exists()


def blocks(language: str) -> list[str]:
    """The examples of README.md in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_readmes_stack_file_makes_its_user(project: Project) -> None:
    text, jack, siem = blocks("yaml")
    text = text.replace("  sftp-jail:users:\n", f"  sftp-jail:users:\n{jack}") + siem
    for name in ("joan", "jack"):
        public = project.key(name, "laptop").public
        text, count = re.subn(rf"ssh-ed25519 \S+ {name}@laptop", f"{public} {name}@laptop", text)
        assert count == 1
    path = project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
    salt = [line for line in path.read_text().splitlines() if line.startswith("encryptionsalt")]
    path.write_text("\n".join([*salt, text]))
    refused = project("preview")
    assert refused.code != 0
    assert "users.jack.quota" in refused.out + refused.err
    without, count = re.subn(r" +quota: .*\n", "", text)
    assert count == 1
    path.write_text("\n".join([*salt, without]))
    project.up()
    assert project.sftp("joan", project.key("joan", "laptop"), "put /etc/hostname").code == 0
    assert project.sftp("jack", project.key("jack", "laptop"), "ls").code != 0, "he may come from 203.0.113.0/24 alone"
    assert project.run("systemctl", "is-active", "sftp-jail-siem.service").out == "active\n"
    assert project.check().code == 0


def test_the_readmes_program_makes_the_same_resources(project: Project) -> None:
    [text] = blocks("python")
    key = project.key("joan", "laptop")
    text, count = re.subn(r"ssh-ed25519 AAAA\.\.\.", key.public, text)
    assert count == 1
    (project.folder / "__main__.py").write_text(text)
    steps = json.loads(project.preview("--json"))["steps"]
    changed = {step["urn"].rsplit("::", 1)[1] for step in steps if step["op"] != "same"}
    assert "jail-joan" not in changed, changed
