"""The Python environments: one with the Pulumi SDK, what the tests need, and the interpreter that runs our own
programs; and another one for what `make bench` measures against."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import cache
from .run import SetupError, run, say

MARKS = ("requirements.txt", "toolchain/constraints.txt")

BENCH_MARKS = ("toolchain/constraints-bench.txt",)


def name(checkout: Path, marks: Sequence[str] = MARKS) -> str:
    """The cache entry's name: it changes with the interpreter and with every version in the lock file."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = os.path.realpath(sys.executable)
    return f"venv-{version}-{cache.digest(interpreter, *(checkout / mark for mark in marks))}"


def ensure(checkout: Path) -> Path:
    """The venv's directory, made with pip if it is not cached."""
    return _ensure(checkout, MARKS, "the Pulumi SDK and what the tests need")


def ensure_bench(checkout: Path) -> Path:
    """The directory of the bench's venv, made with pip if it is not cached."""
    return _ensure(checkout, BENCH_MARKS, "Ansible, pyinfra and matplotlib, for the bench")


def _ensure(checkout: Path, marks: Sequence[str], what: str) -> Path:
    def build(directory: Path) -> None:
        say(f"installing the Python packages ({what}), about half a minute")
        run("python -m venv", sys.executable, "-m", "venv", directory)
        lock = [argument for mark in marks for argument in ("--requirement", checkout / mark)]
        run("pip install", directory / "bin/python", "-m", "pip", "install", "--progress-bar", "off", *lock)

    return cache.entry(name(checkout, marks), build)


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
