"""What a preview changes of the users: one line each, and what is to warn of."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, Optional

from .findings import ANYONE, DATA, FORBID_ANYONE, NO_SETTINGS, UNREADABLE, WEAKER, Findings, says_anyone
from .policy import Policy
from .preview import COMMAND, INSTANCE, KNOWN_KINDS, Change, Preview, user_spec_of
from .style import Style

JAIL_USER = "sftp-jail:index:JailUser"
PASSWORD = ".password"
"""The end of the name of the Command that sets a user's password."""

LONGEST_GRANT = 30
"""Days from today that need no warning."""

MANY = 10
"""The entries of a list that are shown."""

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

ABANDONED = "Stays on the server, with nobody to remove it"


# Words


class Word(NamedTuple):
    """How an entry of a user's JSON is said."""

    say: Callable[[Any, Style], str]
    """Words for a value; ValueError or TypeError if it is not like ours."""

    absent: str
    """Words for having none."""


def _addresses(value: Any, style: Style) -> str:
    ranges = _strings(value)
    more = [f"{len(ranges) - MANY} more"] if len(ranges) > MANY else []
    return "from " + " and ".join([*map(style.value, ranges[:MANY]), *more])


def _until(value: Any, style: Style) -> str:
    moment = _moment(value)
    day = f"until {moment.day} {MONTHS[moment.month - 1]} {moment.year}"
    if not isinstance(moment, datetime):
        return day
    zone = moment.strftime("%z")
    clock = moment.strftime("%H:%M:%S" if moment.second else "%H:%M")
    return f"{day}, {clock} {'UTC' if zone == '+0000' else f'{zone[:3]}:{zone[3:5]}'}"


def _access(value: Any, style: Style) -> str:
    if value not in ("read-write", "read-only", "upload-only"):
        raise ValueError(value)
    return str(value)


def _quota(value: Any, style: Style) -> str:
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]i?B?)", value)
    if not found:
        raise ValueError(value)
    return f"at most {found[1]} {found[2]}"


FATES = {"archive": "archived", "keep": "kept as they are", "delete": "deleted"}


def _fate(value: Any, style: Style) -> str:
    return f"uploads {FATES[value]} on removal"


WORDS = {
    "allowFrom": Word(_addresses, "from any address"),
    "access": Word(_access, "read-write"),
    "expires": Word(_until, "without an end"),
    "quota": Word(_quota, "without a quota"),
    "onRemoval": Word(_fate, "uploads archived on removal"),
}
"""By key, in the order in which they are said. What is in the JSON and neither here nor in `OWN_WORDS` is shown as
`key: value`."""

OWN_WORDS = ("keys", "owner", "username")
"""Keys that have lines of their own below."""

LIMITS = {"allowFrom": None, "access": "read-write", "quota": None}
"""What limits a user beside the end, and the value that is no limit, as is none."""


def _moment(value: Any) -> "date | datetime":
    """A date, or a moment with its zone; ValueError or TypeError if it is neither."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return date.fromisoformat(value)
    # Python 3.10 does not know the Z.
    moment = datetime.fromisoformat(re.sub("Z$", "+00:00", value))
    if moment.tzinfo is None:
        raise ValueError(value)
    return moment


def _strings(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise ValueError(value)
    return value


def said(key: str, value: Any, style: Style) -> str:
    """Words for an entry; an unknown one, or one unlike ours, as it is."""
    try:
        return WORDS[key].say(value, style)
    except (KeyError, ValueError, TypeError):
        return f"{style.value(key)}: {style.json(value)}"


def fingerprint(key: object) -> Optional[str]:
    """OpenSSH's fingerprint of a public key `TYPE BLOB`; None if it is none."""
    try:
        _, blob = str(key).split(" ")
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except (ValueError, binascii.Error):
        return None
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


# Users


