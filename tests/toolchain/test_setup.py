"""`toolchain/setup` and `toolchain/pulumi`, run as they are; what takes minutes or a network is a small fake program.

The fakes are `go` and the `pulumi` that it "builds", found on PATH by the real set-up, in a cache made for the test.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from ast import literal_eval
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import until
from tests.toolchain.helpers import ROOT, ready

SYSTEM = ("cat", "chmod", "env", "head", "ln", "ls", "mkdir", "mount", "sh", "sleep", "touch", "unshare")
"""What the fakes need; nothing else is on PATH."""

# Answers what the set-up asks a Pulumi CLI. `download`, a file beside it, holds the status of a plugin download.
FAKE_PULUMI = """#!/bin/sh
case "$*" in
version) echo v3.259.0 ;;
*--file*) mkdir -p "$PULUMI_HOME/plugins" ;;
"plugin install"*) echo asked >> {fakes}/downloads; exit "$(cat {fakes}/download)" ;;
*) echo "arguments: $*"; env ;;
esac
"""

# It notes what it builds: `pulumi` or `plugin`. `hang`, a file beside it, makes a build write half of its result, say
# its pid there, and go on for ever.
FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.99.0 ;;
list) echo {fakes}/sdk ;;
build)
    while [ "$1" != -o ]; do shift; done
    if [ "$3" = . ]; then echo plugin; else echo pulumi; fi >> {fakes}/builds
    head -c {half} {fakes}/made > "$2" || exit 1
    if [ -e {fakes}/hang ]; then echo $$ > {fakes}/hang; exec sleep 600; fi
    cat {fakes}/made > "$2" || exit 1
    chmod +x "$2" ;;
esac
"""


# Finds no package until it was told to update its lists.
FAKE_APT = """#!/bin/sh
echo "$*" >> {fakes}/apt
[ "$1" = update ] && touch {fakes}/lists
[ -e {fakes}/lists ]
"""


class Lab:
    """A checkout, a cache and a PATH of their own."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "checkout"
        self.cache = folder / "cache"
        self.fakes = folder / "fakes"
        self.home = folder / "home"
        for new in (self.checkout, self.cache, self.fakes / "sdk/python/cmd", self.home):
            new.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "toolchain", self.checkout / "toolchain", ignore=ignored)
        shutil.copy(ROOT / "requirements.txt", self.checkout)
        self.program("go", FAKE_GO.format(fakes=self.fakes, half=100))
        self.program("made", FAKE_PULUMI.format(fakes=self.fakes))
        (self.fakes / "download").write_text("1")
        (self.fakes / "sdk/python/cmd/pulumi-language-python-exec").write_text("")
        for name in SYSTEM:
            (self.fakes / name).symlink_to(str(shutil.which(name)))
        self.path = [self.fakes]

    def program(self, name: str, text: str, folder: Path | None = None) -> Path:
        file = (folder or self.fakes) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
        return file

    def official(self, version: str) -> Path:
        """Put something on PATH that looks like an official installation."""
        folder = self.fakes.parent / "official"
        self.program("pulumi-language-python", "", folder)
        self.path.insert(0, folder)
        return self.program("pulumi", FAKE_PULUMI.format(fakes=self.fakes).replace("v3.259.0", version), folder)

    @property
    def env(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        return {
            **clean,
            "PATH": ":".join(map(str, self.path)),
            "HOME": str(self.home),
            "SFTP_JAIL_CACHE": str(self.cache),
            # Most of what pip works at, and for nothing: little is imported here.
            "PIP_NO_COMPILE": "1",
        }

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `toolchain/setup` for running a stack."""
        command = [sys.executable, f"{self.checkout}/toolchain/setup", "--for", "stack", *arguments]
        return subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self) -> dict:
        """The environment that `toolchain/setup` made, and what it said meanwhile as `said`."""
        process = self.start("--print-env")
        out, said = process.communicate()
        assert process.returncode == 0, said
        return {**json.loads(out), "said": said}

    def refusal(self) -> str:
        """What `toolchain/setup` says when it cannot go on."""
        process = self.start()
        _, said = process.communicate()
        assert process.returncode == 1, said
        return said

    def noted(self, name: str) -> list[str]:
        """What the fakes noted in the file `name`."""
        file = self.fakes / name
        return file.read_text().splitlines() if file.exists() else []

    def names(self) -> list[str]:
        """What the cache holds under a name."""
        return sorted(entry.name for entry in self.cache.iterdir() if not entry.name.startswith("."))


@pytest.fixture
def empty_lab(tmp_path: Path) -> Lab:
    """A lab with nothing in its cache."""
    return Lab(tmp_path)


