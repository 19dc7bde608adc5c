"""The Python language host, as a program under the real CLI meets it, and as the CLI meets it when things end."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
from pulumi.runtime.proto import language_pb2, language_pb2_grpc

from tests.conftest import until
from tests.toolchain.helpers import ROOT, Project, ready

SLEEPER = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)\n"


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def read_pid(file: Path) -> int:
    """The number in a file that is just being written."""
    until(lambda: file.exists() and file.read_text() != "", f"a pid in {file}")
    return int(file.read_text())


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """A project whose virtual environment has yet to be made."""
    return Project(tmp_path)


@pytest.fixture
def project(bare_project: Project) -> Project:
    """A project whose virtual environment is the toolchain's."""
    (bare_project.folder / "venv").symlink_to(Path(ready()["python"]).parents[1])
    return bare_project


def test_a_stack_goes_up_and_down(project: Project) -> None:
    project.write("import pulumi; pulumi.export('answer', 42)")
    project.must("preview")
    project.must("up", "--yes")
    assert project.output("answer") == 42
    project.must("destroy", "--yes")
    assert project.must("stack", "export").count('"urn"') == 0


def test_what_the_program_prints_is_shown(project: Project) -> None:
    project.write("import sys; print('to stdout'); print('to stderr', file=sys.stderr)")
    shown = project.must("up", "--yes")
    assert "to stdout" in shown
    assert "to stderr" in shown


def test_an_up_without_anything_to_say_shows_no_diagnostics(project: Project) -> None:
    project.write("import pulumi; pulumi.export('answer', 42)")
    assert "Diagnostics" not in project.must("up", "--yes")


def test_the_program_is_main_and_runs_in_its_own_directory(project: Project) -> None:
    project.write("import os, sys, pulumi; pulumi.export('seen', [__name__, os.getcwd(), sys.argv, sys.path[0]])")
    project.must("up", "--yes")
    assert project.output("seen") == ["__main__", str(project.folder), ["."], "."]


def test_the_program_runs_in_the_virtual_environment_of_the_project_root_wherever_pulumi_is_started(
    project: Project,
) -> None:
    (project.folder / "deep/down").mkdir(parents=True)
    project.write("import os, sys, pulumi; pulumi.export('seen', [sys.prefix, os.environ['VIRTUAL_ENV']])")
    project.must("up", "--yes", cwd="deep/down")
    assert project.output("seen") == [str(project.folder / "venv")] * 2


def test_the_program_gets_its_config_and_secrets_stay_secret(project: Project) -> None:
    project.must("config", "set", "plain", "open")
    project.must("config", "set", "hidden", "sesame", "--secret")
    project.write(
        "import pulumi; config = pulumi.Config()\n"
        "pulumi.export('plain', config.require('plain')); pulumi.export('hidden', config.require_secret('hidden'))"
    )
    assert "sesame" not in project.must("up", "--yes")
    assert project.output("plain") == "open"
    assert json.loads(project.must("stack", "output", "hidden", "--json", "--show-secrets")) == "sesame"
    assert "sesame" not in (project.folder / "state/.pulumi/stacks/tiny/dev.json").read_text()


def test_the_program_knows_where_it_runs(project: Project) -> None:
    project.write(
        "import pulumi\n"
        "pulumi.export('seen', [pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization(),"
        " pulumi.runtime.get_root_directory(), pulumi.runtime.is_dry_run()])"
    )
    project.must("up", "--yes")
    assert project.output("seen") == ["tiny", "dev", "organization", str(project.folder), False]


def test_an_exception_is_shown_with_the_lines_of_the_program_and_nothing_else(project: Project) -> None:
    project.write("def deep():\n    raise ValueError('no such thing')\n\ndeep()\n")
    shown = project.fails("up", "--yes")
    assert "Program failed with an unhandled exception" in shown
    assert '__main__.py", line 4, in <module>' in shown
    assert "ValueError: no such thing" in shown
    assert "pulumi-language-python" not in shown
    assert "exit code" not in shown


def test_a_run_error_is_shown_without_a_traceback(project: Project) -> None:
    project.write("import pulumi\nraise pulumi.RunError('two faults in the stack file')\n")
    shown = project.fails("preview")
    assert "error: two faults in the stack file" in shown
    assert "Traceback" not in shown


def test_a_program_that_exits_with_a_status_fails_with_that_status(project: Project) -> None:
    project.write("import sys\nsys.exit(3)\n")
    assert "exited with non-zero exit code: 3" in project.fails("up", "--yes")


def test_a_folder_without_a_program_is_named(project: Project) -> None:
    assert f"`__main__.py` in `{project.folder}`" in project.fails("preview")


def test_a_virtualenv_that_is_something_else_is_named_with_a_remedy(bare_project: Project) -> None:
    (bare_project.folder / "venv").mkdir()
    (bare_project.folder / "venv/precious").write_text("do not touch")
    bare_project.write("")
    shown = bare_project.fails("preview")
    assert str(bare_project.folder / "venv") in shown
    assert "virtual environment" in shown
    assert (bare_project.folder / "venv/precious").read_text() == "do not touch"


