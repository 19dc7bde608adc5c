"""The local EC2: what is asked of it through AWS's own client happens to real machines, and ends with the server."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError, ParamValidationError  # type: ignore[import-untyped]

from tests.conftest import ROOT, Done, Key, call, make_key, neighbour, processes_naming, run_in, until

ZONE = "eu-central-1a"
ANYWHERE = "0.0.0.0/0"


class Server:
    """The server, and a client of it."""

    def __init__(self, directory: Path, owner: Optional[int] = None, **environment: str) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local_ec2", "--directory", str(directory)],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "toolchain"),
                "SFTP_JAIL_UNTIL_PID": str(owner or os.getpid()),
                **environment,
            },
        )
        assert self.process.stdout is not None
        self.ec2 = client(json.loads(self.process.stdout.readline())["endpoint"])

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()


def client(endpoint: str) -> Any:
    """AWS's own, with the credentials of nobody."""
    return boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name=ZONE[:-1],
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",  # noqa: S106
    )


class Vm:
    """An instance that was booted with user data such as AwsHost's."""

    def __init__(self, server: Server, folder: Path, *cidrs: str) -> None:
        folder.mkdir()
        self.ec2, self.folder = server.ec2, folder
        self.host_key, self.admin_key = make_key(folder / "host"), make_key(folder / "admin")
        self.group = new_group(self.ec2, folder.name)
        for cidr in cidrs:
            allow_ssh(self.ec2, self.group, cidr)
        self.image = max(debian_images(self.ec2), key=lambda image: image["CreationDate"])["ImageId"]
        [instance] = self.ec2.run_instances(
            ImageId=self.image,
            InstanceType="t4g.micro",
            MinCount=1,
            MaxCount=1,
            SecurityGroupIds=[self.group],
            Placement={"AvailabilityZone": ZONE},
            UserData=user_data(self.host_key, self.admin_key),
        )["Instances"]
        self.id: str = instance["InstanceId"]
        self.address: str = instance["PrivateIpAddress"]
        self.directory = server.directory / "instances" / self.id / "machine"

    def describe(self) -> Any:
        """What EC2 says of it."""
        return self.ec2.describe_instances(InstanceIds=[self.id])["Reservations"][0]["Instances"][0]

    def run(self, *argv: object) -> Done:
        """Run a program in it as root, whatever its firewall says."""
        return run_in(self.directory, *argv)

    def root(self, script: str) -> str:
        """What a shell script, which must succeed, says in it."""
        done = self.run("sh", "-euc", script)
        assert done.code == 0, done
        return done.out

    def is_done(self) -> None:
        """Wait for cloud-init."""
        assert "status: done" in self.root("cloud-init status --wait || [ $? = 2 ]; cloud-init status")

    def ssh(self, *argv: object, at: Optional[str] = None, key: Optional[Key] = None) -> Done:
        """OpenSSH's ssh, which knows its host key and no other."""
        address = at if at is not None else self.address
        known = self.folder / "known_hosts"
        known.write_text(f"{address} {self.host_key.public}\n")
        options = {"UserKnownHostsFile": known, "StrictHostKeyChecking": "yes", "BatchMode": "yes", "ConnectTimeout": 5}
        words = [f"-o{name}={value}" for name, value in options.items()]
        login = ["-F", "none", "-i", (key or self.admin_key).path, *words, f"admin@{address}"]
        return call("ssh", *login, *argv)

    def boot_id(self) -> str:
        """Another one each time that it boots."""
        return self.run("cat", "/proc/sys/kernel/random/boot_id").out

    def terminate(self) -> None:
        """End it."""
        self.ec2.terminate_instances(InstanceIds=[self.id])


def user_data(host_key: Key, admin_key: Key) -> str:
    """cloud-config: a host key, an administrator, packages."""
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_key.path.read_text(), "ed25519_public": host_key.public},
        "users": [
            {
                "name": "admin",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "shell": "/bin/bash",
                "lock_passwd": True,
                "ssh_authorized_keys": [admin_key.public],
            }
        ],
        "disable_root": True,
        "package_update": True,
        "packages": ["rsyslog", "btrfs-progs"],
    }
    return f"#cloud-config\n{json.dumps(config)}"


