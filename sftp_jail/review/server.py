"""What a preview changes of the server: the jail on it, the host, and whatever else the stack has."""

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from .findings import ANYONE, DATA, FORBID_ANYONE, NO_SETTINGS, UNREADABLE, WEAKER, Findings, says_anyone
from .policy import Policy
from .preview import COMMAND, INSTANCE, KNOWN_KINDS, SECRET, UNKNOWN, Change, Preview, spec_of
from .style import Style

JAIL = "sftp-jail:index:SftpJail"
INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
SECURITY_GROUP = "aws:ec2/securityGroup:SecurityGroup"
OLD_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
VOLUME = "aws:ebs/volume:Volume"

LONGEST_IN_PLACE = 60
"""Characters of a value that is shown beside its predecessor; of a longer one, only that it changes is said."""

WORDS = {
    "create": "new",
    "import": "taken over as it is",
    "delete": "removed",
    "replace": "replaced",
    "update": "changed",
    "leftover": "what an interrupted replacement left is deleted",
}

RULE_KINDS = ("create", "delete", "import", "replace", "update")


class Setting(NamedTuple):
    """An entry of the JSON that sets up a jail."""

    label: str

    default: Any
    """What is meant where it is missing."""


SETTINGS = {
    "umask": Setting("sshd: umask", "022"),
    "logLevel": Setting("sshd: log level", "VERBOSE"),
    "hardening": Setting("sshd: hardening", False),
    "hostKeyType": Setting("sshd: type of the pinned host key", None),
    "quotas": Setting("jail: quotas enforced by", None),
    "siem": Setting("log: sent on to", None),
    "forceDestroy": Setting("jail: destroy removes other stacks' users, too (forceDestroy):", False),
}
"""By key. Another key is shown under its own name; `owner` only where it changes, `jailctl` in a line of its own."""


