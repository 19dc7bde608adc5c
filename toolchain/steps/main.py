"""The command line of `toolchain/setup`."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from . import system, venv
from .ready import Ready, make_ready
from .run import SetupError, say

DESCRIPTION = """\
Make sure that this computer has what is needed, saying what is made and why; a second run has nothing to do.
Everything but Debian packages goes to the cache: $SFTP_JAIL_CACHE, by default ~/.cache/sftp-jail."""


def main(checkout: Path, arguments: list[str]) -> int:
    """Do what `arguments` ask for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="toolchain/setup", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=list(system.NEEDS),
        default="demo",
        help="stack: what runs Pulumi; demo (the default): and what boots a disposable Debian; test: and linters; "
        "bench: the demo's, and what `make bench` measures against",
    )
    parser.add_argument(
        "--print-env",
        action="store_true",
        help="print JSON on stdout: env (what to add to the environment), and the paths of pulumi, of python, and for "
        "the bench of its own python",
    )
    options = parser.parse_args(arguments)
    try:
        ready = set_up(checkout, options.purpose)
    except SetupError as error:
        say(str(error))
        return 1
    say(ready.summary)
    if options.print_env:
        programs = {"pulumi": ready.pulumi, "python": ready.python, "benchPython": ready.bench_python}
        found = {name: str(path) for name, path in programs.items() if path is not None}
        print(json.dumps({"env": ready.env, **found}))
    return 0


def set_up(checkout: Path, purpose: str) -> Ready:
    """Everything that `purpose`, a key of `system.NEEDS`, needs. SetupError says what cannot be had."""
    try:
        if purpose != "stack":
            system.ensure_can_boot()
        system.ensure(system.NEEDS[purpose])
        ready = make_ready(checkout)
        if purpose != "stack":
            system.ensure_root_fs(checkout / "sftp_jail/hosts/machine.py", ready.python)
        if purpose == "bench":
            ready = replace(ready, bench_python=venv.ensure_bench(checkout) / "bin/python")
    except OSError as error:
        raise SetupError(f"cannot go on: {error}") from error
    return ready