def debian_images(ec2: Any) -> list[Any]:
    """Debian 13's official images for arm64."""
    name = {"Name": "name", "Values": ["debian-13-arm64-*"]}
    return ec2.describe_images(Owners=["136693071363"], Filters=[name])["Images"]


def new_group(ec2: Any, name: str) -> str:
    """A security group that lets nobody in."""
    return ec2.create_security_group(GroupName=name, Description=name)["GroupId"]


def ssh_from(cidr: str) -> Any:
    """A permission."""
    return [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": cidr}]}]


def allow_ssh(ec2: Any, group: str, cidr: str) -> None:
    """Let in who has an address of the CIDR."""
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=ssh_from(cidr))


def knock(address: str, source: str = "") -> socket.socket:
    """A connection to a VM's sshd; TimeoutError where packets are dropped."""
    connection = socket.create_connection((address, 22), timeout=2, source_address=(source, 0))
    assert connection.recv(8) == b"SSH-2.0-"
    return connection


def is_dropped(address: str, source: str = "") -> bool:
    """Whether packets to a VM's sshd get no answer."""
    try:
        knock(address, source).close()
    except TimeoutError:
        return True
    return False


def new_volume(ec2: Any) -> str:
    """An EBS volume of one GiB."""
    return ec2.create_volume(Size=1, AvailabilityZone=ZONE, VolumeType="gp3")["VolumeId"]


def name_of(volume: str) -> str:
    """What udev calls it on a Nitro VM."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


def traces(folder: Path, *addresses: str) -> list[str]:
    """What there is of a server's machines: processes, mounts, loop devices, control groups, links and routes."""
    found = [f"process {line}" for line in processes_naming(folder)]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    found += [f"loop {path}" for path in loops if path.exists() and str(folder) in path.read_text()]
    for directory in folder.glob("instances/*/machine"):
        name = f"sftp-jail-{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"
        # os.walk passes over what other machines take away meanwhile.
        found += [f"group {path}/{name}" for path, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]
    links = call("ip", "-oneline", "address").out.splitlines()
    for address in addresses:
        found += [f"link {line}" for line in links if f" {neighbour(address)}/" in line]
        found += [f"route {line}" for line in call("ip", "route", "show", f"{address}/32").out.splitlines()]
    return found


