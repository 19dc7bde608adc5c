"""Part of a stand-in for EC2: a VM's firewall, its Elastic IPs and its routes, set from outside of it."""

import ipaddress
from typing import NamedTuple

from .addresses import gateway
from .disposable import machine


class Network(NamedTuple):
    """What is to hold for a VM: the ruleset of its groups (see `firewall`) and its Elastic IPs."""

    ruleset: str = ""
    elastic: frozenset[str] = frozenset()


def change(pid: int, address: str, before: Network, after: Network) -> None:
    """Make the difference, in the network namespace of a process and on this computer's side of its link."""
    within = ("nsenter", f"--target={pid}", "--net")
    link = machine.link_to(ipaddress.IPv4Address(address))
    if after.ruleset != before.ruleset:
        machine.call(*within, "nft", "--file", "-", input=after.ruleset)
    for gone in before.elastic - after.elastic:
        machine.call(*within, "ip", "address", "del", f"{gone}/32", "dev", "host0")
        if machine.call("ip", "route", "show", f"{gone}/32", "dev", link):  # it may lead to another VM already
            machine.call("ip", "route", "del", f"{gone}/32", "dev", link)
    for new in after.elastic - before.elastic:
        machine.call(*within, "ip", "address", "add", f"{new}/32", "dev", "host0")
        machine.call("ip", "route", "replace", f"{new}/32", "dev", link)


def begin(pid: int, address: str, network: Network) -> None:
    """The same for a namespace that is new; clients on this computer may have any address of the machines' range."""
    within = ("nsenter", f"--target={pid}", "--net")
    machine.call(*within, "ip", "route", "add", machine.NETWORK, "via", gateway(address), "dev", "host0")
    change(pid, address, Network(), network)
