"""The one place that builds a Command which runs on the server.

What is true of all of them, and why:

- The command is a short fixed string and the data is JSON on stdin: an error prints the former and never the
  latter, and a preview shows which key of a JSON text has changed.
- No `triggers`: they replace the resource, and then the old `delete` runs after the new `create`. No `update`
  either: a changed stdin runs `create` again, and jailctl converges.
- `deleted_with` the machine, so that a machine that goes takes its users with it, one connection each saved; and
  `replace_with` it, since else another machine at the same address would be left empty.
"""

from typing import Optional

import pulumi
from pulumi_command import remote

from .hosts import Host
from .position import unrecorded

JAILCTL = "/usr/local/sbin/jailctl"


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
    :param outlives_machine: whether it is deleted by running `delete` even where the machine goes, and is not
        replaced with it
    :param connection: default: the host's
    """
    machine = None if outlives_machine else host.deleted_with
    with unrecorded():
        return remote.Command(
            name,
            connection=connection if connection is not None else host.connection,
            create=_as_root(host, create) if create is not None else None,
            delete=_as_root(host, delete) if delete is not None else None,
            stdin=stdin,
            add_previous_output_in_env=False,
            logging=remote.Logging.NONE,
            opts=pulumi.ResourceOptions.merge(
                pulumi.ResourceOptions(
                    deleted_with=machine,
                    replace_with=[machine] if machine is not None else None,
                ),
                opts,
            ),
        )


def _as_root(host: Host, line: str) -> pulumi.Output[str]:
    user = pulumi.Output.from_input(host.connection.user)
    return user.apply(lambda name: line if name == "root" else f"sudo -n {line}")