@dataclass(eq=False)
class User:
    """A login that the preview has something to say of."""

    account: Optional[Change] = None
    """Its Command; None if that stays as it is, and the preview does not show it."""

    password: Optional[Change] = None
    """The Command that sets its password, likewise."""

    component: Optional[Change] = None
    """The JailUser, likewise."""

    @property
    def changes(self) -> list[Change]:
        """All of it."""
        return [change for change in (self.component, self.account, self.password) if change is not None]

    @property
    def kind(self) -> str:
        """What happens to the login itself."""
        main = self.account or self.component
        return main.kind if main is not None else "same"

    @property
    def name(self) -> str:
        """The login's name, as well as it is known."""
        for spec in map(user_spec_of, (self.account.after, self.account.before) if self.account is not None else ()):
            if isinstance(spec, Mapping):
                return str(spec["username"])
        outputs = [
            ((state or {}).get("outputs") or {}).get("username")
            for change in self.changes
            for state in (change.before, change.after)
        ]
        return next((name for name in outputs if isinstance(name, str)), self.changes[0].name.removesuffix(PASSWORD))

    @property
    def before(self) -> "Mapping[str, Any] | str | None":
        """What its JSON said, or why that is not known; None if it is new, or not shown."""
        return self._spec(self.account.before) if self.account is not None else None

    @property
    def after(self) -> "Mapping[str, Any] | str | None":
        """What its JSON is to say, or why that is not known; None if it goes, or is not shown."""
        return self._spec(self.account.after) if self.account is not None else None

    def _spec(self, state: Optional[Mapping[str, Any]]) -> "Mapping[str, Any] | str | None":
        return user_spec_of(state) if state is not None and self.kind != "leftover" else None

    @property
    def has_password(self) -> bool:
        """Whether it is to have one, as far as it is shown."""
        return self.password is not None and self.password.after is not None

    @property
    def password_words(self) -> str:
        """What happens to the password; "" if nothing, or if the whole login comes or goes."""
        if self.password is None or self.kind in ("create", "import", "delete"):
            return ""
        if self.password.kind == "update":
            # Secrets look alike: where the provider gives no reason, the worse is assumed.
            reasons = self.password.reasons
            return "password changed" if "stdin" in reasons or not reasons else ""
        return {"create": "password set", "import": "password set", "delete": "password removed"}.get(
            self.password.kind, ""
        )

    @property
    def settings_change(self) -> bool:
        """Whether it is another login after `up`, and not only reached or made in another way."""
        if self.kind in ("create", "import", "delete") or self.password_words:
            return True
        if self.kind == "read":
            return False
        both_unknown = isinstance(self.after, str) and self.account is not None and "stdin" in self.account.reasons
        return self.before != self.after or both_unknown

    def fingerprints(self) -> frozenset[str]:
        """Of all its keys."""
        spec = self.after if isinstance(self.after, Mapping) else self.before
        keys = spec["keys"].values() if isinstance(spec, Mapping) else ()
        return frozenset(mark for mark in map(fingerprint, keys) if mark is not None)


def users_of(changes: Iterable[Change]) -> list[User]:
    """The users, by name. Of two Commands that say that they are the same one's, the second is nobody's."""
    found: dict[str, User] = {}
    for change in changes:
        if change.type == JAIL_USER:
            found.setdefault(change.urn, User()).component = change
        elif change.type == COMMAND and change.parent_type == JAIL_USER:
            user = found.setdefault(change.parent, User())
            if change.name.endswith(PASSWORD) and user.password is None:
                user.password = change
            elif not change.name.endswith(PASSWORD) and user.account is None:
                user.account = change
    return sorted(found.values(), key=lambda user: user.name)


