"""The scripts that GitHub's workflow runs: which stacks, and a comment that nobody can take for another."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT, Done, call

PULUMI = """#!/bin/sh
# A stand-in for pulumi: what it is to say is in files, by the last argument.
for last; do :; done
cat "$(dirname "$0")/said$last"
"""

REVIEW = """# A stand-in for the review: its status and its text are in a file.
import sys
sys.stdin.read()
status, _, text = open("review").read().partition(" ")
print(text, end="")
sys.exit(int(status))
"""


def git(*argv: str) -> str:
    """Run git in the project."""
    me = ["-c", "user.name=Zoe", "-c", "user.email=zoe@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.check_output(["git", *me, *argv], text=True).strip()


def write(**hosts: Any) -> None:
    """Write a stack file for each, with that host; None: there is none."""
    Path("stacks").mkdir(exist_ok=True)
    for stack, host in hosts.items():
        file = Path(f"stacks/Pulumi.{stack}.yaml")
        if host is None:
            file.unlink()
        else:
            file.write_text(json.dumps({"config": {"sftp-jail:host": host}}))


EXISTING = {"kind": "existing"}


def attached(stack: str) -> dict[str, str]:
    """A host that is another stack's."""
    return {"kind": "stack", "stack": stack}


@pytest.fixture
def repository() -> str:
    """Two stacks with hosts, and one attached to the second; the commit that has them."""
    write(aaa=attached("acme/sftp/staging"), shared=EXISTING, staging={"kind": "aws"}, laptop={"kind": "local"})
    git("init", "--quiet")
    return commit()


def commit() -> str:
    """Commit everything."""
    git("add", "--all")
    git("commit", "--quiet", "--allow-empty", "--message", "A change")
    return git("rev-parse", "HEAD")


def stacks(*argv: str) -> Done:
    """Run ci/stacks.py."""
    return call(sys.executable, ROOT / "ci/stacks.py", *argv)


def names(*argv: str) -> list[str]:
    """The stacks that it prints."""
    done = stacks(*argv)
    assert done.code == 0, done
    return done.out.splitlines()


def test_a_stack_comes_after_the_one_it_is_attached_to_and_a_local_one_is_left_out(repository: str) -> None:
    found = names()
    assert sorted(found) == ["aaa", "shared", "staging"]
    assert found.index("staging") < found.index("aaa")
    assert "laptop: left out" in stacks().err


def test_a_change_concerns_the_stack_and_those_attached_to_it(repository: str) -> None:
    write(shared={"kind": "existing", "port": 23})
    after = commit()
    assert names("--since", repository) == ["shared"]
    write(staging={"kind": "aws", "region": "eu-west-1"})
    commit()
    assert names("--since", after) == ["staging", "aaa"]
    assert sorted(names("--since", repository)) == ["aaa", "shared", "staging"]


