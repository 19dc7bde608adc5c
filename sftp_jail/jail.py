"""SftpJail: the chroot policy on one host, and its users."""

import base64
import bz2
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

import pulumi
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.settings import get_monitor

from .faults import Fault, below, checked, examine, raise_any
from .hosts import Host
from .hostside.failure import AGAIN
from .hostside.validate import (
    SIEM_CHECKS,
    Invalid,
    check_log_level,
    check_quotas,
    check_umask,
    check_username,
    normalise_key,
)
from .remote import JAILCTL, command, owner
from .user import JailUser, JailUserArgs, UserArgs, sftp_command

HOSTSIDE = Path(__file__).parent / "hostside"

INSTALLER = "install.py"

INSTALL = "python3 -I -c 'import json, sys; files = json.load(sys.stdin); exec(files[\"install.py\"])'"
"""Runs install.py out of the JSON map of jailctl's files that stdin carries; a verb follows."""


@dataclass(kw_only=True)
class SiemArgs:
    """Who else is sent the log, line by line: a syslog receiver or a SIEM."""

    host: str
    """Its name or IP address, which its certificate must bear."""

    port: int = 6514
    """Its TCP port. Default: 6514, syslog over TLS (RFC 5425)."""

    protocol: str = "tls"
    """`tls`, or `tcp` where nobody else is on the way. Default: tls."""

    format: str = "rfc5424"
    """`rfc5424`, or `json`, one object a line. Default: rfc5424."""

    ca: Optional[str] = None
    """The authorities that may have signed its certificate, in PEM. Default: those that the server trusts anyway."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the values; `path` is the place of these args."""
        for key, value in self.spec().items():
            yield from examine(f"{path}.{key}", SIEM_CHECKS[key], value)
        if self.ca is not None and self.protocol != "tls":
            yield Fault(f"{path}.ca", "an authority for a connection without TLS", "Remove it, or use protocol: tls")

    def spec(self) -> dict[str, Any]:
        """As jailctl takes it."""
        return {key: value for key, value in asdict(self).items() if key != "ca" or value is not None}


