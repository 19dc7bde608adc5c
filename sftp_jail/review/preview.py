"""The JSON of `pulumi preview --json`, read into one change a resource.

What is in it (pkg/backend/display/json.go of Pulumi 3.259): a `steps` entry for each resource that changes, with `op`,
`urn`, `oldState`, `newState`, and what differs in `detailedDiff` and `diffReasons`; those that stay the same only with
--show-sames, but the stack's own always; `changeSummary`, the count of each op, once the preview came to its end;
`diagnostics`. A secret is the text "[secret]", a value that is not known yet is the text `UNKNOWN`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..remote import MACHINE

SECRET = "[secret]"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""A text that is known once `up` is there (sdk/go/common/resource/plugin: UnknownStringValue)."""

STACK = "pulumi:pulumi:Stack"
COMMAND = "command:remote:Command"
INSTANCE = "aws:ec2/instance:Instance"

KINDS = {
    "replace": "replace",
    "create-replacement": "replace",
    "import-replacement": "replace",
    "create": "create",
    "import": "import",
    "update": "update",
    "delete": "delete",
    "delete-replaced": "leftover",
    "remove-pending-replace": "leftover",
    "same": "same",
    "refresh": "read",
    "read": "read",
    "read-replacement": "read",
    "discard": "read",
    "discard-replaced": "read",
    "diff": "read",
    "extend-parameterize": "read",
}
"""What each op comes to, the strongest first: a resource has several where replacements are shown in detail, or where
the state was refreshed before. `leftover`: what an earlier replacement could not delete."""

COUNTED = ("create", "update", "delete", "replace", "import")
"""The ops whose steps must all be there."""

KNOWN_KINDS = list(dict.fromkeys(KINDS.values()))


class Unusable(Exception):
    """Why there is no review."""


@dataclass(frozen=True)
class Change:
    """What the preview says of one resource."""

    urn: str
    type: str
    name: str
    parent_types: Sequence[str]
    """Of the components that it is in, from the outermost."""

    kind: str
    """One of `KINDS`' values; or an op that Pulumi did not have when this was written."""

    before: Optional[Mapping[str, Any]]
    """The resource's state, or None where it is new."""

    after: Optional[Mapping[str, Any]]
    """The state that it is to have, or None where it goes."""

    reasons: Sequence[str]
    """The inputs that differ, in the provider's opinion; it sees secrets, too."""

    leftover: bool
    """Whether something is deleted that an earlier, interrupted replacement has left."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What it will be, else what it was."""
        return self.after if self.after is not None else self.before or {}

    @property
    def parent(self) -> str:
        """The URN of the component that it is in; "" without one."""
        return str(self.state.get("parent", ""))

    @property
    def parent_type(self) -> str:
        """That component's type."""
        return self.parent_types[-1] if self.parent_types else ""

    @property
    def kept(self) -> bool:
        """Whether Pulumi forgets it instead of deleting it."""
        return self.before is not None and bool(self.before.get("retainOnDelete"))

    def inputs(self) -> "tuple[Mapping[str, Any], Mapping[str, Any]]":
        """Before and after; empty where there is nothing."""
        return (self.before or {}).get("inputs") or {}, (self.after or {}).get("inputs") or {}

    def differing(self) -> list[str]:
        """The names of the inputs that change, secret ones included."""
        before, after = self.inputs()
        if self.before is None or self.after is None:
            return []
        seen = {key for key in {**before, **after} if before.get(key) != after.get(key)}
        return sorted(seen | {reason for reason in self.reasons if reason in before or reason in after})


@dataclass(frozen=True)
class Preview:
    """What `pulumi up` would do."""

    changes: Sequence[Change]
    """Every resource but the stack itself, by URN."""

    shows_unchanged: bool
    """Whether it says everything of what stays the same."""

    exported_users: Optional[frozenset[str]]
    """The names in the stack's output `users` before the change, if it has one like ours."""

    @property
    def ending(self) -> frozenset[str]:
        """The URNs of what is deleted, or replaced."""
        return frozenset(change.urn for change in self.changes if change.kind in ("delete", "replace"))


