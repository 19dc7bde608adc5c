"""From the first `up` to the second `destroy`, on the real engine and a real server; the tests follow each other."""

import json
import random
import re
import signal
import subprocess
import time

import pytest

from tests.conftest import Key
from tests.engine.conftest import STACK, Project
from tests.hostside.faults.rounds import EVERY_STEP


def resources_changed(project: Project) -> set[str]:
    """As JSON says it: the resources that a preview would touch."""
    steps = json.loads(project.preview("--json"))["steps"]
    return {step["urn"].rsplit("::", 1)[1] for step in steps if step["op"] != "same"}


def resources_kept(project: Project) -> list[dict[str, object]]:
    """What the state has."""
    resources: list[dict[str, object]] = json.loads(project("stack", "export", "--show-secrets").out)["deployment"][
        "resources"
    ]
    return resources


def test_up_makes_a_host_and_a_user_who_can_log_in(project: Project) -> None:
    keys = project.user("jack", "laptop", "desktop")
    project.up()
    assert project.sftp("jack", keys["laptop"], "put /etc/hostname a").code == 0
    assert project.sftp("jack", keys["desktop"], "ls a").code == 0
    assert project.check().out == "no difference\n"


def test_a_user_is_little_to_keep_since_all_of_the_state_is_written_anew_for_each_of_them(project: Project) -> None:
    jack = [kept for kept in resources_kept(project) if str(kept["urn"]).endswith("::jail-jack")]
    assert [kept["type"] for kept in jack] == ["sftp-jail:index:JailUser", "command:remote:Command"]
    assert not any("stackTrace" in kept for kept in jack)
    # Half of it is the connection, with the administrator's key, which the state has twice.
    assert sum(len(json.dumps(kept)) for kept in jack) < 4500


def test_a_second_up_and_a_preview_change_nothing_and_open_no_connection(project: Project) -> None:
    before = project.connections()
    assert resources_changed(project) == set()
    assert "unchanged" in project.up().out
    assert resources_changed(project) == set()
    assert project.connections() == before


def test_adding_jill_names_her_resources_alone_and_opens_one_connection(project: Project) -> None:
    keys = project.user("jill", "laptop")
    touched = resources_changed(project)
    assert touched == {"jail-jill"}
    before = project.connections()
    project.up()
    assert project.connections() == before + 1
    assert project.sftp("jill", keys["laptop"], "put /etc/hostname b").code == 0


def test_rotating_a_key_shows_that_key_alone_and_disturbs_nobody(project: Project) -> None:
    users = project.config["sftp-jail:users"]
    old = project.key("jack", "laptop")
    new = project.key("jack", "laptop-new")
    users["jack"]["keys"]["laptop"] = new.public
    project.write()
    diff = project.preview("--diff")
    assert new.public.split()[1] in diff
    assert "jail-jill" not in diff
    assert resources_changed(project) == {"jail-jack"}
    project.up()
    assert project.sftp("jack", old, "ls").code != 0
    assert project.sftp("jack", new, "ls").code == 0
    assert project.sftp("jack", project.key("jack", "desktop"), "ls").code == 0
    assert project.sftp("jill", project.key("jill", "laptop"), "ls").code == 0


