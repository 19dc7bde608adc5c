"""The stack's configuration, read into args.

Every fault of it, a misspelt key included, is reported at once and before any resource exists. Of a value that
may be a secret, only the place is ever named.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Optional, cast

from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret

from .faults import Fault, below, examine, raise_any
from .hosts import Host
from .hosts.existing import GET_THE_HOST_KEY, ExistingHost, ExistingHostArgs, SshServerArgs
from .hosts.local import LocalHost, LocalHostArgs, demo_user
from .hosts.stack import StackHost, StackHostArgs
from .hostside.validate import (
    MAKE_A_HASH,
    Invalid,
    check_log_level,
    check_quotas,
    check_umask,
    check_username,
    normalise_source,
    show,
)
from .jail import SiemArgs, quota_faults, users_faults
from .user import UserArgs

NAMESPACE = "sftp-jail"

HOST_KINDS = ("aws", "existing", "local", "stack")

KEYS = ("forceDestroy", "hardening", "host", "logLevel", "quotas", "siem", "umask", "users")
OF_THE_HOSTS_STACK: dict[str, Any] = {
    "forceDestroy": "false",
    "hardening": None,
    "logLevel": "VERBOSE",
    "quotas": "auto",
    "siem": {},
    "umask": "022",
}
"""What only the stack that has the host may set, with the defaults: these arrive without being set."""

AWS_EXAMPLE = "{administratorKey: 'ssh-ed25519 AAAA...', allowedCidrs: [203.0.113.0/24]}"
AWS_KEYS = {
    "administratorCidrs": "administrator_cidrs",
    "administratorKey": "administrator_key",
    "allowAnyone": "allow_anyone",
    "allowedCidrs": "allowed_cidrs",
    "architecture": "architecture",
    "dataVolumeId": "data_volume_id",
    "dataVolumeSize": "data_volume_size",
    "deleteData": "delete_data",
    "dns": "dns",
    "image": "image",
    "instanceType": "instance_type",
    "privateKey": "private_key",
    "release": "release",
    "subnetId": "subnet_id",
    "tags": "tags",
}
"""The keys of an AWS host, and the arguments that they are for `AwsHostArgs`."""

SIEM_EXAMPLE = "{host: siem.example.org, port: 6514, protocol: tls, format: rfc5424}"

SERVER_EXAMPLE = "{address: staging.example.org, hostKey: 'ecdsa-sha2-nistp256 AAAA...'}"
SERVER_KEYS = ("address", "hostKey", "port", "privateKey", "user")

USER_KEYS = {
    "access": "access",
    "allowFrom": "allow_from",
    "expires": "expires",
    "onRemoval": "on_removal",
    "quota": "quota",
}
"""The further keys of a user, and the arguments that they are for `UserArgs`."""

KEYS_EXAMPLE = "{laptop: 'ssh-ed25519 AAAA...'}"
USER_EXAMPLE = f"{{keys: {KEYS_EXAMPLE}}}"
EXAMPLE = f"{NAMESPACE}:users: {{jack: {USER_EXAMPLE}}}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a stack's configuration says."""

    host: Callable[[str], Host]
    """Makes the host, given the resource's name."""

    users: Mapping[str, UserArgs]
    """The logins, by user name."""

    log_level: Optional[str]
    """See `SftpJailArgs.log_level`."""

    umask: Optional[str]
    """See `SftpJailArgs.umask`."""

    hardening: Optional[bool]
    """See `SftpJailArgs.hardening`."""

    siem: Optional[SiemArgs]
    """See `SftpJailArgs.siem`."""

    quotas: Optional[str]
    """See `SftpJailArgs.quotas`."""

    attached: bool
    """See `SftpJailArgs.attached`."""

    force_destroy: bool
    """See `SftpJailArgs.force_destroy`."""


