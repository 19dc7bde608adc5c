"""Part of a stand-in for EC2: the addresses that it invents, none of which lies outside the machines' range."""

import ipaddress
import secrets

from .disposable import machine

ELASTIC = ipaddress.IPv4Network("10.213.128.0/17")
"""Where Elastic IPs come from: the half of the range that machine.py deals out to nobody."""

UNKNOWN = str(machine.NETWORK.network_address)
"""A VM's public address until it has booted and its real one is known. Nobody ever has it."""


def new_elastic() -> str:
    """An Elastic IP that no route of this computer leads to."""
    while True:
        address = str(ELASTIC.network_address + 1 + secrets.randbelow(ELASTIC.num_addresses - 2))
        if not machine.call("ip", "route", "show", f"{address}/32").strip():
            return address


def gateway(address: str) -> str:
    """This computer's end of the link to the machine with the address."""
    return str(next(ipaddress.IPv4Network(f"{address}/30", strict=False).hosts()))
