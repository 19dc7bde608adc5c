"""The plugins, which the engine starts for every `command:*` and `aws:*` resource: official ones, or our stand-ins."""

from __future__ import annotations

import functools
import os
import platform
import re
import shlex
import shutil
import tarfile
import tempfile
import zipapp
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import cache, golang
from .run import SetupError, run, say

DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Plugin:
    """A plugin: its name and version, and the source of our stand-in, a folder."""

    name: str
    version: str
    source: Path

    @property
    def program(self) -> str:
        return f"pulumi-resource-{self.name}"

    def installed(self) -> Path | None:
        """Where the official one is, on PATH or in the user's PULUMI_HOME, if it is."""
        if on_path := shutil.which(self.program):
            return Path(on_path).parent
        home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
        folder = home / "plugins" / f"resource-{self.name}-v{self.version}"
        # Pulumi keeps a .partial file beside a plugin until it is all there.
        if (folder / self.program).exists() and not folder.with_name(f"{folder.name}.partial").exists():
            return None if cache.holds(folder) else folder
        return None

    def install(
        self, pulumi: Path, *options: str | Path, env: dict[str, str] | None = None, timeout: float | None = None
    ) -> None:
        """Have Pulumi install it, from its own server unless the options say otherwise. Raises SetupError."""
        command = (pulumi, "plugin", "install", "resource", self.name, self.version)
        quiet = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
        run("pulumi plugin install", *command, *options, env=quiet | (env or {}), timeout=timeout)


@dataclass(frozen=True)
class Plugins:
    """What the plugins are, in words, and what the environment needs for them."""

    origins: str
    home: Path | None = None
    """The PULUMI_HOME with the stand-ins; None: the user's own will do."""
    path: list[Path] = field(default_factory=list)
    """Folders of official plugins, for PATH, where that PULUMI_HOME has no such plugin."""


def ensure(toolchain: Path, pulumi: Path, venv: Path) -> Plugins:
    """The official plugins if they are installed or can be downloaded, else the stand-ins, installed if need be.

    One download is tried, of the command plugin, the small one: where that works, Pulumi itself gets the aws plugin,
    hundreds of MB, when a stack first needs it. Where it failed once, the stand-ins are cached, and it is not tried
    again. They live in a PULUMI_HOME of their own, so that nobody's ~/.pulumi ever has something under the name of
    an official plugin.
    """
    command = Plugin("command", "1.2.1", toolchain / "command_plugin")
    aws = Plugin("aws", _aws_version(toolchain), toolchain / "aws_plugin")
    official = {plugin: folder for plugin in (command, aws) if (folder := plugin.installed())}
    builders: dict[Plugin, Callable[[], Path]] = {
        command: functools.partial(_command_stand_in, command, venv),
        aws: functools.partial(_aws_stand_in, aws, venv),
    }
    stand_ins = {plugin: build for plugin, build in builders.items() if plugin not in official}
    parts = [part for plugin in stand_ins for part in (plugin.source, plugin.version)]
    name = f"home-{cache.digest(*parts, platform.machine(), venv.name)}"
    home = cache.finished(name)
    if command in official or (home is None and _download(command, pulumi)):
        origins = {command: "official, just downloaded", aws: "official, which Pulumi downloads when a stack needs it"}
        return Plugins(_origins(origins, official))
    if home is None:
        home = cache.entry(name, functools.partial(_install_stand_ins, stand_ins, pulumi))
    origins = dict.fromkeys(stand_ins, "our stand-in, because the official one cannot be downloaded here")
    return Plugins(_origins(origins, official), home, [*official.values()])


def _origins(otherwise: dict[Plugin, str], official: dict[Plugin, Path]) -> str:
    origins = {**otherwise, **{plugin: f"official ({folder})" for plugin, folder in official.items()}}
    return "; ".join(f"{plugin.name} plugin {plugin.version}: {origin}" for plugin, origin in origins.items())


def _aws_version(toolchain: Path) -> str:
    """The SDK's version, because the SDK asks for the plugin of the same."""
    found = re.search(r"^pulumi_aws==(\S+)$", (toolchain / "constraints.txt").read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{toolchain / 'constraints.txt'} names no version of pulumi_aws")
    return found[1]


def _download(plugin: Plugin, pulumi: Path) -> bool:
    if os.environ.get("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "").lower() in ("1", "true"):
        return False
    say(f"downloading the official {plugin.name} plugin {plugin.version}")
    try:
        plugin.install(pulumi, timeout=DOWNLOAD_SECONDS)
    except SetupError as error:
        say(f"no official {plugin.name} plugin: {str(error).splitlines()[-1].strip()}")
        return False
    return True


def _install_stand_ins(stand_ins: dict[Plugin, Callable[[], Path]], pulumi: Path, home: Path) -> None:
    for plugin, build in stand_ins.items():
        files = build()
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary, "plugin.tar.gz")
            with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
                for file in files.iterdir():
                    if not file.name.startswith("."):
                        tar.add(file, arcname=file.name)
            plugin.install(pulumi, "--file", archive, env={"PULUMI_HOME": str(home)})


def _command_stand_in(plugin: Plugin, venv: Path) -> Path:
    """A folder with the program, built from Go modules if it is not cached."""

    def build(directory: Path) -> None:
        say(
            f"building our stand-in for the command plugin {plugin.version} from Go modules, "
            "at most 3 minutes on 2 cores"
        )
        go, env = golang.ensure(plugin.source, venv)
        flags = f"-s -w -X main.version={plugin.version}"
        options = ("-v", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", directory / plugin.program)
        run("go build", go, "build", *options, ".", cwd=plugin.source, env=env)

    return cache.entry(f"command-plugin-{cache.digest(plugin.source, plugin.version, platform.machine())}", build)


def _aws_stand_in(plugin: Plugin, venv: Path) -> Path:
    """A folder with the program: a Python package in one file, and a script that runs it in the cached venv."""

    def build(directory: Path) -> None:
        package = plugin.source.name
        python = shlex.quote(f"{venv}/bin/python")
        arguments = f'"$(dirname "$0")/{package}.pyz" {plugin.version} "$@"'
        zipapp.create_archive(
            plugin.source.parent,
            directory / f"{package}.pyz",
            main=f"{package}.main:main",
            filter=lambda file: file.parts[0] == package and file.suffix == ".py",
        )
        (directory / plugin.program).write_text(f"#!/bin/sh\nexec {python} -I {arguments}\n")
        (directory / plugin.program).chmod(0o755)

    return cache.entry(f"aws-plugin-{cache.digest(plugin.source, plugin.version, venv.name)}", build)
