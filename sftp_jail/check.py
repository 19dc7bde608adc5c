"""`check`: what `jailctl check` says on a stack's host, asked from the deployer's side.

It uses what Pulumi uses: the connection that the stack's state has, with the pinned host key. Nothing is changed
there, and nothing is sent to a server that shows another key.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .remote import JAILCTL

TYPES = ("sftp-jail:index:SftpJail", "sftp-jail:index:JailUser")
"""Whose Commands run on a jail's host."""

SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
"""How Pulumi marks a map in its state as a special value, and that one as a secret (sdk/go/common/resource/sig)."""

PLACES = {"server": "the server", "jump-host": "the jump host"}
"""What our ssh configuration calls the two, and how a message does."""

CANNOT_SAY = 2
"""The exit status when there is no answer; 0 and 1 are answers."""


class NoAnswer(Exception):
    """Why the server could not be checked, and what to do about it: one sentence."""


def add_parser(subparsers: Any) -> None:
    """Add `check` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="list what differs between a stack's server and what Pulumi made of it",
        description="List what differs between a stack's server and what Pulumi made of it, in jailctl's words.",
        epilog="Exit status: 0, no difference; 1, differences; 2, it could not be checked.",
    )
    parser.add_argument("-s", "--stack", help="the stack (default: the one that is selected)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Check the host of the stack; the exit status."""
    # So that the private key's file goes, too, when a CI job is cancelled.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANNOT_SAY))
    try:
        return max([check(connection, options.format) for connection in connections(resources(options.stack))])
    except NoAnswer as reason:
        print(f"check: {reason}", file=sys.stderr)
        return CANNOT_SAY


def resources(stack: "str | None") -> list[dict[str, Any]]:
    """What the stack's state has, secrets included."""
    pulumi = os.environ.get("PULUMI", "pulumi")
    argv = [pulumi, "stack", "export", "--show-secrets", "--non-interactive", "--color", "never"]
    try:
        done = subprocess.run(
            [*argv, *(["--stack", stack] if stack is not None else [])], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise NoAnswer(f"cannot run {pulumi}: {error.strerror}; install it, or name it in PULUMI") from None
    if done.returncode != 0:
        raise NoAnswer(f"pulumi cannot read the stack: {last_line(done.stderr).removeprefix('error: ')}")
    found: list[dict[str, Any]] = (json.loads(done.stdout)["deployment"] or {}).get("resources") or []
    return found


def connections(state: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The connections of the jail's Commands, each once: that is one, but where an `up` to another server failed."""
    found = [
        revealed(resource["inputs"]["connection"])
        for resource in state
        if resource["type"] == "command:remote:Command"
        and type_of(resource.get("parent", "")) in TYPES
        and not resource.get("delete")
    ]
    if not found:
        raise NoAnswer("the stack has no jail on any server: run pulumi up first")
    return [connection for number, connection in enumerate(found) if connection not in found[:number]]


def type_of(urn: str) -> str:
    """The resource's type, of urn:pulumi:STACK::PROJECT::PARENT'S TYPES$TYPE::NAME."""
    return urn.split("::")[2].rpartition("$")[2] if urn else ""


def revealed(value: Any) -> Any:
    """The value without Pulumi's wrapping of secrets."""
    if isinstance(value, list):
        return [revealed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get(SIGNATURE) == SECRET:
        return revealed(json.loads(value["plaintext"]))
    return {key: revealed(item) for key, item in value.items()}


def check(connection: Mapping[str, Any], form: str) -> int:
    """Ask jailctl, and print what it says; 0 if there is no difference, else 1."""
    done = jailctl(connection, "check", f"--format={form}", stdout=subprocess.PIPE)
    if done.returncode not in (0, 1) or not done.stdout:
        raise NoAnswer(why(done, connection))
    print(done.stdout, end="")
    return done.returncode


def jailctl(
    connection: Mapping[str, Any], *words: str, stdout: "int | IO[bytes]"
) -> "subprocess.CompletedProcess[str]":
    """Run jailctl on the server; what it says on stdout goes where `subprocess.run` takes `stdout` to mean."""
    sudo = [] if connection.get("user", "root") == "root" else ["sudo", "-n"]
    with tempfile.TemporaryDirectory(prefix="sftp-jail-") as directory:
        config = write_files(Path(directory), connection)
        # A shell reads it there.
        command = shlex.join([*sudo, JAILCTL, *words])
        return subprocess.run(
            ["ssh", "-F", str(config), "server", command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )


def write_files(directory: Path, connection: Mapping[str, Any]) -> Path:
    """Write what OpenSSH needs for the connection, and nothing but it; the path of the configuration."""
    hops = {"server": connection}
    if connection.get("proxy"):
        hops["jump-host"] = connection["proxy"]
    known_hosts = directory / "known_hosts"
    known_hosts.write_text("".join(f"{name} {hop['hostKey']}\n" for name, hop in hops.items()))
    lines = [line for name, hop in hops.items() for line in hop_lines(directory, name, hop)]
    if "jump-host" in hops:
        lines.insert(1, "ProxyJump jump-host")
    lines += [
        "Host *",
        f"UserKnownHostsFile {quoted(known_hosts)}",
        "GlobalKnownHostsFile none",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "BatchMode yes",
        "LogLevel ERROR",
        "ConnectTimeout 10",
        # A server that falls silent is given up after a minute.
        "ServerAliveInterval 15",
        "ServerAliveCountMax 4",
    ]
    config = directory / "config"
    config.write_text("\n".join([*lines, ""]))
    return config


def hop_lines(directory: Path, name: str, hop: Mapping[str, Any]) -> Iterator[str]:
    """The configuration's lines for one server; its private key, if it has one, goes into a file."""
    yield f"Host {name}"
    yield f"HostName {hop['host']}"
    yield f"HostKeyAlias {name}"
    yield f"Port {int(hop.get('port', 22))}"
    yield f"User {hop.get('user', 'root')}"
    if not hop.get("privateKey"):
        yield "IdentityFile none"  # the agent's keys alone, as Pulumi does
        return
    key = directory / f"{name}.key"
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(hop["privateKey"].rstrip() + "\n")
    yield f"IdentityFile {quoted(key)}"
    yield "IdentitiesOnly yes"


def quoted(path: Path) -> str:
    """A path as ssh_config takes it."""
    return '"' + str(path).replace("%", "%%") + '"'


def why(done: "subprocess.CompletedProcess[str]", connection: Mapping[str, Any]) -> str:
    """One sentence on an ssh that brought no answer."""
    said = done.stderr
    name = "jump-host" if "jump-host" in said else "server"
    hop = connection if name == "server" else connection["proxy"]
    place = f"{PLACES[name]} {hop['host']}"
    if "Host key verification failed" in said:
        return (
            f"{place} shows another host key than the pinned one, so nothing was sent: find out why, and if the server"
            " is new there, put its hostKey into the stack file and run pulumi up"
        )
    if "Permission denied" in said:
        remedy = "see that its privateKey is still allowed" if hop.get("privateKey") else "load the key with ssh-add"
        return f"{place} does not let {hop.get('user', 'root')} in: {remedy}"
    if done.returncode == 255:
        return f"{place} cannot be reached: {last_line(said)}"
    return f"{place} gives no answer: {last_line(said) or f'status {done.returncode} without a word'}"


def last_line(text: str) -> str:
    """The last line that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