def read_preview(text: str) -> Preview:
    """Read the JSON.

    :raises Unusable: if it is not the whole output of a preview that succeeded
    """
    found = _decoded(text)
    _raise_errors(found)
    summary = found.get("changeSummary")
    steps = found.get("steps")
    if not isinstance(steps, list) or not isinstance(summary, dict):
        raise Unusable("this is not the whole output of pulumi preview --json: it has no steps, or no changeSummary")
    by_urn: dict[str, list[dict[str, Any]]] = {}
    for number, step in enumerate(steps):
        _check_step(number, step)
        by_urn.setdefault(step["urn"], []).append(step)
    ops = [step["op"] for step in steps]
    if not all(isinstance(count, int) for count in summary.values()):
        raise Unusable("the preview's changeSummary has something that is no number")
    for op in COUNTED:
        if ops.count(op) < summary.get(op, 0):
            raise Unusable(f"the preview counts {summary[op]} of the operation {op}, and describes {ops.count(op)}")
    everything = [_change(urn, found) for urn, found in sorted(by_urn.items())]
    return Preview(
        changes=[change for change in everything if change.type != STACK],
        # A refresh describes them, too.
        shows_unchanged=sum(change.kind in ("same", "read") for change in everything) >= summary.get("same", 0),
        exported_users=_exported_users(change for change in everything if change.type == STACK),
    )


def _decoded(text: str) -> dict[str, Any]:
    if not text.strip():
        raise Unusable("the input is empty: did pulumi preview --json fail?")
    try:
        found = json.loads(text)
    except RecursionError:
        raise Unusable("the input is nested too deeply for the output of pulumi preview --json") from None
    except ValueError as error:
        hint = "cut short, or not the output of pulumi preview --json"
        if str(error).startswith("Extra data"):
            hint = "more than one JSON text; unset PULUMI_ENABLE_STREAMING_JSON_PREVIEW"
        raise Unusable(f"the input is not JSON ({error}): {hint}") from None
    if not isinstance(found, dict):
        raise Unusable("the input is JSON, but not the output of pulumi preview --json")
    return found


def _raise_errors(found: Mapping[str, Any]) -> None:
    diagnostics = found.get("diagnostics") or []
    if not isinstance(diagnostics, list) or not all(isinstance(entry, dict) for entry in diagnostics):
        raise Unusable("the preview's diagnostics are not a list of maps")
    errors = [str(entry.get("message", "")).strip() for entry in diagnostics if entry.get("severity") == "error"]
    if errors:
        raise Unusable("the preview failed, so nobody knows what would change:\n" + "\n".join(errors))
    if found.get("maybeCorrupt"):
        raise Unusable("Pulumi says that what it found may be corrupt, so nobody knows what would change")


def _check_step(number: int, step: object) -> None:
    if not isinstance(step, dict) or not all(isinstance(step.get(key), str) for key in ("op", "urn")):
        raise Unusable(f"step {number} of the preview has no op or no urn")
    if step["urn"].count("::") < 3:
        raise Unusable(f"step {number} of the preview has no urn of a resource: {step['urn']}")
    for key in ("oldState", "newState"):
        state = step.get(key)
        if not isinstance(state, (dict, type(None))):
            raise Unusable(f"step {number} of the preview: {key} is not a map")
        if state is not None and not all(isinstance(state.get(part, {}), dict) for part in ("inputs", "outputs")):
            raise Unusable(f"step {number} of the preview: the inputs or outputs in {key} are not a map")
    kind = KINDS.get(step["op"])
    if kind in ("create", "import", "update", "replace", "same") and step.get("newState") is None:
        raise Unusable(f"step {number} of the preview does not say what {step['urn']} becomes")
    if kind in ("update", "replace", "delete", "leftover", "same") and step.get("oldState") is None:
        raise Unusable(f"step {number} of the preview does not say what {step['urn']} was")


