"""Elastic IP addresses, and their association with instances."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

from .aws import Call, NotThere, absent, doing, tags_of
from .resource import MINUTE, Inputs, Resource, State, picked, tag_specifications
from .schema import OUTPUT, TAGS, Property, Schema

ADDRESS_GONE = "InvalidAllocationID.NotFound"
ASSOCIATION_GONE = "InvalidAssociationID.NotFound"


class Eip(Resource):
    """An address that stays; it is associated by an EipAssociation."""

    token = "aws:ec2/eip:Eip"
    delete_seconds = 3 * MINUTE
    schema: ClassVar[Schema] = {
        **TAGS,
        "allocationId": OUTPUT,
        "arn": OUTPUT,
        "associationId": OUTPUT,
        "carrierIp": OUTPUT,
        "customerOwnedIp": OUTPUT,
        "customerOwnedIpv4Pool": OUTPUT,
        "domain": Property(computed=True, replace=True),
        "instance": OUTPUT,
        "ipamPoolId": OUTPUT,
        "networkBorderGroup": OUTPUT,
        "networkInterface": OUTPUT,
        "privateDns": OUTPUT,
        "privateIp": OUTPUT,
        "ptrRecord": OUTPUT,
        "publicDns": OUTPUT,
        "publicIp": OUTPUT,
        "publicIpv4Pool": OUTPUT,
        "region": Property(computed=True, replace=True),
    }

    def create(self, call: Call, inputs: Inputs) -> str:
        with doing("creating EC2 EIP"):
            tags = tag_specifications(inputs, "elastic-ip")
            answer = call.ec2.allocate_address(**picked(inputs, {"domain": "Domain"}), TagSpecifications=tags)
        return str(answer["AllocationId"])

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading EC2 EIP ({id})"), absent(ADDRESS_GONE):
            found = call.ec2.describe_addresses(AllocationIds=[id])["Addresses"]
        if not found:
            raise NotThere
        address = found[0]
        tags = tags_of(address)
        private, public = address.get("PrivateIpAddress", ""), address["PublicIp"]
        return {
            "allocationId": id,
            "arn": call.arn(f"elastic-ip/{id}"),
            "associationId": address.get("AssociationId", ""),
            "carrierIp": address.get("CarrierIp", ""),
            "customerOwnedIp": address.get("CustomerOwnedIp", ""),
            "customerOwnedIpv4Pool": address.get("CustomerOwnedIpv4Pool", ""),
            "domain": address["Domain"],
            "instance": address.get("InstanceId", ""),
            "ipamPoolId": "",
            "networkBorderGroup": address.get("NetworkBorderGroup", ""),
            "networkInterface": address.get("NetworkInterfaceId", ""),
            "privateDns": _private_name(private, call.region) if private else "",
            "privateIp": private,
            "ptrRecord": "",
            "publicDns": _public_name(public, call.region),
            "publicIp": public,
            "publicIpv4Pool": address.get("PublicIpv4Pool", ""),
            "tags": tags,
            "tagsAll": tags,
        }

    def delete(self, call: Call, id: str, state: State) -> None:
        if association := state.get("associationId"):
            _disassociate(call, association)
        with doing(f"deleting EC2 EIP ({id})"), absent(ADDRESS_GONE):
            call.ec2.release_address(AllocationId=id)


class EipAssociation(Resource):
    """An Elastic IP address on an instance or a network interface."""

    token = "aws:ec2/eipAssociation:EipAssociation"
    GIVEN: ClassVar[dict[str, str]] = {
        "allocationId": "AllocationId",
        "allowReassociation": "AllowReassociation",
        "instanceId": "InstanceId",
        "networkInterfaceId": "NetworkInterfaceId",
        "privateIpAddress": "PrivateIpAddress",
        "publicIp": "PublicIp",
    }
    schema: ClassVar[Schema] = {
        **dict.fromkeys(GIVEN, Property(computed=True, replace=True)),
        "allowReassociation": Property(replace=True),
        "region": Property(computed=True, replace=True),
    }

    def faults(self, inputs: Inputs) -> Iterator[tuple[str, str]]:
        for one, other in (("allocationId", "publicIp"), ("instanceId", "networkInterfaceId")):
            if not {one, other} & inputs.keys():
                yield one, f"one of `{one},{other}` must be specified"

    def create(self, call: Call, inputs: Inputs) -> str:
        wanted = picked(inputs, self.GIVEN)
        with doing("creating EC2 EIP Association"):
            # The instance is still pending.
            answer = call.persist(lambda: call.ec2.associate_address(**wanted), ("InvalidInstanceID",))
        return str(answer["AssociationId"])

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading EC2 EIP Association ({id})"), absent(ASSOCIATION_GONE):
            filters = [{"Name": "association-id", "Values": [id]}]
            found = call.ec2.describe_addresses(Filters=filters)["Addresses"]
        if not found:
            raise NotThere
        given = {ours: theirs for ours, theirs in self.GIVEN.items() if ours != "allowReassociation"}
        return {ours: found[0].get(theirs, "") for ours, theirs in given.items()}

    def delete(self, call: Call, id: str, state: State) -> None:
        _disassociate(call, id)


def _disassociate(call: Call, association: str) -> None:
    with contextlib.suppress(NotThere), doing(f"disassociating EC2 EIP ({association})"), absent(ASSOCIATION_GONE):
        call.ec2.disassociate_address(AssociationId=association)


def _public_name(address: str, region: str) -> str:
    suffix = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{suffix}.amazonaws.com"


def _private_name(address: str, region: str) -> str:
    suffix = "ec2" if region == "us-east-1" else f"{region}.compute"
    return f"ip-{address.replace('.', '-')}.{suffix}.internal"