def until_gone(folder: Path, *addresses: str) -> None:
    """Wait until there is nothing of a server's machines."""
    until(lambda: not traces(folder, *addresses), f"left: {traces(folder, *addresses)}", seconds=20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests share."""
    with Server(tmp_path_factory.mktemp("ec2")) as server:
        yield server


@pytest.fixture
def owner() -> Iterator[int]:
    """A process that may end."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the VMs' keys are."""
    return tmp_path_factory.mktemp("vms")


@pytest.fixture(scope="module")
def first(server: Server, folder: Path) -> Vm:
    """A VM that tests leave as they found it."""
    vm = Vm(server, folder / "first", ANYWHERE)
    vm.is_done()
    return vm


@pytest.fixture(scope="module")
def second(server: Server, folder: Path) -> Vm:
    """Another one."""
    vm = Vm(server, folder / "second", ANYWHERE)
    vm.is_done()
    return vm


def test_a_vm_boots_with_its_user_data_behind_the_pinned_host_key(first: Vm) -> None:
    assert first.ssh("sudo", "-n", "id", "-u").out == "0\n"
    assert first.root("ls /etc/ssh/ssh_host_*_key") == "/etc/ssh/ssh_host_ed25519_key\n"
    assert first.root("systemctl is-system-running --wait") == "running\n"
    assert first.root("dpkg-query -f '${Status} ' -W rsyslog btrfs-progs") == "install ok installed " * 2
    assert json.loads(first.root("cloud-init status --format json"))["errors"] == []
    assert first.root("hostname") == f"ip-{first.address.replace('.', '-')}\n"


def test_another_user_another_key_and_another_host_key_are_refused(first: Vm, second: Vm) -> None:
    assert first.ssh("true", key=second.admin_key).code == 255
    assert call("ssh", "-F", "none", "-oBatchMode=yes", f"root@{first.address}", "true").code == 255
    refused = second.ssh("true", at=first.address, key=first.admin_key)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.err


def test_ssh_answers_no_earlier_than_its_keys_and_users_are_there(server: Server, folder: Path) -> None:
    vm = Vm(server, folder / "early", ANYWHERE)
    until(lambda: (done := vm.ssh("true")).code == 0 or "refused" not in done.err, "sshd")
    assert vm.ssh("sudo", "-n", "id", "-u").out == "0\n"
    vm.terminate()


def test_the_image_that_was_asked_for_is_the_one_that_boots(first: Vm) -> None:
    [older, newer] = sorted(debian_images(first.ec2), key=lambda image: image["CreationDate"])
    assert first.root("cat /etc/local-ec2-image") == f"{newer['ImageId']}\n"
    assert newer["Name"] > older["Name"]
    assert {newer["Architecture"], newer["RootDeviceName"]} == {"arm64", "/dev/xvda"}
    assert [disk["DeviceName"] for disk in first.describe()["BlockDeviceMappings"]] == ["/dev/xvda"]


def test_its_console_says_what_happened(first: Vm) -> None:
    text = first.ec2.get_console_output(InstanceId=first.id)["Output"]
    assert "Welcome to " in text
    assert "Cloud-init v. " in text
    assert first.host_key.public in text


def test_a_vm_reaches_nothing_but_this_computer(first: Vm) -> None:
    assert first.run("ip", "route", "get", neighbour(first.address)).code == 0
    assert first.run("ip", "route", "get", "192.0.2.1").code != 0
    assert first.run("ip", "route", "get", "169.254.169.254").code != 0


def test_a_group_without_ssh_drops_it_and_a_rule_opens_and_closes_it_at_once(first: Vm) -> None:
    group = new_group(first.ec2, "closed")
    first.ec2.modify_instance_attribute(InstanceId=first.id, Groups=[group])
    assert is_dropped(first.address)
    allow_ssh(first.ec2, group, ANYWHERE)
    with knock(first.address) as open_before:
        first.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=ssh_from(ANYWHERE))
        assert is_dropped(first.address)
        open_before.send(b"SSH-2.0-x\r\n")
        until(lambda: open_before.recv(4096), "an answer on the connection that was open before", seconds=5)
    first.ec2.modify_instance_attribute(InstanceId=first.id, Groups=[first.group])
    assert not is_dropped(first.address)
    first.ec2.delete_security_group(GroupId=group)


