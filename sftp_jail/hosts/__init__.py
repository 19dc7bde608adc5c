"""The contract of a host: whatever makes the machine, these few things are all that a jail asks of it."""

from collections.abc import Sequence
from typing import Optional

import pulumi
from pulumi_command.remote import ConnectionArgs


class Host(pulumi.ComponentResource):
    """A machine that can carry a jail. A subclass sets every field in its constructor."""

    address: pulumi.Output[str]
    """Where clients reach its SSH server: an IP address or a name."""

    port: pulumi.Output[int]
    """The TCP port of its SSH server."""

    host_key: pulumi.Output[str]
    """Its public host key as in known_hosts, `ssh-ed25519 AAAA...`; everything that connects pins it."""

    connection: ConnectionArgs
    """How the administrator logs in: root, or an account with passwordless sudo. `host_key` is always set."""

    deleted_with: Optional[pulumi.Resource]
    """The resource whose end ends the machine with all that is on it, so that nothing has to be undone there
    first; None where the machine lives on without us. It must be replaced by making the new one first, as is
    Pulumi's default: with `delete_before_replace`, the engine undoes everything on the old machine after all."""

    sftp_options: Sequence[str]
    """Options without which OpenSSH's client on this computer would not know the host; empty as a rule."""
