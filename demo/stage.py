"""What every tour does: say where it is, and show what was typed and what came back."""

import shlex
import subprocess
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parent.parent
PULUMI = ROOT / "toolchain" / "pulumi"


def title(text: str) -> None:
    """Begin a stop of the tour."""
    print(f"\n== {text}", flush=True)


def play(argv: list[str], stdin: str = "") -> None:
    """Run a client, show what was typed and what came back."""
    print(f"\n  $ {shlex.join(argv)}")
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    for line in (done.stdout + done.stderr).splitlines():
        if line.strip():
            print(f"    {line}", flush=True)


def pulumi(*argv: str, env: Optional[dict[str, str]] = None) -> str:
    """What toolchain/pulumi says."""
    return subprocess.run([PULUMI, *argv], check=True, stdout=subprocess.PIPE, text=True, env=env).stdout
