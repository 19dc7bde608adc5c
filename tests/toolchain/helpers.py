"""What the toolchain's tests share."""

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@functools.cache
def ready() -> dict[str, Any]:
    """What `toolchain/setup --print-env` says of this computer: env, pulumi, python."""
    setup = [str(ROOT / "toolchain/setup"), "--for", "stack", "--print-env"]
    done: dict[str, Any] = json.loads(subprocess.run(setup, check=True, stdout=subprocess.PIPE).stdout)
    return done


class Project:
    """A Pulumi project in a folder of its own, with a file backend and the stack `dev`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pulumi = ready()["pulumi"]
        state = folder / "state"
        state.mkdir()
        own = {"PULUMI_BACKEND_URL": state.as_uri(), "PULUMI_CONFIG_PASSPHRASE": "correct horse"}
        self.env = {**os.environ, **ready()["env"], **own}
        self.configure(virtualenv="venv")
        self.must("stack", "init", "dev")

    def configure(self, **options: str) -> None:
        runtime = {"name": "python", "options": {"toolchain": "pip", **options}}
        (self.folder / "Pulumi.yaml").write_text(json.dumps({"name": "tiny", "runtime": runtime}))

    def write(self, program: str) -> None:
        (self.folder / "__main__.py").write_text(program)

    def run(self, *arguments: str, cwd: str = ".") -> subprocess.CompletedProcess:
        """Run pulumi; its output, stderr included, is in `stdout`."""
        command = [self.pulumi, "--non-interactive", "--color=never", *arguments]
        folder = self.folder / cwd
        return subprocess.run(
            command, cwd=folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def must(self, *arguments: str, cwd: str = ".") -> str:
        done = self.run(*arguments, cwd=cwd)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fails(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def output(self, name: str) -> object:
        return json.loads(self.must("stack", "output", name, "--json"))
