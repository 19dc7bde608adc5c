"""Resources as data: which properties there are, what a program may give, what a change of one means.

Two things follow from it, both as the Terraform bridge, on which pulumi-aws is built, does them: the defaults of a
check, and the detailed difference between a resource's state and the inputs that a program gives now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulumi.runtime.proto import provider_pb2
from pulumi.runtime.rpc import UNKNOWN

DEFAULTS = "__defaults"
"""The hidden property in which the bridge keeps the names of the inputs that it set itself."""


@dataclass(frozen=True)
class Property:
    """One property; an optional input unless it says otherwise."""

    required: bool = False
    output: bool = False
    """No input: the provider alone sets it."""
    computed: bool = False
    """Where a program does not give it, AWS chooses, and a state that has it is no difference."""
    replace: bool = False
    """A change makes a new resource."""
    default: Any = None
    unordered: bool = False
    """A list whose order means nothing."""
    fields: Mapping[str, Property] | None = None
    """What the object consists of; None: it is no object, or one with any keys, like tags."""


Schema = Mapping[str, Property]

OUTPUT = Property(output=True)
TAGS: Schema = {"tags": Property(), "tagsAll": Property(computed=True)}


@dataclass(frozen=True)
class Change:
    """What became of one place in the properties."""

    gone: bool
    new: bool
    replace: bool

    @property
    def kind(self) -> provider_pb2.PropertyDiff.Kind.ValueType:
        """As the engine's protocol says it: each kind of change is followed by the one that replaces."""
        kinds = provider_pb2.PropertyDiff
        plain = kinds.DELETE if self.gone else kinds.ADD if self.new else kinds.UPDATE
        return kinds.Kind.ValueType(plain + 1) if self.replace else plain


def without_nulls(value: Any) -> Any:
    """`value` without what is None, and without the bridge's notes, at any depth."""
    if isinstance(value, dict):
        kept = {name: without_nulls(one) for name, one in value.items() if name != DEFAULTS}
        return {name: one for name, one in kept.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def has_unknowns(value: Any) -> bool:
    """Whether a preview cannot know all of `value` yet."""
    if isinstance(value, dict):
        return any(map(has_unknowns, value.values()))
    if isinstance(value, list):
        return any(map(has_unknowns, value))
    return bool(value == UNKNOWN)


def with_defaults(schema: Schema, given: Mapping[str, Any], noted: list[str]) -> dict[str, Any]:
    """`given` with the defaults of the schema, objects in it included; `noted` are more names that were not given."""
    inputs = dict(given)
    defaulted = list(noted)
    for name, one in schema.items():
        if one.default is not None and name not in inputs:
            inputs[name] = one.default
            defaulted.append(name)
        if one.fields is not None and isinstance(inputs.get(name), dict):
            inputs[name] = with_defaults(one.fields, inputs[name], [])
    return {DEFAULTS: sorted(defaulted), **inputs}


def faults(schema: Schema, given: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Each thing in `given` that cannot be: the property, and why not."""
    for name, value in given.items():
        known = schema.get(name)
        if known is None or known.output:
            yield path + name, f"the stand-in for pulumi-aws does not know the input `{path}{name}`"
        elif known.fields is not None and isinstance(value, dict):
            yield from faults(known.fields, value, f"{path}{name}.")
    for name, one in schema.items():
        if one.required and name not in given:
            yield path + name, f"Missing required argument: `{path}{name}`"


def difference(
    schema: Schema, state: Mapping[str, Any], inputs: Mapping[str, Any], path: str = ""
) -> dict[str, Change]:
    """What differs, by property path (`rootBlockDevice.volumeSize`, `records[1]`, `tags.Name`)."""
    found: dict[str, Change] = {}
    for name, one in schema.items():
        old, new = state.get(name), inputs.get(name)
        if one.output or (new is None and one.computed) or (_nothing(old) and _nothing(new)):
            continue
        here = f"{path}.{name}" if path else name
        if one.fields is not None and isinstance(old, dict) and isinstance(new, dict):
            found |= difference(one.fields, old, new, here)
        else:
            found |= _compare(one, here, old, new)
    return found


def _compare(one: Property, here: str, old: Any, new: Any) -> dict[str, Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        pairs = [(f"{here}.{key}", old.get(key), new.get(key)) for key in keys]
    elif isinstance(old, list) and isinstance(new, list):
        pairs = [(f"{here}[{index}]", before, after) for index, before, after in _items(one, old, new)]
    else:
        pairs = [(here, old, new)]
    replace = one.replace or any(field.replace for name, field in (one.fields or {}).items() if name in (new or {}))
    return {
        place: Change(gone=after is None, new=before is None, replace=replace)
        for place, before, after in pairs
        if before != after
    }


def _items(one: Property, old: list[Any], new: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    if one.unordered:
        yield from ((index, item, None) for index, item in enumerate(old) if item not in new)
        yield from ((index, None, item) for index, item in enumerate(new) if item not in old)
        return
    for index in range(max(len(old), len(new))):
        yield index, old[index] if index < len(old) else None, new[index] if index < len(new) else None


def _nothing(value: Any) -> bool:
    """Whether Terraform takes `value` for the same as one that is not there."""
    return value is None or value in (False, 0, "") or value == [] or value == {}