def load() -> Settings:
    """The configuration of the stack that is running.

    :raises ConfigError: with every fault that it has
    """
    reader = _Reader()
    config = reader.section(f"{NAMESPACE}:", _stack_config(), KEYS, EXAMPLE)
    siem = reader.siem(f"{NAMESPACE}:siem", config.get("siem", {}))
    host, demo_keys = reader.host(f"{NAMESPACE}:host", config.get("host", {"kind": "local"}), _sources(config), siem)
    users = reader.users(f"{NAMESPACE}:users", config.get("users", {}), demo_keys)
    attached = _kind(config) == "stack"
    for key, default in OF_THE_HOSTS_STACK.items() if attached else ():
        if config.get(key, default) != default:
            remedy = "Remove it here, and set it in that stack"
            reader.faults.append(Fault(f"{NAMESPACE}:{key}", "set by the stack that has the host", remedy))
    if config.get("quotas") == "auto":
        del config["quotas"]
    for key, check in (("logLevel", check_log_level), ("quotas", check_quotas), ("umask", check_umask)):
        if key in config:
            reader.faults += examine(f"{NAMESPACE}:{key}", check, config[key])
    for key in ("forceDestroy", "hardening"):
        # A bool arrives as its text, with or without quotes.
        if config.get(key, "false") not in ("true", "false"):
            remedy = "Write one of them"
            reader.faults.append(Fault(f"{NAMESPACE}:{key}", "neither true nor false", remedy, show(config[key])))
    if not attached and not any(fault.path.startswith(f"{NAMESPACE}:host") for fault in reader.faults):
        enforced = "quotas" in config or cast("type[Host]", host.func).quotas is not None
        reader.faults += quota_faults(f"{NAMESPACE}:users", users, enforced)
    raise_any(_printable(reader.faults))

    return Settings(
        host=host,
        # Only now, since a refused stack file makes no key files either.
        users={name: demo_user(name) if user is None else user for name, user in users.items()},
        log_level=config.get("logLevel"),
        umask=config.get("umask"),
        hardening=config["hardening"] == "true" if "hardening" in config else None,
        siem=siem,
        quotas=config.get("quotas"),
        attached=attached,
        force_destroy=config.get("forceDestroy") == "true",
    )


def _kind(config: Mapping[str, Any]) -> object:
    host = config.get("host")
    return host.get("kind") if isinstance(host, dict) else None


def _sources(config: Mapping[str, Any]) -> list[str]:
    """The networks that users come from, as far as they can be read: elsewhere it is said what is wrong."""
    users = config.get("users")
    found = []
    for user in users.values() if isinstance(users, dict) else ():
        networks = user.get("allowFrom") if isinstance(user, dict) else None
        for network in networks if isinstance(networks, list) else ():
            try:
                found.append(normalise_source(network))
            except Invalid:
                continue
    return sorted(set(found))


def _stack_config() -> dict[str, Any]:
    """The project's own keys. A map arrives as JSON; a number or a bool as its text, like any string."""
    found = {**get_config_env(), **CONFIG.get()}
    prefix = f"{NAMESPACE}:"
    return {key[len(prefix) :]: _decoded(text) for key, text in found.items() if key.startswith(prefix)}


def _decoded(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (dict, list)) else text


def _printable(faults: Iterable[Fault]) -> list[Fault]:
    """The faults by place, without values from a top-level key that holds a secret: which part is the secret, the
    SDK does not tell."""
    secret = tuple(f"{NAMESPACE}:{key}" for key in _stack_config() if is_config_secret(f"{NAMESPACE}:{key}"))
    shown = [replace(fault, shown="") if fault.path.startswith(secret) else fault for fault in faults]
    return sorted(shown, key=lambda fault: fault.path)


