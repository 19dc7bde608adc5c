"""Security groups and their rules."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from pulumi.runtime.rpc import UNKNOWN

from .aws import Call, NotThere, absent, code, doing, tags_of
from .resource import MINUTE, Inputs, Resource, State, picked, retag, tag_specifications
from .schema import OUTPUT, TAGS, Property, Schema

GROUP_GONE = "InvalidGroup.NotFound"
RULE_GONE = ("InvalidSecurityGroupRuleId.NotFound", "InvalidPermission.NotFound")
IN_USE = ("DependencyViolation", "InvalidGroup.InUse")
EVERYONE = ({"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]})


class SecurityGroup(Resource):
    """A group without rules: those are resources of their own, and rules given here are refused."""

    token = "aws:ec2/securityGroup:SecurityGroup"
    autonamed = True
    delete_seconds = 15 * MINUTE
    schema: ClassVar[Schema] = {
        **TAGS,
        "arn": OUTPUT,
        "description": Property(default="Managed by Pulumi", replace=True),
        "egress": OUTPUT,
        "ingress": OUTPUT,
        "name": Property(computed=True, replace=True),
        "namePrefix": OUTPUT,
        "ownerId": OUTPUT,
        "region": Property(computed=True, replace=True),
        "vpcId": Property(computed=True, replace=True),
    }

    def create(self, call: Call, inputs: Inputs) -> str:
        wanted = picked(inputs, {"name": "GroupName", "description": "Description", "vpcId": "VpcId"})
        with doing(f"creating Security Group ({inputs['name']})"):
            tags = tag_specifications(inputs, "security-group")
            return str(call.ec2.create_security_group(**wanted, TagSpecifications=tags)["GroupId"])

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        """Take away the rule that AWS gives a new group, which lets everything out."""
        for ranges in EVERYONE:
            allowed = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, **ranges}
            with doing(f"revoking default egress rule for Security Group ({id})"):
                try:
                    call.ec2.revoke_security_group_egress(GroupId=id, IpPermissions=[allowed])
                except ClientError as error:
                    # There is a rule for IPv6 in a VPC with IPv6 alone.
                    if "Ipv6Ranges" not in ranges or code(error) not in RULE_GONE:
                        raise

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading Security Group ({id})"), absent(GROUP_GONE):
            [group] = call.ec2.describe_security_groups(GroupIds=[id])["SecurityGroups"]
        tags = tags_of(group)
        return {
            "arn": call.arn(f"security-group/{id}", group["OwnerId"]),
            "description": group["Description"],
            "egress": list(_flat(id, group.get("IpPermissionsEgress") or [])),
            "ingress": list(_flat(id, group.get("IpPermissions") or [])),
            "name": group["GroupName"],
            "namePrefix": "",
            "ownerId": group["OwnerId"],
            "tags": tags,
            "tagsAll": tags,
            "vpcId": group.get("VpcId", ""),
        }

    def delete(self, call: Call, id: str, state: State) -> None:
        with doing(f"deleting Security Group ({id})"), absent(GROUP_GONE):
            call.persist(lambda: call.ec2.delete_security_group(GroupId=id), IN_USE)


def _flat(id: str, permissions: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rules of a group as the resource shows them: one for each port range and description."""
    for permission in permissions:
        pairs = (*permission.get("UserIdGroupPairs", ()),)
        sources = {
            "cidrBlocks": [(one["CidrIp"], one) for one in permission.get("IpRanges", ())],
            "ipv6CidrBlocks": [(one["CidrIpv6"], one) for one in permission.get("Ipv6Ranges", ())],
            "prefixListIds": [(one["PrefixListId"], one) for one in permission.get("PrefixListIds", ())],
            "securityGroups": [(one["GroupId"], one) for one in pairs if one["GroupId"] != id],
            "self": [(True, one) for one in pairs if one["GroupId"] == id],
        }
        for description in sorted({one.get("Description", "") for found in sources.values() for _, one in found}):
            said = {
                name: [value for value, one in found if one.get("Description", "") == description]
                for name, found in sources.items()
            }
            yield {
                **said,
                "self": bool(said["self"]),
                "description": description,
                "fromPort": permission.get("FromPort", 0),
                "protocol": permission["IpProtocol"],
                "toPort": permission.get("ToPort", 0),
            }