def test_removing_jack_ends_his_session_keeps_his_uploads_and_spares_jills(project: Project) -> None:
    jack, jill = project.key("jack", "laptop-new"), project.key("jill", "laptop")
    sessions = [
        subprocess.Popen(project.sftp_argv(name, key), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, key in (("jack", jack), ("jill", jill))
    ]
    for session in sessions:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write("pwd\n")
        session.stdin.flush()
        assert session.stdout.readline() == "sftp> pwd\n"
        assert "/uploads" in session.stdout.readline()
    project.drop("jack")
    project.up()
    sessions[0].communicate("put /etc/hostname too-late\n", timeout=20)
    assert sessions[0].returncode != 0
    out, _ = sessions[1].communicate("ls\n", timeout=20)
    assert "b" in out.split()
    assert sessions[1].returncode == 0
    assert project.sftp("jack", jack, "ls").code != 0
    listing = project.run("sh", "-c", "stat -c '%U %a' /sftp/archive/jack-*.tar && tar tf /sftp/archive/jack-*.tar")
    assert listing.out.splitlines() == ["root 600", "uploads/", "uploads/a"]


def test_a_drop_in_that_breaks_sshd_fails_the_up_and_leaves_sshd_alone(project: Project) -> None:
    project.run("tee", "/etc/ssh/sshd_config.d/99-broken.conf", stdin="Nonsense yes\n")
    before = project.run("systemctl", "show", "-p", "MainPID,StateChangeTimestamp", "ssh").out
    project.config["sftp-jail:logLevel"] = "INFO"
    project.write()
    done = project("up", "--yes", "--skip-preview")
    project.run("rm", "/etc/ssh/sshd_config.d/99-broken.conf")
    assert done.code != 0
    assert "Bad configuration option: Nonsense" in done.out + done.err
    assert project.run("systemctl", "show", "-p", "MainPID,StateChangeTimestamp", "ssh").out == before
    assert project.sftp("jill", project.key("jill", "laptop"), "ls").code == 0
    project.up()
    assert project.check().out == "no difference\n"


@pytest.mark.more
def test_up_killed_at_a_random_moment_converges_after_cancel(project: Project) -> None:
    """In turns while everything is made, the machine included, and while a user and the policy change."""
    whole = [prepare(project, number) and lines_of(project.up().out) for number in (0, 1)]
    kills = 10 if EVERY_STEP else 4
    killed = 0
    for number in range(kills):
        key = prepare(project, number)
        # Each part of the run has its kill; counted in lines of progress, so that it is so on any computer.
        killed += kill_up(project, after=int((number + random.random()) / kills * whole[number % 2]))
        assert project("cancel", "--yes").code == 0
        project.up()
        assert project.sftp("jack", key, "ls").code == 0
        assert project.check().out == "no difference\n"
    assert killed >= kills - 2, "most runs had ended before they were killed"


def prepare(project: Project, number: int) -> Key:
    """Something for `up` to do: everything for an even number, else a new key, its user and a change of the policy."""
    if number % 2 == 0:
        assert project("destroy", "--yes", "--skip-preview").code == 0
    project.config["sftp-jail:umask"] = "022" if number % 4 < 2 else "027"
    return project.user("jack", f"key{number}")[f"key{number}"]


def lines_of(progress: str) -> int:
    """How many lines there are up to the last resource."""
    return len(progress[: progress.index("Outputs:")].splitlines())


def kill_up(project: Project, after: int) -> bool:
    """Start `up` and kill it a moment after so many lines; False if it had ended by then."""
    argv = [project.pulumi, "--non-interactive", "-C", str(project.folder), "up", "--yes", "--skip-preview"]
    with subprocess.Popen(argv, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        for _ in range(after):
            running.stdout.readline()
        time.sleep(random.random() / 10)
        running.kill()
    return running.returncode == -signal.SIGKILL


def test_six_faults_are_one_error_that_lists_them_all_and_nothing_is_made(project: Project) -> None:
    good = dict(project.config)
    before = resources_kept(project)
    key, other = project.key("jill", "laptop").public, project.key("zoe", "laptop").public
    project.config = {
        **good,
        "sftp-jail:users": {
            "Bob": {"keys": {"a": key}},
            "joan": {"keys": {"a": "ssh-dss AAAA"}},
            "ann": {},
            "zoe": {"keys": {"a": other}, "quota": "5GiB"},
        },
        "sftp-jail:umask": "999",
        "sftp-jail:logLevl": "INFO",
    }
    project.write()
    done = project("up", "--yes", "--skip-preview")
    project.config = good
    project.write()
    assert done.code != 0
    text = done.out + done.err
    for words in ("users.Bob", "users.joan.keys.a", "users.ann", "users.zoe.quota", "umask", "logLevl"):
        assert words in text, text
    assert "Traceback" not in text
    assert resources_kept(project) == before


@pytest.mark.case("C 17")
def test_a_name_that_is_in_the_stack_file_twice_is_refused(project: Project) -> None:
    before = resources_kept(project)
    path = project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
    good = path.read_text()
    key, other = project.key("jill", "laptop").public, project.key("zoe", "laptop").public
    path.write_text(f"""\
{good.split("config:")[0]}config:
  sftp-jail:users:
    jill: {{keys: {{laptop: {key}}}}}
    jill: {{keys: {{laptop: {other}}}}}
""")
    done = project("up", "--yes", "--skip-preview")
    path.write_text(good)
    assert done.code != 0
    assert re.search(r'"?jill"? already (defined|set)', done.out + done.err), done
    assert resources_kept(project) == before


def test_destroy_twice_in_a_row_succeeds_and_leaves_no_machine(project: Project) -> None:
    for _ in range(2):
        done = project("destroy", "--yes", "--skip-preview")
        assert done.code == 0, done.out + done.err
    assert project.run("true").code != 0
