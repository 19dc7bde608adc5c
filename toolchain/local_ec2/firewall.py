"""Part of a stand-in for EC2: security groups as an nftables ruleset, for a VM's own network namespace.

As on EC2 they are stateful: a connection that began while a rule allowed it may go on when the rule is gone.
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Optional

from moto.ec2.models.security_groups import SecurityGroup, SecurityGroupRule

TABLE = "inet local_ec2"

Members = Callable[[str], Iterable[str]]
"""The addresses of the VMs that are in a group, of its id."""


def ruleset(groups: Iterable[SecurityGroup], members: Members) -> str:
    """What nft(8) reads to have the groups' rules, in place of those it had, at once."""
    ordered = sorted(groups, key=lambda group: group.id)
    inward = [line for group in ordered for rule in group.ingress_rules for line in matches(rule, "saddr", members)]
    outward = [line for group in ordered for rule in group.egress_rules for line in matches(rule, "daddr", members)]
    lines = [
        f"table {TABLE}",
        f"delete table {TABLE}",
        f"table {TABLE} {{",
        *chain("input", 'iifname "lo"', inward),
        *chain("output", 'oifname "lo"', outward),
        "}",
    ]
    return "\n".join([*lines, ""])


def chain(hook: str, loopback: str, allowed: list[str]) -> Iterator[str]:
    """A chain that drops what is not allowed; what EC2's groups never touch passes."""
    yield f"chain {hook} {{ type filter hook {hook} priority filter; policy drop;"
    for match in ("ct state established,related", loopback, "icmpv6 type { 133, 134, 135, 136 }", *allowed):
        yield f"{match} accept"
    yield "}"


def matches(rule: SecurityGroupRule, side: str, members: Members) -> Iterator[str]:
    """The packets that a rule allows, in nft's words; none for a prefix list, or for a group without members."""
    protocol = packets(rule.ip_protocol, rule.from_port, rule.to_port)
    if rule.cidr_ipv4:
        yield f"ip {side} {ipaddress.IPv4Network(rule.cidr_ipv4, strict=False)} {protocol}"
    if rule.cidr_ipv6:
        yield f"ip6 {side} {ipaddress.IPv6Network(rule.cidr_ipv6, strict=False)} {protocol}"
    if rule.referenced_group_info:
        for address in sorted(members(rule.referenced_group_info["GroupId"])):
            yield f"ip {side} {address} {protocol}"


def packets(protocol: Optional[str], first: Optional[int], last: Optional[int]) -> str:
    """A protocol with its ports, or, for ICMP, with its type and code; -1 is any."""
    if protocol in (None, "-1"):
        return ""
    if protocol in ("tcp", "udp"):
        return f"{protocol} dport {first}-{last}"
    if protocol in ("icmp", "icmpv6", "58"):
        name = "icmp" if protocol == "icmp" else "icmpv6"
        if first in (None, -1):
            return f"meta l4proto {name}"
        return f"{name} type {first}" + ("" if last in (None, -1) else f" {name} code {last}")
    return f"meta l4proto {protocol}"
