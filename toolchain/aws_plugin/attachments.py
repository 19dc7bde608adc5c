"""The attachment of an EBS volume to an instance."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from . import instances, volumes
from .aws import Call, Failure, NotThere, Seen, absent, code, doing
from .resource import MINUTE, Inputs, Resource, State
from .schema import Property, Schema


class VolumeAttachment(Resource):
    """A volume in an instance, under the name of a device."""

    token = "aws:ec2/volumeAttachment:VolumeAttachment"
    create_seconds = delete_seconds = 5 * MINUTE
    schema: ClassVar[Schema] = {
        "deviceName": Property(required=True, replace=True),
        "instanceId": Property(required=True, replace=True),
        "region": Property(computed=True, replace=True),
        "stopInstanceBeforeDetaching": Property(),
        "volumeId": Property(required=True, replace=True),
    }

    def create(self, call: Call, inputs: Inputs) -> str:
        device, instance, volume = _place(inputs)
        with doing(f"waiting for EC2 Instance ({instance}) to be ready"):
            ready, changing = {"running", "stopped"}, {"pending", "stopping"}
            call.wait(lambda: instances.seen(call, instance), ready, changing)
        if _attachment(call, inputs) is None:
            with doing(f"attaching EBS Volume ({volume}) to EC2 Instance ({instance})"):
                call.ec2.attach_volume(Device=device, InstanceId=instance, VolumeId=volume)
        return f"vai-{zlib.crc32(f'{device}-{instance}-{volume}-'.encode())}"

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        _, instance, volume = _place(inputs)
        with doing(f"waiting for EBS Volume ({volume}) Attachment ({instance}) create"):
            call.wait(lambda: _seen(call, inputs), {"attached"}, {"attaching"})

    def imported(self, id: str) -> tuple[str, State]:
        parts = id.split(":")
        if len(parts) != 3 or not all(parts):
            raise Failure(f'Unexpected format of ID ("{id}"), expected DEVICE_NAME:VOLUME_ID:INSTANCE_ID')
        device, volume, instance = parts
        state = {"deviceName": device, "instanceId": instance, "volumeId": volume}
        return f"vai-{zlib.crc32(f'{device}-{instance}-{volume}-'.encode())}", state

    def read(self, call: Call, id: str, state: State) -> State:
        _, instance, volume = _place(state)
        with doing(f"reading EBS Volume ({volume}) Attachment ({instance})"):
            if _attachment(call, state) is None:
                raise NotThere
        return {name: state[name] for name in self.schema if name in state}

    def delete(self, call: Call, id: str, state: State) -> None:
        device, instance, volume = _place(state)
        what = f"deleting EBS Volume ({volume}) Attachment ({instance})"
        with doing(what), absent("InvalidAttachment.NotFound", volumes.GONE):
            if state.get("stopInstanceBeforeDetaching"):
                instances.stop(call, instance)
            try:
                call.ec2.detach_volume(Device=device, InstanceId=instance, VolumeId=volume)
            except ClientError as error:
                if code(error) == "IncorrectState" and "available" in str(error):
                    return  # it is detached already
                raise
            call.wait(lambda: _seen(call, state), {""}, {"attached", "busy", "detaching"})


def _place(known: Inputs) -> tuple[str, str, str]:
    return known["deviceName"], known["instanceId"], known["volumeId"]


def _attachment(call: Call, known: Inputs) -> Any:
    """What AWS says of the attachment, or None."""
    device, instance, volume = _place(known)
    try:
        with absent(volumes.GONE):
            found = volumes.describe(call, volume).get("Attachments") or ()
    except NotThere:
        return None
    here = [one for one in found if (one["Device"], one["InstanceId"]) == (device, instance)]
    return next((one for one in here if one["State"] != "detached"), None)


def _seen(call: Call, known: Inputs) -> Seen:
    attachment = _attachment(call, known)
    return Seen(attachment["State"] if attachment else "")
