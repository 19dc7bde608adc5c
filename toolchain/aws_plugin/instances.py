"""EC2 instances."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from . import volumes
from .aws import Call, Failure, NotThere, Seen, absent, doing, tags_of
from .resource import MINUTE, Inputs, Resource, State, picked, retag, tag_specifications
from .schema import OUTPUT, TAGS, Property, Schema

GONE = "InvalidInstanceID.NotFound"
RESTARTING = ("instanceType", "userData")
"""What is changed while the instance is stopped."""

DISK: Schema = {
    "deleteOnTermination": Property(default=True),
    "deviceName": OUTPUT,
    "encrypted": Property(computed=True, replace=True),
    "iops": OUTPUT,
    "kmsKeyId": OUTPUT,
    "tags": Property(),
    "tagsAll": OUTPUT,
    "throughput": OUTPUT,
    "volumeId": OUTPUT,
    "volumeSize": Property(computed=True),
    "volumeType": Property(computed=True),
}

DISK_OF_VOLUME = {"volumeSize": "size", "volumeType": "type"}
"""What of a disk can be modified, and what the volume calls it."""

METADATA_IN_AWS = {
    "httpEndpoint": "HttpEndpoint",
    "httpProtocolIpv6": "HttpProtocolIpv6",
    "httpPutResponseHopLimit": "HttpPutResponseHopLimit",
    "httpTokens": "HttpTokens",
    "instanceMetadataTags": "InstanceMetadataTags",
}

METADATA: Schema = dict.fromkeys(METADATA_IN_AWS, Property(computed=True))


class Instance(Resource):
    """A virtual machine with one network interface."""

    token = "aws:ec2/instance:Instance"
    delete_seconds = 20 * MINUTE
    schema: ClassVar[Schema] = {
        **TAGS,
        "ami": Property(computed=True, replace=True),
        "arn": OUTPUT,
        "associatePublicIpAddress": Property(computed=True, replace=True),
        "availabilityZone": Property(computed=True, replace=True),
        "disableApiStop": OUTPUT,
        "disableApiTermination": OUTPUT,
        "ebsBlockDevices": OUTPUT,
        "ebsOptimized": OUTPUT,
        "hibernation": OUTPUT,
        "hostId": OUTPUT,
        "iamInstanceProfile": OUTPUT,
        "instanceInitiatedShutdownBehavior": OUTPUT,
        "instanceLifecycle": OUTPUT,
        "instanceState": OUTPUT,
        "instanceType": Property(computed=True),
        "ipv6AddressCount": OUTPUT,
        "ipv6Addresses": OUTPUT,
        "keyName": OUTPUT,
        "metadataOptions": Property(computed=True, fields=METADATA),
        "monitoring": OUTPUT,
        "outpostArn": OUTPUT,
        "placementGroup": OUTPUT,
        "placementPartitionNumber": OUTPUT,
        "primaryNetworkInterfaceId": OUTPUT,
        "privateDns": OUTPUT,
        "privateIp": Property(computed=True, replace=True),
        "publicDns": OUTPUT,
        "publicIp": OUTPUT,
        "region": Property(computed=True, replace=True),
        "rootBlockDevice": Property(computed=True, fields=DISK),
        "secondaryPrivateIps": OUTPUT,
        "securityGroups": OUTPUT,
        "sourceDestCheck": OUTPUT,
        "spotInstanceRequestId": OUTPUT,
        "subnetId": Property(computed=True, replace=True),
        "tenancy": OUTPUT,
        "userData": Property(computed=True),
        "userDataReplaceOnChange": Property(default=False),
        "vpcSecurityGroupIds": Property(computed=True, unordered=True),
    }

    def faults(self, inputs: Inputs) -> Iterator[tuple[str, str]]:
        for name in ("ami", "instanceType"):
            if name not in inputs:
                yield name, f"one of `{name},launchTemplate` must be specified"

    def replacing(self, changed: Collection[str], state: State, inputs: Inputs) -> Collection[str]:
        return ["userData"] if inputs.get("userDataReplaceOnChange") and "userData" in changed else []

    def create(self, call: Call, inputs: Inputs) -> str:
        request = picked(inputs, {"ami": "ImageId", "instanceType": "InstanceType"})
        if zone := inputs.get("availabilityZone"):
            request["Placement"] = {"AvailabilityZone": zone}
        if user_data := _user_data(inputs):
            request["UserData"] = user_data
        if options := _metadata_options(inputs.get("metadataOptions") or {}):
            request["MetadataOptions"] = options
        with doing("creating EC2 Instance"):
            if disk := inputs.get("rootBlockDevice"):
                request["BlockDeviceMappings"] = [self._root_disk(call, inputs["ami"], disk)]
            tags = tag_specifications(inputs, "instance")
            answer = call.ec2.run_instances(
                MinCount=1, MaxCount=1, TagSpecifications=tags, **request, **self._network(inputs)
            )
        return str(answer["Instances"][0]["InstanceId"])

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        with doing(f"waiting for EC2 Instance ({id}) create"):
            call.wait(lambda: seen(call, id), {"running"}, {"", "pending"})
        if disk_tags := inputs.get("rootBlockDevice", {}).get("tags"):
            retag(call, self._root_volume(describe(call, id)), {}, disk_tags)

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading EC2 Instance ({id})"), absent(GONE):
            instance = describe(call, id)
            if instance["State"]["Name"] == "terminated":
                raise NotThere
            termination, stopping, user_data, shutdown = (
                self._attribute(call, id, name)
                for name in ("disableApiTermination", "disableApiStop", "userData", "instanceInitiatedShutdownBehavior")
            )
            disks, root = self._disks(call, instance)
        tags = tags_of(instance)
        placement = instance.get("Placement") or {}
        has: State = {
            "ami": instance["ImageId"],
            "arn": call.arn(f"instance/{id}"),
            "availabilityZone": placement.get("AvailabilityZone", ""),
            "disableApiStop": bool(stopping),
            "disableApiTermination": bool(termination),
            "ebsBlockDevices": disks,
            "ebsOptimized": bool(instance.get("EbsOptimized")),
            "hibernation": bool((instance.get("HibernationOptions") or {}).get("Configured")),
            "hostId": placement.get("HostId", ""),
            "iamInstanceProfile": (instance.get("IamInstanceProfile") or {}).get("Arn", "").rpartition("/")[2],
            "instanceInitiatedShutdownBehavior": shutdown or "stop",
            "instanceLifecycle": instance.get("InstanceLifecycle", ""),
            "instanceState": instance["State"]["Name"],
            "instanceType": instance["InstanceType"],
            "keyName": instance.get("KeyName", ""),
            "monitoring": (instance.get("Monitoring") or {}).get("State") in ("enabled", "pending"),
            "outpostArn": instance.get("OutpostArn", ""),
            "placementGroup": placement.get("GroupName", ""),
            "placementPartitionNumber": placement.get("PartitionNumber", 0),
            "privateDns": instance.get("PrivateDnsName", ""),
            "privateIp": instance.get("PrivateIpAddress", ""),
            "publicDns": instance.get("PublicDnsName", ""),
            "publicIp": instance.get("PublicIpAddress", ""),
            "spotInstanceRequestId": instance.get("SpotInstanceRequestId", ""),
            "tags": tags,
            "tagsAll": tags,
            "tenancy": placement.get("Tenancy", "default"),
            "userDataReplaceOnChange": bool(state.get("userDataReplaceOnChange")),
            **self._interface(instance),
        }
        if options := instance.get("MetadataOptions"):
            has["metadataOptions"] = {
                ours: options[theirs] for ours, theirs in METADATA_IN_AWS.items() if theirs in options
            }
        if root is not None:
            has["rootBlockDevice"] = {**root, "tagsAll": root["tags"]}
        if user_data:
            has["userData"] = _as_given(user_data, state)
        return has

    def unsettled(self, changed: Collection[str]) -> Collection[str]:
        """An instance that was stopped gets another public address."""
        return ("publicDns", "publicIp") if {*RESTARTING} & set(changed) else ()

    def update(self, call: Call, id: str, state: State, inputs: Inputs, changed: Collection[str]) -> None:
        with doing(f"updating EC2 Instance ({id})"):
            if "vpcSecurityGroupIds" in changed:
                if not inputs["vpcSecurityGroupIds"]:
                    raise Failure("VPC-based instances require at least one security group to be attached.")
                interface = _primary(describe(call, id))["NetworkInterfaceId"]
                groups = inputs["vpcSecurityGroupIds"]
                call.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=groups)
            if "instanceType" in changed:
                self._modify_stopped(call, id, InstanceType={"Value": inputs["instanceType"]})
            if "userData" in changed:
                encoded = base64.b64encode(_user_data(inputs)).decode()
                self._modify_stopped(call, id, Attribute="userData", Value=encoded)
            if "metadataOptions" in changed:
                wanted = {**state.get("metadataOptions", {}), **inputs["metadataOptions"]}
                call.ec2.modify_instance_metadata_options(InstanceId=id, **_metadata_options(wanted))
                call.wait(lambda: self._metadata(call, id), {"applied"}, {"pending"})
            if "rootBlockDevice" in changed:
                self._update_root_disk(call, id, state["rootBlockDevice"], inputs["rootBlockDevice"])

    def delete(self, call: Call, id: str, state: State) -> None:
        with doing(f"terminating EC2 Instance ({id})"), absent(GONE):
            call.ec2.terminate_instances(InstanceIds=[id])
        with doing(f"waiting for EC2 Instance ({id}) delete"):
            alive = {"pending", "running", "shutting-down", "stopping", "stopped"}
            call.wait(lambda: seen(call, id), {"", "terminated"}, alive)

    def _root_disk(self, call: Call, ami: str, disk: Inputs) -> dict[str, Any]:
        ebs = picked(disk, {"volumeSize": "VolumeSize", "volumeType": "VolumeType"})
        if disk.get("encrypted"):
            ebs["Encrypted"] = True
        ebs["DeleteOnTermination"] = disk["deleteOnTermination"]
        images = call.ec2.describe_images(ImageIds=[ami])["Images"]
        if not images or not images[0].get("RootDeviceName"):
            raise Failure(f"finding Root Device Name for AMI ({ami}): empty result")
        root = images[0]["RootDeviceName"]
        devices = [mapping["DeviceName"] for mapping in images[0].get("BlockDeviceMappings") or ()]
        # Some images name a root device that they do not map: then it is their first one.
        return {"DeviceName": root if root in devices or not devices else devices[0], "Ebs": ebs}

    def _network(self, inputs: Inputs) -> dict[str, Any]:
        if "subnetId" in inputs and "associatePublicIpAddress" in inputs:
            names = {"subnetId": "SubnetId", "vpcSecurityGroupIds": "Groups", "privateIp": "PrivateIpAddress"}
            public = inputs["associatePublicIpAddress"]
            interface = {"DeviceIndex": 0, "AssociatePublicIpAddress": public, **picked(inputs, names)}
            return {"NetworkInterfaces": [interface]}
        names = {"subnetId": "SubnetId", "vpcSecurityGroupIds": "SecurityGroupIds", "privateIp": "PrivateIpAddress"}
        return picked(inputs, names)

    def _attribute(self, call: Call, id: str, name: str) -> Any:
        answer = call.ec2.describe_instance_attribute(InstanceId=id, Attribute=name)
        return (answer.get(name[0].upper() + name[1:]) or {}).get("Value")

    def _interface(self, instance: Any) -> State:
        primary = _primary(instance)
        private = primary.get("PrivateIpAddresses") or ()
        ipv6 = [one["Ipv6Address"] for one in primary.get("Ipv6Addresses") or ()]
        groups = instance.get("SecurityGroups") or ()
        return {
            "associatePublicIpAddress": bool(primary.get("Association")),
            "ipv6AddressCount": len(ipv6),
            "ipv6Addresses": ipv6,
            "primaryNetworkInterfaceId": primary.get("NetworkInterfaceId", ""),
            "secondaryPrivateIps": [one["PrivateIpAddress"] for one in private if not one.get("Primary")],
            "securityGroups": sorted(one["GroupName"] for one in groups),
            "sourceDestCheck": bool(instance.get("SourceDestCheck", True)),
            "subnetId": primary.get("SubnetId") or instance.get("SubnetId", ""),
            "vpcSecurityGroupIds": sorted(one["GroupId"] for one in groups),
        }

    def _disks(self, call: Call, instance: Any) -> tuple[list[dict[str, Any]], Any]:
        """The disks but the root one, and the root one or None."""
        mappings = {one["Ebs"]["VolumeId"]: one for one in instance.get("BlockDeviceMappings") or () if "Ebs" in one}
        if not mappings:
            return [], None
        disks, root = [], None
        for volume in call.ec2.describe_volumes(VolumeIds=sorted(mappings))["Volumes"]:
            mapping = mappings[volume["VolumeId"]]
            disk = {
                "deleteOnTermination": bool(mapping["Ebs"].get("DeleteOnTermination")),
                "deviceName": mapping["DeviceName"],
                "encrypted": bool(volume.get("Encrypted")),
                "iops": volume.get("Iops") or 0,
                "kmsKeyId": volume.get("KmsKeyId") or "",
                "tags": tags_of(volume),
                "throughput": volume.get("Throughput") or 0,
                "volumeId": volume["VolumeId"],
                "volumeSize": volume["Size"],
                "volumeType": volume["VolumeType"],
            }
            if mapping["DeviceName"] == instance.get("RootDeviceName"):
                root = disk
            else:
                disks.append({**disk, "snapshotId": volume.get("SnapshotId") or "", "tagsAll": disk["tags"]})
        return sorted(disks, key=lambda disk: disk["deviceName"]), root

    def _root_volume(self, instance: Any) -> str:
        [volume] = (
            one["Ebs"]["VolumeId"]
            for one in instance["BlockDeviceMappings"]
            if one["DeviceName"] == instance["RootDeviceName"]
        )
        return str(volume)

    def _update_root_disk(self, call: Call, id: str, old: State, new: Inputs) -> None:
        wanted = {theirs: new.get(ours, old.get(ours)) for ours, theirs in DISK_OF_VOLUME.items()}
        changed = [theirs for ours, theirs in DISK_OF_VOLUME.items() if ours in new and new[ours] != old.get(ours)]
        volumes.modify(call, old["volumeId"], wanted, changed)
        if new["deleteOnTermination"] != old["deleteOnTermination"]:
            mapping = {"DeviceName": old["deviceName"], "Ebs": {"DeleteOnTermination": new["deleteOnTermination"]}}
            self._modify(call, id, BlockDeviceMappings=[mapping])
        retag(call, old["volumeId"], old.get("tags") or {}, new.get("tags") or {})

    def _metadata(self, call: Call, id: str) -> Seen:
        # An API that applies them at once need not say so.
        return Seen(describe(call, id)["MetadataOptions"].get("State", "applied"))

    def _modify(self, call: Call, id: str, **attribute: Any) -> None:
        call.ec2.modify_instance_attribute(InstanceId=id, **attribute)

    def _modify_stopped(self, call: Call, id: str, **attribute: Any) -> None:
        stop(call, id)
        self._modify(call, id, **attribute)
        call.ec2.start_instances(InstanceIds=[id])
        call.wait(lambda: seen(call, id), {"running"}, {"pending", "stopped"})


def describe(call: Call, id: str) -> Any:
    """What AWS knows of the instance."""
    reservations = call.ec2.describe_instances(InstanceIds=[id])["Reservations"]
    if not reservations:
        raise NotThere
    return reservations[0]["Instances"][0]


def seen(call: Call, id: str) -> Seen:
    """The instance's state."""
    try:
        with absent(GONE):
            instance = describe(call, id)
    except NotThere:
        return Seen("")
    return Seen(instance["State"]["Name"], (instance.get("StateReason") or {}).get("Message", ""))