@pytest.mark.parametrize("path", ["sftp_jail/hostside/keys.py", "__main__.py", "Pulumi.yaml", "requirements.txt"])
def test_a_change_of_the_program_concerns_every_stack(repository: str, path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("changed")
    commit()
    assert len(names("--since", repository)) == 3


def test_a_change_of_anything_else_concerns_none(repository: str) -> None:
    Path("README.md").write_text("changed")
    Path("other").mkdir()
    Path("other/__main__.py").write_text("changed")
    commit()
    assert names("--since", repository) == []


@pytest.mark.parametrize("since", ["", "0" * 40, "--help", "no-such-branch"])
def test_where_the_commit_is_unknown_every_stack_is_concerned(repository: str, since: str) -> None:
    assert len(names(f"--since={since}")) == 3


def test_a_removed_or_renamed_stack_is_named_only_where_that_is_asked_for(repository: str) -> None:
    Path("stacks/Pulumi.shared.yaml").rename("stacks/Pulumi.ours.yaml")
    commit()
    assert names("--since", repository) == ["ours"]
    assert names("--since", repository, "--removed") == ["ours", "shared"]


@pytest.mark.parametrize("name", ["a b", "-s", "x;id", "$(id)", "a\nb", "jäck"])
def test_a_file_whose_name_is_no_stacks_is_refused(repository: str, name: str) -> None:
    Path(f"stacks/Pulumi.{name}.yaml").write_text("config: {}")
    done = stacks()
    assert (done.code, done.out) == (1, "")
    assert "is no stack's file" in done.err
    assert "Traceback" not in done.err


def test_stacks_that_are_attached_to_each_other_are_refused(repository: str) -> None:
    write(staging=attached("aaa"))
    done = stacks()
    assert (done.code, done.out) == (1, "")
    assert "attached to each other" in done.err


def test_a_stack_file_that_is_no_yaml_is_left_to_pulumi_to_explain(repository: str) -> None:
    Path("stacks/Pulumi.shared.yaml").write_text("config: [\n\0")
    assert "shared" in names()


@pytest.fixture
def project() -> Path:
    """A project with one stack, and what pulumi and the review are to say."""
    write(shared=EXISTING)
    said = {"said--diff": "+ a user", "said--show-sames": "{}", "said--json": "[]", "review": "0 Jack gains access.\n"}
    for name, text in said.items():
        Path(name).write_text(text)
    Path("sftp_jail").mkdir()
    Path("sftp_jail/__main__.py").write_text(REVIEW)
    Path("pulumi").write_text(PULUMI)
    Path("pulumi").chmod(0o755)
    return Path()


def preview(stack: str = "shared") -> Done:
    """Run ci/preview.py."""
    env = {**os.environ, "PATH": f"{Path().absolute()}:{os.environ['PATH']}"}
    return call(sys.executable, ROOT / "ci/preview.py", stack, env=env)


def test_the_review_is_above_the_diff(project: Path) -> None:
    done = preview()
    assert done.code == 0
    assert done.out == (
        "### Stack `shared`\n\nJack gains access.\n\n<details><summary>pulumi preview --diff</summary>\n\n"
        "```\n+ a user\n```\n\n</details>\n"
    )


@pytest.mark.parametrize(("status", "code"), [(0, 0), (1, 0), (2, 1)])
def test_a_warning_passes_and_a_refusal_does_not(project: Path, status: int, code: int) -> None:
    Path("review").write_text(f"{status} Jack gains access.")
    done = preview()
    assert done.code == code
    assert "Jack gains access." in done.out


@pytest.mark.parametrize("said", ["3 Jack gains access.", "1 ", "0 "])
def test_no_review_is_no_pass(project: Path, said: str) -> None:
    Path("review").write_text(said)
    done = preview()
    assert done.code == 1
    assert "could not be reviewed" in done.out
    assert "Jack" not in done.out


def test_a_diff_that_is_too_long_is_cut_and_the_review_is_not(project: Path) -> None:
    review = "Jack gains access.\n" * 3000
    Path("review").write_text(f"0 {review}")
    Path("said--diff").write_text("+ a user\n" * 10_000)
    done = preview()
    assert done.code == 0
    assert review.rstrip() in done.out
    assert "[cut here: the run's log has all 90000 characters]\n```\n\n</details>" in done.out
    assert 60_000 < len(done.out) < 65_000
    assert done.err.count("+ a user") == 10_000


def test_a_review_that_is_too_long_is_not_shown_in_part(project: Path) -> None:
    Path("review").write_text("0 " + "Jack gains access.\n" * 4000)
    done = preview()
    assert done.code == 1
    assert "longer than a comment can be" in done.out
    assert "Jack" not in done.out
    assert done.err.count("Jack gains access.") == 4000


def test_a_diff_cannot_end_its_block_and_go_on_as_a_review(project: Path) -> None:
    Path("said--diff").write_text("`````\n\n</details>\n\nNo changes.\n```")
    lines = preview().out.splitlines()
    first = lines.index("``````")
    assert lines[first + 1 :] == ["`````", "", "</details>", "", "No changes.", "```", "``````", "", "</details>"]


def test_a_preview_that_fails_shows_the_end_of_what_was_said(project: Path) -> None:
    Path("pulumi").write_text("#!/bin/sh\n# A stand-in for pulumi, which fails.\nseq 100000; echo why >&2; exit 255\n")
    done = preview()
    assert done.code == 1
    assert "The preview failed" in done.out
    assert "\nwhy\n```" in done.out
    assert len(done.out) < 65_000
    assert "Jack" not in done.out


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ([], 0),
        ([{"name": "gone", "resourceCount": 0}], 0),
        ([{"name": "gone", "resourceCount": 3}], 1),
        ([{"name": "acme/gone", "resourceCount": 3}], 1),
        ([{"name": "gone"}], 1),
    ],
)
def test_a_stack_whose_file_is_removed_must_be_gone(project: Path, known: list[object], code: int) -> None:
    Path("said--json").write_text(json.dumps(known))
    done = preview("gone")
    assert done.code == code
    assert ("pulumi destroy -s gone" in done.out) == (code == 1)


# The workflow itself


WORKFLOW = (ROOT / ".github/workflows/stacks.yml").read_text()


def test_nothing_of_a_pull_request_runs_with_more_than_its_own_rights() -> None:
    workflow = yaml.safe_load(WORKFLOW)
    # YAML 1.1 takes `on` for true.
    assert set(workflow[True]) == {"pull_request", "push", "schedule"}
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    writers = {name for name, job in jobs.items() if "write" in job.get("permissions", {}).values()}
    assert writers == {"preview"}
    assert jobs["preview"]["permissions"] == {"contents": "read", "pull-requests": "write"}
    # The administrator's key is for those jobs alone that no pull request starts.
    with_key = {name for name, job in jobs.items() if "SSH_PRIVATE_KEY" in str(job)}
    assert with_key == {"deploy", "check"}
    assert "${{" not in str(jobs["fork"])


def test_no_two_changes_are_made_at_once_and_none_is_broken_off() -> None:
    assert yaml.safe_load(WORKFLOW)["jobs"]["deploy"]["concurrency"] == {"group": "deploy", "cancel-in-progress": False}
