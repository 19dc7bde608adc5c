"""EBS volumes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from .aws import Call, NotThere, Seen, absent, doing, tags_of
from .resource import MINUTE, Inputs, Resource, State, picked, tag_specifications
from .schema import OUTPUT, TAGS, Property, Schema

GONE = "InvalidVolume.NotFound"
MODIFIABLE = {"size": "Size", "type": "VolumeType"}


class Volume(Resource):
    """A disk of its own."""

    token = "aws:ebs/volume:Volume"
    create_seconds = update_seconds = 5 * MINUTE
    schema: ClassVar[Schema] = {
        **TAGS,
        "arn": OUTPUT,
        "availabilityZone": Property(required=True, replace=True),
        "createTime": OUTPUT,
        "encrypted": Property(computed=True, replace=True),
        "iops": OUTPUT,
        "kmsKeyId": OUTPUT,
        "multiAttachEnabled": OUTPUT,
        "outpostArn": OUTPUT,
        "region": Property(computed=True, replace=True),
        "size": Property(required=True),
        "snapshotId": OUTPUT,
        "throughput": OUTPUT,
        "type": Property(computed=True),
        "volumeInitializationRate": OUTPUT,
    }

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {**MODIFIABLE, "availabilityZone": "AvailabilityZone", "encrypted": "Encrypted"}
        wanted = picked(inputs, names)
        with doing("creating EBS Volume"):
            tags = tag_specifications(inputs, "volume")
            return str(call.ec2.create_volume(**wanted, TagSpecifications=tags)["VolumeId"])

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        with doing(f"waiting for EBS Volume ({id}) create"):
            call.wait(lambda: seen(call, id), {"available"}, {"creating"})

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading EBS Volume ({id})"), absent(GONE):
            volume = describe(call, id)
        tags = tags_of(volume)
        return {
            "arn": call.arn(f"volume/{id}"),
            "availabilityZone": volume["AvailabilityZone"],
            "createTime": volume["CreateTime"].strftime("%Y-%m-%dT%H:%M:%SZ"),
            "encrypted": bool(volume.get("Encrypted")),
            "iops": volume.get("Iops") or 0,
            "kmsKeyId": volume.get("KmsKeyId") or "",
            "multiAttachEnabled": bool(volume.get("MultiAttachEnabled")),
            "outpostArn": volume.get("OutpostArn") or "",
            "size": volume["Size"],
            "snapshotId": volume.get("SnapshotId") or "",
            "tags": tags,
            "tagsAll": tags,
            "throughput": volume.get("Throughput") or 0,
            "type": volume["VolumeType"],
            "volumeInitializationRate": 0,
        }

    def update(self, call: Call, id: str, state: State, inputs: Inputs, changed: Collection[str]) -> None:
        with doing(f"modifying EBS Volume ({id})"):
            modify(call, id, {**state, **inputs}, changed)

    def delete(self, call: Call, id: str, state: State) -> None:
        with doing(f"deleting EBS Volume ({id})"), absent(GONE):
            call.persist(lambda: call.ec2.delete_volume(VolumeId=id), ("VolumeInUse",))
        with doing(f"waiting for EBS Volume ({id}) delete"):
            call.wait(lambda: seen(call, id), {"", "deleted"}, {"available", "deleting"})


def describe(call: Call, id: str) -> Any:
    """What AWS knows of the volume."""
    return call.ec2.describe_volumes(VolumeIds=[id])["Volumes"][0]


def seen(call: Call, id: str) -> Seen:
    """The volume's state."""
    try:
        with absent(GONE):
            return Seen(describe(call, id)["State"])
    except NotThere:
        return Seen("")


def modify(call: Call, id: str, wanted: State, changed: Collection[str]) -> None:
    """Make those of MODIFIABLE that `changed` what is `wanted`, and wait until the volume has it."""
    names = [name for name in MODIFIABLE if name in changed and wanted.get(name)]
    if not names:
        return
    call.ec2.modify_volume(VolumeId=id, **{MODIFIABLE[name]: wanted[name] for name in names})
    call.wait(lambda: _modification(call, id), {"completed", "optimizing"}, {"modifying"})


def _modification(call: Call, id: str) -> Seen:
    modification = call.ec2.describe_volumes_modifications(VolumeIds=[id])["VolumesModifications"][0]
    return Seen(modification["ModificationState"], modification.get("StatusMessage") or "")
