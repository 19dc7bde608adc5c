"""Access that ends, from the stack file to the server, by the real engine."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.engine.conftest import STACK, Project


def limit(project: Project, **limits: object) -> None:
    """Give jack these limits and no others."""
    jack = project.config["sftp-jail:users"]["jack"]
    project.config["sftp-jail:users"]["jack"] = {"keys": jack["keys"], **limits}
    project.write()


def record(project: Project) -> dict:
    return json.loads(project.run("cat", "/sftp/state/users/jack.json").out)


def test_a_date_without_quotes_in_the_stack_file_is_a_whole_day(project: Project) -> None:
    key = project.user("jack", "laptop")["laptop"]
    path = project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
    head = path.read_text().split("config:")[0]
    path.write_text(f"""\
{head}config:
  sftp-jail:host: {{kind: local}}
  sftp-jail:users:
    jack:
      keys: {{laptop: '{key.public}'}}
      expires: 2199-12-07
""")
    assert '"2199-12-07"' in project.preview("--diff")
    project.up()
    assert record(project)["expires"] == "2199-12-07"
    assert project.sftp("jack", key, "ls").code == 0


def test_the_preview_of_another_end_shows_the_two_dates(project: Project) -> None:
    project.user("jack", "laptop")
    limit(project, expires="2199-12-07")
    project.up()
    limit(project, expires="2199-12-31T18:00:00+01:00")
    assert '"2199-12-07" => "2199-12-31T17:00:00Z"' in project.preview("--diff")


@pytest.mark.parametrize(
    ("days", "words"),
    [
        pytest.param(0, "today, and the rest of a day", marks=pytest.mark.case("C 30"), id="today"),
        pytest.param(-1, "in the past", marks=pytest.mark.case("C 31"), id="yesterday"),
    ],
)
def test_an_end_that_is_not_ahead_is_refused_before_anything_is_made(project: Project, days: int, words: str) -> None:
    keys = project.user("jack", "laptop")
    limit(project, expires="2199-12-07")
    project.up()
    before = record(project)
    expires = (datetime.now(timezone.utc) + timedelta(days=days)).date().isoformat()
    project.user("jill", "laptop")
    for verb in (["preview"], ["up", "--yes"], ["up", "--yes", "--skip-preview"]):
        limit(project, expires=expires)
        done = project(*verb)
        assert done.code != 0
        assert f"jail-jack.user.expires: '{expires}': {words}" in done.out + done.err
        assert record(project) == before
    assert project.sftp("jack", keys["laptop"], "ls").code == 0
    project.drop("jill")


def test_who_has_expired_does_not_stop_the_changes_of_others_nor_a_new_machine(
    project: Project, tmp_path: Path
) -> None:
    his = project.user("jack", "laptop")["laptop"]
    ahead, past = "2199-12-07T18:00:00Z", "2001-12-07T18:00:00Z"
    limit(project, expires=ahead)
    project.up()
    assert project.sftp("jack", his, "ls").code == 0
    # As if it had been set long ago: the state says so, and the server does.
    exported = tmp_path / "state.json"
    exported.write_text(project("stack", "export").out.replace(ahead, past))
    assert project("stack", "import", "--file", str(exported)).code == 0
    assert project.run("sed", "-i", f"s/{ahead}/{past}/", "/sftp/state/users/jack.json").code == 0
    assert project.run("/usr/local/sbin/jailctl", "repair").code == 0
    limit(project, expires=past)
    hers = project.user("jill", "laptop")["laptop"]
    project.up()
    assert project.sftp("jill", hers, "ls").code == 0
    project.config["sftp-jail:host"]["release"] = "bookworm"
    project.write()
    project.up()
    assert project.sftp("jack", his, "ls").code != 0
    assert project.sftp("jill", hers, "ls").code == 0
    assert project.check().code == 0
