"""DNS records in a hosted zone of Route 53."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from pulumi.runtime.rpc import UNKNOWN

from .aws import Call, Failure, NotThere, Seen, absent, doing
from .resource import MINUTE, Inputs, Resource, State
from .schema import OUTPUT, Property, Schema

ZONE_GONE = "NoSuchHostedZone"


class Record(Resource):
    """The addresses of a name: no other type, no alias, no routing policy."""

    token = "aws:route53/record:Record"
    create_seconds = update_seconds = delete_seconds = 30 * MINUTE
    schema: ClassVar[Schema] = {
        "fqdn": OUTPUT,
        "healthCheckId": OUTPUT,
        "multivalueAnswerRoutingPolicy": OUTPUT,
        "name": Property(required=True, replace=True),
        "records": Property(required=True, unordered=True),
        "setIdentifier": OUTPUT,
        "ttl": Property(required=True),
        "type": Property(required=True),
        "zoneId": Property(required=True, replace=True),
    }

    def faults(self, inputs: Inputs) -> Iterator[tuple[str, str]]:
        name = inputs.get("name", UNKNOWN)
        if name != UNKNOWN and name != _plain(name):
            yield "name", f"the stand-in for pulumi-aws wants it in lower case and without a dot at its end: {name}"
        if inputs.get("type", "A") not in ("A", UNKNOWN):
            yield "type", f"the stand-in for pulumi-aws knows A records alone, and this is {inputs['type']}"

    def create(self, call: Call, inputs: Inputs) -> str:
        with doing("creating Route53 Record", "route53"):
            self._change(call, inputs, ("CREATE", inputs))
        return f"{_zone(inputs)}_{inputs['name']}_{inputs['type']}"

    def imported(self, id: str) -> tuple[str, State]:
        zone, _, rest = id.partition("_")
        name, _, kind = rest.rpartition("_")
        if not (zone and name and kind):
            raise Failure(f'unexpected format of ID ("{id}"), expected ZONEID_RECORDNAME_TYPE')
        return id, {"name": name, "type": kind, "zoneId": zone}

    def read(self, call: Call, id: str, state: State) -> State:
        with doing(f"reading Route 53 Record ({id})", "route53"), absent(ZONE_GONE):
            full = self._full_name(call, state)
            found = call.route53.list_resource_record_sets(
                HostedZoneId=_zone(state), StartRecordName=full, StartRecordType=state["type"], MaxItems="1"
            )["ResourceRecordSets"]
        if not found or (_plain(found[0]["Name"]), found[0]["Type"]) != (full, state["type"]):
            raise NotThere
        return {
            "fqdn": full,
            "healthCheckId": "",
            "multivalueAnswerRoutingPolicy": False,
            "name": state["name"],
            "records": [one["Value"] for one in found[0].get("ResourceRecords") or ()],
            "setIdentifier": "",
            "ttl": found[0].get("TTL", 0),
            "type": found[0]["Type"],
            "zoneId": state["zoneId"],
        }

    def update(self, call: Call, id: str, state: State, inputs: Inputs, changed: Collection[str]) -> None:
        with doing(f"updating Route 53 Record ({id})", "route53"):
            self._change(call, inputs, ("UPSERT", inputs))

    def delete(self, call: Call, id: str, state: State) -> None:
        # AWS deletes only what is described exactly as it is.
        there = self.read(call, id, state)
        with doing(f"deleting Route 53 Record ({id})", "route53"), absent(ZONE_GONE):
            self._change(call, state, ("DELETE", there))

    def _change(self, call: Call, known: Inputs, *changes: tuple[str, Inputs]) -> None:
        full = self._full_name(call, known)
        batch = [{"Action": action, "ResourceRecordSet": _record_set(full, of)} for action, of in changes]
        answer = call.route53.change_resource_record_sets(
            HostedZoneId=_zone(known), ChangeBatch={"Comment": "Managed by Pulumi", "Changes": batch}
        )
        change = answer["ChangeInfo"]["Id"].rpartition("/")[2]
        call.wait(lambda: Seen(call.route53.get_change(Id=change)["ChangeInfo"]["Status"]), {"INSYNC"}, {"PENDING"})

    def _full_name(self, call: Call, known: Inputs) -> str:
        zone = _plain(call.route53.get_hosted_zone(Id=_zone(known))["HostedZone"]["Name"])
        name = _plain(known["name"])
        if not name or name == zone or name.endswith(f".{zone}"):
            return name or zone
        return f"{name}.{zone}"


def _zone(known: Inputs) -> str:
    return str(known["zoneId"]).removeprefix("/hostedzone/")


def _plain(name: str) -> str:
    return name.removesuffix(".").lower().replace("\\052", "*")


def _record_set(full: str, known: Inputs) -> dict[str, Any]:
    return {
        "Name": full,
        "Type": known["type"],
        "TTL": known["ttl"],
        "ResourceRecords": [{"Value": value} for value in known["records"]],
    }
