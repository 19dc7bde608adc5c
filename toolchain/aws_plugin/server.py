"""The engine's calls, as its protocol has them, answered for every resource alike.

The protocol itself is served, because `pulumi.provider.experimental` is not up to it: it cannot say that something
was made but is not ready (it would be lost from the state, and live on in AWS), it drops the old inputs, it cannot
send an unknown, and it shows an error as the name of a Python class.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2
from pulumi.runtime.rpc import UNKNOWN, unwrap_rpc_secret

from .addresses import Eip, EipAssociation
from .attachments import VolumeAttachment
from .aws import Aws, Call, Failure, NotThere, decode_configuration, region_of
from .instances import Instance
from .lookups import LOOKUPS
from .records import Record
from .resource import MINUTE, Resource, State, retag
from .schema import DEFAULTS, difference, faults, has_unknowns, with_defaults, without_nulls
from .security_groups import EgressRule, IngressRule, SecurityGroup
from .volumes import Volume

KINDS = (SecurityGroup, IngressRule, EgressRule, Volume, VolumeAttachment, Instance, Eip, EipAssociation, Record)
RESOURCES: dict[str, Resource] = {kind.token: kind() for kind in KINDS}
READ_SECONDS = 5 * MINUTE


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One provider: what one configuration of it makes."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._aws: Aws | None = None

    @property
    def aws(self) -> Aws:
        if self._aws is None:
            raise Failure("the provider is not configured yet")
        return self._aws

    def cancel(self) -> None:
        """End whatever waits for AWS."""
        if self._aws is not None:
            self._aws.ending.set()

    # About the provider

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request, context):
        """The least that is a schema: no SDK is made from a stand-in."""
        schema = {"name": "aws", "version": self.version, "description": "A stand-in for pulumi-aws"}
        return provider_pb2.GetSchemaResponse(schema=json.dumps(schema))

    def CheckConfig(self, request, context):
        inputs = without_nulls(decode(request.news))
        with failures(context):
            plain = unsecret(inputs)
            decode_configuration({name: value for name, value in plain.items() if not has_unknowns(value)})
        if "region" not in inputs and (region := region_of({})):
            inputs["region"] = region
        return provider_pb2.CheckResponse(inputs=encode(inputs))

    def DiffConfig(self, request, context):
        old, new = decode(request.olds), decode(request.news)
        moved = old.get("region") != new.get("region")
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if old != new else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)),
            replaces=["region"] if moved else [],
        )

    def Configure(self, request, context):
        given = unsecret(without_nulls(decode(request.args)))
        with failures(context):
            self._aws = Aws(decode_configuration(given))
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Cancel(self, request, context):
        self.cancel()
        return empty_pb2.Empty()

    # About resources

    def Check(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            given, old = without_nulls(decode(request.news)), decode(request.olds)
            wrong = [*faults(kind.schema, given)]
            if not wrong:
                wrong = [*kind.faults(given)]
            if wrong:
                found = [provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in wrong]
                return provider_pb2.CheckResponse(failures=found)
            noted = []
            if kind.autonamed and "name" not in given:
                given["name"] = autoname(request.urn, request.randomSeed, old)
                noted.append("name")
            if "region" in kind.schema:
                given.setdefault("region", self.aws.region)
            if "tagsAll" in kind.schema:
                tags = given.get("tags", {})
                given["tagsAll"] = UNKNOWN if has_unknowns(tags) else {**self.aws.default_tags, **tags}
            return provider_pb2.CheckResponse(inputs=encode(with_defaults(kind.schema, given, noted)))

    def Diff(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            state, noted = without_nulls(decode(request.olds)), decode(request.news)
            inputs = without_nulls(noted)
            found = difference(kind.schema, state, inputs)
            also = kind.replacing({top(path) for path in found}, state, inputs)
            found = {path: replace(one, replace=one.replace or top(path) in also) for path, one in found.items()}
            replaces = sorted({top(path) for path, one in found.items() if one.replace})
            named = kind.autonamed and "name" not in noted.get(DEFAULTS, ()) and state.get("name") == inputs.get("name")
            return provider_pb2.DiffResponse(
                changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
                diffs=sorted({top(path) for path in found}),
                replaces=replaces,
                # There cannot be two of one name; one that we made up is another each time.
                deleteBeforeReplace=bool(replaces and named),
                detailedDiff={path: provider_pb2.PropertyDiff(kind=one.kind) for path, one in found.items()},
                hasDetailedDiff=True,
            )

    def Create(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            inputs = without_nulls(decode(request.properties))
            if request.preview:
                unknown = {name: UNKNOWN for name, one in kind.schema.items() if one.output or one.computed}
                return provider_pb2.CreateResponse(properties=encode(merged(unknown, inputs)))
            call = self.call(inputs, request.timeout or kind.create_seconds)
            id = kind.create(call, inputs)
            try:
                kind.settle(call, id, inputs)
                state = self.state(kind, call, id, inputs)
            except Exception as error:
                abort_half_done(context, error, id, self.state_if_any(kind, call, id, inputs), inputs)
            return provider_pb2.CreateResponse(id=id, properties=encode(state))

    def Update(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            state, inputs = without_nulls(decode(request.olds)), without_nulls(decode(request.news))
            changed = {top(path) for path in difference(kind.schema, state, inputs)}
            if request.preview:
                unknown = dict.fromkeys(kind.unsettled(changed), UNKNOWN)
                kept = {name: one for name, one in state.items() if name not in changed or name in inputs}
                return provider_pb2.UpdateResponse(properties=encode(merged(kept, {**unknown, **inputs})))
            call = self.call(inputs, request.timeout or kind.update_seconds)
            try:
                if "tagsAll" in changed:
                    retag(call, request.id, state.get("tagsAll") or {}, inputs.get("tagsAll") or {})
                kind.update(call, request.id, state, inputs, changed)
                new = self.state(kind, call, request.id, inputs)
            except Exception as error:
                there = self.state_if_any(kind, call, request.id, state)
                abort_half_done(context, error, request.id, there, inputs)
            return provider_pb2.UpdateResponse(properties=encode(new))

    def Read(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            id, known, noted = request.id, without_nulls(decode(request.properties)), decode(request.inputs)
            if not known:
                id, known = kind.imported(id)
            try:
                state = self.state(kind, self.call(known, READ_SECONDS), id, known)
            except NotThere:
                return provider_pb2.ReadResponse()
            inputs = refreshed(noted, state) if noted else self.inputs(kind, state)
            return provider_pb2.ReadResponse(id=id, properties=encode(state), inputs=encode(inputs))

    def Delete(self, request, context):
        with failures(context):
            kind = resource(request.urn)
            state = without_nulls(decode(request.properties))
            with contextlib.suppress(NotThere):
                kind.delete(self.call(state, request.timeout or kind.delete_seconds), request.id, state)
            return empty_pb2.Empty()

    # About functions

    def Invoke(self, request, context):
        with failures(context):
            if request.tok not in LOOKUPS:
                raise unsupported(request.tok, LOOKUPS)
            given = without_nulls(decode(request.args))
            found = LOOKUPS[request.tok](self.call(given, READ_SECONDS), given)
            return provider_pb2.InvokeResponse(**{"return": encode(without_nulls(found))})

    def call(self, known: Mapping[str, Any], seconds: float) -> Call:
        """What a resource's methods need; its region is among its properties."""
        return Call(self.aws, known.get("region"), seconds)

    def state(self, kind: Resource, call: Call, id: str, known: Mapping[str, Any]) -> State:
        """What AWS has, and of the tags those that are the resource's own."""
        state = kind.read(call, id, dict(known))
        if "region" in kind.schema:
            state["region"] = call.region
        if "tags" in state:
            own = known.get("tags") or {}
            default = self.aws.default_tags
            state["tags"] = {
                key: value for key, value in state["tags"].items() if key in own or default.get(key) != value
            }
        kept = {name: value for name, value in known.items() if name in kind.schema and name not in state}
        return {**kept, **state}

    def state_if_any(self, kind: Resource, call: Call, id: str, known: Mapping[str, Any]) -> State:
        """The state of what could not be finished."""
        try:
            return self.state(kind, call, id, known)
        except Exception:  # whatever it is, the first error is the one to be told
            return dict(known)

    def inputs(self, kind: Resource, state: State) -> dict[str, Any]:
        """The inputs that would have made what was imported."""
        given = {
            name: value
            for name, value in state.items()
            if not kind.schema[name].output and value not in (None, "", 0, False) and value not in ({}, [])
        }
        return {DEFAULTS: [], **given}


