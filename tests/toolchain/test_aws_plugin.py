"""The aws plugin, under the real CLI, with moto for AWS: what it makes there, and what the engine makes of it."""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import boto3  # type: ignore[import-untyped]
import pytest
from moto import settings
from moto.core.responses import BaseResponse
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import InstanceBackend, StateReason
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.server import ThreadedMotoServer

from tests.conftest import until
from tests.toolchain.helpers import Project, ready

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's

PROGRAM = """
import json, pathlib, pulumi, pulumi_aws as aws

given = json.loads(pathlib.Path("given.json").read_text())
tags = {"Name": "jail"}

image = aws.ec2.get_ami(owners=["self"], most_recent=True, filters=[{"name": "name", "values": [given["image"]]}])
subnet = aws.ec2.get_subnet(availability_zone="us-east-1a", default_for_az=True)
group = aws.ec2.SecurityGroup("jail", vpc_id=subnet.vpc_id, tags=tags)
rules = [
    aws.vpc.SecurityGroupIngressRule(
        f"from-{index}", security_group_id=group.id, ip_protocol="tcp", from_port=22, to_port=22, cidr_ipv4=cidr,
        description="ssh", tags=tags,
    )
    for index, cidr in enumerate(given["from"])
]
out = aws.vpc.SecurityGroupEgressRule("out", security_group_id=group.id, ip_protocol="-1", cidr_ipv4="0.0.0.0/0")
machine = aws.ec2.Instance(
    "jail",
    ami=image.id,
    instance_type=given["type"],
    subnet_id=subnet.id,
    vpc_security_group_ids=[group.id],
    user_data=given["userData"],
    user_data_replace_on_change=given["replaceOnChange"],
    root_block_device={"encrypted": True, "volume_type": "gp3", "volume_size": 8},
    metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
    tags=given["tags"],
)
volume = aws.ebs.Volume(
    "data", availability_zone=subnet.availability_zone, size=given["size"], type="gp3", encrypted=True, tags=tags
)
attachment = aws.ec2.VolumeAttachment(
    "data", device_name="/dev/sdf", instance_id=machine.id, volume_id=volume.id, stop_instance_before_detaching=True,
    opts=pulumi.ResourceOptions(delete_before_replace=True),
)
address = aws.ec2.Eip("jail", domain="vpc", tags=tags)
association = aws.ec2.EipAssociation(
    "jail", allocation_id=address.allocation_id, instance_id=machine.id, allow_reassociation=True
)
if given["zone"]:
    aws.route53.Record(
        "jail", zone_id=given["zone"], name="sftp.example.test", type="A", ttl=60, records=[address.public_ip]
    )

pulumi.export("machine", machine.id)
pulumi.export("volume", volume.id)
pulumi.export("group", group.id)
pulumi.export("rules", [rule.id for rule in rules])
pulumi.export("address", address.public_ip)
pulumi.export("associated", association.public_ip)
pulumi.export("attachment", attachment.id)
"""


class Api:
    """AWS, as moto has it, on loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.env = {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": "open sesame",
        }
        self.ec2 = self.client("ec2")
        self.route53 = self.client("route53")

    def client(self, service: str, region: str = REGION) -> Any:
        session = boto3.Session("AKIATEST", "open sesame", region_name=region)
        return session.client(service, endpoint_url=self.url)

    def image(self, name: str) -> str:
        mapping = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}
        answer = self.ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=[mapping])
        return answer["ImageId"]

    def instances(self) -> list[dict[str, Any]]:
        """Those that are not terminated."""
        found = [one for each in self.ec2.describe_instances()["Reservations"] for one in each["Instances"]]
        return [one for one in found if one["State"]["Name"] != "terminated"]

    def instance(self, id: str) -> dict[str, Any]:
        return self.ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]

    def groups(self) -> list[dict[str, Any]]:
        """Those that are not a VPC's own."""
        return [one for one in self.ec2.describe_security_groups()["SecurityGroups"] if one["GroupName"] != "default"]

    def rules(self, group: str) -> list[dict[str, Any]]:
        filters = [{"Name": "group-id", "Values": [group]}]
        return self.ec2.describe_security_group_rules(Filters=filters)["SecurityGroupRules"]

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[str]]:
        """The actions of EC2 and STS that are asked for meanwhile."""
        actions: list[str] = []
        answer = BaseResponse.call_action

        def recorded(response: BaseResponse) -> Any:
            actions.append(response._get_action())
            return answer(response)

        with mock.patch.object(BaseResponse, "call_action", recorded):
            yield actions

    def volume(self, id: str) -> dict[str, Any]:
        return self.ec2.describe_volumes(VolumeIds=[id])["Volumes"][0]