@dataclass(kw_only=True)
class SftpJailArgs:
    """The jail of one host."""

    host: Host
    """The machine that carries it."""

    users: Mapping[str, UserArgs] = field(default_factory=dict)
    """The logins, by user name. Default: none."""

    log_level: Optional[pulumi.Input[str]] = None
    """What internal-sftp logs: `INFO`, every operation; `VERBOSE`, denied ones by name too. Default: VERBOSE."""

    umask: Optional[pulumi.Input[str]] = None
    """The permissions that an upload never gets, three octal digits, the first one 0. Default: 022."""

    hardening: Optional[bool] = None
    """Whether the whole sshd of the host is hardened, for its administrator, too: algorithms by ssh-audit's guide, and
    limits on connecting. Default: where the host is ours (`Host.ours`)."""

    siem: Optional[SiemArgs] = None
    """Who else is sent the log. Default: nobody."""

    quotas: Optional[pulumi.Input[str]] = None
    """What enforces users' quotas: `btrfs`, where /sftp is a btrfs; `loop`, a file system of fixed size for each user
    who has a quota. Default: the host's, which is `btrfs` for a VM on AWS and else nothing."""

    attached: bool = False
    """Whether the jail on the host is another stack's, so that this one makes nothing there but its users; log level,
    umask, hardening and quotas are the other stack's then. Default: False."""

    force_destroy: bool = False
    """Whether `destroy` goes on where other stacks have users on the host, and removes those, too. It counts once
    `up` has put it into the state. Default: False."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from users_faults(f"{path}.users", self.users)
        if self.log_level is not None:
            yield from examine(f"{path}.logLevel", check_log_level, self.log_level)
        if self.umask is not None:
            yield from examine(f"{path}.umask", check_umask, self.umask)
        if self.siem is not None:
            yield from self.siem.faults(f"{path}.siem")
        if self.quotas is not None:
            yield from examine(f"{path}.quotas", check_quotas, self.quotas)
        if not self.attached:
            quotas = self.quotas if self.quotas is not None else self.host.quotas
            yield from quota_faults(f"{path}.users", self.users, quotas is not None)


class SftpJail(pulumi.ComponentResource):
    """Isolated, audited SFTP logins on one host: jailctl, the jail that it makes, and one `JailUser` each.

    :raises ConfigError: where the args have faults; no resource is registered then
    """

    address: pulumi.Output[str]
    """Where clients reach the SSH server."""

    port: pulumi.Output[int]
    """The TCP port of the SSH server."""

    known_hosts: pulumi.Output[str]
    """The server's line for a client's known_hosts file."""

    users: pulumi.Output[Mapping[str, Mapping[str, str]]]
    """By user name: `sftp`, the command that logs in."""

    def __init__(self, name: str, args: SftpJailArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        super().__init__("sftp-jail:index:SftpJail", name, None, opts)
        host = args.host
        policy = [] if args.attached else self._policy(name, args)
        children = {
            username: JailUser(
                f"{name}-{username}",
                JailUserArgs(host=host, username=username, user=user),
                pulumi.ResourceOptions(parent=self, depends_on=policy[-1:]),
            )
            for username, user in args.users.items()
        }
        if not args.attached:
            everything = [*policy, *children.values()]
            self._guard(name, args, [*everything, self._prune(name, args, everything)])

        self.address = host.address
        self.port = host.port
        self.known_hosts = pulumi.Output.all(host.address, host.port, host.host_key).apply(
            lambda line: _known_hosts_line(*line)
        )
        self.users = host.place.apply(
            lambda place: {
                username: {"sftp": sftp_command(username, user, place)} for username, user in args.users.items()
            }
        )
        # Not `users`: a new user leaves the jail's state as it is.
        self.register_outputs({"address": self.address, "port": self.port, "knownHosts": self.known_hosts})

    def _policy(self, name: str, args: SftpJailArgs) -> Sequence[pulumi.Resource]:
        """jailctl on the host, the jail that it makes, and the proof that one still gets in."""
        host = args.host
        files = jailctl_files()
        install = command(
            f"{name}-install",
            host,
            create=f"{INSTALL} install",
            delete=f"{INSTALL} uninstall",
            stdin=files,
            # Until the host is all there: what it is made of may be more than its connection says.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[host]),
        )
        log_level = args.log_level if args.log_level is not None else "VERBOSE"
        umask = args.umask if args.umask is not None else "022"
        quotas = args.quotas if args.quotas is not None else host.quotas
        spec = pulumi.Output.json_dumps(
            {
                # A new jailctl applies the jail again, but no user: what the old one did there stands.
                "jailctl": hashlib.sha256(files.encode()).hexdigest()[:12],
                **_tenancy(args),
                "hardening": args.hardening if args.hardening is not None else host.ours,
                "hostKeyType": host.host_key.apply(lambda key: key.split()[0]),
                "logLevel": checked(f"{name}.logLevel", check_log_level, log_level),
                **({"quotas": checked(f"{name}.quotas", check_quotas, quotas)} if quotas is not None else {}),
                "umask": checked(f"{name}.umask", check_umask, umask),
                **({"siem": args.siem.spec()} if args.siem is not None else {}),
            },
            sort_keys=True,
        )
        policy = command(
            f"{name}-policy",
            host,
            create=f"{JAILCTL} apply-jail",
            delete=f"{JAILCTL} remove-jail",
            stdin=spec,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[install]),
        )
        confirm = command(
            f"{name}-confirm",
            host,
            # A connection of its own. Without it, the server puts sshd's old configuration back.
            create=f"{JAILCTL} confirm",
            delete=None,
            stdin=spec,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy], hooks=_hooks(name)),
        )
        return [policy, confirm]

    def _prune(self, name: str, args: SftpJailArgs, after: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Once all users are there, removes those that only the machine before had: `deleted_with` had skipped it."""
        return command(
            f"{name}-prune",
            args.host,
            create=f"{JAILCTL} prune",
            delete=None,
            stdin=json.dumps({"owner": owner()}),
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _guard(self, name: str, args: SftpJailArgs, everything: Sequence[pulumi.Resource]) -> None:
        """Asks the server, before `destroy` ends anything, whether other stacks have users there."""
        command(
            f"{name}-guard",
            args.host,
            create=None,
            delete=f"{JAILCTL} release",
            stdin=json.dumps(_tenancy(args), sort_keys=True),
            # What depends on all else is deleted first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=everything),
            outlives_machine=True,
        )


def _hooks(name: str) -> Optional[pulumi.ResourceHookBinding]:
    # The SDK's mocks, by which programs are tested, know of no hooks.
    if isinstance(get_monitor(), MockMonitor):
        return None
    return pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook(f"{name}-again", _must_come_again)])


