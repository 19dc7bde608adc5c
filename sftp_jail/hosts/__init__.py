"""The contract of a host: whatever makes the machine, these few things are all that a jail asks of it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Optional

import pulumi
from pulumi_command.remote import ConnectionArgs, ProxyConnectionArgs

DIALS: dict[str, Any] = {
    # sshd drops some of many simultaneous connections (MaxStartups), and keeps out for a while who was refused before
    # (PerSourcePenalties): these tries take a quarter of a minute.
    "dial_error_limit": 10,
    "per_dial_timeout": 10,
}
"""How long every connection is tried for; the timeout is in seconds."""


class Place(NamedTuple):
    """Where an SFTP client finds the server."""

    address: str
    port: int
    options: Sequence[str]
    """Those without which it would not know the server."""


class Host(pulumi.ComponentResource):
    """A machine that can carry a jail. A subclass sets every field in its constructor."""

    ours: bool = False
    """Whether the machine is there for the jail alone, so that its sshd may be hardened as a whole."""

    quotas: ClassVar[Optional[str]] = None
    """What enforces users' quotas on such a machine where nothing else is said (`SftpJailArgs.quotas`); None: nothing
    that we know to be there."""

    address: pulumi.Output[str]
    """Where clients reach its SSH server: an IP address or a name."""

    port: pulumi.Output[int]
    """The TCP port of its SSH server."""

    host_key: pulumi.Output[str]
    """Its public host key as in known_hosts, `ssh-ed25519 AAAA...`; everything that connects pins it."""

    connection: ConnectionArgs
    """How the administrator logs in: root, or an account with passwordless sudo. `host_key` is always set."""

    deleted_with: Optional[pulumi.CustomResource]
    """The resource whose end ends the machine with all that is on it, so that nothing has to be undone there
    first; with another id, it is another machine. None where the machine lives on without us. It must be replaced by
    making the new one first, as is Pulumi's default: with `delete_before_replace`, the engine looks for the machine
    that is gone to remove the users there who leave the stack in the same run."""

    sftp_options: pulumi.Input[Sequence[str]]
    """Options without which OpenSSH's client on this computer would not know the host; empty as a rule."""

    @cached_property
    def connected(self) -> pulumi.Output[ConnectionArgs]:
        """`connection` for every Command: one Output, since the SDK's time goes with the square of their number."""
        return pulumi.Output.from_input(self.connection)

    @cached_property
    def place(self) -> pulumi.Output[Place]:
        """Where users find it; one Output for all of them, likewise."""
        return pulumi.Output.all(self.address, self.port, self.sftp_options).apply(
            lambda found: Place(found[0], int(found[1]), found[2])
        )

    @property
    def exports(self) -> Mapping[str, Any]:
        """The stack outputs by which a `StackHost` of another stack finds this host: `host`, and with a private key
        the secret `hostCredentials`."""
        proxy = self.connection.proxy
        # Typed as an Output, too, which no host of ours makes of it.
        via = proxy if isinstance(proxy, ProxyConnectionArgs) else None
        keys = {"host": self.connection.private_key, "proxy": via.private_key if via is not None else None}
        credentials = {name: key for name, key in keys.items() if key is not None}
        host: dict[str, Any] = {
            "address": self.address,
            "hostKey": self.host_key,
            "port": self.port,
            "user": self.connection.user,
        }
        if via is not None:
            host["proxy"] = {"address": via.host, "hostKey": via.host_key, "port": via.port, "user": via.user}
        if self.sftp_options:
            host["sftpOptions"] = self.sftp_options
        return {
            "host": host,
            **({"hostCredentials": pulumi.Output.secret(credentials)} if credentials else {}),
        }
