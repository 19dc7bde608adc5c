"""A Python language host for Pulumi: what the CLI starts to run the Python program of a project.

It does what Pulumi's own `pulumi-language-python` does for projects that use pip, as far as `pulumi install`, `up`,
`preview`, `refresh`, `destroy` and `about` ask for it, and answers anything else with "unimplemented". The program
itself is run by Pulumi's own `pulumi-language-python-exec`, which lies beside this file, in the Python of the
project's virtual environment: so a program cannot tell the difference.

The CLI starts it with the engine's address as the last argument, reads a port from the first line of stdout, takes
all further output as the program's, and ends it, program included, with SIGINT. Its stdin is a pipe that the engine
holds open: when it ends, the engine is gone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

# Each command of the CLI starts two of us, and waits. Packages that stand here without what they would execute let the
# generated modules be imported without the rest of the SDK, which takes more than all else that we import.
for package in ("pulumi", "pulumi.runtime", "pulumi.runtime.proto"):
    found = importlib.util.find_spec(package)
    assert found is not None
    sys.modules[package] = importlib.util.module_from_spec(found)

from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, language_pb2, language_pb2_grpc, plugin_pb2  # noqa: E402

EXECUTOR = Path(__file__).resolve().with_name("pulumi-language-python-exec")
ALREADY_EXPLAINED = 32  # the executor's exit status after it has told the user what is wrong
MESSAGE_BYTES = 400 * 1024 * 1024  # the engine's own limit

FIND_PLUGINS = """
import importlib.metadata, json
for package in importlib.metadata.distributions():
    module = package.metadata["Name"].replace("-", "_")
    file = package.locate_file(f"{module}/pulumi-plugin.json")
    if file.is_file():
        print(json.dumps({"version": package.version, **json.loads(file.read_text())}))
"""
"""Run by the project's Python: prints a line of JSON for each installed package that says it needs a plugin."""

FIND_ITSELF = "import platform, sys; print(sys.executable); print(platform.python_version())"


class Refusal(Exception):
    """A request that cannot be served; the message is for the user."""


