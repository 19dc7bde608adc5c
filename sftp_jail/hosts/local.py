"""LocalHost: a disposable Debian machine on this computer, for trying things out.

`machine.py` beside this file boots it, as root; this file tells Pulumi when, and who may log in. Its keys are
made here rather than there, so that a preview knows the host key and a second run finds the same one.
"""

import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pulumi
from pulumi_command import local
from pulumi_command.remote import ConnectionArgs

from ..faults import Fault, raise_any
from ..hostside.validate import normalise_key, show
from ..user import UserArgs
from . import DIALS, Host

RELEASES = ("bullseye", "bookworm", "trixie")
"""The Debian releases that are supported, oldest first."""

ADMIN = "admin"
"""machine.py's administrator: not root, and sudo asks it no password."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(kw_only=True)
class LocalHostArgs:
    """A machine on this computer. All of it has a default."""

    release: Optional[str] = None
    """The Debian release: `bullseye`, `bookworm` or `trixie`. Default: trixie."""

    directory: Optional[str] = None
    """Where its keys and files are kept, from the project's root. Default: `.local/<stack>`."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the values; `path` is the place of these args."""
        if self.release is not None and self.release not in RELEASES:
            yield Fault(
                f"{path}.release",
                "not a Debian release that is supported",
                f"Use {', '.join(RELEASES[:-1])} or {RELEASES[-1]}",
                show(self.release),
            )


class LocalHost(Host):
    """A real Debian with real systemd, booted on this computer; needs root and Linux.

    :raises ConfigError: where the args have faults; no resource is registered then
    """

    ours = True

    def __init__(self, name: str, args: LocalHostArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        super().__init__("sftp-jail:index:LocalHost", name, None, opts)
        directory = Path(args.directory if args.directory is not None else default_directory())
        # No user's key has the name of either: `admin` is reserved, and no user name has a dot.
        admin, host = _ensure_key(directory, ADMIN), _ensure_key(directory, "host.key")
        admin_key, host_key = _public(admin), _public(host)
        alias = pulumi.get_stack()
        known_hosts = _write_known_hosts(directory, f"{alias} {host_key}\n")

        # Relative paths: Pulumi runs programs and plugins in the project's root, and so the state does not
        # depend on where the clone is.
        helper = shlex.join(["python3", os.path.relpath(Path(__file__).with_name("machine.py"))])
        release = args.release if args.release is not None else RELEASES[-1]
        # Whatever makes another machine is in its directory's name, a reboot of this computer included. So the
        # next one can be booted beside it, and `stop` with the old directory cannot end the new machine.
        identity = "\n".join([alias, release, admin_key, host_key, BOOT_ID.read_text()])
        files = directory / f"machine-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        if not pulumi.runtime.is_dry_run():
            _link(directory / "machine", files.name)
        machine = local.Command(
            name,
            create=f"{helper} start",
            delete=f"{helper} stop",
            stdin=json.dumps(
                {
                    "adminKey": admin_key,
                    "directory": str(files),
                    "hostKeyFile": str(host),
                    # A stack's name may have dots and underscores, and 100 characters; a host's name may not.
                    "name": re.sub(r"[^A-Za-z0-9]+", "-", alias)[:63].strip("-") or "machine",
                    "release": release,
                },
                sort_keys=True,
            ),
            triggers=[str(files)],
            add_previous_output_in_env=False,
            logging=local.Logging.STDERR,
            opts=pulumi.ResourceOptions(parent=self),
        )
        place = machine.stdout.apply(json.loads)

        self.address = place.apply(lambda started: started["address"])
        self.port = place.apply(lambda started: started["port"])
        self.host_key = pulumi.Output.from_input(host_key)
        self.connection = ConnectionArgs(
            host=self.address,
            port=self.port,
            user=ADMIN,
            private_key=pulumi.Output.secret(admin.read_text()),
            host_key=self.host_key,
            **DIALS,
        )
        self.deleted_with = machine
        # By alias, so that the file is right before the address is known, and whatever it becomes.
        self.sftp_options = ["-o", f"UserKnownHostsFile={known_hosts}", "-o", f"HostKeyAlias={alias}"]
        self.register_outputs({"address": self.address, "port": self.port, "hostKey": self.host_key})


def default_directory() -> str:
    """Where the stack's machine keeps its files, from the project's root."""
    return f".local/{pulumi.get_stack()}"


def demo_user(username: str, directory: Optional[str] = None) -> UserArgs:
    """A login whose private key is made on this computer, for whoever only wants to look around."""
    identity = _ensure_key(Path(directory if directory is not None else default_directory()), username)
    return UserArgs(keys={"demo": _public(identity)}, identity_file=str(identity))


def _ensure_key(directory: Path, name: str) -> Path:
    """The private key of that name, made if it is missing, its .pub beside it.

    The two appear by renaming, the private one last, so a key that is there is whole.
    """
    keys = directory / "keys"
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = keys / name
    with (
        open(keys / ".lock", "w") as lock,
        tempfile.TemporaryDirectory(dir=keys, prefix=".partial-") as partial,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not key.exists():
            new = Path(partial, name)
            try:
                subprocess.run(
                    ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(new)],
                    check=True,
                    stdin=subprocess.DEVNULL,
                )
            except (OSError, subprocess.CalledProcessError) as fault:
                raise pulumi.RunError(
                    f"Cannot make the key {key}: {fault}. Debian: apt install openssh-client"
                ) from fault
            Path(f"{new}.pub").replace(f"{key}.pub")
            new.replace(key)
    return key


def _public(key: Path) -> str:
    return normalise_key(Path(f"{key}.pub").read_text())


def _write_known_hosts(directory: Path, line: str) -> Path:
    partial = directory / f".partial-known_hosts-{os.getpid()}"
    partial.write_text(line)
    return partial.replace(directory / "known_hosts")


def _link(link: Path, target: str) -> None:
    """A name for people: `machine.py run .local/<stack>/machine -- COMMAND`."""
    partial = link.with_name(f".partial-{link.name}-{os.getpid()}")
    partial.symlink_to(target)
    partial.replace(link)
