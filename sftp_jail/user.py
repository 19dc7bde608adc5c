"""JailUser: one login that can do nothing but SFTP inside its own jail."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Optional

import pulumi

from .faults import Fault, below, checked, examine, raise_any
from .hosts import Host, Place
from .hostside.validate import (
    check_access,
    check_expiry_ahead,
    check_key_label,
    check_on_removal,
    check_password_hash,
    check_quota,
    check_username,
    normalise_expiry,
    normalise_key,
    normalise_source,
    show,
)
from .position import unrecorded
from .remote import JAILCTL, command, owner, spec


@dataclass(kw_only=True)
class UserArgs:
    """What one login may do, whatever its name and its server. It needs a key or a password hash."""

    keys: Optional[Mapping[str, pulumi.Input[str]]] = None
    """SSH public keys, each as one line of a .pub file, by a label of the operator's choice. Default: none."""

    password_hash: Optional[pulumi.Input[str]] = field(default=None, repr=False)
    """A crypt(3) string for a login by password, e.g. from `mkpasswd --method=yescrypt`. Kept as a secret
    whether or not it is given as one. Default: no password."""

    expires: Optional[str] = None
    """When access ends: a date, the last day of it in UTC, `2026-12-07`; or an instant with its zone,
    `2026-12-07T18:00:00+01:00`. A login that is new, or gets another end, needs one that is ahead. Default: never."""

    allow_from: Optional[Sequence[str]] = None
    """From where the user may connect, as ranges of IP addresses: `203.0.113.0/24`. Default: from anywhere."""

    access: Optional[str] = None
    """`read-write`; `read-only`; or `upload-only`, without listing, reading, renaming and removing.
    Default: read-write."""

    on_removal: Optional[str] = None
    """What becomes of the uploads when the user is removed: `archive`, one tar file with its manifest; `keep`, the
    files as they are, for root alone; `delete`. It counts once `up` has put it into the state. Default: archive."""

    quota: Optional[str] = None
    """How much all uploads of the user may take together, in KiB, MiB, GiB or TiB: `5GiB`. The host must be able to
    enforce it, see `SftpJailArgs.quotas`. Default: no limit."""

    identity_file: Optional[str] = None
    """The private key's path on this computer, named in the `sftp` output. Default: left to the client."""

    @property
    def can_log_in(self) -> bool:
        """Whether there is any way in."""
        return bool(self.keys) or self.password_hash is not None

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        for label, key in (self.keys or {}).items():
            yield from examine(below(f"{path}.keys", label), check_key_label, label)
            yield from examine(below(f"{path}.keys", label), normalise_key, key)
        if self.password_hash is not None:
            yield from examine(f"{path}.passwordHash", check_password_hash, self.password_hash)
        if self.expires is not None:
            yield from examine(f"{path}.expires", normalise_expiry, self.expires)
        if self.allow_from is not None:
            yield from self._source_faults(f"{path}.allowFrom")
        for key, check, value in (
            ("access", check_access, self.access),
            ("onRemoval", check_on_removal, self.on_removal),
            ("quota", check_quota, self.quota),
        ):
            if value is not None:
                yield from examine(f"{path}.{key}", check, value)
        if not self.can_log_in:
            yield Fault(
                path,
                "neither a key nor a password hash, so nobody could log in",
                "Add the user's public key, e.g. keys: {laptop: 'ssh-ed25519 AAAA...'}",
            )

    def _source_faults(self, path: str) -> Iterator[Fault]:
        if not isinstance(self.allow_from, Sequence) or isinstance(self.allow_from, str):
            yield Fault(path, "not a list", "Write it like this: ['203.0.113.0/24']", show(self.allow_from))
            return
        if not self.allow_from:
            yield Fault(path, "empty, so nobody could connect", "Name a network, or leave it out to allow any address")
        for place, network in enumerate(self.allow_from):
            yield from examine(f"{path}[{place}]", normalise_source, network)