def resource(urn: str) -> Resource:
    """The one that the engine's name of a resource is about. Raises Failure."""
    token = urn.split("::")[2].rpartition("$")[2]
    if token not in RESOURCES:
        raise unsupported(token, RESOURCES)
    return RESOURCES[token]


def unsupported(token: str, known: Mapping[str, object]) -> Failure:
    return Failure(f"{token} is nothing that this stand-in for pulumi-aws knows; it knows {', '.join(sorted(known))}")


def autoname(urn: str, seed: bytes, old: Mapping[str, Any]) -> str:
    """The name of a resource that was given none: the one it has, or its Pulumi name and seven hex digits."""
    if "name" in old.get(DEFAULTS, ()):
        return str(old["name"])
    return f"{urn.rpartition('::')[2]}-{hashlib.sha256(seed).hexdigest()[:7]}"


def top(path: str) -> str:
    """The property that a path begins with."""
    return path.partition(".")[0].partition("[")[0]


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new`, and what `old` says beyond it; tags are only what they are now."""
    result = {**old, **new}
    for name, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(name), dict) and name not in ("tags", "tagsAll"):
            result[name] = {**old[name], **value}
    return result


def refreshed(noted: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs as they were noted, with what AWS has now."""
    inputs = {}
    for name, value in noted.items():
        now = state.get(name, value)
        whole = name in ("tags", "tagsAll")
        inputs[name] = refreshed(value, now) if isinstance(value, dict) and isinstance(now, dict) and not whole else now
    return inputs


def decode(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A message as Python has it; whole numbers are int."""
    return {name: _whole(value) for name, value in json_format.MessageToDict(struct).items()}


def unsecret(value: Any) -> Any:
    """`value` without the marks of secrets. Only a provider's configuration has them: of resources, the engine keeps
    them to itself, because this provider does not say that it accepts any."""
    plain = unwrap_rpc_secret(value)
    return {name: unsecret(one) for name, one in plain.items()} if isinstance(plain, dict) else plain


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def encode(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """The opposite of `decode`."""
    struct = struct_pb2.Struct()
    struct.update(dict(values))
    return struct


@contextlib.contextmanager
def failures(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer with an error where there is one."""
    try:
        yield
    except Exception as error:
        if context.code() is None:  # else it was aborted already
            context.abort(grpc.StatusCode.UNKNOWN, words(error))
        raise


def words(error: Exception) -> str:
    """What the user is told; of an error that is our own, all that is known."""
    if isinstance(error, NotThere):
        return "couldn't find resource; `pulumi refresh` takes what is gone out of the state"
    return str(error) if isinstance(error, Failure) else "".join(traceback.format_exception(error))


def abort_half_done(
    context: grpc.ServicerContext, error: Exception, id: str, state: State, inputs: Mapping[str, Any]
) -> NoReturn:
    """Answer that something exists and is not as it should be, so that it is kept in the state and tried again."""
    message = words(error)
    half_done = provider_pb2.ErrorResourceInitFailed(
        id=id, properties=encode(state), reasons=[message], inputs=encode(inputs)
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
    status.details.add().Pack(half_done)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, message)
    raise AssertionError("abort raises")
