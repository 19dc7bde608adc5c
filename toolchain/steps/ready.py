"""A working Pulumi for one checkout: which one, and the environment it is to be run in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from . import cli, plugin, venv


@dataclass(frozen=True)
class Ready:
    """What `make_ready` found or made: the programs, what to add to the environment, and a sentence on all of it."""

    pulumi: Path
    python: Path
    env: dict[str, str]
    summary: str
    bench_python: Path | None = None
    """The interpreter of what the bench measures against, where it was asked for."""


def make_ready(checkout: Path) -> Ready:
    """Make whatever is missing for running Pulumi in `checkout`; if nothing is, this takes milliseconds."""
    toolchain = checkout / "toolchain"
    interpreter = venv.ensure(checkout)
    venv.link(checkout, interpreter)
    chosen = cli.ensure(toolchain, interpreter)
    plugins = plugin.ensure(toolchain, chosen.pulumi, interpreter)
    return Ready(
        pulumi=chosen.pulumi,
        python=interpreter / "bin/python",
        env=_environment(checkout, chosen, plugins),
        summary=f"Pulumi {chosen.version}: {chosen.origin}; {plugins.origins}",
    )


def _environment(checkout: Path, chosen: cli.Cli, plugins: plugin.Plugins) -> dict[str, str]:
    """What to add to our environment. The state is a folder of the checkout and needs no passphrase, unless the
    user's environment says otherwise."""
    env = {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    if "PULUMI_BACKEND_URL" not in os.environ:
        state = checkout / ".local/state"
        state.mkdir(parents=True, exist_ok=True)
        # Else Pulumi keeps a file beside the state that it does not write in one step: an `up` that is killed then can
        # leave `failed to load checkpoint: EOF`.
        env["PULUMI_BACKEND_URL"] = f"{state.as_uri()}?metadata=skip"
    if not os.environ.keys() & {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"}:
        env["PULUMI_CONFIG_PASSPHRASE"] = ""
    path = [*plugins.path, *([chosen.pulumi.parent] if chosen.ours else [])]
    if path:
        env["PATH"] = os.pathsep.join([*map(str, path), os.environ.get("PATH", os.defpath)])
    if plugins.home is not None:
        env["PULUMI_HOME"] = str(plugins.home)
        # Anything else would have to be downloaded, and that was tried.
        env["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    return env
