"""The one place that builds a Command which runs on the server.

What is true of all of them, and why:

- The command is a short fixed string and the data is JSON on stdin: an error prints the former and never the
  latter, and a preview shows which key of a JSON text has changed.
- No `triggers`: they replace the resource, and then the old `delete` runs after the new `create`. No `update`
  either: a changed stdin runs `create` again, and jailctl converges.
- `deleted_with` the machine, so that a machine that goes takes its users with it, one connection each saved.
- The machine's id ends the line that `create` is, as a comment. So another machine is another line, which runs there:
  whether Pulumi replaces the machine, or has found it gone, or was interrupted half-way through the Commands.
  (`replace_with` would see the first alone; and in stdin, an id not known yet would hide all else from a preview.)
"""

import json
from collections.abc import Mapping
from typing import Any, Optional

import pulumi
from pulumi_command import remote

from .hosts import Host
from .position import unrecorded

JAILCTL = "/usr/local/sbin/jailctl"

MACHINE = " # on "
"""Between what `create` runs, and the id of the machine that it has run on; for the shell, a comment begins."""


def owner() -> str:
    """The fully qualified name of the stack that is running, under which the server keeps its users."""
    return f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"


def command(
    name: str,
    host: Host,
    create: Optional[str],
    delete: Optional[str],
    stdin: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
    outlives_machine: bool = False,
    connection: Optional[remote.ConnectionArgs] = None,
) -> remote.Command:
    """A Command on the host, as root.

    :param name: the resource's name
    :param host: where it runs
    :param create: run when it is made, and again whenever stdin changes; None: nothing is
    :param delete: run when it is removed, with the stdin of the last `create`; None: nothing is
    :param stdin: JSON, with its keys sorted, for both
    :param opts: parent and dependencies
    :param outlives_machine: whether it is deleted by running `delete` even where the machine goes
    :param connection: default: the host's
    """
    machine = None if outlives_machine else host.deleted_with
    with unrecorded():
        return remote.Command(
            name,
            connection=connection if connection is not None else host.connected,
            create=_on(host.deleted_with, _as_root(host, create)) if create is not None else None,
            delete=_as_root(host, delete) if delete is not None else None,
            stdin=stdin,
            add_previous_output_in_env=False,
            logging=remote.Logging.NONE,
            opts=pulumi.ResourceOptions.merge(pulumi.ResourceOptions(deleted_with=machine), opts),
        )


def spec(values: Mapping[str, Any]) -> pulumi.Input[str]:
    """The JSON of a map, with its keys sorted; an Output only where one of its values is none of JSON's own."""
    try:
        return json.dumps(values, sort_keys=True)
    except TypeError:
        return pulumi.Output.json_dumps(values, sort_keys=True)


def _on(machine: Optional[pulumi.CustomResource], line: pulumi.Input[str]) -> pulumi.Input[str]:
    return line if machine is None else pulumi.Output.concat(line, MACHINE, machine.id)


def _as_root(host: Host, line: str) -> pulumi.Input[str]:
    def told(user: Optional[str]) -> str:
        return line if user == "root" else f"sudo -n {line}"

    user: Any = host.connection.user
    return told(user) if isinstance(user, str) else pulumi.Output.from_input(user).apply(told)