@pytest.fixture
def lab(empty_lab: Lab) -> Lab:
    """A lab that has the Python environment already: the user's own."""
    venv = Path(ready()["python"]).parents[1]
    (empty_lab.cache / venv.name).symlink_to(venv)
    return empty_lab


def test_a_second_run_has_nothing_to_do_and_says_one_line(lab: Lab) -> None:
    lab.ready()
    said = lab.ready()["said"]
    assert len(said.splitlines()) == 1
    assert "built from Go modules" in said
    assert "command plugin 1.2.1: our stand-in" in said
    assert "aws plugin 7.51.1: our stand-in" in said
    assert lab.noted("builds") == ["pulumi", "plugin"]


def test_a_killed_build_leaves_nothing_running_and_is_never_taken_for_finished(lab: Lab) -> None:
    (lab.fakes / "hang").touch()
    with lab.start() as setup:
        until(lambda: (lab.fakes / "hang").read_text() != "", "a build")
        setup.kill()
    build = Path("/proc", (lab.fakes / "hang").read_text().strip())
    until(lambda: not build.exists(), "the end of the build")
    assert not [name for name in lab.names() if name.startswith("pulumi-")]

    (lab.fakes / "hang").unlink()
    ready = lab.ready()
    assert subprocess.check_output([ready["pulumi"], "version"], text=True) == "v3.259.0\n"
    assert lab.noted("builds") == ["pulumi", "pulumi", "plugin"]
    assert len(list(lab.cache.glob(".pulumi-*/pulumi"))) == 1


def test_a_killed_installation_of_the_python_packages_is_never_taken_for_finished(empty_lab: Lab) -> None:
    with empty_lab.start() as setup:
        pip = "lib/python3*/site-packages/pip/__init__.py"
        until(lambda: any(empty_lab.cache.glob(f".venv-*/{pip}")), "half a venv")
        setup.kill()
    assert not empty_lab.names()

    ready = empty_lab.ready()
    subprocess.run([ready["python"], "-c", "import pulumi, pulumi_command, asyncssh, pytest"], check=True)


