"""Part of a stand-in for EC2: the process that one VM hangs on. The server starts it with the path of a `Boot`."""

import json
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from . import network
from .disposable import machine
from .image import DEVICES


class Boot(NamedTuple):
    """What a VM boots with."""

    instance_id: str
    image_id: str
    rootfs: str
    directory: str
    """machine.py's."""

    devices: str
    """The folder of its device nodes."""

    user_data: str
    """The path of a file."""

    ruleset: str
    elastic: list[str]
    address: Optional[str]
    """The one it had. None: it is new."""


def furnish(boot: Boot, root: Path, address: str, pid: int) -> None:
    """Its name and user data, where cloud-init finds them, and its network before anything can listen."""
    name = f"ip-{address.replace('.', '-')}"
    seed = root / "var/lib/cloud/seed/nocloud"
    seed.mkdir(parents=True, exist_ok=True)
    (seed / "meta-data").write_text(f"instance-id: {boot.instance_id}\nlocal-hostname: {name}\n")
    (seed / "user-data").write_bytes(Path(boot.user_data).read_bytes())
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    (root / "etc/local-ec2-image").write_text(f"{boot.image_id}\n")
    network.begin(pid, address, network.Network(boot.ruleset, frozenset(boot.elastic)))


def systemd_runs(_address: str, leader: int) -> bool:
    """Whether the machine's systemd takes commands."""
    return Path(f"/proc/{leader}/root/run/systemd/private").exists()


def main() -> int:
    """Hold the VM until it is off or the server is gone."""
    boot = Boot(**json.loads(Path(sys.argv[1]).read_text()))
    machine.supervise(
        machine.Machine(
            name=boot.instance_id,
            rootfs=Path(boot.rootfs),
            directory=Path(boot.directory),
            furnish=lambda root, address, pid: furnish(boot, root, address, pid),
            ready=systemd_runs,
            options=(f"--bind-ro={boot.devices}:{DEVICES}", "--console=read-only", "--setenv=TERM=dumb"),
            address=boot.address,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