def _change(urn: str, steps: Sequence[Mapping[str, Any]]) -> Change:
    """The one change that a resource's steps come to."""
    _, _, types, name = urn.split("::", 3)
    *parents, own = types.split("$")
    kinds = [_kind(step) for step in steps]
    strange = [kind for kind in kinds if kind not in KNOWN_KINDS]
    kind = strange[0] if strange else min(kinds, key=KNOWN_KINDS.index)
    if kind == "create" and "delete" in kinds:
        kind = "replace"  # a refresh has found it gone
    if kind in ("same", "read") and "leftover" in kinds:
        kind = "leftover"
    said = [step for step, own_kind in zip(steps, kinds) if own_kind in (kind, "delete", "create")] or steps
    before = next((step["oldState"] for step in said if step.get("oldState") is not None), None)
    after = next((step["newState"] for step in reversed(said) if step.get("newState") is not None), None)
    if kind == "update" and own == COMMAND and _leaves_its_machine(before, after):
        kind = "replace"  # in place for Pulumi; but what it did is gone with the machine
    return Change(
        urn=urn,
        type=own,
        name=name,
        parent_types=parents,
        kind=kind,
        before=None if kind in ("create", "import") else before,
        after=None if kind == "delete" else after,
        reasons=sorted({reason for step in steps for reason in _reasons(step)}),
        leftover="leftover" in kinds and "replace" not in kinds,
    )


def _kind(step: Mapping[str, Any]) -> str:
    kind = KINDS.get(step["op"], step["op"])
    # The state marks what an earlier replacement has left to delete.
    return "leftover" if kind == "delete" and step["oldState"].get("delete") else kind


def _leaves_its_machine(*states: Optional[Mapping[str, Any]]) -> bool:
    """Whether a Command ran on a machine that ends with its stack, and is to run on another now."""
    old, new = (str(((state or {}).get("inputs") or {}).get("create")) for state in states)
    return MACHINE in old and old.rpartition(MACHINE)[2] != new.rpartition(MACHINE)[2]


def _reasons(step: Mapping[str, Any]) -> "list[str]":
    """The top-level inputs: of `triggers[0]` and `connection.host`, the first word."""
    paths = [*(step.get("detailedDiff") or {}), *(step.get("diffReasons") or []), *(step.get("replaceReasons") or [])]
    return [str(path).split(".")[0].split("[")[0] for path in paths]


def _exported_users(stacks: Iterable[Change]) -> Optional[frozenset[str]]:
    for stack in stacks:
        users = ((stack.before or {}).get("outputs") or {}).get("users")
        if isinstance(users, dict):
            return frozenset(users)
    return None


def spec_of(state: Optional[Mapping[str, Any]]) -> "Mapping[str, Any] | str":
    """The JSON map that a Command gets as its input, or why it is not known."""
    stdin = ((state or {}).get("inputs") or {}).get("stdin")
    if stdin == SECRET:
        return "a secret"
    if stdin == UNKNOWN:
        return "known only after up"
    try:
        spec = json.loads(stdin) if isinstance(stdin, str) else None
    except (ValueError, RecursionError):
        spec = None
    return spec if isinstance(spec, dict) else "not readable"


def user_spec_of(state: Optional[Mapping[str, Any]]) -> "Mapping[str, Any] | str":
    """The same of a user's Command, `user` and `key LABEL` taken apart: into `keys`, by label, `owner`, `username`."""
    spec = spec_of(state)
    if not isinstance(spec, Mapping):
        return spec
    if not isinstance(spec.get("user"), str):
        return "not readable"
    owner, _, username = spec["user"].rpartition("/")
    keys = {entry.removeprefix("key "): key for entry, key in spec.items() if entry.startswith("key ")}
    others = {entry: value for entry, value in spec.items() if entry != "user" and not entry.startswith("key ")}
    return {**others, "keys": keys, "owner": owner, "username": username}
