"""What the operating system must provide: programs that come as Debian packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .run import SetupError, run, say

CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


@dataclass(frozen=True)
class Need:
    """A Debian package, what it is for, and the program that shows that it (or its like elsewhere) is there."""

    package: str
    purpose: str
    program: str = ""

    def met(self) -> bool:
        return shutil.which(self.program) is not None


class VenvModule(Need):
    def met(self) -> bool:
        # Debian's Python can make a venv only with the package that holds ensurepip.
        return importlib.util.find_spec("ensurepip") is not None


class Certificates(Need):
    def met(self) -> bool:
        return any(Path(file).exists() for file in CERTIFICATES)


class PerlModule(Need):
    def met(self) -> bool:
        perl = shutil.which("perl")
        return (
            perl is not None and subprocess.run([perl, f"-M{self.program}", "-e1"], capture_output=True).returncode == 0
        )


STACK = [
    VenvModule("python3-venv", "the Python environment"),
    Certificates("ca-certificates", "to trust the package registries"),
]
DEMO = [
    *STACK,
    Need("mmdebstrap", "to make Debian's root file system", "mmdebstrap"),
    Need("systemd-container", "to boot it", "systemd-nspawn"),
    Need("iproute2", "to give it a network", "ip"),
    Need("nftables", "to give a VM of the local EC2 its firewall", "nft"),
    Need("openssh-client", "to log in to it", "sftp"),
]
TEST = [
    *DEMO,
    Need("shellcheck", "to check shell scripts", "shellcheck"),
    Need("chromium", "to see the timeline's page", "chromium"),
    Need("btrfs-progs", "to give a machine a btrfs for its quotas", "mkfs.btrfs"),
    *(
        Need(package, "a client that must get into a jail, or must not", program)
        for package, program in (
            *(("curl", "curl"), ("lftp", "lftp"), ("putty-tools", "psftp"), ("rclone", "rclone")),
            *(("rsync", "rsync"), ("sshfs", "sshfs")),
        )
    ),
    PerlModule("libnet-sftp-foreign-perl", "another one", "Net::SFTP::Foreign"),
]
NEEDS = {"stack": STACK, "demo": DEMO, "test": TEST, "bench": DEMO}


def ensure(needs: list[Need]) -> None:
    """Install the Debian packages of the `needs` that are not met; SetupError names them if that cannot be done."""
    missing = [need for need in needs if not need.met()]
    if not missing:
        return
    reasons = ", ".join(f"{need.package} ({need.purpose})" for need in missing)
    packages = [need.package for need in missing]
    if shutil.which("apt-get") is None:
        raise SetupError(f"this is no Debian; install what corresponds to {reasons}")
    if os.geteuid() != 0:
        raise SetupError(f"missing: {reasons}; as root, run: apt-get install {' '.join(packages)}")
    say(f"installing Debian packages: {reasons}")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run("apt-get install", *install, env=quiet)
    except SetupError:  # a fresh machine has no package lists, or old ones
        run("apt-get update", "apt-get", "update", env=quiet)
        run("apt-get install", *install, env=quiet)


def ensure_can_boot() -> None:
    """SetupError where no disposable Debian can be booted, whatever is installed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SetupError(
            "a disposable Debian can be booted by root on Linux alone; `make unit` runs the tests without one"
        )


def ensure_root_fs(machine: Path, python: Path) -> None:
    """Have `machine`, the helper that boots disposable Debians, make its root file system unless it is cached."""
    run("Debian root file system", python, machine, "rootfs", stdin='{"release": "trixie"}')