@dataclass(kw_only=True)
class JailUserArgs:
    """One login on one server."""

    host: Host
    """The server; it must have the jail already, else name the `SftpJail` in `depends_on`."""

    username: str
    """The login's name: 1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or '_'."""

    user: UserArgs
    """What the login may do."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from examine(f"{path}.username", check_username, self.username)
        yield from self.user.faults(f"{path}.user")


class JailUser(pulumi.ComponentResource):
    """One jailed login: its account, its jail and its keys; and its password, if it has one.

    :raises ConfigError: where the args have faults; no resource is registered then
    """

    username: pulumi.Output[str]
    """The login's name."""

    sftp: pulumi.Output[str]
    """The command that logs in."""

    def __init__(self, name: str, args: JailUserArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        user = args.user
        limits = _limits(user)
        if "expires" in limits:
            # Here and not at the Command: that changes with its machine, also for a login that has ended.
            opts = pulumi.ResourceOptions.merge(opts, _refusal_of_a_past_end(name))
        with unrecorded():
            super().__init__("sftp-jail:index:JailUser", name, {"expires": limits.get("expires")}, opts)

        account = command(
            name,
            args.host,
            # What it says it has done would be kept in the state; what it fails with is on stderr.
            create=f"{JAILCTL} apply-user > /dev/null",
            delete=f"{JAILCTL} remove-user",
            stdin=spec(
                # Flat: a preview prints beside what has changed every other entry of the same map, and every brace.
                {
                    **{
                        f"key {label}": _plain_key(below(f"{name}.user.keys", label), key)
                        for label, key in (user.keys or {}).items()
                    },
                    **limits,
                    "user": f"{owner()}/{args.username}",
                }
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                # A component's dependencies are not its children's: hand them on.
                depends_on=opts.depends_on if opts else None,
            ),
        )
        if user.password_hash is not None:
            password_hash = checked(f"{name}.user.passwordHash", check_password_hash, user.password_hash)
            command(
                # A dot, because no user name has one: `jill.password` is not the user `jill-password`.
                f"{name}.password",
                args.host,
                create=f"{JAILCTL} apply-password",
                delete=f"{JAILCTL} remove-password",
                # One secret hides the whole stdin from a preview, hence a Command of its own.
                stdin=pulumi.Output.secret(spec({"passwordHash": password_hash, "username": args.username})),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[account]),
            )

        self.username = pulumi.Output.from_input(args.username)
        self.sftp = args.host.place.apply(partial(sftp_command, args.username, user))
        # No register_outputs: all of the state would be written once more for each user, for what the stack's own
        # outputs say.


def _plain_key(path: str, key: pulumi.Input[str]) -> pulumi.Input[str]:
    """The key as it is compared and sent; one that is known has been checked."""
    return normalise_key(key) if isinstance(key, str) else checked(path, normalise_key, key).apply(normalise_key)


def _limits(user: UserArgs) -> dict[str, object]:
    """What jailctl is told of a user beside his keys: only what was given, so that a preview shows no more."""
    given = {
        "access": user.access,
        "allowFrom": sorted({normalise_source(network) for network in user.allow_from}) if user.allow_from else None,
        "expires": normalise_expiry(user.expires) if user.expires is not None else None,
        "onRemoval": user.on_removal,
        "quota": user.quota,
    }
    return {key: value for key, value in given.items() if value is not None}


def _refusal_of_a_past_end(name: str) -> pulumi.ResourceOptions:
    """Fails the preview, and the `up`, that would make a login with an end that is past, or give it one.

    Not among the faults of the args: a login whose time is over must not stop every other change of its stack.
    """

    def refuse(args: pulumi.ResourceHookArgs) -> None:
        expires = (args.new_inputs or {}).get("expires")
        if expires is not None and expires != (args.old_inputs or {}).get("expires"):
            raise_any(
                examine(f"{name}.user.expires", partial(check_expiry_ahead, now=datetime.now(timezone.utc)), expires)
            )

    hook = pulumi.ResourceHook(f"{name}.expires", refuse, pulumi.ResourceHookOptions(on_dry_run=True))
    return pulumi.ResourceOptions(hooks=pulumi.ResourceHookBinding(before_create=[hook], before_update=[hook]))


def sftp_command(username: str, user: UserArgs, place: Place) -> str:
    """How the user logs in from this computer."""
    identity = ["-i", user.identity_file] if user.identity_file is not None else []
    port = ["-P", str(place.port)] if place.port != 22 else []
    return shlex.join(["sftp", *identity, *place.options, *port, f"{username}@{place.address}"])
