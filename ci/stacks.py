#!/usr/bin/env python3
"""The project's stacks, one a line, each after the stack whose host it uses; or those that a change concerns.

A stack on a disposable machine (kind: local) is left out: only the computer that the machine runs on can see it.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Optional

import yaml  # type: ignore[import-untyped]

EVERY = re.compile(r"sftp_jail/.*|__main__\.py|Pulumi\.yaml|requirements\.txt|pyproject\.toml|policy\.yaml")
"""What every stack is made from, and what its changes are measured by."""

FILE = re.compile(r"stacks/Pulumi\.([A-Za-z0-9_][A-Za-z0-9._-]*)\.yaml", re.ASCII)
"""A stack's file, with a name that Pulumi takes, and no shell or option parser takes for something else."""


def host_of(file: Path) -> dict[str, Any]:
    """The stack file's `host`; {} where there is no reading it, about which Pulumi says more than we could."""
    try:
        host = yaml.safe_load(file.read_text())["config"]["sftp-jail:host"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    return host if isinstance(host, dict) else {}


def hosts_of_stacks() -> dict[str, Optional[str]]:
    """Every stack that has a file; and the stack that it is attached to, or None if its host is its own."""
    found: dict[str, Optional[str]] = {}
    for file in sorted(Path("stacks").glob("Pulumi.*.yaml")):
        named = FILE.fullmatch(file.as_posix())
        if named is None:
            raise ValueError(f"{str(file)!r} is no stack's file: a name has letters, digits, '-', '_' and '.' only")
        host = host_of(file)
        if host.get("kind") == "local":
            print(f"stack {named[1]}: left out, its machine is on the computer that boots it", file=sys.stderr)
        else:
            # The name may be whole: ORGANIZATION/PROJECT/STACK.
            found[named[1]] = str(host.get("stack")).rpartition("/")[2] if host.get("kind") == "stack" else None
    return found


def in_order(hosts: dict[str, Optional[str]]) -> list[str]:
    """The stacks, each after the one that it is attached to."""
    graph = {stack: {host} if host in hosts else set() for stack, host in hosts.items()}
    return list(TopologicalSorter(graph).static_order())


def changed_files(since: str) -> Optional[list[str]]:
    """The files that differ between a commit and the checkout's; None if there is no such commit here."""
    known = ["git", "rev-parse", "--quiet", "--verify", "--end-of-options", f"{since}^{{commit}}"]
    commit = subprocess.run(known, stdout=subprocess.PIPE, text=True, check=False)
    if commit.returncode != 0:
        return None
    # Without renames: the old name has changed, too.
    diff = ["git", "diff", "--name-only", "--no-renames", "-z", commit.stdout.strip(), "HEAD"]
    return subprocess.run(diff, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")


def concerned(files: Optional[list[str]], hosts: dict[str, Optional[str]]) -> Iterator[str]:
    """The stacks that a change of these files concerns, in order.

    With a host go all that are attached to it: a host that is made anew has another address.
    """
    everything = files is None or any(EVERY.fullmatch(file) for file in files)
    changed = {named[1] for file in files or [] if (named := FILE.fullmatch(file))}
    for stack in in_order(hosts):
        if everything or stack in changed or hosts[stack] in changed:
            changed.add(stack)
            yield stack


def removed(files: Optional[list[str]]) -> list[str]:
    """The stacks whose file was removed."""
    named = [FILE.fullmatch(file) for file in files or []]
    return sorted(found[1] for found in named if found and not Path(found[0]).exists())


def main() -> int:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--since",
        metavar="COMMIT",
        help="only those that the changes between that commit and HEAD concern; all, if it is empty or unknown",
    )
    parser.add_argument("--removed", action="store_true", help="and those whose file those changes removed")
    options = parser.parse_args()
    try:
        hosts = hosts_of_stacks()
        files = changed_files(options.since) if options.since is not None else None
        stacks = [*concerned(files, hosts), *(removed(files) if options.removed else [])]
    except CycleError as error:
        print(f"stacks that are attached to each other: {', '.join(error.args[1])}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("".join(f"{stack}\n" for stack in stacks), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
