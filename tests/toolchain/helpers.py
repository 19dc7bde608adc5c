"""What the toolchain's tests share."""

import functools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@functools.cache
def ready() -> dict[str, Any]:
    """What `toolchain/setup --print-env` says of this computer: env, pulumi, python."""
    setup = [str(ROOT / "toolchain/setup"), "--for", "stack", "--print-env"]
    done: dict[str, Any] = json.loads(subprocess.run(setup, check=True, stdout=subprocess.PIPE).stdout)
    return done


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens soon, or fail."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.05)
