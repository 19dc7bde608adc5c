"""What all resources have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from .aws import Call, doing, tag_list
from .schema import Schema

State = dict[str, Any]
Inputs = Mapping[str, Any]

MINUTE = 60.0


class Resource:
    """One type of resource. Its methods raise Failure, and NotThere for what does not exist."""

    token: ClassVar[str]
    """The type, e.g. "aws:ebs/volume:Volume"."""

    schema: ClassVar[Schema]

    autonamed: ClassVar[bool] = False
    """Whether a `name` that is not given is made of the resource's name and seven hex digits."""

    create_seconds: ClassVar[float] = 10 * MINUTE
    update_seconds: ClassVar[float] = 10 * MINUTE
    delete_seconds: ClassVar[float] = 10 * MINUTE

    def faults(self, inputs: Inputs) -> Iterator[tuple[str, str]]:
        """What is wrong with `inputs` beyond the schema: property and reason. Parts may be unknown."""
        yield from ()

    def replacing(self, changed: Collection[str], state: State, inputs: Inputs) -> Collection[str]:
        """Which of the `changed` properties need a new resource this time, though not always."""
        return ()

    def unsettled(self, changed: Collection[str]) -> Collection[str]:
        """Which outputs a change in place of the `changed` properties leaves open until it is done."""
        return ()

    def create(self, call: Call, inputs: Inputs) -> str:
        """Ask AWS for a new one; returns its id."""
        raise NotImplementedError

    def settle(self, call: Call, id: str, inputs: Inputs) -> None:
        """Wait until the new one is ready, and do what can be done only then."""

    def read(self, call: Call, id: str, state: State) -> State:
        """What AWS has. `state` is what was known, nothing for one that is imported."""
        raise NotImplementedError

    def imported(self, id: str) -> tuple[str, State]:
        """The id and the first state of the one that a user's import names."""
        return id, {}

    def update(self, call: Call, id: str, state: State, inputs: Inputs, changed: Collection[str]) -> None:
        """Make the `changed` properties, tags excepted, what `inputs` say."""

    def delete(self, call: Call, id: str, state: State) -> None:
        """Delete it, and wait until it is gone."""
        raise NotImplementedError


def tag_specifications(inputs: Inputs, kind: str) -> list[dict[str, Any]]:
    """What a creating request says of tags."""
    tags = inputs.get("tagsAll") or {}
    return [{"ResourceType": kind, "Tags": tag_list(tags)}] if tags else []


def retag(call: Call, id: str, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Change the tags of something in EC2, and leave those alone that are in neither."""
    gone = {key: old[key] for key in old.keys() - new.keys()}
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    with doing(f"updating tags for EC2 resource ({id})"):
        if gone:
            call.ec2.delete_tags(Resources=[id], Tags=[{"Key": key} for key in sorted(gone)])
        if changed:
            call.ec2.create_tags(Resources=[id], Tags=tag_list(changed))


def picked(source: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Those `names` (ours: AWS's) that the source has a value for, under AWS's names."""
    return {theirs: source[ours] for ours, theirs in names.items() if source.get(ours) not in (None, "")}
