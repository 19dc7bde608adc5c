"""The functions that look something up in AWS, and make nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .aws import Call, Failure, absent, doing, tags_of

Arguments = Mapping[str, Any]

EMPTY = "Your query returned no results. Please change your search criteria and try again."
MANY = (
    "Your query returned more than one result. Please try a more specific search criteria, "
    "or set `most_recent` attribute to true."
)
UNSAFE = (
    '"most_recent" is set to "true" and results are not filtered by owner or image ID. With this configuration, a '
    "third party may introduce a new image which will be returned by this data source. Filter by owner or image ID to "
    "avoid this possibility."
)


def get_ami(call: Call, given: Arguments) -> dict[str, Any]:
    """The one image that fits, or the most recent one that does."""
    filters = _filters(given)
    safe = given.get("owners") or {"image-id", "owner-id"} & {one["Name"] for one in filters}
    if given.get("mostRecent") and not safe and not given.get("allowUnsafeFilter"):
        raise Failure(UNSAFE)
    request: dict[str, Any] = {"IncludeDeprecated": bool(given.get("includeDeprecated"))}
    for name, value in {"Owners": given.get("owners"), "ExecutableUsers": given.get("executableUsers")}.items():
        if value:
            request[name] = value
    with doing("reading EC2 AMIs"):
        images = call.ec2.describe_images(Filters=filters, **request)["Images"]
    if pattern := given.get("nameRegex"):
        images = [image for image in images if re.search(pattern, image.get("Name", ""))]
    if not images:
        raise Failure(EMPTY)
    if len(images) > 1 and not given.get("mostRecent"):
        raise Failure(MANY)
    image = max(images, key=lambda one: str(one.get("CreationDate", "")))
    mappings = image.get("BlockDeviceMappings") or []
    disks: dict[str, Any] = {one.get("DeviceName", ""): one.get("Ebs") or {} for one in mappings}
    return {
        **_plain(image, IMAGE),
        "arn": call.aws.arn("ec2", f"image/{image['ImageId']}", call.region, ""),
        "blockDeviceMappings": [_mapping(one) for one in mappings],
        "enaSupport": bool(image.get("EnaSupport")),
        "filters": given.get("filters"),
        "id": image["ImageId"],
        "includeDeprecated": bool(given.get("includeDeprecated")),
        "mostRecent": bool(given.get("mostRecent")),
        "productCodes": [
            {"productCodeId": one["ProductCodeId"], "productCodeType": one["ProductCodeType"]}
            for one in image.get("ProductCodes") or ()
        ],
        "public": bool(image.get("Public")),
        "region": call.region,
        "rootSnapshotId": disks.get(image.get("RootDeviceName", ""), {}).get("SnapshotId", ""),
        "stateReason": {
            "code": (image.get("StateReason") or {}).get("Code", "UNSET"),
            "message": (image.get("StateReason") or {}).get("Message", "UNSET"),
        },
        "tags": tags_of(image),
        "uefiData": "",
        **{
            name: given[name]
            for name in ("allowUnsafeFilter", "executableUsers", "nameRegex", "owners")
            if name in given
        },
    }


def get_subnet(call: Call, given: Arguments) -> dict[str, Any]:
    """The one subnet that fits."""
    names = {
        "availabilityZone": "availabilityZone",
        "availabilityZoneId": "availabilityZoneId",
        "cidrBlock": "cidrBlock",
        "ipv6CidrBlock": "ipv6-cidr-block-association.ipv6-cidr-block",
        "state": "state",
        "vpcId": "vpc-id",
    }
    filters = _filters(given, names) + _flag(given, "defaultForAz", "defaultForAz")
    ids = {"SubnetIds": [given["id"]]} if given.get("id") else {}
    with doing("reading EC2 Subnet"), absent("InvalidSubnetID.NotFound"):
        subnet = _singular("EC2 Subnet", call.ec2.describe_subnets(Filters=filters, **ids)["Subnets"])
    naming = subnet.get("PrivateDnsNameOptionsOnLaunch") or {}
    ipv6: Mapping[str, Any] = next(iter(subnet.get("Ipv6CidrBlockAssociationSet") or ()), {})
    return {
        **_plain(subnet, SUBNET),
        "arn": subnet.get("SubnetArn") or call.arn(f"subnet/{subnet['SubnetId']}", subnet.get("OwnerId", "")),
        "assignIpv6AddressOnCreation": bool(subnet.get("AssignIpv6AddressOnCreation")),
        "availableIpAddressCount": subnet.get("AvailableIpAddressCount", 0),
        "defaultForAz": bool(subnet.get("DefaultForAz")),
        "enableDns64": bool(subnet.get("EnableDns64")),
        "enableLniAtDeviceIndex": subnet.get("EnableLniAtDeviceIndex", 0),
        "enableResourceNameDnsARecordOnLaunch": bool(naming.get("EnableResourceNameDnsARecord")),
        "enableResourceNameDnsAaaaRecordOnLaunch": bool(naming.get("EnableResourceNameDnsAAAARecord")),
        "filters": given.get("filters"),
        "id": subnet["SubnetId"],
        "ipv6CidrBlock": ipv6.get("Ipv6CidrBlock", ""),
        "ipv6CidrBlockAssociationId": ipv6.get("AssociationId", ""),
        "ipv6Native": bool(subnet.get("Ipv6Native")),
        "mapCustomerOwnedIpOnLaunch": bool(subnet.get("MapCustomerOwnedIpOnLaunch")),
        "mapPublicIpOnLaunch": bool(subnet.get("MapPublicIpOnLaunch")),
        "privateDnsHostnameTypeOnLaunch": naming.get("HostnameType", ""),
        "region": call.region,
        "tags": tags_of(subnet),
    }


def get_subnets(call: Call, given: Arguments) -> dict[str, Any]:
    """The ids of all subnets that fit, none included."""
    with doing("reading EC2 Subnets"):
        pages = call.ec2.get_paginator("describe_subnets").paginate(Filters=_filters(given))
        ids = [subnet["SubnetId"] for page in pages for subnet in page["Subnets"]]
    return {
        "filters": given.get("filters"),
        "id": call.region,
        "ids": ids,
        "region": call.region,
        "tags": given.get("tags", {}),
    }


LOOKUPS: dict[str, Callable[[Call, Arguments], dict[str, Any]]] = {
    "aws:ec2/getAmi:getAmi": get_ami,
    "aws:ec2/getSubnet:getSubnet": get_subnet,
    "aws:ec2/getSubnets:getSubnets": get_subnets,
}

IMAGE = (
    "architecture bootMode creationDate deprecationTime description hypervisor imageId imageLocation imageOwnerAlias "
    "imageType imdsSupport kernelId lastLaunchedTime name ownerId platform platformDetails ramdiskId rootDeviceName "
    "rootDeviceType sriovNetSupport state tpmSupport usageOperation virtualizationType"
)
SUBNET = "availabilityZone availabilityZoneId cidrBlock customerOwnedIpv4Pool outpostArn ownerId state vpcId"


def _plain(answer: Mapping[str, Any], names: str) -> dict[str, str]:
    """Texts that AWS calls by the same name, but for the case of its first letter."""
    return {name: str(answer.get(name[0].upper() + name[1:], "")) for name in names.split()}


def _filters(given: Arguments, own: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """`filters`, `tags`, and the arguments that are filters under another name."""
    filters = [{"Name": one["name"], "Values": one["values"]} for one in given.get("filters") or ()]
    filters += [{"Name": f"tag:{key}", "Values": [value]} for key, value in sorted((given.get("tags") or {}).items())]
    return filters + [
        {"Name": theirs, "Values": [given[ours]]} for ours, theirs in (own or {}).items() if given.get(ours)
    ]


def _flag(given: Arguments, ours: str, theirs: str) -> list[dict[str, Any]]:
    return [{"Name": theirs, "Values": ["true"]}] if given.get(ours) else []


def _singular(what: str, found: list[Any]) -> Any:
    if not found:
        raise Failure(f"no matching {what} found")
    if len(found) > 1:
        raise Failure(f"multiple {what}s matched; use additional constraints to reduce matches to a single {what}")
    return found[0]


def _mapping(one: Mapping[str, Any]) -> dict[str, Any]:
    ebs = one.get("Ebs") or {}
    return {
        "deviceName": one.get("DeviceName", ""),
        "ebs": {
            "delete_on_termination": str(bool(ebs.get("DeleteOnTermination"))).lower(),
            "encrypted": str(bool(ebs.get("Encrypted"))).lower(),
            "iops": str(ebs.get("Iops", 0)),
            "snapshot_id": ebs.get("SnapshotId", ""),
            "throughput": str(ebs.get("Throughput", 0)),
            "volume_size": str(ebs.get("VolumeSize", 0)),
            "volume_type": ebs.get("VolumeType", ""),
        }
        if ebs
        else {},
        "noDevice": one.get("NoDevice", ""),
        "virtualName": one.get("VirtualName", ""),
    }