def stop(call: Call, id: str) -> None:
    """Stop the instance, and wait until it has stopped."""
    with doing(f"stopping EC2 Instance ({id})"):
        call.ec2.stop_instances(InstanceIds=[id])
        call.wait(lambda: seen(call, id), {"stopped"}, {"pending", "running", "shutting-down", "stopping"})


def _primary(instance: Any) -> Any:
    interfaces = instance.get("NetworkInterfaces") or ()
    return next((one for one in interfaces if (one.get("Attachment") or {}).get("DeviceIndex") == 0), {})


def _metadata_options(options: Inputs) -> dict[str, Any]:
    """AWS takes nothing else while the endpoint is off, and so pulumi-aws says nothing else unless it is on."""
    on = options.get("httpEndpoint") == "enabled"
    names = METADATA_IN_AWS if on else {"httpEndpoint": "HttpEndpoint"}
    return picked(options, names)


def _user_data(inputs: Inputs) -> bytes:
    """The user data itself: like the real plugin, base64 in `userData` is taken for what it encodes."""
    given = inputs.get("userData") or ""
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(given, validate=True)
    return str(given).encode()


def _as_given(encoded: str, state: State) -> str:
    """The user data as the program wrote it, if it is still that; else as AWS has it."""
    now = base64.b64decode(encoded)
    return str(state["userData"]) if _user_data(state) == now else now.decode(errors="replace")