def _must_come_again(failure: pulumi.ErrorHookArgs) -> bool:
    """Whether `confirm` has found that the server had put the old configuration back, and has applied the new one
    again: now another connection must confirm it. Once is enough; after that, something is wrong."""
    return len(failure.errors) == 1 and AGAIN in failure.errors[0]


def _tenancy(args: SftpJailArgs) -> dict[str, Any]:
    return {"forceDestroy": args.force_destroy, "owner": owner()}


def users_faults(path: str, users: Mapping[str, UserArgs]) -> Iterator[Fault]:
    """What is wrong with each user, and with them together; `path` is the place of the map."""
    for username, user in users.items():
        yield from examine(below(path, username), check_username, username)
        yield from user.faults(below(path, username))
    yield from _shared_keys(path, users)


def quota_faults(path: str, users: Mapping[str, Optional[UserArgs]], enforced: bool) -> Iterator[Fault]:
    """Which users have a quota that nothing enforces; `path` is the place of the map."""
    for username, user in users.items() if not enforced else ():
        if user is not None and user.quota is not None:
            yield Fault(
                f"{below(path, username)}.quota",
                "nothing on this host is known to enforce it",
                "Set quotas: btrfs if /sftp is a btrfs there, else quotas: loop",
            )


def _shared_keys(path: str, users: Mapping[str, UserArgs]) -> Iterator[Fault]:
    seen: dict[str, str] = {}
    for username, user in users.items():
        for label, key in (user.keys or {}).items():
            place = below(f"{below(path, username)}.keys", label)
            try:
                plain = normalise_key(key)
            except Invalid:  # an Output, or a fault reported elsewhere
                continue
            if plain in seen:
                yield Fault(
                    place,
                    f"the same key as {seen[plain]}",
                    "Give every user, and every label, a key of its own: a key must name who holds it",
                )
            seen.setdefault(plain, place)


def jailctl_files() -> str:
    """jailctl as a JSON map: the file that installs it, an archive of all others, and the digest of each of those by
    its path, so that a preview shows which files an upgrade changes.

    Packed, since the state holds this text twice, and is written several times for each user; and all in one, which
    takes two thirds of what they take one by one. By bzip2, which makes the same bytes of a text wherever it is done.
    """
    paths = [path for pattern in ("*.py", "*.html") for path in HOSTSIDE.rglob(pattern)]
    files = {path.relative_to(HOSTSIDE).as_posix(): path.read_bytes().decode() for path in paths}
    installer = files.pop(INSTALLER)
    archive = base64.b64encode(bz2.compress(json.dumps(files, sort_keys=True).encode())).decode()
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in files.items()}
    return json.dumps({**digests, INSTALLER: installer, "archive": archive}, sort_keys=True)


def _known_hosts_line(address: str, port: int, host_key: str) -> str:
    return f"{address if port == 22 else f'[{address}]:{int(port)}'} {host_key}"
