"""GitHub's workflow, its steps run as GitHub's runner runs them: on real pull requests, for a real server.

What `uses` brings is replaced by what it provides; GitHub itself, which `gh` speaks to, is a stand-in.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT, Key, Machine, call, make_key
from tests.engine.test_newcomer import Clone

pytestmark = pytest.mark.more

PASSPHRASE = "recognisable-passphrase-4711"
TOKEN = "recognisable-token-4712"

GH = '''#!/usr/bin/env python3
"""A stand-in for GitHub's `gh`: it keeps the comments of one pull request in a folder, and knows one run."""

import json, os, sys
from pathlib import Path

folder = Path(__file__).parent
if not os.environ.get("GH_TOKEN"):
    sys.exit("gh: set GH_TOKEN")
if sys.argv[1:3] == ["run", "list"]:
    print((folder / "last-success").read_text() if (folder / "last-success").exists() else "")
    sys.exit()
file = folder / "comments.json"
comments = json.loads(file.read_text()) if file.exists() else []
path, options = sys.argv[2].removeprefix("repos/owner/project/issues/"), sys.argv[3:]
if "--method" not in options:
    assert path == "1/comments?per_page=100" and options == ["--paginate", "--slurp"], sys.argv
    print(json.dumps([[comment] for comment in comments]))
    sys.exit()
assert options[-2:] == ["--input", "-"], sys.argv
body = json.load(sys.stdin)["body"]
if len(body) > 65536:
    sys.exit("gh: Body is too long (maximum is 65536 characters) (HTTP 422)")
if options[:2] == ["--method", "POST"] and path == "1/comments":
    comments.append({"id": len(comments), "user": {"login": "github-actions[bot]"}, "body": body})
elif options[:2] == ["--method", "PATCH"] and path.startswith("comments/"):
    comments[int(path.removeprefix("comments/"))]["body"] = body
else:
    sys.exit(f"gh: Not Found (HTTP 404): {sys.argv}")