class Server:
    """The server's part of a review."""

    def __init__(self, preview: Preview, reviewed: Set[str], policy: Policy, style: Style) -> None:
        """
        :param preview: what would change
        :param reviewed: the URNs that another part has reviewed
        :param policy: what is refused of it
        :param style: how it is written
        """
        self.style, self.policy = style, policy
        self.ending = preview.ending
        self.warnings, self.refusals = Findings(), Findings()
        self.lines: list[str] = []
        self.others: list[str] = []
        jails: dict[str, list[Change]] = {}
        rest = []
        for change in preview.changes:
            if change.urn in reviewed:
                continue
            if change.type == JAIL and change.kind in KNOWN_KINDS:
                jails.setdefault(change.urn, [])
            elif change.parent_type == JAIL and change.type == COMMAND:
                jails.setdefault(change.parent, []).append(change)
            else:
                rest.append(change)
        self.several = len(jails) > 1
        for urn, commands in sorted(jails.items()):
            self._jail(urn.rsplit("::", 1)[-1], commands)
        for change in sorted(rest, key=lambda change: (change.type != INGRESS_RULE, change.urn)):
            self._resource(change)

    # The jail

    def _jail(self, name: str, commands: Sequence[Change]) -> None:
        place = f" ({self.style.value(name)})" if self.several else ""
        lines: list[str] = []
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        notes: dict[str, None] = {}
        settings: list[Change] = []
        for change in commands:
            notes.update(dict.fromkeys(self._ways(change)))
            if change.kind == "leftover":
                continue
            old, new = (spec_of(state) if state is not None else {} for state in (change.before, change.after))
            if isinstance(old, str) or isinstance(new, str):
                if change.kind not in ("same", "read"):
                    lines.append(f"jail: {self.style.value(change.name)} {self._verb(change)}, which is not readable")
                    self.warnings.add(UNREADABLE, self.style.value(change.name))
            elif "install.py" in old or "install.py" in new:
                lines += self._program(change, old, new)
            else:
                settings.append(change)
                before.update(old)
                after.update(new)
        if settings and all(change.kind == "delete" for change in settings):
            lines.append(f"jail: {self._end(settings)}")
        elif settings:
            made = all(change.kind == "create" for change in settings)
            lines += self._settings(before, after, new=made, upgraded=any("jailctl" in line for line in lines))
        lines += [f"jail: {note}" for note in notes]
        self.lines += [line.replace(":", f"{place}:", 1) for line in lines]

    def _program(self, change: Change, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
        """What happens to jailctl."""
        if change.kind in ("create", "import"):
            return ["jail: jailctl installed"]
        if change.kind == "delete":
            return ["jail: jailctl removed"]
        files = sorted(path for path in {**old, **new} if path != "archive" and old.get(path) != new.get(path))
        if not files:
            return []
        return [f"jail: jailctl upgraded (files {', '.join(map(self.style.value, files))} changed)"]

    def _end(self, settings: Sequence[Change]) -> str:
        """How a jail ends."""
        if any(change.kept for change in settings):
            return "no longer in the stack, but kept on the server"
        if any(change.state.get("deletedWith") in self.ending for change in settings):
            return "removed with its host"
        return "removed from the server, sshd as it was before"

    def _settings(self, before: Mapping[str, Any], after: Mapping[str, Any], new: bool, upgraded: bool) -> list[str]:
        lines = []
        keys = [*SETTINGS, *sorted({*before, *after} - set(SETTINGS))]
        for key in keys:
            setting = SETTINGS.get(key, Setting(f"jail: {self.style.value(key)}", None))
            old, now = before.get(key, setting.default), after.get(key, setting.default)
            label = setting.label
            if (key == "jailctl" and (new or upgraded)) or (key == "owner" and new):
                continue
            if new and key in after:
                lines.append(f"{label} {self.style.json(now)}")
            elif old != now:
                lines.append(f"{label} {self._or_none(old)} → {self._or_none(now)}")
            if self._is_weaker(key, old, now):
                self.warnings.add(WEAKER, f"{label} {self.style.json(now)}")
        return lines

    def _or_none(self, value: Any) -> str:
        return self.style.json(value) if value is not None else "(none)"

    @staticmethod
    def _is_weaker(key: str, old: Any, now: Any) -> bool:
        if old == now:
            return False
        if key == "umask":
            try:
                return bool(int(old, 8) & ~int(now, 8))
            except (ValueError, TypeError):
                return True
        if key == "hardening":
            return now is not True
        if key == "logLevel":
            return bool(now != "VERBOSE")
        if key == "siem":
            return now is None
        return key == "forceDestroy" and now is not False

    def _ways(self, change: Change) -> Iterable[str]:
        """How a Command is run again though what it is told is the same."""
        if change.kind == "replace":
            yield "made anew on the new host"
        elif change.kind == "update":
            inputs = [key for key in change.differing() if key != "stdin"]
            if inputs:
                yield f"set up again, since this changes: {', '.join(map(self.style.value, inputs))}"
        elif change.kind not in KNOWN_KINDS:
            yield self._verb(change)
        if change.leftover:
            yield WORDS["leftover"]

    # The host, and the rest

    def _verb(self, change: Change) -> str:
        if change.kind == "delete" and change.kept:
            return "no longer in the stack, but kept"
        return WORDS.get(change.kind, f"Pulumi's operation {self.style.value(change.kind)}")

    def _resource(self, change: Change) -> None:
        self._dangers(change)
        parts = list(self._meta(change))
        if change.kind not in ("same", "read"):
            details = ", ".join(self._details(change))
            parts.insert(0, f"{self._verb(change)}: {details}" if details else self._verb(change))
        if not parts:
            return
        if change.type == INGRESS_RULE and change.kind in RULE_KINDS:
            line = f"AWS: {self._opening(change)}"
        else:
            line = f"{self._subject(change)}: {'; '.join(parts)}"
        (self.lines if change.type.startswith("aws:") or self._of_host(change) else self.others).append(line)

    def _subject(self, change: Change) -> str:
        name, kind = self.style.value(change.name), self.style.value(change.type.rsplit(":", 1)[-1])
        if self._is_machine(change) and change.type != INSTANCE:
            return "host"
        if change.type.startswith("aws:"):
            return f"AWS {name} ({kind})"
        if self._of_host(change):
            return f"host {name} ({kind})"
        return f"{name} ({self.style.value(change.type)})"

    @staticmethod
    def _of_host(change: Change) -> bool:
        """Whether it is a Host of ours, or belongs to one."""
        return any(
            kind.startswith("sftp-jail:index:") and kind.endswith("Host")
            for kind in (*change.parent_types, change.type)
        )

    @staticmethod
    def _is_machine(change: Change) -> bool:
        """Whether the server goes with it."""
        local = change.type == "command:local:Command" and change.parent_type == "sftp-jail:index:LocalHost"
        return local or change.type == INSTANCE

    def _details(self, change: Change) -> list[str]:
        """Which inputs change, and how."""
        before, after = change.inputs()
        details = []
        for key in change.differing():
            if key == "triggers" and self._is_machine(change):
                continue  # the machine's directory, which its input says, too
            old, new = _opened(before.get(key)), _opened(after.get(key))
            if isinstance(old, dict) and isinstance(new, dict) and key == "stdin":
                details += [
                    self._detail(inner, old.get(inner), new.get(inner))
                    for inner in sorted({**old, **new})
                    if old.get(inner) != new.get(inner)
                ]
            else:
                details.append(self._detail(key, old, new))
        return details

    def _detail(self, key: str, old: Any, new: Any) -> str:
        shown = self.style.value(key)
        if old == new or any(len(json.dumps(value)) > LONGEST_IN_PLACE for value in (old, new)):
            return f"{shown} changed"
        return f"{shown} {self._known(old)} → {self._known(new)}"

    def _known(self, value: Any) -> str:
        return "(known after up)" if value == UNKNOWN else self._or_none(value)

    def _opening(self, change: Change) -> str:
        """An ingress rule, as what it opens and closes."""
        before, after = change.inputs()
        (old_ports, old), (ports, new) = self._hole(before), self._hole(after)
        if change.kind == "delete":
            kept = "stays open, though it leaves the stack," if change.kept else "closed"
            return f"{old_ports} {kept} to {old}"
        if change.kind in ("create", "import"):
            return f"{ports} {'opened' if change.kind == 'create' else 'taken over, which is open'} to {new}"
        if (old_ports, old) == (ports, new):
            return f"{ports} as open to {new} as before, but the rule is {change.kind}d"
        closed = f"closed to {old}" if ports == old_ports else f"{old_ports} closed to {old}"
        return f"{ports} opened to {new}, {closed}"

    def _hole(self, rule: Mapping[str, Any]) -> tuple[str, str]:
        """The ports of an ingress rule, and whom it lets in."""
        low, high = rule.get("fromPort"), rule.get("toPort")
        ports = "every port" if low in (None, -1) else f"port {self._known(low)}"
        if low != high:
            ports = f"ports {self._known(low)} to {self._known(high)}"
        sources = ("cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId")
        who = [self._known(rule[key]) for key in sources if rule.get(key) is not None]
        description = f" ({self.style.json(rule['description'])})" if rule.get("description") else ""
        return ports, f"{' and '.join(who) or '(nobody named)'}{description}"

    def _meta(self, change: Change) -> Iterable[str]:
        """What changes of how Pulumi treats it."""
        if change.before is None or change.after is None:
            return
        for key, words in (("retainOnDelete", "kept when it leaves the stack"), ("protect", "protected from deletion")):
            old, new = bool(change.before.get(key)), bool(change.after.get(key))
            if old != new:
                yield f"{words}: {'no' if old else 'yes'}, was {'yes' if old else 'no'}"
            if old and not new:
                self.warnings.add(WEAKER, f"{self._subject(change)} {words}: no")

    # Dangers

    def _dangers(self, change: Change) -> None:
        subject, machine = self._subject(change), self._is_machine(change)
        if machine and change.kind == "replace":
            self.warnings.add("The host is replaced", subject)
        if machine and change.kind == "delete" and not change.kept:
            self.warnings.add("The host is removed", subject)
        loses = change.type == VOLUME or (machine and change.type != INSTANCE)
        if loses and change.urn in self.ending and not change.kept:
            self.warnings.add(DATA, f"uploads on {subject}")
        if change.kind in ("same", "read"):
            return
        for source in _sources(change):
            if says_anyone(source):
                self.warnings.add(ANYONE, subject)
                if self.policy.forbidAnyone:
                    self.refusals.add(FORBID_ANYONE, subject)
            elif source in (UNKNOWN, SECRET):
                self.warnings.add(UNREADABLE, subject)
                if self.policy.forbidAnyone:
                    self.refusals.add(NO_SETTINGS, subject)


def _sources(change: Change) -> Iterable[str]:
    """The addresses, as they are written, that a resource of AWS's lets in."""
    inputs = change.inputs()[1]
    if change.type == INGRESS_RULE:
        return _texts([inputs.get("cidrIpv4"), inputs.get("cidrIpv6")])
    if change.type == SECURITY_GROUP:
        return _texts(inputs.get("ingress"))
    if change.type == OLD_RULE and inputs.get("type") != "egress":
        return _texts([inputs.get("cidrBlocks"), inputs.get("ipv6CidrBlocks")])
    return ()


def _texts(value: Any) -> Iterable[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)


def _opened(value: Any) -> Any:
    """A text that is a JSON map as that map; anything else as it is."""
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, dict) else value
