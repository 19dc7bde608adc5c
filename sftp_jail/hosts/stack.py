"""StackHost: the host of another stack, for a stack that holds nothing but a contractor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import pulumi
from pulumi_command.remote import ConnectionArgs, ProxyConnectionArgs

from ..faults import Fault, examine, raise_any
from ..hostside.validate import check_stack
from . import DIALS, Host


@dataclass(kw_only=True)
class StackHostArgs:
    """A stack that has a host, and exports `host` as `Host.exports` says."""

    stack: str
    """Its name: `staging`, of this organization and project; or whole, `ORGANIZATION/PROJECT/STACK`. With a backend
    that is no Pulumi Cloud, every organization is `organization`."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the values; `path` is the place of these args."""
        yield from examine(f"{path}.stack", check_stack, self.stack)


class StackHost(Host):
    """A host that another stack makes and ends, and whose jail is that stack's.

    :raises ConfigError: where the args have faults; no resource is registered then
    :raises RunError: while the other stack exports no host
    """

    def __init__(self, name: str, args: StackHostArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        super().__init__("sftp-jail:index:StackHost", name, None, opts)
        whole = args.stack
        if "/" not in whole:
            whole = f"{pulumi.get_organization()}/{pulumi.get_project()}/{whole}"
        stack = pulumi.StackReference(name, stack_name=whole, opts=pulumi.ResourceOptions(parent=self))

        def exported(host: Optional[Mapping[str, Any]]) -> Mapping[str, Any]:
            if host is None:
                raise pulumi.RunError(f"The stack {whole} has no host. Run: pulumi up -s {args.stack}")
            return host

        host = stack.get_output("host").apply(exported)
        credentials = stack.get_output("hostCredentials").apply(lambda keys: keys or {})
        self.address = host["address"]
        self.port = host["port"]
        self.host_key = host["hostKey"]
        self.connection = ConnectionArgs(
            **_connection(host),
            private_key=credentials.apply(lambda keys: keys.get("host")),
            proxy=pulumi.Output.all(host, credentials).apply(_proxy),
        )
        self.deleted_with = None
        self.sftp_options = host.apply(lambda found: found.get("sftpOptions", []))
        self.register_outputs({"address": self.address, "port": self.port, "hostKey": self.host_key})

    @property
    def exports(self) -> Mapping[str, Any]:
        """Nothing: who needs the host asks the stack that has it."""
        return {}


def _proxy(found: Sequence[Any]) -> Any:
    """The jump host on the way as ProxyConnectionArgs, or None if the other stack's host has none."""
    host, credentials = found
    if "proxy" not in host:
        return None
    return ProxyConnectionArgs(**_connection(host["proxy"]), private_key=credentials.get("proxy"))


def _connection(server: Any) -> dict[str, Any]:
    """What the two kinds of connection have in common; the server is an export's map, or an Output of it."""
    return {
        "host": server["address"],
        "port": server["port"],
        "user": server["user"],
        "host_key": server["hostKey"],
        **DIALS,
    }