file.write_text(json.dumps(comments))
print("{}")
'''


class Ran(NamedTuple):
    """A job that is over: whether it went well, and its log."""

    ok: bool
    log: str


class Runner:
    """GitHub's runner, as far as the workflow needs it, and the repository that it works on."""

    def __init__(self, folder: Path, secrets: Mapping[str, str]) -> None:
        ready = json.loads(subprocess.check_output([ROOT / "toolchain" / "setup", "--for", "test", "--print-env"]))
        self.folder = folder
        self.origin = folder / "origin"
        self.origin.mkdir()
        Clone(self.origin)
        for file in self.origin.glob("stacks/*"):
            if "kind: local" not in file.read_text():
                file.unlink()
        self.python = Path(ready["python"])
        (self.origin / "venv").symlink_to(self.python.parent.parent)
        self.secrets = secrets
        self.backend = f"file://{folder}/state?metadata=skip"
        (folder / "state").mkdir()
        self.gh = folder / "gh"
        self.gh.mkdir()
        (self.gh / "gh").write_text(GH)
        (self.gh / "gh").chmod(0o755)
        self.env = {
            **{name: value for name, value in ready["env"].items() if name not in ("PATH", *self.stack_env())},
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GITHUB_REPOSITORY": "owner/project",
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_RUN_ID": "42",
            "GITHUB_REF_NAME": "main",
            "GITHUB_WORKFLOW": "stacks",
        }
        self.pulumi = Path(ready["pulumi"])
        self.logs: list[str] = []
        self.git("init", "--quiet", "--initial-branch=main")

    def stack_env(self) -> dict[str, str]:
        """What whoever makes a stack by hand has set."""
        return {"PULUMI_BACKEND_URL": self.backend, "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}

    def git(self, *argv: str) -> str:
        """Run git in the repository."""
        me = ["-c", "user.name=Zoe", "-c", "user.email=zoe@example.org"]
        return subprocess.check_output(["git", "-C", self.origin, *me, *argv], text=True).strip()

    def write_stack(self, stack: str, config: Mapping[str, Any]) -> None:
        """Write a stack's file; the stack is made if there is none."""
        path = self.origin / f"stacks/Pulumi.{stack}.yaml"
        if not path.exists():
            argv = [str(self.pulumi), "-C", str(self.origin), "stack", "init", stack]
            subprocess.run(argv, env={**self.env, **self.stack_env()}, check=True, capture_output=True)
        [salt] = [line for line in path.read_text().splitlines() if line.startswith("encryptionsalt")]
        path.write_text(f"{salt}\nconfig: {json.dumps(config)}\n")

    def commit(self, branch: str) -> None:
        """Commit everything, on a branch that begins at main if it is new."""
        if branch != self.git("branch", "--show-current"):
            self.git("checkout", "--quiet", "-B", branch)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")

    def push(self) -> Ran:
        """What happens once something is on main."""
        return self.event("push", "deploy", ref="refs/heads/main")

    def pull_request(self, head_repository: str = "owner/project") -> Ran:
        """What happens when the branch that is checked out is a pull request's, and something is pushed to it."""
        sha = self.git("rev-parse", "HEAD")
        tree = self.git("merge-tree", "--write-tree", "main", sha)
        merge = self.git("commit-tree", "-p", "main", "-p", sha, "-m", "The merge", tree)
        self.git("update-ref", "refs/pull/1/merge", merge)
        head = {"sha": sha, "repo": {"full_name": head_repository}}
        job = "preview" if head_repository == "owner/project" else "fork"
        return self.event("pull_request", job, ref="refs/pull/1/merge", pull_request={"number": 1, "head": head})

    def event(self, name: str, job: str, ref: str = "refs/heads/main", **event: Any) -> Ran:
        """Run the jobs that the event starts, which must be that one."""
        workflow = yaml.safe_load((self.origin / ".github/workflows/stacks.yml").read_text())
        # YAML 1.1 takes `on` for true.
        assert name in workflow[True]
        github = {"event_name": name, "event": event, "repository": "owner/project", "ref": ref, "token": TOKEN}
        contexts = {"github": github, "secrets": self.secrets, "vars": {"PULUMI_BACKEND_URL": self.backend}}
        started = [key for key, value in workflow["jobs"].items() if holds(value.get("if"), contexts, True)]
        assert started == [job]
        with Job(self, contexts, workflow["defaults"]["run"]["shell"]) as running:
            running.steps(workflow["jobs"][job]["steps"])
        self.logs.append("".join(running.log))
        return Ran(running.ok, self.logs[-1])

    @property
    def comments(self) -> dict[str, str]:
        """The pull request's comments, as a reader sees them, by stack."""
        file = self.gh / "comments.json"
        bodies = [comment["body"] for comment in json.loads(file.read_text())] if file.exists() else []
        stacks = [re.findall("^### Stack `(.*)`$", body, re.MULTILINE) for body in bodies]
        assert all(len(found) == 1 for found in stacks), bodies
        found = {stack: re.sub("<!--.*?-->", "", body) for [stack], body in zip(stacks, bodies)}
        assert len(found) == len(bodies), "two comments on one stack"
        return found


class Job:
    """A job that runs, and whose processes end with it."""

    def __init__(self, runner: Runner, contexts: Mapping[str, Any], shell: str) -> None:
        self.runner = runner
        self.contexts = contexts
        self.shell = shell
        self.ok = True
        self.log: list[str] = []
        self.checkout = runner.folder / "work"
        self.temp = runner.folder / "temp"
        self.files = {name: runner.folder / name for name in ("GITHUB_ENV", "GITHUB_PATH")}
        self.path = [str(runner.gh), runner.env["PATH"]]

    def __enter__(self) -> "Job":
        self.temp.mkdir()
        self.checkout.mkdir()
        for file in self.files.values():
            file.touch()
        return self

    def __exit__(self, *_: object) -> None:
        agent = self.kept_env().get("SSH_AGENT_PID")
        if agent is not None:
            os.kill(int(agent), signal.SIGTERM)
        for folder in (self.temp, self.checkout):
            shutil.rmtree(folder)
        for file in self.files.values():
            file.unlink()

    def kept_env(self) -> dict[str, str]:
        """What steps have said is for the next ones."""
        return dict(line.split("=", 1) for line in self.files["GITHUB_ENV"].read_text().splitlines())

    def steps(self, steps: list[dict[str, Any]], inputs: Optional[Mapping[str, str]] = None) -> None:
        """Run the steps of a job or of an action."""
        contexts = {**self.contexts, "inputs": inputs or {}}
        for step in steps:
            if not holds(step.get("if"), contexts, self.ok):
                continue
            options = {key: filled(value, contexts) for key, value in step.get("with", {}).items()}
            if "uses" in step:
                self.use(step["uses"], options)
            elif "pip install" in step["run"]:
                (self.checkout / "venv").symlink_to(self.runner.python.parent.parent)
                self.path.insert(0, str(self.checkout / "venv/bin"))
            else:
                self.run(step, contexts)

    def use(self, action: str, options: Mapping[str, str]) -> None:
        """Provide what an action provides."""
        if action.startswith("./"):
            self.steps(yaml.safe_load((self.checkout / action / "action.yml").read_text())["runs"]["steps"], options)
        elif action.startswith("actions/checkout@"):
            self.check_out(options.get("ref", self.contexts["github"]["ref"]), options.get("fetch-depth", "1"))
        elif action.startswith("pulumi/actions@"):
            assert "command" not in options
            self.path.insert(0, str(self.runner.pulumi.parent))
        else:
            assert action.startswith("actions/setup-python@")
            self.path.insert(0, str(self.runner.python.parent))

    def check_out(self, ref: str, depth: str) -> None:
        """A clone of what GitHub has, as shallow as the real one."""
        git = ["git", "-C", str(self.checkout)]
        subprocess.run(["git", "init", "--quiet", self.checkout], check=True)
        shallow = [f"--depth={depth}"] if depth != "0" else []
        subprocess.run([*git, "fetch", "--quiet", *shallow, f"file://{self.runner.origin}", ref], check=True)
        subprocess.run([*git, "checkout", "--quiet", "FETCH_HEAD"], check=True)

    def run(self, step: Mapping[str, Any], contexts: Mapping[str, Any]) -> None:
        """Run a step's script."""
        shells = {"bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
        script = self.runner.folder / "script.sh"
        # An expression in a script could be anybody's text, run as a command.
        assert "${{" not in step["run"]
        script.write_text(step["run"])
        env = {
            **self.runner.env,
            **self.kept_env(),
            **{name: filled(value, contexts) for name, value in step.get("env", {}).items()},
            **{name: str(file) for name, file in self.files.items()},
            "RUNNER_TEMP": str(self.temp),
            "PATH": os.pathsep.join([*self.files["GITHUB_PATH"].read_text().splitlines(), *self.path]),
        }
        done = subprocess.run(
            [*shells[step.get("shell", self.shell)], script],
            cwd=self.checkout,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        self.log.append(f"## {step.get('name')}\n{done.stdout}")
        self.ok = self.ok and done.returncode == 0


def looked_up(name: str, contexts: Mapping[str, Any]) -> str:
    """The value of `github.event.pull_request.number` and the like; what is not there is empty."""
    found: Any = contexts
    for part in name.split("."):
        found = found.get(part, {})
    return str(found) if found != {} else ""


def filled(text: object, contexts: Mapping[str, Any]) -> str:
    """The text with its expressions evaluated, all of them plain names."""
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda match: looked_up(match[1], contexts), str(text))


def holds(condition: Optional[str], contexts: Mapping[str, Any], ok: bool) -> bool:
    """Whether an `if` lets a job or step run; `ok`: whether all before it went well."""
    if condition == "${{ !cancelled() }}":
        return True
    for part in condition.split("&&") if condition is not None else []:
        sides = re.fullmatch(r" ?([\w.-]+) (==|!=) (?:'([^']*)'|([\w.]+)) ?", part)
        assert sides, f"no test can tell whether this holds: {condition}"
        right = looked_up(sides[4], contexts) if sides[4] else sides[3]
        if (looked_up(sides[1], contexts) == right) != (sides[2] == "=="):
            return False
    return ok


class Site(NamedTuple):
    """The runner, the server of its stacks, and who is to have access."""

    runner: Runner
    server: Machine
    keys: dict[str, Key]

    def shared(self, *usernames: str, **config: Any) -> dict[str, Any]:
        """The configuration of the stack that has the server."""
        host_key = self.server.root("cut", "-d ", "-f1,2", "/etc/ssh/ssh_host_ecdsa_key.pub").strip()
        host = {"kind": "existing", "address": self.server.address, "user": "admin", "hostKey": host_key}
        return {"sftp-jail:host": host, **self.users(*usernames), **config}

    def attached(self, *usernames: str) -> dict[str, Any]:
        """The configuration of a stack that uses its server."""
        return {"sftp-jail:host": {"kind": "stack", "stack": "shared"}, **self.users(*usernames)}

    def users(self, *usernames: str) -> dict[str, Any]:
        """Users with a key each."""
        for username in usernames:
            if username not in self.keys:
                self.keys[username] = make_key(self.runner.folder / f"key-of-{username}")
        return {"sftp-jail:users": {name: {"keys": {"laptop": self.keys[name].public}} for name in usernames}}

    def can_log_in(self, username: str) -> bool:
        """Whether the server lets the user in."""
        return self.server.sftp(username, self.keys[username], "ls").code == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A repository with one stack, on a server that exists."""
    server = Machine(tmp_path_factory.mktemp("server"), "trixie")
    server.root("ssh-keygen", "-A")
    server.root("systemctl", "restart", "ssh")
    secrets = {"PULUMI_CONFIG_PASSPHRASE": PASSPHRASE, "SSH_PRIVATE_KEY": server.admin_key.path.read_text()}
    site = Site(Runner(tmp_path_factory.mktemp("github"), secrets), server, {})
    # An attached stack's name comes first in the alphabet: it is not that which makes it the last.
    site.runner.write_stack("shared", site.shared("zoe"))
    site.runner.commit("main")
    yield site
    server.stop()


def parts(comment: str) -> tuple[str, str]:
    """A comment's review, and the raw diff that opens on a click."""
    review, separator, diff = comment.partition("<details>")
    assert separator, comment
    return review, diff


def test_a_fork_gets_no_secret_no_preview_and_a_word_on_why(site: Site) -> None:
    site.runner.git("checkout", "--quiet", "-B", "theirs")
    site.runner.git("commit", "--quiet", "--allow-empty", "--message", "Let me in")
    ran = site.runner.pull_request(head_repository="stranger/project")
    assert not ran.ok
    assert "a fork gets no secrets" in ran.log
    assert site.runner.comments == {}
    workflow = yaml.safe_load((ROOT / ".github/workflows/stacks.yml").read_text())
    assert "pull_request_target" not in workflow[True]
    assert "${{" not in str(workflow["jobs"]["fork"])
    site.runner.git("checkout", "--quiet", "main")


def test_the_first_push_to_main_gives_access(site: Site) -> None:
    ran = site.runner.push()
    assert ran.ok, ran.log
    assert site.can_log_in("zoe")
    assert "stack local: left out" in ran.log


def test_a_pull_request_that_adds_a_user_has_a_review_that_names_him_above_the_diff(site: Site) -> None:
    site.runner.write_stack("shared", site.shared("zoe", "jill"))
    site.runner.commit("change")
    ran = site.runner.pull_request()
    assert ran.ok, ran.log
    review, diff = parts(site.runner.comments["shared"])
    assert "jill" in review
    assert "zoe" not in review
    assert site.keys["jill"].public.split()[1] in diff
    assert site.runner.git("rev-parse", "HEAD") in site.runner.comments["shared"]
    assert list(site.runner.comments) == ["shared"]
    assert "jill" not in site.server.root("cat", "/etc/passwd")


def test_a_preview_that_fails_takes_the_review_away(site: Site) -> None:
    site.runner.write_stack("shared", site.shared("zoe", "jill", **{"sftp-jail:umask": "999"}))
    site.runner.commit("change")
    ran = site.runner.pull_request()
    assert not ran.ok
    review, output = parts(site.runner.comments["shared"])
    assert "The preview failed" in review
    assert "sftp-jail:umask" in output
    assert "jill" not in site.runner.comments["shared"]


def test_a_set_up_that_fails_takes_the_review_away(site: Site) -> None:
    site.runner.write_stack("shared", site.shared("zoe", "jill"))
    site.runner.commit("change")
    assert site.runner.pull_request().ok
    assert "jill" in site.runner.comments["shared"]
    (site.runner.origin / ".github/actions/setup/action.yml").write_text("runs: {steps: [{run: exit 1, shell: bash}]}")
    site.runner.commit("change")
    assert not site.runner.pull_request().ok
    assert "No review of the newest commit" in site.runner.comments["shared"]
    assert "jill" not in site.runner.comments["shared"]
    site.runner.git("checkout", "--quiet", "main", "--", ".github")


def test_a_change_of_two_stacks_has_a_comment_on_each(site: Site) -> None:
    site.runner.write_stack("shared", site.shared("zoe", "jill"))
    site.runner.write_stack("contractor", site.attached("joan"))
    site.runner.commit("change")
    ran = site.runner.pull_request()
    assert ran.ok, ran.log
    assert set(site.runner.comments) == {"shared", "contractor"}
    assert "jill" in parts(site.runner.comments["shared"])[0]
    assert "joan" in parts(site.runner.comments["contractor"])[0]


def test_a_comment_on_a_stack_that_is_no_longer_touched_says_so(site: Site) -> None:
    site.runner.git("checkout", "--quiet", "main", "--", "stacks/Pulumi.shared.yaml")
    site.runner.commit("change")
    assert site.runner.pull_request().ok
    assert "No review of the newest commit" in site.runner.comments["shared"]
    assert "joan" in parts(site.runner.comments["contractor"])[0]


def test_what_is_merged_is_made_though_its_own_run_was_dropped(site: Site) -> None:
    site.runner.gh.joinpath("last-success").write_text(site.runner.git("rev-parse", "main"))
    site.runner.write_stack("shared", site.shared("zoe", "jill"))
    site.runner.commit("change")
    site.runner.git("checkout", "--quiet", "main")
    site.runner.git("merge", "--quiet", "--ff-only", "change")
    site.runner.git("commit", "--quiet", "--allow-empty", "--message", "Something else")
    ran = site.runner.push()
    assert ran.ok, ran.log
    assert site.can_log_in("jill")
    assert site.can_log_in("joan")
    assert ran.log.index("\nshared\n") < ran.log.index("\ncontractor\n")


def test_the_nightly_check_passes_until_somebody_changes_the_server(site: Site) -> None:
    ran = site.runner.event("schedule", "check")
    assert ran.ok, ran.log
    assert ran.log.count("no difference") == 2
    site.server.root("chmod", "g+w", "/sftp/jail/jill")
    ran = site.runner.event("schedule", "check")
    assert not ran.ok
    assert ran.log.count("/sftp/jail/jill") == 2, "one stack's difference kept the other from being checked"
    site.server.root("chmod", "g-w", "/sftp/jail/jill")


def test_to_remove_a_stacks_file_is_refused_while_the_stack_is_there(site: Site) -> None:
    site.runner.git("rm", "--quiet", "stacks/Pulumi.contractor.yaml")
    site.runner.commit("removal")
    ran = site.runner.pull_request()
    assert not ran.ok
    assert "pulumi destroy -s contractor" in site.runner.comments["contractor"]
    env = {**site.runner.env, **site.runner.stack_env()}
    argv = [site.runner.pulumi, "-C", site.runner.origin, "--non-interactive"]
    with agent_with(site.server.admin_key) as socket:
        site.runner.git("checkout", "--quiet", "main")
        done = call(*argv, "destroy", "--yes", "-s", "contractor", "--remove", env={**env, "SSH_AUTH_SOCK": socket})
    assert done.code == 0, done
    site.runner.git("checkout", "--quiet", "--force", "removal")
    ran = site.runner.pull_request()
    assert ran.ok, ran.log
    assert "Nothing is left" in site.runner.comments["contractor"]


@contextlib.contextmanager
def agent_with(key: Key) -> Iterator[str]:
    """The socket of an SSH agent that has the key."""
    text = subprocess.check_output(["ssh-agent", "-s"], text=True)
    env = dict(re.findall(r"^(\w+)=([^;]+);", text, re.MULTILINE))
    try:
        subprocess.run(["ssh-add", "-q", key.path], env={**os.environ, **env}, check=True)
        yield env["SSH_AUTH_SOCK"]
    finally:
        os.kill(int(env["SSH_AGENT_PID"]), signal.SIGTERM)


def test_no_log_and_no_comment_ever_had_a_secret(site: Site) -> None:
    said = "".join(site.runner.logs) + json.dumps(site.runner.comments)
    assert len(site.runner.logs) >= 10
    for secret in (PASSPHRASE, TOKEN, *site.server.admin_key.path.read_text().splitlines()[1:-1]):
        assert secret not in said
