"""Running the long steps: quiet while they go well, their own last words when they do not."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

PROGRESS_SECONDS = 15
LAST_WORDS = 15  # lines of its output that are shown when a step fails
PR_SET_PDEATHSIG = 1  # prctl(2)


class SetupError(Exception):
    """A step that cannot be done; the message is for the user, and says why."""


def say(text: str) -> None:
    """One line to the user. On stderr, because stdout belongs to the pulumi that may follow."""
    print(f"toolchain: {text}", file=sys.stderr, flush=True)


def run(
    purpose: str,
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str = "",
    timeout: float | None = None,
) -> str:
    """Run `command` to its end and return what it printed; every 15 s a line says what it is doing.

    The command dies with this process, however that dies. Raises SetupError, with the command's last lines, if it
    fails or takes more than `timeout` seconds; `purpose` is what it is for, e.g. "pip". `env` adds to our own.
    """
    output: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            preexec_fn=_die_with_parent,
        )
    except OSError as error:
        raise SetupError(f"{purpose} cannot be started: {error}") from error
    reader = threading.Thread(target=_collect, args=(process, output), daemon=True)
    reader.start()
    try:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(stdin)
        _wait(process, purpose, output, timeout)
    finally:
        process.kill()
        process.wait()
    reader.join()
    if process.returncode != 0:
        last = "".join(f"\n    {line.rstrip()}" for line in output[-LAST_WORDS:])
        raise SetupError(f"{purpose} failed with status {process.returncode}; its last lines:{last}")
    return "".join(output)


def _collect(process: subprocess.Popen[str], output: list[str]) -> None:
    for line in process.stdout or ():
        output.append(line)


def _wait(process: subprocess.Popen[str], purpose: str, output: list[str], timeout: float | None) -> None:
    started = time.monotonic()
    while True:
        elapsed = time.monotonic() - started
        if timeout is not None and elapsed >= timeout:
            raise SetupError(f"{purpose} did not end within {timeout:g} s")
        left = PROGRESS_SECONDS if timeout is None else min(PROGRESS_SECONDS, timeout - elapsed)
        try:
            process.wait(left)
            return
        except subprocess.TimeoutExpired:
            last = output[-1].strip() if output else "no output so far"
            minutes, seconds = divmod(round(time.monotonic() - started), 60)
            say(f"  {minutes}:{seconds:02} {purpose}, {len(output)} lines: {last[:100]}")


def _die_with_parent() -> None:
    """Ask the kernel to end this child when its parent ends, so that a killed set-up leaves nothing running."""
    import ctypes  # here, because a warm `toolchain/pulumi` needs none of it

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