def test_pulumi_install_makes_the_virtual_environment_that_preview_then_uses(
    bare_project: Project,
) -> None:
    pins = (ROOT / "toolchain/constraints.txt").read_text()
    (bare_project.folder / "constraints.txt").write_text(pins)
    (bare_project.folder / "requirements.txt").write_text("-c constraints.txt\npulumi\n")
    bare_project.write("import sys, pulumi; pulumi.export('seen', sys.prefix)")
    bare_project.must("install")
    assert (bare_project.folder / "venv/bin/python").exists()
    bare_project.must("up", "--yes")
    assert bare_project.output("seen") == str(bare_project.folder / "venv")


def test_a_missing_virtual_environment_is_made_and_a_missing_sdk_is_explained(bare_project: Project) -> None:
    bare_project.write("")
    shown = bare_project.fails("preview")
    assert (bare_project.folder / "venv/bin/python").exists()
    assert "the Pulumi SDK has not been installed" in shown


def test_requirements_that_cannot_be_had_fail_the_install(bare_project: Project) -> None:
    (bare_project.folder / "requirements.txt").write_text("./there-is-no-such-folder\n")
    assert "there-is-no-such-folder" in bare_project.fails("install")


def test_about_names_the_interpreter_and_the_packages(project: Project) -> None:
    project.write("")
    about = json.loads(project.must("about", "--json"))
    assert about["runtime"]["executable"] == str(project.folder / "venv/bin/python")
    assert about["runtime"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert {"name": "pulumi-command", "version": "1.2.1"} in about["dependencies"]


def test_the_engine_learns_which_plugins_the_packages_need(project: Project) -> None:
    project.write("")
    needed = json.loads(project.must("plugin", "ls", "--project", "--json"))
    assert ("command", "1.2.1") in [(plugin["name"], plugin.get("version")) for plugin in needed]


def test_a_program_ends_when_pulumi_is_killed(project: Project) -> None:
    project.write(SLEEPER)
    command = [project.pulumi, "preview", "--non-interactive"]
    with subprocess.Popen(
        command, cwd=project.folder, env=project.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as pulumi:
        program = read_pid(project.folder / "pid")
        pulumi.kill()
    until(lambda: not runs(program), "the end of the program")


class Host:
    """Our language host, started as the CLI starts it; the program runner beside it runs `program`."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        script = folder / "language_host.py"
        script.write_bytes((ROOT / "toolchain/language_host.py").read_bytes())
        (folder / "pulumi-language-python-exec").write_text(program)
        self.process = subprocess.Popen(
            [sys.executable, script, "127.0.0.1:1"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.channel = grpc.insecure_channel(f"127.0.0.1:{int(self.process.stdout.readline())}")
        self.calls = language_pb2_grpc.LanguageRuntimeStub(self.channel)

    def info(self, **options: str) -> language_pb2.ProgramInfo:
        info = language_pb2.ProgramInfo(
            root_directory=str(self.folder), program_directory=str(self.folder), entry_point="."
        )
        info.options.update(options)
        return info

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """Starts a language host; it is ended after the test."""
    hosts: list[Host] = []

    def start(program: str = "") -> Host:
        hosts.append(Host(tmp_path, program))
        return hosts[-1]

    yield start
    for host in hosts:
        host.close()


@pytest.mark.parametrize("ending", ["SIGINT", "the end of the engine"])
def test_the_host_and_the_program_end_without_an_error_at(ending: str, start: Callable[[str], Host]) -> None:
    host = start(SLEEPER)
    call = host.calls.Run.future(language_pb2.RunRequest(info=host.info()))
    program = read_pid(host.folder / "pid")
    if ending == "SIGINT":
        host.process.send_signal(signal.SIGINT)
    else:
        host.process.stdin.close()  # type: ignore[union-attr]
    until(lambda: not runs(program), "the end of the program")
    assert host.process.wait(60) == 0
    assert call.code() is not grpc.StatusCode.OK


def test_a_linked_virtual_environment_is_left_to_whoever_linked_it(start: Callable[[], Host]) -> None:
    host = start()
    elsewhere = host.folder / "elsewhere"
    elsewhere.mkdir()
    (host.folder / "venv").symlink_to(elsewhere)
    request = language_pb2.InstallDependenciesRequest(info=host.info(virtualenv="venv"))
    said = b"".join(answer.stdout for answer in host.calls.InstallDependencies(request))
    assert str(elsewhere) in said.decode()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("options", [{"toolchain": "uv"}, {"typechecker": "mypy"}])
def test_a_runtime_option_that_it_does_not_know_is_refused(options: dict[str, str], start: Callable[[], Host]) -> None:
    host = start()
    with pytest.raises(grpc.RpcError, match=next(iter(options.values()))):
        host.calls.Run(language_pb2.RunRequest(info=host.info(**options)))
