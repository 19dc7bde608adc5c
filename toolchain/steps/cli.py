"""The Pulumi CLI: the official one where it is installed, else one built from Go modules with our language host."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import cache, golang
from .run import SetupError, run, say

MINIMUM = (3, 259, 0)
"""The oldest CLI that is used: Pulumi wants a CLI at least as new as the SDK, and requirements.txt wants this SDK."""

PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
SDK = "github.com/pulumi/pulumi/sdk/v3"
HOST = "pulumi-language-python"


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI that works: `pulumi` with its Python language host, and one clause about where it is from."""

    pulumi: Path
    version: str
    origin: str
    ours: bool


def ensure(toolchain: Path, venv: Path) -> Cli:
    """The official CLI if a sufficient one is installed, else ours, built if it is not cached."""
    official, objection = installed()
    if official is not None:
        return official
    version = _wanted_version(toolchain / "cli")
    built = cache.entry(_name(toolchain / "cli", version), functools.partial(_build, toolchain / "cli", venv))
    tools = _with_language_host(toolchain / "language_host.py", built, venv)
    return Cli(tools / "pulumi", version, f"built from Go modules{objection}, with our Python language host", ours=True)


def installed() -> tuple[Cli | None, str]:
    """The first `pulumi` on PATH that is not ours, if it will do; otherwise None and a clause that says why not."""
    for pulumi in _on_path():
        version = _version(pulumi)
        if _numbers(version) < MINIMUM:
            wanted = ".".join(map(str, MINIMUM))
            return None, f", because {pulumi} is {version or 'no Pulumi'} and v{wanted} is the oldest that will do"
        if not (pulumi.resolve().parent / HOST).exists() and shutil.which(HOST) is None:
            return None, f", because {pulumi} has no {HOST} beside it"
        return Cli(pulumi, version, f"the installed {pulumi}, with its own language host", ours=False), ""
    return None, ""


def _on_path() -> Iterator[Path]:
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        pulumi = Path(directory or ".").absolute() / "pulumi"
        wrapper = (pulumi.resolve().parent / "cli/go.mod").exists()  # some checkout's toolchain/pulumi
        if os.access(pulumi, os.X_OK) and not pulumi.is_dir() and not wrapper and not cache.holds(pulumi):
            yield pulumi


def _version(pulumi: Path) -> str:
    """What `pulumi version` says, e.g. "v3.259.0". It takes a second of CPU: remembered while the file is the same."""
    stat = pulumi.stat()
    key = cache.digest(str(pulumi.resolve()), f"{stat.st_size} {stat.st_mtime_ns}")

    def ask(directory: Path) -> None:
        answer = run(f"{pulumi}", pulumi, "version", env={"PULUMI_SKIP_UPDATE_CHECK": "true"}, timeout=60)
        (directory / "version").write_text(answer.strip())

    return (cache.entry(f"installed-pulumi-{key}", ask) / "version").read_text()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0])[:3])


def _wanted_version(modules: Path) -> str:
    found = re.search(r"pulumi/pkg/v3 (v\S+)", (modules / "go.mod").read_text())
    if found is None:
        raise SetupError(f"{modules / 'go.mod'} names no version of the Pulumi CLI")
    return found[1]


def _name(modules: Path, version: str) -> str:
    inputs = cache.digest(platform.machine(), modules / "go.mod", modules / "go.sum")
    return f"pulumi-{version}-{inputs}"


def _build(modules: Path, venv: Path, directory: Path) -> None:
    version = _wanted_version(modules)
    say(f"building the Pulumi CLI {version} from its Go modules, about 5 minutes on 2 cores")
    go, env = golang.ensure(modules, venv)
    flags = f"-s -w -X {SDK}/go/common/version.Version={version}"
    pulumi = directory / "pulumi"
    options = ("-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", pulumi)
    run("go build", go, "build", *options, PACKAGE, cwd=modules, env=env)
    if (said := run("the CLI just built", pulumi, "version").strip()) != version:
        raise SetupError(f"the CLI just built says it is {said!r}, not {version}")
    # The official program runner, which the language host starts, is in the SDK's module.
    sdk = run("go list", go, "list", "-m", "-f", "{{.Dir}}", SDK, cwd=modules, env=env).strip()
    shutil.copyfile(Path(sdk, "python/cmd", f"{HOST}-exec"), directory / f"{HOST}-exec")


def _with_language_host(source: Path, built: Path, venv: Path) -> Path:
    """A directory with the CLI and our language host side by side, where the CLI looks for it.

    The CLI is a hard link: with a symlink it would look beside the link's target.
    """

    def build(directory: Path) -> None:
        for file in built.iterdir():
            os.link(file, directory / file.name)
        program = shutil.copyfile(source, directory / f"{HOST}.py")
        start = f'#!/bin/sh\nexec {shlex.quote(f"{venv}/bin/python")} -I {shlex.quote(str(program))} "$@"\n'
        (directory / HOST).write_text(start)
        (directory / HOST).chmod(0o755)

    return cache.entry(f"tools-{cache.digest(source, built.name, venv.name)}", build)
