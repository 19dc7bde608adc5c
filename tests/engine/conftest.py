"""A copy of the project with a state of its own, driven by the real engine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.conftest import MACHINE, ROOT, Done, Key, call, make_key, run_in

STACK = "local"


class Project:
    """One clone of the project with one stack."""

    def __init__(self, folder: Path) -> None:
        ready = json.loads(subprocess.check_output([ROOT / "toolchain" / "setup", "--for", "test", "--print-env"]))
        self.folder = folder
        self.pulumi: str = ready["pulumi"]
        self.env = {
            **os.environ,
            **ready["env"],
            "PULUMI_BACKEND_URL": f"file://{folder}/.local/state?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE": "a passphrase",
            "SFTP_JAIL_UNTIL_PID": str(os.getpid()),
        }
        for name in ("Pulumi.yaml", "__main__.py", "requirements.txt"):
            shutil.copy(ROOT / name, folder)
        shutil.copytree(ROOT / "sftp_jail", folder / "sftp_jail", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "venv").symlink_to(Path(ready["python"]).parent.parent)
        (folder / "stacks").mkdir()
        (folder / ".local" / "state").mkdir(parents=True)
        self.keys = folder / "keys"
        self.keys.mkdir()
        self.config: dict[str, Any] = {"sftp-jail:host": {"kind": "local"}, "sftp-jail:users": {}}
        self.write()
        done = self("stack", "init", STACK)
        assert done.code == 0, done

    def __call__(self, *argv: str) -> Done:
        """Run pulumi to its end."""
        return call(self.pulumi, "--non-interactive", "--color", "never", "-C", self.folder, *argv, env=self.env)

    def write(self, stack: str = STACK, config: Optional[dict[str, Any]] = None) -> None:
        """Write a stack's file, JSON being YAML; what `stack init` has put there stays."""
        path = self.folder / "stacks" / f"Pulumi.{stack}.yaml"
        head = (
            [line for line in path.read_text().splitlines() if line.startswith("encryptionsalt")]
            if path.exists()
            else []
        )
        path.write_text("\n".join([*head, f"config: {json.dumps(self.config if config is None else config)}", ""]))

    def user(self, username: str, *labels: str) -> dict[str, Key]:
        """Put a user into the stack file, each label with a key of its own."""
        keys = {label: self.key(username, label) for label in labels}
        self.config["sftp-jail:users"][username] = {"keys": {label: key.public for label, key in keys.items()}}
        self.write()
        return keys

    def key(self, username: str, label: str) -> Key:
        """The user's key of that label, made if it is missing."""
        path = self.keys / f"{username}-{label}"
        return Key(path) if path.exists() else make_key(path)

    def drop(self, username: str) -> None:
        """Take a user out of the stack file."""
        del self.config["sftp-jail:users"][username]
        self.write()

    def up(self) -> Done:
        """`pulumi up`, which must succeed."""
        done = self("up", "--yes", "--skip-preview")
        assert done.code == 0, done.out + done.err
        return done

    def up_until(self, signs: tuple[str, ...], then: Callable[["subprocess.Popen[str]"], object], *argv: str) -> bool:
        """`pulumi up`, with something that happens at the first line that has all the signs; whether it succeeds."""
        command = [self.pulumi, "--non-interactive", "-C", str(self.folder), "up", "--yes", "--skip-preview", *argv]
        with subprocess.Popen(command, env=self.env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if all(sign in line for sign in signs):
                    then(process)
                    break
            process.stdout.read()
        return process.returncode == 0

    def preview(self, *argv: str) -> str:
        """`pulumi preview`, which must succeed."""
        done = self("preview", *argv)
        assert done.code == 0, done.out + done.err
        return done.out

    def run(self, *argv: object, stdin: str = "") -> Done:
        """Run a program in the machine, as root, without a connection to its sshd."""
        return run_in(self.folder / ".local" / STACK / "machine", *argv, stdin=stdin)

    def connections(self) -> int:
        """How many connections sshd has had since the machine was booted."""
        done = self.run("journalctl", "--unit=ssh", "--output=cat", "--no-pager")
        assert done.code == 0, done
        return sum("Accepted" in line or "[preauth]" in line for line in done.out.splitlines())

    def sftp_argv(self, username: str, key: Key) -> list[str]:
        """OpenSSH's sftp as that user."""
        options = {
            "UserKnownHostsFile": self.folder / ".local" / STACK / "known_hosts",
            "HostKeyAlias": STACK,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        address = json.loads(self("stack", "output", "--json").out)["address"]
        flat = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["sftp", "-F", "none", "-i", str(key.path), *flat, f"{username}@{address}"]

    def sftp(self, username: str, key: Key, *commands: str) -> Done:
        """Run sftp commands, ending at the first that fails."""
        argv = self.sftp_argv(username, key)
        return call(*argv[:-1], "-b", "-", argv[-1], stdin="\n".join(commands) + "\n")

    def check(self) -> Done:
        """jailctl check on the server."""
        return self.run("/usr/local/sbin/jailctl", "check")

    def down(self) -> None:
        """End the machine, whatever state the stack is in, and what a killed CLI has left behind."""
        spec = json.dumps({"directory": str(self.folder / ".local" / STACK / "machine")})
        subprocess.run([sys.executable, MACHINE, "stop"], input=spec, text=True, check=True)
        self.kill()

    def kill(self) -> None:
        """End the CLI and its plugins, which look for a CLI that was killed every few minutes only."""
        mine = f"PULUMI_BACKEND_URL={self.env['PULUMI_BACKEND_URL']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project of the module's own."""
    project = Project(tmp_path_factory.mktemp("project"))
    yield project
    project.down()