class Access:
    """The users' part of a review."""

    def __init__(self, preview: Preview, policy: Policy, today: date, style: Style) -> None:
        self.style, self.policy, self.today = style, policy, today
        self.warnings, self.refusals = Findings(), Findings()
        self.shows_unchanged = preview.shows_unchanged
        users = users_of(preview.changes)
        self.reviewed = {change.urn for user in users for change in user.changes}
        self.ending = preview.ending
        self.replaced_vms = {c.urn for c in preview.changes if c.type == INSTANCE and c.kind == "replace"}
        self.new = [user for user in users if user.kind in ("create", "import")]
        self.removed = [user for user in users if user.kind == "delete"]
        coming_or_going = [*self.new, *self.removed]
        rest = [user for user in users if user not in coming_or_going]
        self.changed = [user for user in rest if user.settings_change and not self._is_alike(user)]
        self.untouched = [user for user in rest if user not in self.changed]
        self.alike = self._alike()
        self.unchanged = self._unchanged(preview, users)
        self.lines = [self._line(user) for user in users if user in coming_or_going or user in self.changed]
        self.lines += [f"{words}: {', '.join(names)}" for words, names in self.alike.items()]
        for user in users:
            if user in self.new or user in self.changed:
                self._judge(user)
        self._check_names()
        commands = [change for change in preview.changes if change.type == COMMAND and change.kind == "update"]
        if any("connection" in change.differing() for change in commands):
            self.warnings.add("Reached in another way; a server that is left keeps its logins", "the server")

    @property
    def counts(self) -> str:
        """How many users there are of each sort."""
        numbers = [("new", self.new), ("changed", self.changed), ("removed", self.removed)]
        parts = [f"{len(found)} {word}" for word, found in numbers if found]
        set_up_again = sum(map(len, self.alike.values()))
        return ", ".join([*parts, *([f"{set_up_again} set up again"] if set_up_again else [])]) or "no change"

    # Lines

    def _line(self, user: User) -> str:
        name = self.style.user(user.name)
        if user.kind == "delete":
            words = f"removed{self._how_it_ends(user)}{self._twins(user, self.new, 'new')}"
        elif user.kind in ("create", "import"):
            words = f"new, {self._grant(user)}{self._twins(user, self.removed, 'removed')}"
        else:
            words = self._difference(user)
        leftover = any(change.leftover for change in user.changes)
        return f"{name}: {words}" + ("; what an interrupted replacement left is deleted, too" if leftover else "")

    def _grant(self, user: User) -> str:
        spec = user.after
        if not isinstance(spec, Mapping):
            return f"with settings that are {spec or 'not readable'}"
        keys = [f"key {self._key(key)} ({self.style.value(label)})" for label, key in sorted(spec["keys"].items())]
        password = ["has a password"] if user.has_password else []
        return ", ".join([*(keys or ["no key"]), *password, *self._words(spec)])

    def _key(self, key: object) -> str:
        mark = fingerprint(key)
        return self.style.fingerprint(mark) if mark is not None else f"unreadable, {self.style.json(key)}"

    def _words(self, spec: Mapping[str, Any]) -> list[str]:
        """All that a new user may do, what is only meant included."""
        given = {**dict.fromkeys(["expires", *LIMITS]), **spec}
        return [self._said(key, spec) for key in _in_order(given)]

    def _said(self, key: str, spec: Mapping[str, Any]) -> str:
        """Words for an entry, also where there is none."""
        if key in spec:
            return said(key, spec[key], self.style)
        return WORDS[key].absent if key in WORDS else f"without {self.style.value(key)}"

    def _how_it_ends(self, user: User) -> str:
        account = user.account
        if account is None or account.before is None:
            return "; how, this preview does not say"
        if account.kept:
            return " from the stack alone: the login stays on the server"
        # A VM's data volume goes on, and there jailctl removes who is not asked for on the next VM.
        if account.before.get("deletedWith") in self.ending - self.replaced_vms:
            return " with its host"
        fate = user.before.get("onRemoval", "archive") if isinstance(user.before, Mapping) else "archive"
        return f"; sessions ended, uploads {FATES.get(fate, self.style.json(fate))}"

    def _twins(self, user: User, others: Sequence[User], what: str) -> str:
        """Who has the same keys, as a fact: that it is the same person is for others to say."""
        words = ""
        for other in others:
            common = user.fingerprints() & other.fingerprints()
            if common:
                whole = common == user.fingerprints() == other.fingerprints()
                how = "with the same keys as" if whole else f"with {len(common)} of the keys of"
                words += f"; {how} {self.style.user(other.name)}, who is {what}"
        return words

    def _difference(self, user: User) -> str:
        before, after = user.before, user.after
        anew = ["made anew on the new host"] if user.kind == "replace" else []
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            parts = [*anew, *self._key_difference(before, after), *self._word_difference(before, after)]
        elif before == after is None:
            parts = anew
        else:
            reasons = [reason for reason in (before, after) if isinstance(reason, str)]
            parts = [*anew, f"settings changed, which are {reasons[-1] if reasons else 'not readable'}"]
        if user.kind not in KNOWN_KINDS:
            parts.append(f"Pulumi's operation {self.style.value(user.kind)}")
        return "; ".join(part for part in (", ".join(parts), user.password_words) if part) or "changed"

    def _key_difference(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        old, new = before["keys"], after["keys"]
        parts = []
        for label in sorted({**old, **new}):
            shown = f"key {self.style.value(label)}"
            if label not in new:
                parts.append(f"{shown} removed, was {self._key(old[label])}")
            elif label not in old:
                parts.append(f"{shown} added, {self._key(new[label])}")
            elif old[label] != new[label]:
                parts.append(f"{shown} now {self._key(new[label])}, was {self._key(old[label])}")
        return parts

    def _word_difference(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
        return [
            f"now {self._said(key, after)}, was {self._said(key, before)}"
            for key in [*_in_order({**before, **after}), "owner", "username"]
            if before.get(key) != after.get(key) or (key in before) != (key in after)
        ]

    # Those who keep their settings

    def _is_alike(self, user: User) -> bool:
        """Whether the change is one of all users alike, and of nobody's rights: another stack's name."""
        before, after = user.before, user.after
        return (
            isinstance(before, Mapping)
            and isinstance(after, Mapping)
            and not user.password_words
            and {**before, "owner": None} == {**after, "owner": None}
        )

    def _alike(self) -> dict[str, list[str]]:
        """What happens to users whose settings stay: words, and the names."""
        found: dict[str, list[str]] = {}
        for user in self.untouched:
            parts = ["made anew on the new host"] if any(c.kind == "replace" for c in user.changes) else []
            if isinstance(user.before, Mapping) and isinstance(user.after, Mapping):
                parts += self._word_difference(user.before, user.after)
            inputs = sorted({key for c in user.changes if c.kind == "update" for key in c.differing()} - {"stdin"})
            if inputs:
                parts.append(f"set up again, since this changes: {', '.join(map(self.style.value, inputs))}")
            if any(change.leftover for change in user.changes):
                parts.append("what an interrupted replacement left is deleted")
                self.warnings.add("May lose the login to an interrupted replacement", self.style.user(user.name))
            parts += [
                f"Pulumi's operation {self.style.value(c.kind)}" for c in user.changes if c.kind not in KNOWN_KINDS
            ]
            if not parts and any(change.kind == "update" for change in user.changes):
                parts.append("changed in what this preview does not show")
            if parts:
                words = ", ".join(parts)
                found.setdefault(words[0].upper() + words[1:], []).append(self.style.user(user.name))
        return found

    def _unchanged(self, preview: Preview, users: Sequence[User]) -> str:
        """How many users keep their settings, and what is to say of them."""
        if preview.shows_unchanged:
            problems = [problem for user in self.untouched for problem in dict.fromkeys(self._problems(user))]
            counted = [f"{kind.lower()}: {problems.count(kind)}" for kind in dict.fromkeys(problems)]
            return f"{len(self.untouched)}" + (f" ({'; '.join(counted)})" if counted else "")
        if preview.exported_users is None:
            return "not in this preview, made without --show-sames"
        others = preview.exported_users - {user.name for user in users if user not in self.untouched}
        return f"{len(others)} (what they have is not in this preview, made without --show-sames)"

    # Warnings

    def _problems(self, user: User) -> Iterable[str]:
        """Kinds of warnings that are true of a user, whether or not the preview changes that."""
        spec = user.after
        if user.has_password:
            yield "With a password"
        if not isinstance(spec, Mapping):
            # A changed password alone shows no account.
            if spec is not None or user.kind in ("create", "import"):
                yield UNREADABLE
            return
        if None in map(fingerprint, spec["keys"].values()):
            yield "With a key that is not readable"
        ranges = spec.get("allowFrom")
        if any(map(says_anyone, ranges if isinstance(ranges, list) else [ranges])):
            yield ANYONE
        if spec.get("onRemoval") == "delete":
            yield "Uploads will be deleted with the login"
        if spec.get("expires") is None:
            yield "Without an end"
            return
        try:
            end = _day(spec["expires"])
        except (ValueError, TypeError):
            yield "With an end that is not readable"
            return
        if end > self.today + timedelta(days=LONGEST_GRANT):
            yield f"For more than {LONGEST_GRANT} days"
        if end < self.today:
            yield "With an end that is past"

    def _judge(self, user: User) -> None:
        """Warnings and refusals of a user who is new or changed."""
        name, policy = self.style.user(user.name), self.policy
        problems = list(self._problems(user))
        for problem in problems:
            self.warnings.add(problem, name)
        before, after = user.before, user.after
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            for key, none in LIMITS.items():
                if after.get(key, none) == none != before.get(key, none):
                    self.warnings.add(WEAKER, f"{name} {WORDS[key].absent}")
        of_settings = policy.requireExpiry or policy.maxDays is not None or policy.forbidAnyone
        hidden = (of_settings and user.account is None) or (policy.forbidPasswords and user.password is None)
        if hidden and not self.shows_unchanged:
            self.refusals.add("Not known without --show-sames", name)
        if UNREADABLE in problems and policy != Policy():
            self.refusals.add(NO_SETTINGS, name)
        if policy.forbidPasswords and user.has_password:
            self.refusals.add("A password (forbidPasswords)", name)
        if policy.forbidAnyone and ANYONE in problems:
            self.refusals.add(FORBID_ANYONE, name)
        if isinstance(after, Mapping):
            self._judge_end(name, after.get("expires"))

    def _judge_end(self, name: str, expires: object) -> None:
        longest = self.policy.maxDays
        try:
            end = _day(expires) if expires is not None else None
        except (ValueError, TypeError):
            end = None
        if self.policy.requireExpiry and end is None:
            self.refusals.add("Without an end (requireExpiry)", name)
        if longest is not None and (end is None or (end - self.today).days > longest):
            self.refusals.add(f"For more than {longest} days (maxDays)", name)

    def _check_names(self) -> None:
        for user in self.removed:
            name = self.style.user(user.name)
            if user.name in {new.name for new in self.new}:
                self.warnings.add("Removed and made anew in one run, where the removal comes last", name)
            if user.account is not None and user.account.kept:
                self.warnings.add(ABANDONED, name)
            if isinstance(user.before, Mapping) and user.before.get("onRemoval") == "delete":
                self.warnings.add(DATA, f"uploads of {name}")
        for user in self.changed:
            before, after = user.before, user.after
            if user.kind != "update" or not isinstance(before, Mapping) or not isinstance(after, Mapping):
                continue
            if before.get("username") != after.get("username"):
                self.warnings.add(ABANDONED, self.style.user(before.get("username")))


def _day(value: Any) -> date:
    moment = _moment(value)
    return moment.date() if isinstance(moment, datetime) else moment


def _in_order(spec: Mapping[str, Any]) -> list[str]:
    """The keys that are said by `said`: the known ones first."""
    return [*(key for key in WORDS if key in spec), *sorted(set(spec) - set(WORDS) - set(OWN_WORDS))]
