"""actionlint, which reads GitHub's workflows as GitHub would: built from its Go module, since Debian has no package."""

from __future__ import annotations

import platform
from pathlib import Path

from . import cache, golang
from .run import run, say

PROGRAM = "actionlint"
PACKAGE = "github.com/rhysd/actionlint/cmd/actionlint"


def ensure(toolchain: Path, venv: Path) -> Path:
    """The program, built if it is not cached."""
    modules = toolchain / PROGRAM

    def build(directory: Path) -> None:
        say("building actionlint from its Go modules, a few seconds")
        go, env = golang.ensure(modules, venv)
        options = ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", directory / PROGRAM)
        run("go build", go, "build", *options, PACKAGE, cwd=modules, env=env)

    return cache.entry(f"{PROGRAM}-{cache.digest(platform.machine(), modules)}", build) / PROGRAM