class _Reader:
    """Reads one part after the other, and notes what is wrong instead of stopping there."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def map(self, path: str, value: object, example: str) -> dict[str, Any]:
        """The value if it is a map, else an empty one."""
        if isinstance(value, dict):
            return value
        message, shown = ("no value", "") if value is None else ("not a map", show(value))
        self.faults.append(Fault(path, message, f"Write it like this: {example}", shown))
        return {}

    def section(self, path: str, value: object, keys: Sequence[str], example: str) -> dict[str, Any]:
        """The known keys of a map, those without a value left out."""
        spec = self.map(path, value, example)
        for key in spec:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, n=1)
                remedy = f"Did you mean '{near[0]}'?" if near else f"Remove it; known here: {', '.join(keys)}"
                self.faults.append(Fault(below(path, key), "an unknown key", remedy))
            elif spec[key] is None:
                self.faults.append(Fault(below(path, key), "no value", "Give it one, or remove the line"))
        return {key: spec[key] for key in keys if spec.get(key) is not None}

    def host(
        self, path: str, value: object, sources: Sequence[str], siem: Optional[SiemArgs]
    ) -> tuple[partial[Any], bool]:
        """What makes the host, and whether a user without any key is given one for the demo.

        :param sources: the networks that users come from, for a host with a firewall of its own
        :param siem: whom such a host must reach
        """
        kind = self.map(path, value, "{kind: local}").get("kind", "local")
        if kind not in HOST_KINDS:
            remedy = f"Use {', '.join(HOST_KINDS[:-1])} or {HOST_KINDS[-1]}"
            self.faults.append(Fault(f"{path}.kind", "not a kind of host", remedy, show(kind)))
        elif kind == "aws":
            return self.aws_host(path, value, sources, siem), False
        elif kind == "existing":
            return self.existing_host(path, value), False
        elif kind == "stack":
            return self.stack_host(path, value), False
        elif isinstance(value, dict):
            return self.local_host(path, value)
        # Without its kind there is no telling which keys a host may have.
        return partial(LocalHost, args=LocalHostArgs()), False

    def local_host(self, path: str, value: object) -> tuple[partial[Any], bool]:
        """A local host, and whether it has `demoKeys`."""
        spec = self.section(path, value, ["demoKeys", "kind", "release"], "{kind: local}")
        args = LocalHostArgs(release=spec.get("release"))
        self.faults += args.faults(path)
        return partial(LocalHost, args=args), self.flag(f"{path}.demoKeys", spec.get("demoKeys", False))

    def flag(self, path: str, value: object) -> bool:
        """The value if it is a bool, else False."""
        if not isinstance(value, bool):
            remedy = "Write true or false, without quotes"
            self.faults.append(Fault(path, "neither true nor false", remedy, show(value)))
        return value is True

    def siem(self, path: str, value: object) -> Optional[SiemArgs]:
        """Who else is sent the log; None for nobody."""
        if value == {}:
            return None
        keys = [field.name for field in fields(SiemArgs)]
        spec = self.section(path, value, keys, SIEM_EXAMPLE)
        args = SiemArgs(**{"host": "", **spec})
        if "host" in spec:
            self.faults += args.faults(path)
        elif isinstance(value, dict) and "host" not in value:
            self.faults.append(Fault(f"{path}.host", "missing", "Add it: the receiver's name or IP address"))
        return args

    def aws_host(self, path: str, value: object, sources: Sequence[str], siem: Optional[SiemArgs]) -> partial[Any]:
        """A VM on AWS."""
        spec = self.section(path, value, ["kind", *AWS_KEYS], AWS_EXAMPLE)
        self.private_key(path, spec)
        try:
            # Here, since it takes seconds, and needs what only an AWS stack has.
            from .hosts import aws
        except ImportError as error:
            remedy = "Install it beside pulumi: pip install 'pulumi-aws>=7.51,<8'"
            self.faults.append(Fault(f"{path}.kind", f"AWS needs the package pulumi-aws ({error})", remedy, "'aws'"))
            return partial(LocalHost, args=LocalHostArgs())
        given: dict[str, Any] = {field: spec[key] for key, field in AWS_KEYS.items() if key in spec}
        for key in ("allowAnyone", "deleteData"):
            if key in spec:
                given[AWS_KEYS[key]] = self.flag(f"{path}.{key}", spec[key])
        if "tags" in spec:
            given["tags"] = self.map(f"{path}.tags", spec["tags"], "{team: design}")
        if "dns" in spec:
            dns = self.section(f"{path}.dns", spec["dns"], ["name", "zoneId"], "{name: sftp.example.org, zoneId: Z...}")
            given["dns"] = aws.DnsArgs(zone_id=dns.get("zoneId", ""), name=dns.get("name", ""))
        missing = {
            "administratorKey": "Add it: the administrator's public key, the one line of a .pub file",
            "allowedCidrs": "Add it: the networks that the users come from, e.g. [203.0.113.0/24]",
        }
        for key, remedy in missing.items():
            if isinstance(value, dict) and key not in value:
                self.faults.append(Fault(f"{path}.{key}", "missing", remedy))
            given.setdefault(AWS_KEYS[key], "")
        args = aws.AwsHostArgs(user_cidrs=sources, siem_port=siem.port if siem is not None else None, **given)
        absent = {f"{path}.{key}" for key in missing if key not in spec}
        self.faults += [fault for fault in args.faults(path) if fault.path not in absent]
        return partial(aws.AwsHost, args=args)

    def private_key(self, path: str, spec: Mapping[str, Any]) -> None:
        """A private key must be a secret."""
        if "privateKey" in spec and not is_config_secret(f"{NAMESPACE}:host"):
            set_key = f"pulumi config set --secret --path '{path}.privateKey' < KEYFILE"
            remedy = f"Remove it here, and set it with: {set_key}; or use the SSH agent"
            self.faults.append(Fault(f"{path}.privateKey", "a private key that is no secret", remedy))

    def existing_host(self, path: str, value: object) -> partial[Any]:
        """A server that exists."""
        spec, server = self.server(path, value, "kind", "proxy")
        proxy = SshServerArgs(**self.server(f"{path}.proxy", spec["proxy"])[1]) if "proxy" in spec else None
        return partial(ExistingHost, args=ExistingHostArgs(**server, proxy=proxy))

    def stack_host(self, path: str, value: object) -> partial[Any]:
        """The host of another stack."""
        spec = self.section(path, value, ["kind", "stack"], "{kind: stack, stack: staging}")
        args = StackHostArgs(stack=spec.get("stack", ""))
        if "stack" in spec:
            self.faults += args.faults(path)
        elif isinstance(value, dict) and "stack" not in value:
            self.faults.append(Fault(f"{path}.stack", "missing", "Add it: the stack whose host this is"))
        return partial(StackHost, args=args)

    def server(self, path: str, value: object, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A server's known keys, those of `more` among them, and the arguments that they are for `SshServerArgs`."""
        spec = self.section(path, value, [*SERVER_KEYS, *more], SERVER_EXAMPLE)
        for key, remedy in (("address", "Add it: the server's name or IP address"), ("hostKey", GET_THE_HOST_KEY)):
            if isinstance(value, dict) and key not in value:
                self.faults.append(Fault(f"{path}.{key}", "missing", remedy))
        self.private_key(path, spec)
        names = {"hostKey": "host_key", "privateKey": "private_key"}
        args = {"address": "", "host_key": "", **{names.get(key, key): spec[key] for key in SERVER_KEYS if key in spec}}
        self.faults += [fault for fault in SshServerArgs(**args).faults(path) if fault.path.rsplit(".", 1)[1] in spec]
        return spec, args

    def users(self, path: str, value: object, demo_keys: bool) -> dict[str, Optional[UserArgs]]:
        """The users by name; None for one that is to have a demo key."""
        users: dict[str, Optional[UserArgs]] = {}
        for name, spec in self.map(path, value, f"{{jack: {USER_EXAMPLE}}}").items():
            before = len(self.faults)
            user = self.user(below(path, name), spec)
            if not user.can_log_in and (demo_keys or len(self.faults) > before):
                # Meant to be so, or explained already; there is only the name to judge.
                self.faults += examine(below(path, name), check_username, name)
                users[name] = None
            else:
                users[name] = user
        self.faults += users_faults(path, {name: user for name, user in users.items() if user is not None})
        return users

    def user(self, path: str, value: object) -> UserArgs:
        """One user's args, as far as they can be read."""
        set_hash = f"pulumi config set --secret --path '{path}.passwordHash'"
        spec = dict(self.map(path, value, USER_EXAMPLE))
        if "password" in spec:
            del spec["password"]
            remedy = f"Remove it. {MAKE_A_HASH}, and set that with: {set_hash}"
            self.faults.append(Fault(f"{path}.password", "a plain password, which is accepted nowhere", remedy))
        spec = self.section(path, spec, ["keys", "passwordHash", *USER_KEYS], USER_EXAMPLE)
        if "passwordHash" in spec and not is_config_secret(f"{NAMESPACE}:users"):
            remedy = f"Remove it here, and set it with: {set_hash}"
            self.faults.append(Fault(f"{path}.passwordHash", "a password hash that is no secret", remedy))
        keys = self.map(f"{path}.keys", spec.get("keys", {}), KEYS_EXAMPLE)
        if "expires" in spec:
            spec["expires"] = unquoted_date(spec["expires"])
        limits = {field: spec[key] for key, field in USER_KEYS.items() if key in spec}
        return UserArgs(keys=keys, password_hash=spec.get("passwordHash"), **limits)


GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? ([+-]\d\d)(\d\d) \S+", re.ASCII)


def unquoted_date(value: object) -> object:
    """A date as it is written in the stack file; anything else as it is.

    YAML takes one without quotes for a point in time, and Pulumi hands that on in Go's words, so that
    `2026-12-07` arrives as `2026-12-07 00:00:00 +0000 UTC`.
    """
    found = GO_TIME.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return value
    day, clock, hours, minutes = found.groups()
    return day if (clock, hours, minutes) == ("00:00:00", "+00", "00") else f"{day}T{clock}{hours}:{minutes}"