class Rule(Resource):
    """A rule of a security group, for one direction."""

    egress: ClassVar[bool]
    direction: ClassVar[str]

    SOURCES: ClassVar[dict[str, str]] = {
        "cidrIpv4": "CidrIpv4",
        "cidrIpv6": "CidrIpv6",
        "prefixListId": "PrefixListId",
        "referencedSecurityGroupId": "ReferencedGroupId",
    }
    TEXTS: ClassVar[dict[str, str]] = {**SOURCES, "description": "Description", "ipProtocol": "IpProtocol"}
    PORTS: ClassVar[dict[str, str]] = {"fromPort": "FromPort", "toPort": "ToPort"}
    MODIFIABLE: ClassVar[dict[str, str]] = {**TEXTS, **PORTS}
    schema: ClassVar[Schema] = {
        **TAGS,
        **dict.fromkeys(SOURCES, Property()),
        "arn": OUTPUT,
        "description": Property(),
        "fromPort": Property(),
        "ipProtocol": Property(required=True),
        "region": Property(computed=True, replace=True),
        "securityGroupId": Property(required=True, replace=True),
        "securityGroupRuleId": OUTPUT,
        "toPort": Property(),
    }

    def faults(self, inputs: Inputs) -> Iterator[tuple[str, str]]:
        given = [name for name in self.SOURCES if name in inputs]
        if len(given) != 1:
            yield (
                "",
                f"{len(given)} attributes specified when one (and only one) of {', '.join(self.SOURCES)} is required",
            )
        for name, network in (("cidrIpv4", ipaddress.IPv4Network), ("cidrIpv6", ipaddress.IPv6Network)):
            if inputs.get(name, UNKNOWN) != UNKNOWN:
                try:
                    network(inputs[name])
                except ValueError as error:
                    yield name, f"not a valid CIDR that represents a network address: {error}"
        for name in ("fromPort", "toPort"):
            if inputs.get(name, UNKNOWN) != UNKNOWN and not -1 <= inputs[name] <= 65535:
                yield name, f"must be between -1 and 65535, got: {inputs[name]}"

    def replacing(self, changed: Collection[str], state: State, inputs: Inputs) -> Collection[str]:
        """AWS changes where a rule's traffic comes from, but not of which kind that is."""
        sources = [name for name in self.SOURCES if name in changed]
        return sources if len(sources) > 1 else ()

    def create(self, call: Call, inputs: Inputs) -> str:
        permission = picked(inputs, {"ipProtocol": "IpProtocol", **self.PORTS})
        said = picked(inputs, {"description": "Description"})
        if cidr := inputs.get("cidrIpv4"):
            permission["IpRanges"] = [{"CidrIp": cidr, **said}]
        if cidr := inputs.get("cidrIpv6"):
            permission["Ipv6Ranges"] = [{"CidrIpv6": cidr, **said}]
        if prefix_list := inputs.get("prefixListId"):
            permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **said}]
        if group := inputs.get("referencedSecurityGroupId"):
            owner, _, name = group.rpartition("/")
            permission["UserIdGroupPairs"] = [{"GroupId": name, **({"UserId": owner} if owner else {}), **said}]
        authorize = (
            call.ec2.authorize_security_group_egress if self.egress else call.ec2.authorize_security_group_ingress
        )
        with doing(f"creating VPC Security Group {self.direction} Rule"):
            answer = authorize(GroupId=inputs["securityGroupId"], IpPermissions=[permission])
        return str(answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        retag(call, id, {}, inputs.get("tagsAll") or {})

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading VPC Security Group {self.direction} Rule ({id})"), absent(*RULE_GONE, GROUP_GONE):
            found = call.ec2.describe_security_group_rules(SecurityGroupRuleIds=[id])["SecurityGroupRules"]
        if not found or bool(found[0].get("IsEgress")) != self.egress:
            raise NotThere
        rule = found[0]
        tags = tags_of(rule)
        has = {ours: rule[theirs] for ours, theirs in self.TEXTS.items() if rule.get(theirs)}
        if group := (rule.get("ReferencedGroupInfo") or {}).get("GroupId"):
            has["referencedSecurityGroupId"] = group
        for ours, theirs in self.PORTS.items():  # -1 is AWS's word for a port that was not given
            if rule.get(theirs, -1) != -1 or ours in state:
                has[ours] = rule.get(theirs, -1)
        return {
            **has,
            "arn": call.arn(f"security-group-rule/{id}"),
            "securityGroupId": rule["GroupId"],
            "securityGroupRuleId": id,
            **({"tags": tags} if tags else {}),
            "tagsAll": tags,
        }

    def update(self, call: Call, id: str, state: State, inputs: Inputs, changed: Collection[str]) -> None:
        if not self.MODIFIABLE.keys() & set(changed):
            return
        rule = {"SecurityGroupRule": picked(inputs, self.MODIFIABLE), "SecurityGroupRuleId": id}
        with doing(f"updating VPC Security Group {self.direction} Rule ({id})"):
            call.ec2.modify_security_group_rules(GroupId=inputs["securityGroupId"], SecurityGroupRules=[rule])

    def delete(self, call: Call, id: str, state: State) -> None:
        with doing(f"deleting VPC Security Group {self.direction} Rule ({id})"), absent(GROUP_GONE, *RULE_GONE):
            revoke = call.ec2.revoke_security_group_egress if self.egress else call.ec2.revoke_security_group_ingress
            revoke(GroupId=state["securityGroupId"], SecurityGroupRuleIds=[id])


class IngressRule(Rule):
    """What may come in."""

    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    egress = False
    direction = "Ingress"


class EgressRule(Rule):
    """What may go out."""

    token = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
    egress = True
    direction = "Egress"