@pytest.fixture
def api() -> Iterator[Api]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    api = Api(port)
    urllib.request.urlopen(f"{api.url}/moto-api/reset", data=b"")  # noqa: S310
    yield api
    server.stop()


class Stack(Project):
    """A project whose program makes one of everything."""

    def __init__(self, folder: Path, api: Api) -> None:
        self.folder = folder
        self.pulumi = ready()["pulumi"]
        own = {"PULUMI_BACKEND_URL": (folder / "state").as_uri(), "PULUMI_CONFIG_PASSPHRASE": "correct horse"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        nowhere = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "PULUMI_STACK": "dev"}
        self.env = {**clean, **ready()["env"], **own, **nowhere, **api.env}
        self.given = {
            "from": ["198.51.100.0/24", "203.0.113.7/32"],
            "image": "debian",
            "replaceOnChange": False,
            "size": 10,
            "tags": {"Name": "jail"},
            "type": "t3.small",
            "userData": "#cloud-config\n",
            "zone": "",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start pulumi; its output, stderr included, is in `stdout`."""
        return subprocess.Popen(
            [self.pulumi, "--non-interactive", "--color=never", *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def give(self, **new: object) -> None:
        self.given.update(new)
        (self.folder / "given.json").write_text(json.dumps(self.given))

    def up(self, **new: object) -> str:
        self.give(**new)
        return self.must("up", "--yes", "--skip-preview")

    def preview(self, **new: object) -> list[dict[str, Any]]:
        """The steps that the engine plans, but those that change nothing."""
        self.give(**new)
        steps = json.loads(self.must("preview", "--json"))["steps"]
        return [step for step in steps if step["op"] != "same"]

    def state_text(self) -> str:
        return (self.folder / "state/.pulumi/stacks/tiny/dev.json").read_text()

    def resources(self) -> list[dict[str, Any]]:
        """All that the state holds."""
        found: list[dict[str, Any]] = json.loads(self.state_text())["checkpoint"]["latest"].get("resources", [])
        return found

    def outputs(self) -> dict[str, Any]:
        """What the program exports."""
        [outputs] = [one["outputs"] for one in self.resources() if one["type"] == "pulumi:pulumi:Stack"]
        return dict(outputs)

    def states(self) -> dict[str, dict[str, Any]]:
        """What the state holds of each resource of ours, by type and name, e.g. "Instance jail"."""
        found = [one for one in self.resources() if one["type"].startswith("aws:")]
        return {f"{one['type'].rpartition(':')[2]} {one['urn'].rpartition('::')[2]}": one for one in found}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    project = Project(folder)
    project.configure(virtualenv=str(Path(ready()["python"]).parents[1]))
    project.write(PROGRAM)
    return folder


@pytest.fixture
def stack(template: Path, tmp_path: Path, api: Api) -> Stack:
    api.image("debian")
    return Stack(shutil.copytree(template, tmp_path / "stack"), api)


def test_a_program_makes_one_of_everything_and_leaves_nothing(stack: Stack, api: Api) -> None:
    zone = api.route53.create_hosted_zone(Name="example.test", CallerReference="1")["HostedZone"]["Id"]
    planned = stack.preview(zone=zone.rpartition("/")[2])
    assert {step["op"] for step in planned} == {"create"}
    stack.up()
    made = stack.outputs()

    machine = api.instance(made["machine"])
    assert machine["State"]["Name"] == "running"
    assert machine["InstanceType"] == "t3.small"
    assert machine["Tags"] == [{"Key": "Name", "Value": "jail"}]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert [group["GroupId"] for group in machine["SecurityGroups"]] == [made["group"]]
    attribute = api.ec2.describe_instance_attribute(InstanceId=made["machine"], Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]) == b"#cloud-config\n"

    volume = api.volume(made["volume"])
    assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (10, "gp3", True)
    [attached] = volume["Attachments"]
    assert (attached["InstanceId"], attached["Device"], attached["State"]) == (made["machine"], "/dev/sdf", "attached")

    rules = {
        (rule["IsEgress"], rule["CidrIpv4"], rule["FromPort"], rule["IpProtocol"]) for rule in api.rules(made["group"])
    }
    ssh = {(False, cidr, 22, "tcp") for cidr in ("198.51.100.0/24", "203.0.113.7/32")}
    assert rules == {*ssh, (True, "0.0.0.0/0", -1, "-1")}

    [address] = api.ec2.describe_addresses()["Addresses"]
    assert (address["PublicIp"], address["InstanceId"]) == (made["address"], made["machine"])
    records = api.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    [record] = [one for one in records if one["Type"] == "A"]
    assert record["ResourceRecords"] == [{"Value": made["address"]}]

    stack.must("destroy", "--yes", "--skip-preview")
    assert not api.instances()
    assert not api.groups()
    assert not api.ec2.describe_volumes()["Volumes"]
    assert not api.ec2.describe_addresses()["Addresses"]
    records = api.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert "A" not in [one["Type"] for one in records]


def test_a_second_up_and_a_refresh_change_nothing(stack: Stack) -> None:
    stack.up()
    stack.must("up", "--yes", "--skip-preview", "--expect-no-changes")
    stack.must("refresh", "--yes", "--skip-preview")
    assert stack.preview() == []


def test_ids_and_outputs_are_like_those_of_the_real_plugin(stack: Stack, api: Api) -> None:
    stack.up()
    made = stack.states()
    group, rule = made["SecurityGroup jail"], made["SecurityGroupIngressRule from-0"]
    assert re.fullmatch("jail-[0-9a-f]{7}", group["outputs"]["name"])
    assert group["outputs"]["description"] == "Managed by Pulumi"
    assert group["outputs"]["arn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/{group['id']}"
    assert rule["id"].startswith("sgr-")
    assert rule["outputs"]["securityGroupRuleId"] == rule["id"]
    assert rule["outputs"]["arn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group-rule/{rule['id']}"

    machine, volume = made["Instance jail"], made["Volume data"]
    seen = api.instance(machine["id"])
    assert machine["outputs"]["privateIp"] == seen["PrivateIpAddress"]
    assert machine["outputs"]["privateDns"] == seen["PrivateDnsName"]
    assert machine["outputs"]["primaryNetworkInterfaceId"] == seen["NetworkInterfaces"][0]["NetworkInterfaceId"]
    assert machine["outputs"]["instanceState"] == "running"
    assert machine["outputs"]["userData"] == "#cloud-config\n"
    assert machine["outputs"]["sourceDestCheck"] is True
    assert machine["outputs"]["rootBlockDevice"]["volumeSize"] == 8
    assert volume["outputs"]["arn"] == f"arn:aws:ec2:{REGION}:{ACCOUNT}:volume/{volume['id']}"
    key = f"/dev/sdf-{machine['id']}-{volume['id']}-"
    assert made["VolumeAttachment data"]["id"] == f"vai-{zlib.crc32(key.encode())}"
    assert made["Eip jail"]["id"] == made["Eip jail"]["outputs"]["allocationId"]
    assert made["EipAssociation jail"]["id"].startswith("eipassoc-")
    assert made["EipAssociation jail"]["outputs"]["publicIp"] == made["Eip jail"]["outputs"]["publicIp"]


def test_an_edited_cidr_is_modified_in_place(stack: Stack, api: Api) -> None:
    stack.up()
    before = stack.outputs()
    [step] = stack.preview(**{"from": ["192.0.2.0/24", "203.0.113.7/32"]})
    assert step["op"] == "update"
    assert step["detailedDiff"] == {"cidrIpv4": {"kind": "update", "inputDiff": False}}
    stack.up()
    assert stack.outputs()["rules"] == before["rules"]
    cidrs = {rule["SecurityGroupRuleId"]: rule["CidrIpv4"] for rule in api.rules(before["group"])}
    assert cidrs[before["rules"][0]] == "192.0.2.0/24"


def test_a_rule_from_another_kind_of_source_is_a_new_rule(stack: Stack) -> None:
    stack.up()
    stack.write(PROGRAM.replace("cidr_ipv4=cidr", "cidr_ipv6=cidr"))
    steps = stack.preview(**{"from": ["2001:db8::/32", "2001:db8:1::/48"]})
    plan = [(step["op"], sorted(step["replaceReasons"])) for step in steps]
    assert plan == [("replace", ["cidrIpv4", "cidrIpv6"])] * 2


def test_another_instance_type_stops_and_starts_the_same_instance(stack: Stack, api: Api) -> None:
    stack.up()
    machine = stack.outputs()["machine"]
    [step] = stack.preview(type="t3.large")
    assert (step["op"], step["detailedDiff"]) == ("update", {"instanceType": {"kind": "update", "inputDiff": False}})
    with api.recording() as actions:
        stack.up()
    assert stack.outputs()["machine"] == machine
    assert api.instance(machine)["InstanceType"] == "t3.large"
    assert api.instance(machine)["State"]["Name"] == "running"
    assert [one for one in actions if one.endswith("Instances") and not one.startswith("Describe")] == [
        "StopInstances",
        "StartInstances",
    ]


def test_other_user_data_goes_to_the_same_instance_unless_a_replacement_is_asked_for(stack: Stack, api: Api) -> None:
    stack.up()
    machine = stack.outputs()["machine"]
    stack.up(userData="#cloud-config\nhostname: other\n")
    assert stack.outputs()["machine"] == machine
    attribute = api.ec2.describe_instance_attribute(InstanceId=machine, Attribute="userData")
    assert base64.b64decode(attribute["UserData"]["Value"]) == b"#cloud-config\nhostname: other\n"

    steps = stack.preview(userData="#cloud-config\nhostname: third\n", replaceOnChange=True)
    [step] = [step for step in steps if step["op"] == "replace" and step["urn"].endswith("Instance::jail")]
    assert step["replaceReasons"] == ["userData"]
    stack.up()
    assert stack.outputs()["machine"] != machine


def test_a_new_image_replaces_the_instance_and_the_volume_moves_to_the_new_one(stack: Stack, api: Api) -> None:
    stack.up()
    before = stack.outputs()
    api.image("debian-2")
    steps = stack.preview(image="debian-2")
    [step] = [step for step in steps if step["op"] == "replace" and step["urn"].endswith("Instance::jail")]
    assert step["detailedDiff"] == {"ami": {"kind": "update-replace", "inputDiff": False}}
    stack.up()
    after = stack.outputs()
    assert after["machine"] != before["machine"]
    assert after["volume"] == before["volume"]
    assert [one["InstanceId"] for one in api.instances()] == [after["machine"]]
    [attached] = api.volume(after["volume"])["Attachments"]
    assert attached["InstanceId"] == after["machine"]


def test_tags_change_in_place_and_default_tags_are_on_everything(stack: Stack, api: Api) -> None:
    stack.must("config", "set", "--path", "aws:defaultTags.tags.owner", "agency")
    stack.up()
    before = stack.outputs()
    tags = {tag["Key"]: tag["Value"] for tag in api.volume(before["volume"])["Tags"]}
    assert tags == {"Name": "jail", "owner": "agency"}
    assert stack.states()["Volume data"]["outputs"]["tags"] == {"Name": "jail"}
    assert stack.states()["Volume data"]["outputs"]["tagsAll"] == tags

    [step] = stack.preview(tags={"stage": "test"})
    assert step["op"] == "update"
    assert step["detailedDiff"].keys() == {"tags.Name", "tags.stage", "tagsAll.Name", "tagsAll.stage"}
    stack.up()
    machine = api.instance(before["machine"])
    assert {tag["Key"]: tag["Value"] for tag in machine["Tags"]} == {"owner": "agency", "stage": "test"}
    assert stack.preview() == []


def test_a_volume_grows_in_place(stack: Stack, api: Api) -> None:
    stack.up()
    volume = stack.outputs()["volume"]
    [step] = stack.preview(size=20)
    assert (step["op"], step["detailedDiff"]) == ("update", {"size": {"kind": "update", "inputDiff": False}})
    stack.up()
    assert stack.outputs()["volume"] == volume
    assert api.volume(volume)["Size"] == 20


IMPORTED = """
import pulumi, pulumi_aws as aws
volume = aws.ebs.Volume(
    "old", availability_zone="us-east-1a", size=7, type="gp2", encrypted=False, tags={{"Name": "old"}},
    opts=pulumi.ResourceOptions(import_="{id}", retain_on_delete=True),
)
pulumi.export("volume", volume.id)
"""


def test_a_volume_is_imported_by_its_id_and_retained(stack: Stack, api: Api) -> None:
    tags = [{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "old"}]}]
    id = api.ec2.create_volume(AvailabilityZone="us-east-1a", Size=7, VolumeType="gp2", TagSpecifications=tags)[
        "VolumeId"
    ]
    stack.write(IMPORTED.format(id=id))
    stack.up()
    assert stack.outputs() == {"volume": id}
    stack.must("up", "--yes", "--skip-preview", "--expect-no-changes")
    stack.must("destroy", "--yes", "--skip-preview")
    assert api.volume(id)["State"] == "available"


def test_an_import_by_the_cli_notes_the_inputs_that_a_program_would_give(stack: Stack, api: Api) -> None:
    id = api.ec2.create_volume(AvailabilityZone="us-east-1a", Size=7, VolumeType="gp2")["VolumeId"]
    stack.must("import", "aws:ebs/volume:Volume", "old", id, "--yes", "--skip-preview", "--generate-code=false")
    noted = stack.states()["Volume old"]["inputs"]
    assert {name: noted[name] for name in ("availabilityZone", "size", "type")} == {
        "availabilityZone": "us-east-1a",
        "size": 7,
        "type": "gp2",
    }
    assert not {"arn", "createTime", "tags"} & noted.keys()


def test_an_import_that_does_not_fit_is_refused(stack: Stack, api: Api) -> None:
    id = api.ec2.create_volume(AvailabilityZone="us-east-1b", Size=7, VolumeType="gp2")["VolumeId"]
    stack.write(IMPORTED.format(id=id))
    assert "availabilityZone: {us-east-1b} => {us-east-1a}" in stack.fails("up", "--yes", "--skip-preview")
    assert api.volume(id)["State"] == "available"


def test_metadata_options_and_the_root_disk_change_in_place(stack: Stack, api: Api) -> None:
    stack.up()
    machine = stack.outputs()["machine"]
    changed = PROGRAM.replace('"http_put_response_hop_limit": 1', '"http_put_response_hop_limit": 2')
    changed = changed.replace('"volume_size": 8', '"volume_size": 12, "tags": {"of": "jail"}')
    stack.write(changed)
    [step] = stack.preview()
    assert step["op"] == "update"
    assert {path: one["kind"] for path, one in step["detailedDiff"].items()} == {
        "metadataOptions.httpPutResponseHopLimit": "update",
        "rootBlockDevice.tags.of": "add",
        "rootBlockDevice.volumeSize": "update",
    }
    stack.up()
    after = api.instance(machine)
    assert after["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert after["MetadataOptions"]["HttpTokens"] == "required"
    [root] = [one for one in after["BlockDeviceMappings"] if one["DeviceName"] == after["RootDeviceName"]]
    volume = api.volume(root["Ebs"]["VolumeId"])
    assert (volume["Size"], volume["Tags"]) == (12, [{"Key": "of", "Value": "jail"}])
    assert stack.preview() == []


def test_security_groups_of_an_instance_change_in_place(stack: Stack, api: Api) -> None:
    stack.up()
    machine = stack.outputs()["machine"]
    stack.write(PROGRAM.replace("[group.id]", '[group.id, aws.ec2.SecurityGroup("other", vpc_id=subnet.vpc_id).id]'))
    [step] = [step for step in stack.preview() if step["urn"].endswith("Instance::jail")]
    assert step["op"] == "update"
    assert step["detailedDiff"] == {"vpcSecurityGroupIds[1]": {"kind": "add", "inputDiff": False}}
    stack.up()
    [interface] = api.instance(machine)["NetworkInterfaces"]
    assert {one["GroupId"] for one in interface["Groups"]} == {one["GroupId"] for one in api.groups()}


RECORDS = """
import pulumi_aws as aws
aws.route53.Record("short", zone_id="{zone}", name="short", type="A", ttl={ttl}, records=["192.0.2.3"])
aws.route53.Record("name", zone_id="{zone}", name="sftp.example.test", type="A", ttl=60, records={addresses})
"""


def test_records_are_completed_and_changed_in_place(stack: Stack, api: Api) -> None:
    zone = api.route53.create_hosted_zone(Name="example.test", CallerReference="1")["HostedZone"]["Id"]
    known = {"zone": zone.rpartition("/")[2], "addresses": ["192.0.2.1", "192.0.2.2"]}

    def records() -> dict[tuple[str, str], tuple[int, list[str]]]:
        found = api.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
        return {
            (one["Name"], one["Type"]): (one["TTL"], [value["Value"] for value in one["ResourceRecords"]])
            for one in found
        }

    stack.write(RECORDS.format(**known, ttl=60))
    stack.up()
    assert records()["short.example.test.", "A"] == (60, ["192.0.2.3"])
    assert records()["sftp.example.test.", "A"] == (60, known["addresses"])
    assert stack.states()["Record short"]["id"] == f"{known['zone']}_short_A"
    assert stack.states()["Record short"]["outputs"]["fqdn"] == "short.example.test"
    stack.must("refresh", "--yes", "--skip-preview")
    assert stack.preview() == []

    stack.write(RECORDS.format(**{**known, "addresses": ["192.0.2.2", "192.0.2.1"]}, ttl=90))
    [step] = stack.preview()
    assert (step["op"], step["detailedDiff"]) == ("update", {"ttl": {"kind": "update", "inputDiff": False}})
    stack.up()
    assert records()["short.example.test.", "A"] == (90, ["192.0.2.3"])


def test_what_was_deleted_behind_our_back_is_made_again_after_a_refresh(stack: Stack, api: Api) -> None:
    stack.up()
    before = stack.outputs()
    rule = before["rules"][0]
    api.ec2.revoke_security_group_ingress(GroupId=before["group"], SecurityGroupRuleIds=[rule])
    stack.must("refresh", "--yes", "--skip-preview")
    [step] = stack.preview()
    assert (step["op"], step["urn"].rpartition("::")[2]) == ("create", "from-0")


def test_what_is_gone_already_is_no_error_when_it_is_destroyed(stack: Stack, api: Api) -> None:
    stack.up()
    before = stack.outputs()
    api.ec2.revoke_security_group_ingress(GroupId=before["group"], SecurityGroupRuleIds=before["rules"])
    api.ec2.terminate_instances(InstanceIds=[before["machine"]])
    stack.must("destroy", "--yes", "--skip-preview")
    assert not api.groups()


def test_what_was_made_but_cannot_be_finished_is_kept_in_the_state(stack: Stack, api: Api) -> None:
    too_many = {f"tag-{number}": "" for number in range(51)}
    stack.write(PROGRAM.replace('description="ssh", tags=tags', f'description="ssh", tags={too_many}'))
    stack.give()
    shown = stack.fails("up", "--yes", "--skip-preview")
    assert "api error TagLimitExceeded" in shown
    kept = [one["id"] for name, one in stack.states().items() if name.startswith("SecurityGroupIngressRule")]
    [group] = api.groups()
    assert {rule["SecurityGroupRuleId"] for rule in api.rules(group["GroupId"]) if not rule["IsEgress"]} == set(kept)
    stack.must("destroy", "--yes", "--skip-preview")
    assert not api.groups()


class Users:
    """Somebody who uses the security groups, which moto would delete nevertheless."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there = True
        self.refused = 0
        delete = SecurityGroupBackend.delete_security_group

        def guarded(backend: SecurityGroupBackend, **group: Any) -> None:
            if self.there:
                self.refused += 1
                raise EC2ClientError("DependencyViolation", "resource sg-1 has a dependent object")
            delete(backend, **group)

        monkeypatch.setattr(SecurityGroupBackend, "delete_security_group", guarded)


def test_what_is_in_use_is_deleted_as_soon_as_it_no_longer_is(
    stack: Stack, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.up()
    users = Users(monkeypatch)
    with stack.start("destroy", "--yes", "--skip-preview") as destroy:
        until(lambda: users.refused > 1, "a second attempt")
        users.there = False
        shown, _ = destroy.communicate(timeout=60)
    assert destroy.returncode == 0, shown
    assert not api.groups()


def test_a_cancelled_wait_ends_and_what_was_waited_for_is_still_in_the_state(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.up()
    users = Users(monkeypatch)
    with stack.start("destroy", "--yes", "--skip-preview") as destroy:
        until(lambda: users.refused > 1, "a second attempt")
        destroy.send_signal(signal.SIGINT)
        shown, _ = destroy.communicate(timeout=60)
    assert "deleting Security Group" in shown
    assert "cancelled" in shown
    assert list(stack.states()) == ["SecurityGroup jail"]


def test_an_instance_that_dies_while_it_starts_is_told_with_awss_reason(
    stack: Stack, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = InstanceBackend.run_instances

    def run_and_die(backend: InstanceBackend, *arguments: Any, **options: Any) -> Any:
        reservation = run(backend, *arguments, **options)
        for instance in reservation.instances:
            instance.terminate()
            instance.state_reason = StateReason("Client.VolumeLimitExceeded: Volume limit exceeded", "")
        return reservation

    monkeypatch.setattr(InstanceBackend, "run_instances", run_and_die)
    stack.give()
    shown = stack.fails("up", "--yes", "--skip-preview")
    assert "unexpected state 'terminated', wanted target 'running'. last error: Client.VolumeLimitExceeded" in shown
    assert "Instance jail" in stack.states()
    monkeypatch.undo()
    stack.must("up", "--yes", "--skip-preview", "--refresh")
    assert len(api.instances()) == 1


def test_a_secret_is_kept_secret_in_the_state(stack: Stack) -> None:
    stack.write(PROGRAM.replace('user_data=given["userData"]', 'user_data=pulumi.Output.secret(given["userData"])'))
    assert "cloud-config" not in stack.up()
    assert "cloud-config" not in stack.state_text()
    assert "cloud-config" not in stack.must("refresh", "--yes", "--skip-preview", "--diff")
    assert "cloud-config" not in stack.state_text()


@pytest.mark.parametrize("endpoint", ["http://0.0.0.0:{port}", ""], ids=["not loopback", "none"])
def test_an_endpoint_that_is_not_loopback_is_refused_before_anything_is_sent(
    stack: Stack, api: Api, endpoint: str
) -> None:
    stack.env["AWS_ENDPOINT_URL"] = endpoint.format(port=api.port)  # 0.0.0.0 would reach it
    stack.give()
    with api.recording() as actions:
        shown = stack.fails("preview")
    assert actions == []
    assert "must be on loopback" in shown
    assert "is a stand-in" in shown


EXPLICIT = """
import pulumi, pulumi_aws as aws
local = aws.Provider(
    "local", region="eu-central-1", access_key="AKIAMINE", secret_key="my secret",
    endpoints=[{{"ec2": "{url}", "route53": "{url}", "sts": "{url}"}}],
    default_tags={{"tags": {{"owner": "agency"}}}},
)
volume = aws.ebs.Volume(
    "data", availability_zone="eu-central-1a", size=1, opts=pulumi.ResourceOptions(provider=local)
)
pulumi.export("arn", volume.arn)
"""


def test_a_provider_in_the_program_has_its_own_configuration(stack: Stack, api: Api) -> None:
    stack.env = {name: value for name, value in stack.env.items() if not name.startswith("AWS_")}
    stack.write(EXPLICIT.format(url=api.url))
    stack.up()
    assert str(stack.outputs()["arn"]).startswith(f"arn:aws:ec2:eu-central-1:{ACCOUNT}:volume/vol-")
    assert "my secret" not in stack.state_text()
    stack.must("up", "--yes", "--skip-preview", "--expect-no-changes")
    stack.must("destroy", "--yes", "--skip-preview")
    assert not api.client("ec2", "eu-central-1").describe_volumes()["Volumes"]


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("profile", "nobody", "The config profile (nobody) could not be found"),
        ("assumeRoles", "[]", "does not know the configuration assumeRoles"),
        ("maxRetries", "[", "aws:maxRetries must be JSON, not '['"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_in_a_sentence(
    stack: Stack, name: str, value: str, refusal: str
) -> None:
    stack.must("config", "set", f"aws:{name}", value)
    stack.give()
    shown = stack.fails("preview")
    assert refusal in shown
    assert "aws_plugin.pyz" not in shown  # nothing of its inside


def test_credentials_are_looked_for_on_this_computer_alone(stack: Stack) -> None:
    stack.env = {name: value for name, value in stack.env.items() if not name.startswith("AWS_ACCESS_")}
    with socket.create_server(("127.0.0.1", 0)) as metadata:
        stack.env["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = f"http://127.0.0.1:{metadata.getsockname()[1]}"
        stack.give()
        assert "no credentials: set `aws:accessKey`" in stack.fails("preview")
        metadata.setblocking(False)
        with pytest.raises(BlockingIOError):
            metadata.accept()


def test_an_endpoint_in_the_configuration_must_be_loopback_too(stack: Stack) -> None:
    stack.must("config", "set", "--path", "aws:endpoints[0].s3", "http://10.0.0.1")
    stack.give()
    assert "endpoint of s3 must be on loopback" in stack.fails("preview")


def test_an_error_of_aws_is_shown_with_its_code_and_message(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ENABLE_AMI_VALIDATION", True)
    no_image = PROGRAM.replace("ami=image.id", 'ami="ami-0123456789abcdef0"')
    stack.write(no_image.replace("    root_block_device", "    # root_block_device"))
    stack.give()
    shown = stack.fails("up", "--yes", "--skip-preview")
    assert "creating EC2 Instance: operation error EC2: RunInstances" in shown
    assert "api error InvalidAMIID.NotFound: The image id '[ami-0123456789abcdef0]' does not exist" in shown
    assert "Traceback" not in shown


def test_a_look_up_that_finds_nothing_says_what_the_real_one_says(stack: Stack) -> None:
    stack.give(image="no-such-image")
    assert "Your query returned no results. Please change your search criteria and try again." in stack.fails("preview")


LOOKUPS = """
import pulumi, pulumi_aws as aws
subnets = aws.ec2.get_subnets(filters=[{"name": "default-for-az", "values": ["true"]}])
pulumi.export("subnets", len(subnets.ids))
pulumi.export("subnet", aws.ec2.get_subnet(id=subnets.ids[0]).id == subnets.ids[0])
pulumi.export("image", aws.ec2.get_ami(owners=["self"], most_recent=True, name_regex="^debian-[0-9]$").name)
"""


def test_look_ups_find_what_is_there(stack: Stack, api: Api) -> None:
    api.image("debian-2")
    api.image("debian-old")
    stack.write(LOOKUPS)
    stack.up()
    subnets = len(api.ec2.describe_subnets()["Subnets"])
    assert stack.outputs() == {"subnets": subnets, "subnet": True, "image": "debian-2"}


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("aws.s3.Bucket('b')", "aws:s3/bucket:Bucket is nothing that this stand-in for pulumi-aws knows"),
        ("aws.get_regions()", "aws:index/getRegions:getRegions is nothing that this stand-in for pulumi-aws knows"),
        (
            "aws.ec2.SecurityGroup('g', ingress=[{'protocol': 'tcp', 'from_port': 1, 'to_port': 1, 'self': True}])",
            "the stand-in for pulumi-aws does not know the input `ingress`",
        ),
        (
            "aws.route53.Record('r', zone_id='Z1', name='x', type='TXT', ttl=60, records=['x'])",
            "the stand-in for pulumi-aws knows A records alone, and this is TXT",
        ),
        (
            "aws.vpc.SecurityGroupIngressRule('r', security_group_id='sg-1', ip_protocol='tcp')",
            "0 attributes specified when one (and only one) of cidrIpv4, ",
        ),
    ],
    ids=["type", "function", "input", "record", "source"],
)
def test_what_it_does_not_know_is_refused_by_name(stack: Stack, line: str, refusal: str) -> None:
    stack.write(f"import pulumi_aws as aws\n{line}\n")
    assert refusal in stack.fails("preview")


def plugin() -> Path:
    """The program that the engine starts."""
    env = {**os.environ, **ready()["env"]}
    home = Path(env.get("PULUMI_HOME") or Path.home() / ".pulumi")
    installed = home / "plugins/resource-aws-v7.51.1/pulumi-resource-aws"
    return Path(shutil.which(installed.name, path=env["PATH"]) or installed).resolve()


@pytest.mark.parametrize("end", ["its stdin ends", "a signal"])
def test_it_prints_its_port_and_ends_with_the_engine(end: str) -> None:
    process = subprocess.Popen([plugin(), "127.0.0.1:1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        socket.create_connection(("127.0.0.1", port)).close()
        if end == "a signal":
            process.send_signal(signal.SIGINT)
        else:
            process.stdin.close()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