def test_an_address_of_another_cidr_is_dropped(first: Vm, second: Vm) -> None:
    """Both addresses are this computer's: its ends of the links to the two."""
    allowed, other = neighbour(first.address), neighbour(second.address)
    assert not is_dropped(first.address, source=other)
    of_group = [{"Name": "group-id", "Values": [first.group]}]
    rules = first.ec2.describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]
    [rule] = [rule for rule in rules if not rule["IsEgress"]]
    change = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": f"{allowed}/32"}
    narrowed = [{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": change}]
    first.ec2.modify_security_group_rules(GroupId=first.group, SecurityGroupRules=narrowed)
    assert is_dropped(first.address, source=other)
    assert not is_dropped(first.address, source=allowed)
    change["CidrIpv4"] = ANYWHERE
    first.ec2.modify_security_group_rules(GroupId=first.group, SecurityGroupRules=narrowed)
    assert not is_dropped(first.address, source=other)


def test_an_elastic_ip_moves_at_once_and_leads_to_one_vm(first: Vm, second: Vm) -> None:
    elastic = first.ec2.allocate_address(Domain="vpc")
    address, allocation = elastic["PublicIp"], elastic["AllocationId"]
    for owner, other in ((first, second), (second, first), (first, second)):
        first.ec2.associate_address(AllocationId=allocation, InstanceId=owner.id, AllowReassociation=True)
        assert owner.ssh("true", at=address).code == 0
        assert owner.describe()["PublicIpAddress"] == address
        assert other.describe().get("PublicIpAddress") != address
        assert address not in other.root("ip -brief address")
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
        first.ec2.release_address(AllocationId=allocation)
    first.ec2.disassociate_address(PublicIp=address)
    assert "No route to host" in call("ip", "route", "get", address).err
    first.ec2.release_address(AllocationId=allocation)


@pytest.mark.parametrize("kind", ["btrfs", "ext4"])
def test_a_volume_keeps_its_data_from_one_vm_to_the_next(server: Server, folder: Path, second: Vm, kind: str) -> None:
    ec2, volume = server.ec2, new_volume(server.ec2)
    vm = Vm(server, folder / kind)
    vm.is_done()
    ec2.attach_volume(VolumeId=volume, InstanceId=vm.id, Device="/dev/sdf")
    assert vm.root(f"readlink -f {name_of(volume)}") == "/dev/nvme1n1\n"
    vm.root(f"mkfs.{kind} -q {name_of(volume)}; mount {name_of(volume)} /srv; echo kept > /srv/file")
    with pytest.raises(ClientError, match=r"IncorrectState.*is mounted"):
        ec2.detach_volume(VolumeId=volume)
    # Unmounting is for the shutdown to do, after it has stopped what writes there.
    last_words = "ExecStop=sh -c 'echo stopped >> /srv/file'"
    vm.root(f'systemd-run --quiet -p RequiresMountsFor=/srv -p "{last_words}" sleep 600')
    vm.terminate()
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available"

    ec2.attach_volume(VolumeId=volume, InstanceId=second.id, Device="/dev/sdf")
    assert second.root(f"mount {name_of(volume)} /mnt; cat /mnt/file; umount /mnt") == "kept\nstopped\n"
    ec2.modify_volume(VolumeId=volume, Size=2)
    assert second.root("blockdev --getsize64 /dev/nvme1n1") == f"{2 * 2**30}\n"
    ec2.detach_volume(VolumeId=volume)
    assert second.run("ls", "/dev/nvme1n1", name_of(volume)).code == 2
    ec2.delete_volume(VolumeId=volume)
    assert not (server.directory / "volumes" / volume).exists()


def test_stop_start_and_reboot_keep_disk_addresses_volumes_and_firewall(server: Server, folder: Path) -> None:
    ec2, volume = server.ec2, new_volume(server.ec2)
    vm = Vm(server, folder / "restarted", ANYWHERE)
    vm.is_done()
    elastic = ec2.allocate_address(Domain="vpc")["PublicIp"]
    ec2.associate_address(PublicIp=elastic, InstanceId=vm.id)
    ec2.attach_volume(VolumeId=volume, InstanceId=vm.id, Device="/dev/sdf")
    vm.root(
        "mkfs.btrfs -q /dev/nvme1n1; uuid=$(blkid -s UUID -o value /dev/nvme1n1);"
        "echo UUID=$uuid /srv btrfs defaults 0 0 >> /etc/fstab;"
        "echo UUID=00000000-0000-4000-8000-000000000000 /mnt ext4 nofail 0 0 >> /etc/fstab; mount -a;"
        "echo kept > /srv/file; echo disk > /root/file; hostnamectl hostname renamed"
    )

    def is_the_same_again() -> None:
        until(lambda: vm.ssh("true", at=elastic).code == 0, "sshd", seconds=20)
        assert vm.ssh("cat", "/srv/file", at=elastic).out == "kept\n"
        assert vm.root("cat /root/file; systemctl is-system-running --wait; cloud-init status") == (
            "disk\nrunning\nstatus: done\n"
        )
        assert vm.describe()["PrivateIpAddress"] == vm.address
        with pytest.raises(TimeoutError):
            socket.create_connection((elastic, 25), timeout=1)

    boots = [vm.boot_id()]
    ec2.stop_instances(InstanceIds=[vm.id])
    assert vm.describe()["State"]["Name"] == "stopped"
    assert traces(vm.directory, vm.address) == []
    ec2.start_instances(InstanceIds=[vm.id])
    is_the_same_again()
    boots.append(vm.boot_id())
    ec2.reboot_instances(InstanceIds=[vm.id])
    is_the_same_again()
    boots.append(vm.boot_id())
    vm.run("systemctl", "reboot")
    until(lambda: vm.boot_id() not in ("", boots[-1]), "the reboot that it asked for itself", seconds=30)
    is_the_same_again()
    assert len({*boots, vm.boot_id()}) == 4
    vm.terminate()
    assert not ec2.describe_addresses(PublicIps=[elastic])["Addresses"][0].get("InstanceId")


def test_a_vm_that_switches_itself_off_is_stopped_and_can_get_other_user_data(server: Server, folder: Path) -> None:
    vm = Vm(server, folder / "off")
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        vm.ec2.modify_instance_attribute(InstanceId=vm.id, UserData={"Value": b"#cloud-config\n"})
    vm.run("systemctl", "poweroff")
    until(lambda: vm.describe()["State"]["Name"] == "stopped", "its end", seconds=30)
    vm.ec2.modify_instance_attribute(InstanceId=vm.id, UserData={"Value": b"#!/bin/true\n"})
    vm.ec2.start_instances(InstanceIds=[vm.id])
    assert vm.root("cat /var/lib/cloud/seed/nocloud/user-data") == "#!/bin/true\n"
    vm.terminate()
    with pytest.raises(ClientError, match="IncorrectInstanceState"):
        vm.ec2.start_instances(InstanceIds=[vm.id])


def test_a_request_that_is_sent_again_boots_no_second_vm(first: Vm) -> None:
    request = {"ImageId": first.image, "InstanceType": "t4g.micro", "MinCount": 1, "MaxCount": 1}
    asked = [first.ec2.run_instances(**request, ClientToken="once")["Instances"] for _ in range(2)]
    [vm] = {instance["InstanceId"] for instances in asked for instance in instances}
    first.ec2.terminate_instances(InstanceIds=[vm])


def test_a_boot_that_fails_is_an_error_with_the_end_of_the_console(tmp_path: Path) -> None:
    """With a systemd-nspawn that boots nothing."""
    fake = tmp_path / "bin" / "systemd-nspawn"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nprintf 'no \\033[1minit found\\r\\n'; exit 1\n")
    fake.chmod(0o755)
    with Server(tmp_path / "ec2", PATH=f"{fake.parent}:{os.environ['PATH']}") as server:
        with pytest.raises(ClientError, match=r"(?s)InternalError.*did not boot.*init found"):
            Vm(server, tmp_path / "vm")
        [reservation] = server.ec2.describe_instances()["Reservations"]
        [instance] = reservation["Instances"]
        assert instance["State"]["Name"] == "terminated"
        assert "init found" in server.ec2.get_console_output(InstanceId=instance["InstanceId"])["Output"]


def refuse(ec2: Any, name: str, **given: Any) -> str:
    """The error with which a request is refused."""
    with pytest.raises((ClientError, ParamValidationError)) as refused:
        getattr(ec2, name)(**given)
    return str(refused.value)


def test_what_ec2_refuses_is_refused(first: Vm, second: Vm) -> None:
    ec2, volume = first.ec2, new_volume(first.ec2)
    one = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t4g.micro"}
    assert "Unknown parameter" in refuse(ec2, "run_instances", ImageId=first.image, Colour="red", **one)
    assert "InvalidAMIID" in refuse(ec2, "run_instances", ImageId="ami-00000000", **one)
    huge = {**one, "UserData": "x" * 16385}
    assert "InvalidParameterValue" in refuse(ec2, "run_instances", ImageId=first.image, **huge)
    odd = {**one, "InstanceType": "t4g.tiny"}
    assert "InvalidInstanceType" in refuse(ec2, "run_instances", ImageId=first.image, **odd)
    unknown = {**one, "SecurityGroupIds": ["sg-0"]}
    assert "InvalidGroup.NotFound" in refuse(ec2, "run_instances", ImageId=first.image, **unknown)
    assert "InvalidVolume.NotFound" in refuse(
        ec2, "attach_volume", VolumeId="vol-0", InstanceId=first.id, Device="/dev/sdf"
    )
    ec2.attach_volume(VolumeId=volume, InstanceId=first.id, Device="/dev/sdf")
    for vm in (first, second):
        assert "VolumeInUse" in refuse(ec2, "attach_volume", VolumeId=volume, InstanceId=vm.id, Device="/dev/sdf")
    assert "VolumeInUse" in refuse(ec2, "delete_volume", VolumeId=volume)
    assert "smaller" in refuse(ec2, "modify_volume", VolumeId=volume, Size=0)
    ec2.detach_volume(VolumeId=volume)
    elsewhere = ec2.create_volume(Size=1, AvailabilityZone="eu-central-1b")["VolumeId"]
    assert "ZoneMismatch" in refuse(ec2, "attach_volume", VolumeId=elsewhere, InstanceId=first.id, Device="/dev/sdf")
    for each in (volume, elsewhere):
        ec2.delete_volume(VolumeId=each)
    assert "DependencyViolation" in refuse(ec2, "delete_security_group", GroupId=first.group)
    assert "10.213.128.0/17" in refuse(ec2, "allocate_address", Domain="vpc", Address="192.0.2.7")


def test_rules_of_every_kind_are_ones_that_nft_takes(server: Server, second: Vm) -> None:
    ec2, group = server.ec2, new_group(server.ec2, "everything")
    v4, v6 = [{"CidrIp": "10.213.1.2/24"}], [{"CidrIpv6": "::/0"}]
    kinds: list[dict[str, Any]] = [
        {"IpProtocol": "-1", "IpRanges": v4, "Ipv6Ranges": v6, "UserIdGroupPairs": [{"GroupId": second.group}]},
        {"IpProtocol": "udp", "FromPort": 0, "ToPort": 65535, "IpRanges": [{"CidrIp": ANYWHERE}]},
        {"IpProtocol": "icmp", "FromPort": 8, "ToPort": 0, "IpRanges": v4},
        {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": v4},
        {"IpProtocol": "icmpv6", "FromPort": 128, "ToPort": -1, "Ipv6Ranges": v6},
        {"IpProtocol": "50", "FromPort": -1, "ToPort": -1, "IpRanges": v4},
    ]
    both = [second.group, group]
    ec2.modify_instance_attribute(InstanceId=second.id, Groups=both)
    for kind in kinds:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[kind])
        ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[kind])
    leader = json.loads((second.directory / "machine.json").read_text())["leader"]
    rules = call("nsenter", f"--target={leader}", "--net", "nft", "list", "ruleset").out
    for part in ("10.213.1.0/24", "udp dport 0-65535", "echo-request", "icmpv6 type", second.address, "ip6 saddr"):
        assert re.search(rf"chain input(?s:.*){re.escape(part)}(?s:.*)chain output", rules), (part, rules)
    ec2.modify_instance_attribute(InstanceId=second.id, Groups=[second.group])
    ec2.delete_security_group(GroupId=group)


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_description_that_ec2_does_not_take_is_refused(server: Server, direction: str) -> None:
    group = new_group(server.ec2, f"described-{direction}")
    authorize = getattr(server.ec2, f"authorize_security_group_{direction}")
    for description, taken in (("for Debian's packages", False), ("SSH for users; [all] of them", True)):
        source = {"CidrIp": "10.213.1.0/24", "Description": description}
        kind = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [source]}
        if taken:
            authorize(GroupId=group, IpPermissions=[kind])
        else:
            with pytest.raises(ClientError, match="Invalid rule description"):
                authorize(GroupId=group, IpPermissions=[kind])
    server.ec2.delete_security_group(GroupId=group)
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        server.ec2.create_security_group(GroupName="odd", Description="Debian's")


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL", "owner"])
def test_a_server_that_ends_however_leaves_nothing_that_runs(tmp_path: Path, owner: int, end: str) -> None:
    with Server(tmp_path / "ec2", owner) as server:
        vm = Vm(server, tmp_path / "vm", ANYWHERE)
        volume, elastic = new_volume(server.ec2), server.ec2.allocate_address(Domain="vpc")["PublicIp"]
        server.ec2.associate_address(PublicIp=elastic, InstanceId=vm.id)
        server.ec2.attach_volume(VolumeId=volume, InstanceId=vm.id, Device="/dev/sdf")
        vm.root(f"mkfs.ext4 -q {name_of(volume)}; mount {name_of(volume)} /srv; (sleep 600 < /srv > /dev/null 2>&1 &)")
        kinds = {line.split()[0] for line in traces(server.directory, vm.address, elastic)}
        assert kinds == {"process", "loop", "link", "route", "group"}
        if end == "owner":
            os.kill(owner, signal.SIGKILL)
        else:
            server.process.send_signal(signal.Signals[end])
        server.process.wait(30)
        until_gone(server.directory, vm.address, elastic)


def test_a_directory_that_is_in_use_or_holds_something_else_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    for directory, words in ((server.directory, "another local_ec2 has"), (tmp_path, "holds 'precious'")):
        command = [sys.executable, "-m", "local_ec2", "--directory", directory]
        done = call(*command, env={**os.environ, "PYTHONPATH": str(ROOT / "toolchain")})
        assert done.code == 1
        [line] = done.err.splitlines()
        assert words in line
    assert (tmp_path / "precious").read_text() == "kept"
