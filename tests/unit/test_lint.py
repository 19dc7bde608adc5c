"""The linters, as tests: what they find is a failure like any other."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHELL = [".ci/run", "bench/scripts/floor.sh"]


@pytest.mark.parametrize(
    "linter",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "sftp_jail", "__main__.py", "toolchain/steps", "toolchain/aws_plugin", "ci", "bench", "tests"],
    ],
    ids=" ".join,
)
def test_python_is_clean(linter: list[str]) -> None:
    # What mypy learns of the packages, for more than a minute, and nearly all of it pulumi-aws, is kept with them.
    env = {**os.environ, "MYPY_CACHE_DIR": f"{sys.prefix}/mypy"}
    done = subprocess.run(
        [sys.executable, "-m", *linter], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_is_clean() -> None:
    assert shutil.which("shellcheck"), "shellcheck is not installed: toolchain/setup --for test installs it"
    done = subprocess.run(["shellcheck", *SHELL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -trimpath, as the plugin is built: else all that it needs is compiled a second time.
@pytest.mark.parametrize("linter", [["gofmt", "-l", "."], ["go", "vet", "-trimpath", "./..."]], ids=" ".join)
def test_go_is_clean(linter: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "toolchain")
    golang = importlib.import_module("steps.golang")
    module = ROOT / "toolchain/command_plugin"
    go, env = golang.ensure(module, Path(sys.prefix))
    program = [str(go.with_name(linter[0])), *linter[1:]]
    done = subprocess.run(program, cwd=module, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_workflows_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("shellcheck"), "shellcheck, which actionlint runs, is not installed: toolchain/setup --for test"
    monkeypatch.syspath_prepend(ROOT / "toolchain")
    actionlint = importlib.import_module("steps.actionlint").ensure(ROOT / "toolchain", Path(sys.prefix))
    workflows = sorted((ROOT / ".github/workflows").iterdir())
    assert workflows
    done = subprocess.run([actionlint, *workflows], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
