"""The AWS host, on the real engine and the EC2 in use: made, filled, changed, replaced, destroyed and adopted."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import ROOT, Done, Key, call, make_key, until
from tests.engine.conftest import STACK, Project

pytestmark = pytest.mark.more

FROM_HOME, FROM_OFFICE = "10.213.250.1", "10.213.251.1"
"""Two addresses of this computer, of two networks."""


ACCESS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Aws:
    """A stack on AWS, and those who log in to its VM."""

    def __init__(self, project: Project, ec2: Any) -> None:
        self.project = project
        self.ec2 = ec2
        self.admin = make_key(project.folder / "admin")

    def output(self, name: str) -> Any:
        return json.loads(self.project("stack", "output", "--json", "--stack", STACK).out)[name]

    def ssh_options(self, key: Key, source: str) -> list[object]:
        known_hosts = self.project.folder / "known_hosts"
        known_hosts.write_text(self.output("knownHosts") + "\n")
        options = {
            "BindAddress": source,
            "UserKnownHostsFile": known_hosts,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "3",
            "LogLevel": "ERROR",
        }
        return ["-F", "none", "-i", key.path, *(f"-o{name}={value}" for name, value in options.items())]

    def sftp(self, username: str, key: Key, *commands: str, source: str = FROM_HOME) -> Done:
        argv = ["sftp", *self.ssh_options(key, source), "-b", "-", f"{username}@{self.output('address')}"]
        return call(*argv, stdin="\n".join(commands) + "\n")

    def root(self, *argv: str) -> str:
        """What a program says that the administrator runs as root on the VM."""
        where = f"admin@{self.output('address')}"
        done = call("ssh", *self.ssh_options(self.admin, FROM_OFFICE), where, "sudo", "-n", *argv)
        assert done.code == 0, done
        return done.out

    def instances(self) -> list[dict[str, Any]]:
        """The VMs that are not gone."""
        states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        reservations = self.ec2.describe_instances(Filters=states)["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where EC2 answers: our own, on this computer."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "toolchain"), "SFTP_JAIL_UNTIL_PID": str(os.getpid())}
    argv = [sys.executable, "-m", "local_ec2", "--directory", str(tmp_path_factory.mktemp("ec2"))]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["endpoint"]
        process.terminate()


@pytest.fixture(scope="module")
def addresses() -> Iterator[None]:
    """This computer's further addresses."""
    for address in (FROM_HOME, FROM_OFFICE):
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "lo"], check=True)
    yield
    for address in (FROM_HOME, FROM_OFFICE):
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@pytest.fixture(scope="module")
def aws(project: Project, endpoint: str, addresses: None) -> Iterator[Aws]:
    """The stack file that is there to be copied, with what everybody has to fill in, and what the test needs; it is up,
    and jack has uploaded `mine`."""
    project.env |= {name.upper(): value for name, value in ACCESS.items()}
    project.env["AWS_ENDPOINT_URL"] = endpoint
    config = yaml.safe_load((ROOT / "stacks/Pulumi.staging.yaml").read_text())["config"]
    ec2 = boto3.client("ec2", endpoint_url=endpoint, region_name=config["aws:region"], **ACCESS)
    aws = Aws(project, ec2)
    config["sftp-jail:host"] |= {
        "administratorKey": aws.admin.public,
        # Pulumi itself comes from this computer's end of the link.
        "administratorCidrs": ["10.213.0.0/17", f"{FROM_OFFICE}/32"],
        "allowedCidrs": [f"{FROM_HOME}/32"],
        "tags": {"team": "design"},
    }
    project.config = config
    project.config["sftp-jail:users"] = {}
    project.user("jack", "laptop")
    agent = str(project.folder / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as process:
        project.env["SSH_AUTH_SOCK"] = agent
        for _ in range(100):
            if call("ssh-add", "-q", aws.admin.path, env=project.env).code == 0:
                break
        project.up()
        assert aws.sftp("jack", jack(aws), "put /etc/hostname mine").code == 0
        yield aws
        process.terminate()


def jack(aws: Aws) -> Key:
    return aws.project.key("jack", "laptop")


def test_up_makes_a_vm_that_lets_the_user_in(aws: Aws) -> None:
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert " jack " in aws.root("cat", "/var/log/sftp.log")
    assert aws.root("/usr/local/sbin/jailctl", "check") == "no difference\n"
    # Nothing to do for a second run.
    assert re.search(r"Resources:\n +\d+ unchanged\n", aws.project.up().out)


def test_the_vm_is_as_closed_as_it_can_be(aws: Aws) -> None:
    (instance,) = aws.instances()
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert "IamInstanceProfile" not in instance
    volumes = aws.ec2.describe_volumes()["Volumes"]
    assert [volume["Encrypted"] for volume in volumes] == [True] * 2
    for tagged in (instance, *volumes, *aws.ec2.describe_addresses()["Addresses"]):
        assert {"Key": "team", "Value": "design"} in tagged["Tags"]
    assert aws.root("ls", "/etc/ssh/") and len(aws.root("sh", "-c", "'ls /etc/ssh/*_key'").split()) == 1
    options = aws.root("findmnt", "-no", "OPTIONS", "/sftp")
    assert {"nosuid", "nodev", "noexec"} <= set(options.strip().split(","))
    for port, open_ in ((443, True), (80, True), (25, False), (8080, False)):
        with socket.create_server((FROM_OFFICE, port)):
            reached = call(
                "ssh",
                *aws.ssh_options(aws.admin, FROM_OFFICE),
                f"admin@{aws.output('address')}",
                f"timeout 3 bash -c '</dev/tcp/{FROM_OFFICE}/{port}'",
            )
        assert (reached.code == 0) == open_, (port, reached)
    assert re.search(r"^UUID=\S+ /sftp btrfs ", aws.root("cat", "/etc/fstab"), re.MULTILINE)


def host(aws: Aws, **changes: Any) -> None:
    """Edit the stack file's `host`; None takes a line out."""
    edited = {**aws.project.config["sftp-jail:host"], **changes}
    aws.project.config["sftp-jail:host"] = {key: value for key, value in edited.items() if value is not None}
    aws.project.write()


def review(aws: Aws, *argv: str) -> list[str]:
    """The lines of the access review of a preview, without bullets."""
    changes = aws.project.preview("--json", "--show-sames", *argv)
    done = call(sys.executable, "-m", "sftp_jail", "review", stdin=changes, env={"PYTHONPATH": str(ROOT)})
    return [line.removeprefix("- ") for line in done.out.splitlines()]


def test_the_review_says_who_is_let_in_and_where_the_log_goes(aws: Aws) -> None:
    before = dict(aws.project.config["sftp-jail:host"])
    aws.project.config["sftp-jail:siem"] = {"host": FROM_OFFICE, "port": 6514, "protocol": "tcp"}
    host(aws, allowedCidrs=["0.0.0.0/0"], allowAnyone=True)
    lines = review(aws)
    del aws.project.config["sftp-jail:siem"]
    aws.project.config["sftp-jail:host"] = before
    aws.project.write()
    assert "AWS: port 22 opened to 0.0.0.0/0 (`SSH for users`)" in lines, lines
    assert f"AWS: port 22 closed to {FROM_HOME}/32 (`SSH for users`)" in lines
    assert any(line.startswith("Open to anyone: AWS `host-ssh-from-0.0.0.0/0`") for line in lines)
    assert any(line.startswith("AWS host-to-port-6514 (`SecurityGroupEgressRule`): new") for line in lines)
    assert any(line.startswith("log: sent on to (none) →") for line in lines)


def inputs_of_the_vm(aws: Aws) -> dict[str, Any]:
    """What a preview would make or leave the VM with."""
    steps = json.loads(aws.project.preview("--json", "--show-sames"))["steps"]
    (inputs,) = (
        s["newState"]["inputs"] for s in steps if s["op"] in ("same", "replace") and "ec2/instance:" in s["urn"]
    )
    found: dict[str, Any] = inputs
    return found


def test_the_other_architecture_has_an_image_and_an_instance_type_of_its_own(aws: Aws) -> None:
    host(aws, architecture="amd64")
    inputs = inputs_of_the_vm(aws)
    host(aws, architecture=None)
    (image,) = aws.ec2.describe_images(ImageIds=[inputs["ami"]])["Images"]
    assert (image["Architecture"], inputs["instanceType"]) == ("x86_64", "t3.small")
    assert image["Name"].startswith("debian-13-amd64-")


def test_a_subnet_must_be_where_the_data_volume_is(aws: Aws) -> None:
    (instance,) = aws.instances()
    subnets = aws.ec2.describe_subnets()["Subnets"]
    elsewhere = next(s for s in subnets if s["AvailabilityZone"] != instance["Placement"]["AvailabilityZone"])
    try:
        host(aws, subnetId=instance["SubnetId"])
        assert inputs_of_the_vm(aws)["subnetId"] == instance["SubnetId"]
        host(aws, subnetId=elsewhere["SubnetId"])
        refused = aws.project("preview")
    finally:
        host(aws, subnetId=None)
    assert refused.code != 0
    assert f"host.subnetId: '{elsewhere['SubnetId']}': in {elsewhere['AvailabilityZone']}" in refused.out + refused.err


def test_no_private_key_is_in_the_state_or_in_an_output(aws: Aws) -> None:
    host_key = aws.root("cat", "/etc/ssh/ssh_host_ed25519_key").splitlines()[2]
    kept = aws.project("stack", "export").out + aws.project("stack", "output", "--json").out
    assert host_key not in kept
    assert host_key not in aws.project("preview", "--diff").out


def test_the_users_networks_are_edited_one_by_one(aws: Aws) -> None:
    assert aws.sftp("jack", jack(aws), "ls").code == 0
    host(aws, allowedCidrs=["10.213.249.0/24"])
    preview = aws.project.preview()
    assert preview.count("SecurityGroupIngressRule") == 2, preview
    assert "Instance" not in preview.replace("InstanceRule", "")
    aws.project.up()
    refused = aws.sftp("jack", jack(aws), "ls")
    assert refused.code != 0
    assert "timed out" in refused.err, "EC2's groups drop, they do not answer"
    host(aws, allowedCidrs=[f"{FROM_HOME}/32"])
    aws.project.up()
    assert aws.sftp("jack", jack(aws), "ls").code == 0


def test_a_users_own_networks_are_let_through_for_him_alone(aws: Aws) -> None:
    jill = aws.project.user("jill", "laptop")["laptop"]
    host(aws, allowedCidrs=["10.213.249.0/24"])
    users = aws.project.config["sftp-jail:users"]
    users["jill"]["allowFrom"], users["jack"]["allowFrom"] = [f"{FROM_HOME}/32"], ["10.213.249.0/24"]
    aws.project.write()
    aws.project.up()
    assert aws.sftp("jill", jill, "ls").code == 0
    refused = aws.sftp("jack", jack(aws), "ls")
    assert refused.code != 0
    assert "Permission denied" in refused.err, "the group lets his computer through, and sshd refuses his key"
    del users["jack"]["allowFrom"]
    aws.project.drop("jill")
    host(aws, allowedCidrs=[f"{FROM_HOME}/32"])
    aws.project.up()
    assert aws.sftp("jack", jack(aws), "ls").code == 0


def images(aws: Aws) -> list[str]:
    """Debian's own images for what the stack asks for, the newest last."""
    found = aws.ec2.describe_images(Owners=["136693071363"])["Images"]
    return [
        image for name, image in sorted((image["Name"], image["ImageId"]) for image in found) if "-13-arm64-" in name
    ]


def test_an_image_once_chosen_stays_whatever_comes_out_or_goes(aws: Aws) -> None:
    (before,) = aws.instances()
    assert before["ImageId"] == images(aws)[-1]
    aws.ec2.deregister_image(ImageId=before["ImageId"])
    assert before["ImageId"] not in images(aws)
    assert re.search(r"Resources:\n +\d+ unchanged\n", aws.project.up().out)
    assert [instance["InstanceId"] for instance in aws.instances()] == [before["InstanceId"]]


def test_another_vm_has_the_same_volume_address_key_users_and_files(aws: Aws) -> None:
    project = aws.project
    config = yaml.safe_load((ROOT / "stacks/Pulumi.jack.yaml").read_text())["config"]
    jill = project.key("jill", "laptop")
    config["sftp-jail:host"]["stack"] = STACK
    config["sftp-jail:users"] = {"jill": {"keys": {"laptop": jill.public}, "quota": "32MiB"}}
    project.write("jill", config)
    assert project("stack", "init", "jill", "--no-select").code == 0
    done = project("up", "--yes", "--skip-preview", "--stack", "jill")
    assert done.code == 0, done.out + done.err
    assert aws.sftp("jill", jill, "put /etc/hostname hers").code == 0

    # Joan is to be removed in the same run: the old VM is not asked, and the next one finds her on the volume.
    joan = project.user("joan", "desk")["desk"]
    project.up()
    assert aws.sftp("joan", joan, "put /etc/hostname joans").code == 0
    project.drop("joan")

    (before,) = aws.instances()
    kept = {name: aws.output(name) for name in ("address", "dataVolume", "knownHosts")}
    owners = (
        "sh",
        "-c",
        "'stat -c \"%n %u %g %Y\" /sftp/jail/jack/uploads/* /sftp/jail/jill/uploads/*; getent passwd jack jill'",
    )
    files = aws.root(*owners)
    host(aws, image="newest", instanceType="t4g.medium")
    project.up()

    (after,) = aws.instances()
    assert after["InstanceId"] != before["InstanceId"]
    assert (after["ImageId"], after["InstanceType"]) == (images(aws)[-1], "t4g.medium")
    assert {name: aws.output(name) for name in kept} == kept
    assert aws.sftp("joan", joan, "ls").code != 0
    assert "uploads/joans" in aws.root("sh", "-c", "'tar tf /sftp/archive/joan-*.tar'")
    assert aws.root(*owners) == files
    assert aws.root("/usr/local/sbin/jailctl", "check").startswith("no difference\njill: ")
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert aws.sftp("jill", jill, "put /etc/hostname more").code == 0
    # Her quota is the volume's, too.
    big = project.folder / "big"
    big.write_bytes(bytes(40 << 20))
    assert "Failure" in aws.sftp("jill", jill, f"put {big} big").err
    assert aws.sftp("jill", jill, "rm big").code == 0
    assert " jill " in aws.root("cat", "/var/log/sftp.log")
    # Neither stack has anything left to do.
    for stack in (STACK, "jill"):
        done = project("preview", "--expect-no-changes", "--stack", stack)
        assert done.code == 0, done.out + done.err


def test_a_name_in_route_53_is_what_users_are_told(aws: Aws, endpoint: str) -> None:
    route53 = boto3.client("route53", endpoint_url=endpoint, region_name="eu-central-1", **ACCESS)
    zone = route53.create_hosted_zone(Name="example.org", CallerReference="test")["HostedZone"]["Id"].split("/")[-1]
    address = aws.output("address")
    host(aws, dns={"name": "sftp.example.org", "zoneId": zone})
    aws.project.up()
    assert aws.output("address") == "sftp.example.org"
    assert aws.output("knownHosts").startswith("sftp.example.org ssh-ed25519 ")
    assert aws.output("users")["jack"]["sftp"] == "sftp jack@sftp.example.org"
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [record["ResourceRecords"][0]["Value"] for record in records if record["Type"] == "A"] == [address]
    host(aws, dns=None)
    aws.project.up()
    assert aws.output("address") == address


def test_destroy_is_refused_under_an_attached_stack(aws: Aws) -> None:
    done = aws.project("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert done.code != 0
    assert "organization/sftp-jail/jill (jill)" in done.out + done.err
    assert aws.sftp("jack", jack(aws), "ls").code == 0
    assert aws.project("destroy", "--yes", "--skip-preview", "--stack", "jill").code == 0


def test_destroy_leaves_the_data_and_says_where_and_another_up_takes_it_over(aws: Aws) -> None:
    rita = aws.project.user("rita", "desk")["desk"]
    aws.project.up()
    assert aws.sftp("rita", rita, "put /etc/hostname hers").code == 0
    volume, address = aws.output("dataVolume"), aws.output("address")
    # Of a VM that goes, nobody is asked to take users away one by one.
    aws.root("sh", "-c", "'echo \"[ \\$1 = release ]\" > /usr/local/sbin/jailctl'")
    assert call_jailctl(aws, "release") == 0 and call_jailctl(aws, "remove-user") != 0
    done = aws.project("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert done.code == 0, done.out + done.err
    assert f"The data volume {volume} stays in the account" in done.out
    assert aws.instances() == []
    assert [found["VolumeId"] for found in aws.ec2.describe_volumes()["Volumes"]] == [volume]
    assert aws.ec2.describe_addresses()["Addresses"] == []
    assert [group["GroupName"] for group in aws.ec2.describe_security_groups()["SecurityGroups"]] == ["default"]

    # And who is no longer in the stack file does not come back with the data.
    host(aws, dataVolumeId=volume, image=None)
    aws.project.drop("rita")
    aws.project.up()
    assert aws.sftp("rita", rita, "ls").code != 0
    assert "uploads/hers" in aws.root("sh", "-c", "'tar tf /sftp/archive/rita-*.tar'")
    assert aws.output("dataVolume") == volume
    assert aws.output("address") != address
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert aws.root("/usr/local/sbin/jailctl", "check") == "no difference\n"


def call_jailctl(aws: Aws, verb: str) -> int:
    """The status of a verb of the VM's jailctl."""
    where = f"admin@{aws.output('address')}"
    return call("ssh", *aws.ssh_options(aws.admin, FROM_OFFICE), where, "sudo", "-n", "jailctl", verb, stdin="{}").code


def test_another_instance_type_restarts_the_vm(aws: Aws) -> None:
    (before,) = aws.instances()
    host(aws, instanceType="t4g.large")
    aws.project.up()
    (after,) = aws.instances()
    assert (after["InstanceId"], after["InstanceType"]) == (before["InstanceId"], "t4g.large")
    # No Command has anything to do, so nobody has waited for its sshd.
    until(lambda: aws.sftp("jack", jack(aws), "ls").code == 0, "the VM that starts again")
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert aws.root("/usr/local/sbin/jailctl", "check") == "no difference\n"


def test_a_replacement_that_was_interrupted_is_finished_by_the_next_up(aws: Aws) -> None:
    (before,) = aws.instances()
    own = {"Name": "debian-13-arm64-ours", "Architecture": "arm64", "RootDeviceName": "/dev/xvda"}
    host(aws, image=aws.ec2.register_image(**own)["ImageId"])
    assert {"The host is replaced: AWS host (`Instance`)", "Made anew on the new host: **jack**"} <= set(review(aws))
    assert not aws.project.up_until(("ec2:Instance", "created"), lambda up: up.send_signal(signal.SIGINT))
    aws.project.up()
    (after,) = aws.instances()
    assert after["InstanceId"] != before["InstanceId"]
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert aws.root("/usr/local/sbin/jailctl", "check") == "no difference\n"


def test_a_vm_that_was_terminated_by_hand_is_made_anew_after_a_refresh(aws: Aws) -> None:
    aws.ec2.terminate_instances(InstanceIds=[aws.instances()[0]["InstanceId"]])
    assert {"AWS host (`Instance`): new", "Made anew on the new host: **jack**"} <= set(review(aws, "--refresh"))
    done = aws.project("up", "--yes", "--skip-preview", "--refresh")
    assert done.code == 0, done.out + done.err
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out
    assert aws.root("/usr/local/sbin/jailctl", "check") == "no difference\n"


def test_the_data_volume_grows_and_its_file_system_with_it(aws: Aws) -> None:
    def size() -> int:
        return int(aws.root("findmnt", "-bno", "SIZE", "/sftp"))

    before = size()
    host(aws, dataVolumeSize=30)
    aws.project.up()
    assert size() == before + 10 * 2**30
    assert "mine" in aws.sftp("jack", jack(aws), "ls").out


def test_with_the_word_for_it_destroy_deletes_the_data(aws: Aws) -> None:
    volume = aws.output("dataVolume")
    host(aws, deleteData=True)
    aws.project.up()
    # This VM does not answer any more; the way out is README's.
    aws.ec2.stop_instances(InstanceIds=[aws.instances()[0]["InstanceId"]])
    assert aws.project("destroy", "--yes", "--skip-preview", "--stack", STACK).code != 0
    urns = re.findall(r"URN: (urn:\S+::jail-guard)", aws.project("stack", "--show-urns").out)
    assert aws.project("state", "delete", *urns, "--yes").code == 0
    done = aws.project("destroy", "--yes", "--skip-preview", "--stack", STACK)
    assert done.code == 0, done.out + done.err
    assert f"The data volume {volume} is deleted" in done.out
    assert aws.ec2.describe_volumes()["Volumes"] == []
