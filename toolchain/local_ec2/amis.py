"""Part of a stand-in for EC2: Debian's official images, as DescribeImages finds them on AWS.

Two builds for each release and architecture, because "the most recent" must choose. All images of a release boot
the same root file system.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from moto.ec2.models.amis import Ami

OWNER = "136693071363"
"""Debian's AWS account (wiki.debian.org/Cloud/AmazonEC2Image)."""

RELEASES = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
BUILDS = ("20250814-2204", "20251006-2257")
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}
"""Debian's word for it, and AWS's."""


def load(backend: Any) -> None:
    """Give moto's backend of a region these images, and none of moto's own."""
    for ami in official(backend):
        backend.amis[ami.id] = ami


def official(backend: Any) -> Iterator[Ami]:
    """Debian's images in the backend's region."""
    for number in RELEASES:
        for build in BUILDS:
            for debian, aws in ARCHITECTURES.items():
                name = f"debian-{number}-{debian}-{build}"
                digest = hashlib.sha256(f"{backend.region_name} {name}".encode()).hexdigest()
                yield Ami(
                    backend,
                    f"ami-{digest[:17]}",
                    name=name,
                    description=f"Debian {number} ({build})",
                    owner_id=OWNER,
                    public=True,
                    virtualization_type="hvm",
                    architecture=aws,
                    creation_date=datetime.strptime(build[:8], "%Y%m%d").replace(tzinfo=timezone.utc),
                    image_location=f"amazon/{name}",
                    hypervisor="xen",
                    root_device_type="ebs",
                    root_device_name="/dev/xvda",
                    region_name=f"{backend.region_name}a",
                )


def release(backend: Any, ami_id: str) -> str:
    """The code name of the Debian release that an image holds; KeyError if it is none of `official`."""
    _, number, *_ = backend.amis[ami_id].name.split("-")
    return RELEASES[number]
