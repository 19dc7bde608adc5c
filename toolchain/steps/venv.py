"""The Python environment: the Pulumi SDK, what the tests need, and the interpreter that runs our own programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import cache
from .run import SetupError, run, say

MARKS = ("requirements.txt", "toolchain/constraints.txt")


def name(checkout: Path) -> str:
    """The cache entry's name: it changes with the interpreter and with every version in the lock file."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = os.path.realpath(sys.executable)
    return f"venv-{version}-{cache.digest(interpreter, *(checkout / mark for mark in MARKS))}"


def ensure(checkout: Path) -> Path:
    """The venv's directory, made with pip if it is not cached."""

    def build(directory: Path) -> None:
        say("installing the Python packages (the Pulumi SDK and what the tests need), about half a minute")
        run("python -m venv", sys.executable, "-m", "venv", directory)
        lock = [argument for mark in MARKS for argument in ("--requirement", checkout / mark)]
        run("pip install", directory / "bin/python", "-m", "pip", "install", "--progress-bar", "off", *lock)

    return cache.entry(name(checkout), build)


def link(checkout: Path, venv: Path) -> None:
    """Let `venv` in the checkout, which Pulumi.yaml names, be the cached one, unless someone made one there."""
    here = checkout / "venv"
    if here.is_symlink() and (not here.exists() or cache.holds(here)):
        if here.readlink() == venv:
            return
        here.unlink()
    elif here.exists():
        if not (here / "bin/python").exists():
            raise SetupError(f"{here} is no Python venv; remove it, or make one with `pulumi install`")
        return
    here.symlink_to(venv)
