"""ExistingHost: a server that is there already, and stays when the stack is gone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import pulumi
from pulumi_command.remote import ConnectionArgs, ProxyConnectionArgs

from ..faults import Fault, checked, examine, raise_any
from ..hostside.validate import (
    check_address,
    check_administrator,
    check_port,
    check_private_key,
    normalise_key,
)
from . import DIALS, Host

GET_THE_HOST_KEY = (
    "Get it with: ssh-keyscan -t ecdsa ADDRESS, leave out the address at its beginning, and compare what "
    "`ssh-keygen -lf -` says of it with what somebody who is on the server reads there: "
    "ssh-keygen -lf /etc/ssh/ssh_host_ecdsa_key.pub"
)


@dataclass(kw_only=True)
class SshServerArgs:
    """An SSH server, and the account to log in to. Used as it is for a jump host."""

    address: pulumi.Input[str]
    """The server's host name or IP address."""

    host_key: pulumi.Input[str]
    """Its public host key, `ecdsa-sha2-nistp256 AAAA...`: of the type that the command plugin's SSH client agrees on
    with the server, ECDSA before RSA before ed25519 among those that the server has."""

    port: pulumi.Input[int] = 22
    """The TCP port of its sshd. Default: 22."""

    user: pulumi.Input[str] = "root"
    """Who logs in; the administrator of the server is root or has passwordless sudo. Default: root."""

    private_key: Optional[pulumi.Input[str]] = field(default=None, repr=False)
    """The text of the private key to log in with, without a passphrase; kept as a secret. Default: the SSH agent."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from examine(f"{path}.address", check_address, self.address)
        yield from examine(f"{path}.hostKey", normalise_key, self.host_key)
        yield from examine(f"{path}.port", check_port, self.port)
        yield from examine(f"{path}.user", check_administrator, self.user)
        if self.private_key is not None:
            yield from examine(f"{path}.privateKey", check_private_key, self.private_key)


@dataclass(kw_only=True)
class ExistingHostArgs(SshServerArgs):
    """Somebody's server: Debian 11 to 13, or Ubuntu 22.04 or 24.04."""

    proxy: Optional[SshServerArgs] = None
    """The jump host to reach it through. Default: none."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from super().faults(path)
        if self.proxy is not None:
            yield from self.proxy.faults(f"{path}.proxy")


class ExistingHost(Host):
    """A server that this stack neither makes nor ends; what the jail changed on it is undone by `destroy`.

    :raises ConfigError: where the args have faults; no resource is registered then
    """

    def __init__(self, name: str, args: ExistingHostArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        super().__init__("sftp-jail:index:ExistingHost", name, None, opts)
        server = _connection(name, args)
        proxy = ProxyConnectionArgs(**_connection(f"{name}.proxy", args.proxy)) if args.proxy is not None else None
        self.connection = ConnectionArgs(**server, proxy=proxy)
        self.address = pulumi.Output.from_input(args.address)
        self.port = pulumi.Output.from_input(args.port)
        self.host_key = server["host_key"]
        self.deleted_with = None
        self.sftp_options = []
        self.register_outputs({"address": self.address, "port": self.port, "hostKey": self.host_key})


def _connection(path: str, server: SshServerArgs) -> dict[str, Any]:
    """The arguments that the two kinds of connection have in common; `path` is the place of the server's args."""
    key = {"private_key": pulumi.Output.secret(server.private_key)} if server.private_key is not None else {}
    return {
        "host": server.address,
        "port": server.port,
        "user": server.user,
        "host_key": checked(f"{path}.hostKey", normalise_key, server.host_key).apply(normalise_key),
        **DIALS,
        **key,
    }
