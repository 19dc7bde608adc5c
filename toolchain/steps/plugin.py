"""The command plugin, which the engine starts for every `command:*` resource: the official one, or our stand-in."""

from __future__ import annotations

import os
import platform
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import cache, golang
from .run import SetupError, run, say

VERSION = "1.2.1"
PROGRAM = "pulumi-resource-command"
DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Plugin:
    """A command plugin, where it is from, and the PULUMI_HOME it needs (None: the user's own)."""

    origin: str
    home: Path | None


def ensure(toolchain: Path, pulumi: Path, venv: Path) -> Plugin:
    """The official plugin if it is installed or can be downloaded, else the stand-in, installed if need be.

    Where the download failed once, the stand-in is cached, and it is not tried again. The stand-in lives in a
    PULUMI_HOME of its own, so that nobody's ~/.pulumi ever has something under the official plugin's name.
    """
    if found := _official():
        return Plugin(f"official ({found})", None)
    source = toolchain / "command_plugin"
    name = f"home-{cache.digest(source, VERSION, platform.machine())}"
    if (home := cache.finished(name)) is None and _download(pulumi):
        return Plugin("official, just downloaded", None)
    if home is None:
        home = cache.entry(name, lambda directory: _install_stand_in(source, pulumi, venv, directory))
    return Plugin("our stand-in, because the official one cannot be downloaded here", home)


def _official() -> Path | None:
    on_path = shutil.which(PROGRAM)
    if on_path is not None:
        return Path(on_path)
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    plugin = home / "plugins" / f"resource-command-v{VERSION}"
    # Pulumi keeps a .partial file beside a plugin until it is all there.
    if (plugin / PROGRAM).exists() and not plugin.with_name(f"{plugin.name}.partial").exists():
        return None if cache.holds(plugin) else plugin
    return None


def _download(pulumi: Path) -> bool:
    if os.environ.get("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "").lower() in ("1", "true"):
        return False
    say(f"downloading the official command plugin {VERSION}")
    try:
        _plugin_install(pulumi, timeout=DOWNLOAD_SECONDS)
    except SetupError as error:
        say(f"no official command plugin: {str(error).splitlines()[-1].strip()}")
        return False
    return True


def _install_stand_in(source: Path, pulumi: Path, venv: Path, home: Path) -> None:
    say(f"building our stand-in for the command plugin {VERSION} from Go modules, at most 3 minutes on 2 cores")
    go, env = golang.ensure(source, venv)
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary, PROGRAM)
        options = ("-v", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -X main.version={VERSION}", "-o", program)
        run("go build", go, "build", *options, ".", cwd=source, env=env)
        archive = Path(temporary, "plugin.tar.gz")
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(program, arcname=PROGRAM)
        _plugin_install(pulumi, "--file", archive, env={"PULUMI_HOME": str(home)})


def _plugin_install(
    pulumi: Path, *options: str | Path, env: dict[str, str] | None = None, timeout: float | None = None
) -> None:
    command = (pulumi, "plugin", "install", "resource", "command", VERSION)
    quiet = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    run("pulumi plugin install", *command, *options, env=quiet | (env or {}), timeout=timeout)