def test_a_full_disk_is_said_in_a_line_and_leaves_nothing_that_looks_finished(lab: Lab) -> None:
    [venv] = lab.names()
    with (lab.fakes / "made").open("a") as made:
        made.write("#" * 2_000_000)
    lab.program("go", FAKE_GO.format(fakes=lab.fakes, half=1_500_000))
    setup = f"{sys.executable} {lab.checkout}/toolchain/setup --for stack"
    script = f"""
        mount -t tmpfs -o size=1m none {lab.cache}
        ln -s {(lab.cache / venv).readlink()} {lab.cache}
        {setup} && exit 9
        ls {lab.cache} > {lab.fakes}/after
        mount -o remount,size=20m {lab.cache}
        {setup}
    """
    unshare = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(unshare, env=lab.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "go build failed" in done.stderr
    assert "No space left on device" in done.stderr
    assert (lab.fakes / "after").read_text().split() == [venv]


def test_of_two_set_ups_at_once_one_builds_and_the_other_waits(lab: Lab) -> None:
    (lab.fakes / "hang").touch()
    with lab.start() as first:
        until(lambda: (lab.fakes / "hang").read_text() != "", "a build")
        (lab.fakes / "hang").unlink()
        with lab.start() as second:
            assert second.stderr is not None
            assert "waiting for another set-up" in second.stderr.readline()
            first.kill()
            said = second.stderr.read()
        assert second.returncode == 0, said
    assert lab.noted("builds") == ["pulumi", "pulumi", "plugin"]


def test_a_build_that_fails_shows_its_last_words(lab: Lab) -> None:
    lab.program("go", "#!/bin/sh\n[ $1 = env ] && echo go1.99 || { echo no such module; exit 3; }\n")
    said = lab.refusal()
    assert "go build failed with status 3" in said
    assert "no such module" in said
    assert "Traceback" not in said


def test_an_installed_pulumi_is_used_with_its_own_language_host(lab: Lab) -> None:
    pulumi = lab.official("v3.300.1")
    ready = lab.ready()
    assert ready["pulumi"] == str(pulumi)
    assert "PATH" not in ready["env"]
    assert f"Pulumi v3.300.1: the installed {pulumi}" in ready["said"]
    assert lab.noted("builds") == ["plugin"]


def test_an_installed_pulumi_that_is_too_old_is_named_and_not_used(lab: Lab) -> None:
    pulumi = lab.official("v3.100.0")
    ready = lab.ready()
    assert ready["pulumi"] != str(pulumi)
    assert f"{pulumi} is v3.100.0" in ready["said"]


def test_an_upgraded_pulumi_is_asked_for_its_version_again(lab: Lab) -> None:
    lab.official("v3.100.0")
    lab.ready()
    pulumi = lab.official("v3.300.10")
    assert lab.ready()["pulumi"] == str(pulumi)


def test_our_own_wrapper_on_path_is_not_taken_for_an_installed_pulumi(lab: Lab) -> None:
    lab.path.insert(0, lab.checkout / "toolchain")
    assert "built from Go modules" in lab.ready()["said"]


def test_a_set_up_within_the_environment_that_it_made_finds_the_same_again(lab: Lab) -> None:
    first = lab.ready()
    again = subprocess.run(
        [sys.executable, lab.checkout / "toolchain/setup", "--for", "stack", "--print-env"],
        env={**lab.env, **first["env"]},
        check=True,
        capture_output=True,
        text=True,
    )
    assert again.stderr == lab.ready()["said"]
    assert json.loads(again.stdout)["pulumi"] == first["pulumi"]


def test_the_language_host_lies_beside_the_cli_where_the_engine_looks_for_it(lab: Lab) -> None:
    ready = lab.ready()
    beside = Path(ready["pulumi"]).resolve().parent
    assert os.access(beside / "pulumi-language-python", os.X_OK)
    assert ready["env"]["PATH"].startswith(f"{Path(ready['pulumi']).parent}:")


def test_an_official_plugin_that_can_be_downloaded_is_used(lab: Lab) -> None:
    (lab.fakes / "download").write_text("0")
    ready = lab.ready()
    assert "command plugin 1.2.1: official" in ready["said"]
    assert "aws plugin 7.51.1: official, which Pulumi downloads when a stack needs it" in ready["said"]
    assert "PULUMI_HOME" not in ready["env"]
    assert lab.noted("downloads") == ["asked"]


def test_an_official_plugin_that_is_installed_is_used_without_a_download(lab: Lab) -> None:
    lab.program("pulumi-resource-command", "", lab.home / ".pulumi/plugins/resource-command-v1.2.1")
    ready = lab.ready()
    assert "command plugin 1.2.1: official" in ready["said"]
    assert "PULUMI_HOME" not in ready["env"]
    assert not lab.noted("downloads")


def test_a_half_downloaded_official_plugin_is_not_taken_for_installed(lab: Lab) -> None:
    plugins = lab.home / ".pulumi/plugins"
    lab.program("pulumi-resource-command", "", plugins / "resource-command-v1.2.1")
    (plugins / "resource-command-v1.2.1.partial").touch()
    assert "our stand-in" in lab.ready()["said"]


def test_a_download_that_failed_is_not_tried_again_and_the_users_pulumi_home_stays_clean(lab: Lab) -> None:
    home = lab.ready()["env"]["PULUMI_HOME"]
    assert lab.ready()["env"]["PULUMI_HOME"] == home
    assert Path(home).is_relative_to(lab.cache)
    assert lab.noted("downloads") == ["asked"]
    assert not (lab.home / ".pulumi").exists()


def test_an_official_aws_plugin_that_is_installed_is_used_beside_our_command_plugin(lab: Lab) -> None:
    folder = lab.home / ".pulumi/plugins/resource-aws-v7.51.1"
    lab.program("pulumi-resource-aws", "", folder)
    ready = lab.ready()
    assert "command plugin 1.2.1: our stand-in" in ready["said"]
    assert f"aws plugin 7.51.1: official ({folder})" in ready["said"]
    assert ready["env"]["PATH"].startswith(f"{folder}:")
    assert Path(ready["env"]["PULUMI_HOME"]).is_relative_to(lab.cache)


def test_a_changed_aws_stand_in_is_installed_anew_without_another_build(lab: Lab) -> None:
    home = lab.ready()["env"]["PULUMI_HOME"]
    with (lab.checkout / "toolchain/aws_plugin/main.py").open("a") as source:
        source.write("# changed\n")
    assert lab.ready()["env"]["PULUMI_HOME"] != home
    assert lab.noted("builds") == ["pulumi", "plugin"]


def test_a_changed_stand_in_is_installed_anew(lab: Lab) -> None:
    home = lab.ready()["env"]["PULUMI_HOME"]
    (lab.checkout / "toolchain/command_plugin/more.go").write_text("package main\n")
    assert lab.ready()["env"]["PULUMI_HOME"] != home


def test_the_state_is_in_the_checkout_and_needs_no_passphrase(lab: Lab) -> None:
    env = lab.ready()["env"]
    assert env["PULUMI_BACKEND_URL"] == f"file://{lab.checkout}/.local/state?metadata=skip"
    assert (lab.checkout / ".local/state").is_dir()
    assert env["PULUMI_CONFIG_PASSPHRASE"] == ""


def test_the_wrapper_hands_arguments_and_environment_to_the_right_pulumi(lab: Lab, tmp_path: Path) -> None:
    lab.ready()
    done = subprocess.run(
        [sys.executable, lab.checkout / "toolchain/pulumi", "up", "--stack", "a b"],
        cwd=tmp_path,
        env={**lab.env, "PULUMI_BACKEND_URL": "file:///mine", "PULUMI_CONFIG_PASSPHRASE_FILE": "/secret"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    shown = done.stdout.splitlines()
    assert "arguments: up --stack a b" in shown
    assert "PULUMI_BACKEND_URL=file:///mine" in shown
    assert "PULUMI_CONFIG_PASSPHRASE_FILE=/secret" in shown
    assert not [line for line in shown if line.startswith("PULUMI_CONFIG_PASSPHRASE=")]
    assert f"PWD={tmp_path}" in shown


def test_the_wrapper_makes_what_is_missing(lab: Lab) -> None:
    pulumi = [sys.executable, f"{lab.checkout}/toolchain/pulumi", "version"]
    done = subprocess.run(pulumi, env=lab.env, check=True, capture_output=True, text=True)
    assert done.stdout == "v3.259.0\n"
    assert "building the Pulumi CLI" in done.stderr


def test_the_venv_of_the_checkout_is_a_link_to_the_cached_one_and_follows_it(lab: Lab) -> None:
    python = Path(lab.ready()["python"])
    link = lab.checkout / "venv"
    assert link.readlink() == python.parents[1]
    link.unlink()
    link.symlink_to(lab.cache / "venv-that-is-gone")
    lab.ready()
    assert link.readlink() == python.parents[1]


def test_a_venv_that_someone_made_in_the_checkout_is_left_alone(lab: Lab) -> None:
    mine = lab.program("python", "", lab.checkout / "venv/bin")
    lab.ready()
    assert list((lab.checkout / "venv").rglob("*")) == [mine.parent, mine]


def test_who_cannot_boot_a_machine_is_told_at_once_and_what_works_without(lab: Lab) -> None:
    script = "import os, sys; os.geteuid = lambda: 1000; from steps.main import main; from pathlib import Path; "
    argv = [sys.executable, "-c", f"{script} sys.exit(main(Path('..'), ['--for', 'test']))"]
    done = subprocess.run(argv, cwd=lab.checkout / "toolchain", env=lab.env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "by root on Linux alone; `make unit`" in done.stderr
    assert not lab.noted("builds")


def test_missing_programs_are_named_with_their_use_where_they_cannot_be_installed(lab: Lab) -> None:
    command = [sys.executable, f"{lab.checkout}/toolchain/setup", "--for", "demo"]
    done = subprocess.run(command, env=lab.env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "mmdebstrap (to make Debian's root file system)" in done.stderr
    assert "openssh-client (to log in to it)" in done.stderr


def test_missing_packages_are_installed_after_the_lists_are_renewed(lab: Lab) -> None:
    lab.program("apt-get", FAKE_APT.format(fakes=lab.fakes))
    command = [sys.executable, "-c", "from steps import system; system.ensure([system.Need('sl', 'fun', 'sl')])"]
    subprocess.run(command, cwd=lab.checkout / "toolchain", env=lab.env, check=True)
    install = "install --yes --no-install-recommends sl"
    assert (lab.fakes / "apt").read_text().splitlines() == [install, "update", install]


@pytest.mark.parametrize(
    ("lock", "files", "extras"),
    [("constraints.txt", ["requirements.txt"], ["aws", "dev"]), ("constraints-bench.txt", [], ["bench"])],
)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.13"])
def test_a_lock_file_pins_what_requirements_and_its_extras_ask_for(
    lock: str, files: list[str], extras: list[str], python: str
) -> None:
    pinned = {}
    for line in (ROOT / "toolchain" / lock).read_text().splitlines():
        requirement = Requirement(line) if line and not line.startswith("#") else None
        if requirement is not None and (
            requirement.marker is None or requirement.marker.evaluate({"python_version": python})
        ):
            assert canonicalize_name(requirement.name) not in pinned, requirement
            pinned[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    project = (ROOT / "pyproject.toml").read_text()
    found = re.findall(rf"^(?:{'|'.join(extras)}) = (\[.*?\]$)", project, re.DOTALL | re.MULTILINE)
    assert len(found) == len(extras)
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    for requirement in map(Requirement, [*lines, *chain(*map(literal_eval, found))]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