@dataclass(frozen=True)
class Project:
    """The directory of a program, and the virtual environment that its project's runtime options name, if any."""

    directory: str
    venv: Path | None

    @classmethod
    def of(cls, info: Any) -> Project:
        """Read a `ProgramInfo` of the engine."""
        options: dict[str, Any] = dict(info.options.items())
        if options.get("toolchain", "pip") != "pip" or "typechecker" in options:
            raise Refusal(f"runtime options {options}: this language host knows `toolchain: pip` and `virtualenv`")
        venv = options.get("virtualenv", "")
        if not isinstance(venv, str):
            raise Refusal(f"the runtime option `virtualenv` must be a path, not {venv!r}")
        return cls(info.program_directory, Path(info.root_directory, venv) if venv else None)

    def python(self) -> str:
        """The interpreter for the program."""
        return str(self.venv / "bin/python") if self.venv else ambient_python()

    def environment(self) -> dict[str, str]:
        """Our environment, with the virtual environment activated."""
        env = dict(os.environ)
        if self.venv:
            env["VIRTUAL_ENV"] = str(self.venv)
            env["PATH"] = os.pathsep.join([str(self.venv / "bin"), env.get("PATH", os.defpath)])
            env.pop("PYTHONHOME", None)
        return env

    def ask(self, *arguments: str) -> list[str]:
        """The lines that the project's Python prints when it is run with `arguments`."""
        self.check()
        command = [self.python(), *arguments]
        done = subprocess.run(command, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refusal(f"{command[0]} failed with status {done.returncode}: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def check(self) -> None:
        """Raise Refusal if the virtual environment is none."""
        if self.venv and not (self.venv / "bin/python").is_file():
            what = "is no virtual environment: remove it" if self.venv.exists() else "is not there yet"
            raise Refusal(f"the `virtualenv` of Pulumi.yaml, {self.venv}, {what}, and run `pulumi install`")

    def is_bare(self) -> bool:
        """Whether the virtual environment has yet to be made: there is nothing, or an empty directory."""
        return self.venv is not None and not (self.venv.exists() and any(self.venv.iterdir()))


def ambient_python() -> str:
    """`$PULUMI_PYTHON_CMD`, or else the first of python3 and python that is on PATH."""
    chosen = os.environ.get("PULUMI_PYTHON_CMD")
    for name in [chosen] if chosen else ["python3", "python"]:
        if found := shutil.which(name):
            return found
    raise Refusal(f"there is no {chosen or 'python3'} on PATH")


def install(project: Project, context: grpc.ServicerContext) -> Iterator[str]:
    """Make the virtual environment and install the requirements into it; yields what is to be shown meanwhile."""
    if project.venv and project.venv.is_symlink():
        yield f"{project.venv} is a link to {os.readlink(project.venv)}: left to whoever made the link\n"
        return
    if project.venv:
        yield "Creating virtual environment...\n"
        yield from output([ambient_python(), "-m", "venv", str(project.venv)], project, context)
    pip = [project.python(), "-m", "pip", "install"]
    yield "Updating pip, setuptools, and wheel...\n"
    yield from output([*pip, "--upgrade", "pip", "setuptools", "wheel"], project, context)
    if Path(project.directory, "requirements.txt").exists():
        yield "Installing dependencies...\n"
        yield from output([*pip, "-r", "requirements.txt"], project, context)


def output(command: list[str], project: Project, context: grpc.ServicerContext) -> Iterator[str]:
    """Run `command` in the project's directory and yield its lines; Refusal if it fails."""
    process = subprocess.Popen(
        command,
        cwd=project.directory,
        env=project.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    context.add_callback(process.kill)
    yield from process.stdout or ()
    if process.wait() != 0:
        raise Refusal(f"`{' '.join(command)}` failed with status {process.returncode}")


@contextlib.contextmanager
def refusals(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer the call with the message of the Refusal that the block raises."""
    try:
        yield
    except Refusal as refusal:
        context.abort(grpc.StatusCode.UNKNOWN, str(refusal))


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The calls of the engine at address `engine`."""

    def __init__(self, engine: str) -> None:
        self.engine = engine

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=version("pulumi"))

    def About(self, request, context):
        with refusals(context):
            executable, number = Project.of(request.info).ask("-c", FIND_ITSELF)
            return language_pb2.AboutResponse(executable=executable, version=number)

    def GetProgramDependencies(self, request, context):
        with refusals(context):
            direct = [] if request.transitiveDependencies else ["--not-required"]
            pip = ["-m", "pip", "list", "--format", "json", "--disable-pip-version-check", *direct]
            packages = json.loads("".join(Project.of(request.info).ask(*pip)))
            named = [
                language_pb2.DependencyInfo(
                    name=re.sub(r"[-_.]+", "-", package["name"]).lower(), version=package["version"]
                )
                for package in packages
            ]
            return language_pb2.GetProgramDependenciesResponse(dependencies=named)

    def InstallDependencies(self, request, context):
        with refusals(context):
            for text in install(Project.of(request.info), context):
                yield language_pb2.InstallDependenciesResponse(stdout=text.encode())

    def GetRequiredPackages(self, request, context):
        with refusals(context):
            project = Project.of(request.info)
            if project.is_bare():  # as Pulumi's own host does
                self.show(install(project, context))
            found = map(json.loads, project.ask("-c", FIND_PLUGINS))
            return language_pb2.GetRequiredPackagesResponse(
                packages=[
                    plugin_pb2.PackageDependency(
                        kind="resource",
                        name=plugin["name"],
                        version=f"v{plugin['version'].removeprefix('v')}",
                        server=plugin.get("server", ""),
                    )
                    for plugin in found
                    if plugin.get("resource")
                ]
            )

    def Run(self, request, context):
        with refusals(context):
            project = Project.of(request.info)
            project.check()
            command = [project.python(), str(EXECUTOR), *self.arguments(request)]
            config = {
                "PULUMI_CONFIG": json.dumps(dict(request.config)),
                "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
            }
            process = subprocess.Popen(command, env=project.environment() | config, stdin=subprocess.DEVNULL)
            context.add_callback(process.kill)
            status = process.wait()
            if status == ALREADY_EXPLAINED:
                return language_pb2.RunResponse(bail=True)
            error = f"program exited with non-zero exit code: {status}" if status else ""
            return language_pb2.RunResponse(error=error)

    def arguments(self, request) -> Iterator[str]:
        """What the executor wants on its command line."""
        options = {
            "monitor": request.monitor_address,
            "engine": self.engine,
            "project": request.project,
            "root_directory": request.info.root_directory,
            "stack": request.stack,
            "pwd": request.pwd,
            "dry_run": "true" if request.dryRun else "false",
            "parallel": str(request.parallel),
            "organization": request.organization,
        }
        for name, value in options.items():
            if value:
                yield from (f"--{name}", value)
        yield request.info.entry_point
        yield from request.args

    def show(self, texts: Iterable[str]) -> None:
        """Show `texts` in the engine's display, as passing messages."""
        with grpc.insecure_channel(self.engine) as channel:
            engine = engine_pb2_grpc.EngineStub(channel)
            for text in texts:
                engine.Log(engine_pb2.LogRequest(severity=engine_pb2.INFO, message=text, ephemeral=True))


def main() -> None:
    """Serve until SIGINT, or until the engine is gone."""
    ended, end = os.pipe()
    os.set_blocking(end, False)
    # Not by a handler of ours: it would wait for the main thread, where gRPC's threads may be the ones that are told.
    signal.set_wakeup_fd(end)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)

    def wait_for_the_engine_to_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.write(end, b"\0")

    sizes = [("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    server = grpc.server(ThreadPoolExecutor(), options=sizes)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(sys.argv[-1]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    threading.Thread(target=wait_for_the_engine_to_end, daemon=True).start()
    os.read(ended, 1)
    server.stop(grace=None).wait()


if __name__ == "__main__":
    main()
