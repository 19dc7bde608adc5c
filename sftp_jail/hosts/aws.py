"""AwsHost: a VM on AWS with a data volume and an address that outlive it.

Needs pulumi-aws, which is large: `pip install 'sftp-jail[aws]'`. Nothing else imports this file.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pulumi
import pulumi_aws as aws
from pulumi_command import local
from pulumi_command.remote import ConnectionArgs

from ..faults import Fault, checked, examine, raise_any
from ..hostside.validate import (
    WIDEST,
    Invalid,
    check_address,
    check_private_key,
    normalise_key,
    normalise_network,
    normalise_source,
    show,
)
from ..remote import command
from . import DIALS, Host

ADMIN = "admin"
"""The administrator, whom cloud-init makes: not root, and sudo asks it no password."""

DEBIAN = "136693071363"
"""The AWS account of Debian's official images (wiki.debian.org/Cloud/AmazonEC2Image)."""

RELEASES = {"bullseye": 11, "bookworm": 12, "trixie": 13}

INSTANCE_TYPES = {"arm64": "t4g.small", "amd64": "t3.small"}
"""By Debian's name of the architecture, the instance type that is the default for it."""

AWS_ARCHITECTURES = {"arm64": "arm64", "amd64": "x86_64"}

EGRESS = {80: "Debian packages", 443: "Debian packages"}
"""The TCP ports that the VM may reach; DNS and time come from Amazon's own addresses, which no group filters."""

ROOT_SIZE = 10
"""GiB of the VM's own disk, which nothing but the system and its logs need; Debian's images take 8."""

MOUNT = "python3 -I -c 'import json, sys; spec = json.load(sys.stdin); exec(spec[\"program\"])'"
"""Runs data_volume.py out of the JSON map that stdin carries."""

KEPT = "The data volume {0} stays in the account. Another stack takes it over by dataVolumeId: {0}\n"
DELETED = "The data volume {0} is deleted, as deleteData says\n"

MAKE_HOST_KEY = (
    "folder=$(mktemp -d) && trap 'rm -rf \"$folder\"' EXIT"
    ' && ssh-keygen -q -t ed25519 -N "" -C "" -f "$folder/key" && cat "$folder/key" "$folder/key.pub"'
)


@dataclass(kw_only=True)
class DnsArgs:
    """A name for the VM, in a zone of Route 53."""

    zone_id: pulumi.Input[str]
    """The hosted zone's id, `Z...`."""

    name: pulumi.Input[str]
    """The whole name, `sftp.example.org`."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from examine(f"{path}.zoneId", check_like(r"[A-Z0-9]+", "the id of a hosted zone", "Z..."), self.zone_id)
        yield from examine(f"{path}.name", check_address, self.name)


@dataclass(kw_only=True)
class AwsHostArgs:
    """A VM on AWS; region and credentials are pulumi-aws's own (`aws:region`)."""

    administrator_key: pulumi.Input[str]
    """The administrator's SSH public key; another one replaces the VM."""

    allowed_cidrs: Sequence[str]
    """From where users may connect, as IPv4 ranges: `203.0.113.0/24`. `0.0.0.0/0` needs `allow_anyone`."""

    user_cidrs: Sequence[str] = ()
    """More ranges that users may connect from: what their own `allow_from` names. Those of IPv6 are passed over, since
    the VM has none. Default: none."""

    siem_port: Optional[int] = None
    """The TCP port of who else is sent the log (`SftpJailArgs.siem`), which the VM may reach then. Default: none."""

    administrator_cidrs: Optional[Sequence[str]] = None
    """From where the administrator, and Pulumi, may connect. Default: as `allowed_cidrs`. Never the whole Internet."""

    allow_anyone: bool = False
    """Whether `allowed_cidrs` may be the whole Internet. Default: False."""

    private_key: Optional[pulumi.Input[str]] = field(default=None, repr=False)
    """The text of the administrator's private key, without a passphrase; kept as a secret. Default: the SSH agent."""

    architecture: str = "arm64"
    """`arm64` or `amd64`. Default: arm64."""

    instance_type: Optional[str] = None
    """Of a kind on the Nitro system. Default: t4g.small, or t3.small for amd64."""

    release: str = "trixie"
    """The Debian release: `bullseye`, `bookworm` or `trixie`. Default: trixie."""

    image: Optional[str] = None
    """`newest`: Debian's newest image at every `up`, which replaces the VM whenever there is one; or `ami-...`.
    Default: the newest at the first `up`, and that one ever after."""

    subnet_id: Optional[pulumi.Input[str]] = None
    """The subnet, `subnet-...`, with a way to the Internet. Default: the default VPC's."""

    data_volume_size: int = 20
    """GiB of the data volume, which can only grow. Default: 20."""

    data_volume_id: Optional[str] = None
    """A volume, `vol-...`, that an earlier stack has left. Default: a new one."""

    delete_data: bool = False
    """Whether `destroy` deletes the data volume; it counts once `up` has put it into the state. Default: False."""

    dns: Optional[DnsArgs] = None
    """A DNS name. Default: none, users go by the address."""

    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags for everything that is made. Default: none."""

    def faults(self, path: str) -> Iterator[Fault]:
        """What is wrong with the plain values; `path` is the place of these args."""
        yield from examine(f"{path}.administratorKey", normalise_key, self.administrator_key)
        if self.private_key is not None:
            yield from examine(f"{path}.privateKey", check_private_key, self.private_key)
        yield from _range_faults(
            f"{path}.allowedCidrs", self.allowed_cidrs, None if self.allow_anyone else USERS_REMEDY
        )
        for number, cidr in enumerate(self.user_cidrs):
            yield from examine(f"{path}.userCidrs[{number}]", normalise_source, cidr)
        if self.administrator_cidrs is not None or self.allow_anyone:
            place = "administratorCidrs" if self.administrator_cidrs is not None else "allowedCidrs"
            yield from _range_faults(f"{path}.{place}", self.administration, ADMINISTRATION_REMEDY)
        for name, value, known in (
            ("architecture", self.architecture, list(INSTANCE_TYPES)),
            ("release", self.release, list(RELEASES)),
        ):
            if value not in known:
                yield Fault(f"{path}.{name}", "not one that is supported", f"Use {' or '.join(known)}", show(value))
        for name, given, check in (
            (
                "instanceType",
                self.instance_type,
                check_like(r"[a-z0-9-]+\.[a-z0-9-]+", "an instance type", "t4g.small"),
            ),
            ("image", self.image, check_like(r"newest|ami-[0-9a-f]+", "an image", "newest, or ami-...")),
            ("subnetId", self.subnet_id, check_like(r"subnet-[0-9a-f]+", "the id of a subnet", "subnet-...")),
            ("dataVolumeId", self.data_volume_id, check_like(r"vol-[0-9a-f]+", "the id of a volume", "vol-...")),
        ):
            if given is not None:
                yield from examine(f"{path}.{name}", check, given)
        if isinstance(self.data_volume_size, bool) or not isinstance(self.data_volume_size, int):
            yield Fault(
                f"{path}.dataVolumeSize", "not a number of GiB", "Write it without a unit and without quotes, 20"
            )
        elif not 1 <= self.data_volume_size <= 65536:  # gp3's limits
            yield Fault(
                f"{path}.dataVolumeSize", "not a size of a volume", "Use 1 to 65536 GiB", show(self.data_volume_size)
            )
        if self.dns is not None:
            yield from self.dns.faults(f"{path}.dns")

    @property
    def administration(self) -> Sequence[str]:
        """From where the administrator may connect."""
        return self.administrator_cidrs if self.administrator_cidrs is not None else self.allowed_cidrs


USERS_REMEDY = "Name the users' networks; or set allowAnyone: true, if their addresses cannot be known"
ADMINISTRATION_REMEDY = "Name the network of the administrators and of CI in administratorCidrs"


def check_cidr(value: object) -> None:
    """An IPv4 network, `203.0.113.0/24`; raises `Invalid`."""
    if ":" in normalise_network(value):
        raise Invalid("a range of IPv6 addresses, and the VM has none", "Name an IPv4 network", show(value))


def check_like(pattern: str, what: str, example: str) -> Any:
    """A check that a text is like the pattern; it raises `Invalid`."""

    def check(value: object) -> None:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise Invalid(f"not {what}", f"It looks like this: {example}", show(value))

    return check


def _range_faults(path: str, ranges: object, remedy_for_all: Optional[str]) -> Iterator[Fault]:
    """What is wrong with a list of ranges; with a remedy, the whole Internet is."""
    if not isinstance(ranges, Sequence) or isinstance(ranges, str):
        yield Fault(path, "not a list", "Write it like this: ['203.0.113.0/24']", show(ranges))
        return
    if not ranges:
        yield Fault(path, "empty, so nobody could connect", "Name a network: ['203.0.113.0/24']")
    for place, cidr in enumerate(ranges):
        found = list(examine(f"{path}[{place}]", check_cidr, cidr))
        yield from found
        if not found and remedy_for_all and ipaddress.IPv4Network(cidr).prefixlen < WIDEST[4]:
            yield Fault(f"{path}[{place}]", "the whole Internet, or much of it", remedy_for_all, show(cidr))


class AwsHost(Host):
    """A VM, its address, its data volume, and a security group that lets nothing in but SSH.

    The data volume, the address and the host key outlive the VM: another image makes a new VM with these, and so
    with every user and file. `destroy` leaves the data volume in the account, unless told otherwise.

    :raises ConfigError: where the args have faults; no resource is registered then
    """

    ours = True
    quotas = "btrfs"

    def __init__(self, name: str, args: AwsHostArgs, opts: Optional[pulumi.ResourceOptions] = None) -> None:
        raise_any(args.faults(name))
        super().__init__("sftp-jail:index:AwsHost", name, None, opts)
        self._name, self._args = name, args

        private_host_key, host_key = self._host_key()
        volume, subnet = self._volume_and_subnet()
        self._volume_id = volume.id
        instance = aws.ec2.Instance(
            name,
            ami=self._image(),
            instance_type=args.instance_type if args.instance_type is not None else INSTANCE_TYPES[args.architecture],
            subnet_id=subnet.id,
            # Until it has the address that stays, it needs one to install packages.
            associate_public_ip_address=True,
            vpc_security_group_ids=[self._security_group(subnet.vpc_id)],
            user_data=self._user_data(private_host_key, host_key),
            user_data_replace_on_change=True,
            root_block_device=aws.ec2.InstanceRootBlockDeviceArgs(
                encrypted=True, volume_type="gp3", volume_size=ROOT_SIZE, tags=self._tags()
            ),
            metadata_options=aws.ec2.InstanceMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            tags=self._tags(),
            # A volume can be deleted only when nothing has it any more.
            opts=self._child(depends_on=[volume]),
        )
        address = aws.ec2.Eip(name, domain="vpc", tags=self._tags(), opts=self._child())
        association = aws.ec2.EipAssociation(
            name,
            allocation_id=address.allocation_id,
            instance_id=instance.id,
            allow_reassociation=True,
            opts=self._child(),
        )
        attachment = aws.ec2.VolumeAttachment(
            name,
            device_name="/dev/sdf",
            instance_id=instance.id,
            volume_id=volume.id,
            # So that all that was written is on it before it moves to the next VM.
            stop_instance_before_detaching=True,
            # One VM at a time can have it.
            opts=self._child(delete_before_replace=True),
        )

        self.address = address.public_ip
        self.port = pulumi.Output.from_input(22)
        self.host_key = host_key
        self.connection = self._connection(address.public_ip)
        self.deleted_with = instance
        self.sftp_options = []
        if args.dns is not None:
            record = aws.route53.Record(
                name,
                zone_id=args.dns.zone_id,
                name=args.dns.name,
                type="A",
                ttl=300,
                records=[address.public_ip],
                opts=self._child(),
            )
            self.address = record.fqdn
        self._mount(volume, [association, attachment])
        self.register_outputs(
            {"address": self.address, "port": self.port, "hostKey": self.host_key, "dataVolume": volume.id}
        )

    @property
    def exports(self) -> Mapping[str, Any]:
        """As any host's, and `dataVolume`: the volume's id."""
        return {**super().exports, "dataVolume": self._volume_id}

    def _child(self, **options: Any) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, **options)

    def _tags(self) -> dict[str, str]:
        return {"Name": f"{pulumi.get_project()}-{pulumi.get_stack()}", **self._args.tags}

    def _host_key(self) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """The VM's SSH host key, private and public: made once, whatever becomes of the VM and of this program."""
        made = local.Command(
            f"{self._name}-host-key",
            create=MAKE_HOST_KEY,
            logging=local.Logging.NONE,
            add_previous_output_in_env=False,
            opts=self._child(additional_secret_outputs=["stdout"], ignore_changes=["*"]),
        )
        halves = made.stdout.apply(lambda text: text.strip().rsplit("\n", 1))
        public = pulumi.Output.unsecret(halves.apply(lambda pair: normalise_key(pair[1])))
        return halves.apply(lambda pair: f"{pair[0]}\n"), public

    def _image(self) -> pulumi.Input[str]:
        args = self._args
        if args.image is not None and args.image != "newest":
            return args.image
        newest = aws.ec2.get_ami_output(
            owners=[DEBIAN],
            most_recent=True,
            filters=[
                {"name": "name", "values": [f"debian-{RELEASES[args.release]}-{args.architecture}-*"]},
                {"name": "architecture", "values": [AWS_ARCHITECTURES[args.architecture]]},
                {"name": "root-device-type", "values": ["ebs"]},
            ],
            opts=pulumi.InvokeOutputOptions(parent=self),
        ).id
        if args.image == "newest":
            return newest
        # Keeps what it was made with; another release or architecture is another resource, and so another choice.
        chosen = pulumi.Stash(
            f"{self._name}-image-{args.release}-{args.architecture}",
            input=newest,
            opts=self._child(ignore_changes=["input"]),
        )
        return chosen.output

    def _volume_and_subnet(self) -> tuple[aws.ebs.Volume, pulumi.Output[Any]]:
        """The data volume, and the subnet in the same availability zone, which a volume never leaves."""
        args = self._args
        invoke = pulumi.InvokeOutputOptions(parent=self)
        if args.subnet_id is not None:
            first = pulumi.Output.from_input(args.subnet_id)
        else:
            subnets = aws.ec2.get_subnets_output(filters=[{"name": "default-for-az", "values": ["true"]}], opts=invoke)
            first = subnets.ids.apply(min)
        zone = aws.ec2.get_subnet_output(id=first, opts=invoke).availability_zone
        volume = aws.ebs.Volume(
            f"{self._name}-data",
            availability_zone=zone,
            size=args.data_volume_size,
            type="gp3",
            encrypted=True,
            tags=self._tags(),
            opts=self._child(
                retain_on_delete=not args.delete_data,
                import_=args.data_volume_id,
                # Where it is, it stays: another zone would be another, empty volume.
                ignore_changes=["availabilityZone"],
            ),
        )
        local.Command(
            f"{self._name}-data-notice",
            # Told by `destroy`, which says of itself only that it retains something.
            delete="cat",
            stdin=volume.id.apply(DELETED.format if args.delete_data else KEPT.format),
            logging=local.Logging.STDOUT,
            add_previous_output_in_env=False,
            opts=self._child(),
        )
        if args.subnet_id is not None:
            subnet = aws.ec2.get_subnet_output(id=args.subnet_id, opts=invoke)
            zones = pulumi.Output.all(subnet, volume.availability_zone, volume.id)
            return volume, zones.apply(lambda found: _in_zone(self._name, *found))
        return volume, aws.ec2.get_subnet_output(
            availability_zone=volume.availability_zone, default_for_az=True, opts=invoke
        )

    def _security_group(self, vpc: pulumi.Input[str]) -> pulumi.Output[str]:
        """SSH in, from those who may; what updates need, out."""
        group = aws.ec2.SecurityGroup(
            f"{self._name}-ssh",
            vpc_id=vpc,
            description="SSH to the SFTP host; out, what updates need",
            tags=self._tags(),
            opts=self._child(),
        )
        who: dict[str, list[str]] = {}
        for cidr in self._args.allowed_cidrs:
            who.setdefault(cidr, []).append("users")
        for cidr in self._args.administration:
            who.setdefault(cidr, []).append("administrator")
        for cidr in self._args.user_cidrs:
            network = ipaddress.ip_network(cidr)
            if isinstance(network, ipaddress.IPv4Network) and not any(
                network.subnet_of(ipaddress.IPv4Network(allowed)) for allowed in self._args.allowed_cidrs
            ):
                who.setdefault(str(network), []).append("users")
        for cidr, names in who.items():
            aws.vpc.SecurityGroupIngressRule(
                f"{self._name}-ssh-from-{cidr}",
                security_group_id=group.id,
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=22,
                to_port=22,
                description=f"SSH for {' and '.join(dict.fromkeys(names))}",
                tags=self._tags(),
                opts=self._child(),
            )
        siem = {self._args.siem_port: "Receiver of the log"} if self._args.siem_port is not None else {}
        for port, purpose in {**siem, **EGRESS}.items():
            aws.vpc.SecurityGroupEgressRule(
                f"{self._name}-to-port-{port}",
                security_group_id=group.id,
                cidr_ipv4="0.0.0.0/0",
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                description=purpose,
                tags=self._tags(),
                opts=self._child(),
            )
        return group.id

    def _user_data(self, private_host_key: pulumi.Input[str], host_key: pulumi.Input[str]) -> pulumi.Output[str]:
        """What cloud-init does at the first boot, before sshd starts: the host key and the administrator; then the
        packages that the jail needs. As JSON, which is YAML."""
        administrator_key = checked(f"{self._name}.administratorKey", normalise_key, self._args.administrator_key)
        config = pulumi.Output.json_dumps(
            {
                "ssh_deletekeys": True,
                "ssh_keys": {"ed25519_private": private_host_key, "ed25519_public": host_key},
                "users": [
                    {
                        "name": ADMIN,
                        "lock_passwd": True,
                        "shell": "/bin/bash",
                        "ssh_authorized_keys": [administrator_key.apply(normalise_key)],
                        "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    }
                ],
                "disable_root": True,
                "ssh_pwauth": False,
                "package_update": True,
                "packages": ["btrfs-progs", "rsyslog"],
            },
            sort_keys=True,
        )
        return pulumi.Output.secret(pulumi.Output.concat("#cloud-config\n", config, "\n"))

    def _connection(self, address: pulumi.Input[str], **dials: int) -> ConnectionArgs:
        key = self._args.private_key
        return ConnectionArgs(
            host=address,
            port=22,
            user=ADMIN,
            host_key=self.host_key,
            **{**DIALS, **dials},
            private_key=pulumi.Output.secret(key) if key is not None else None,
        )

    def _mount(self, volume: aws.ebs.Volume, after: Sequence[pulumi.Resource]) -> None:
        """The data volume at /sftp of the VM, as soon as that answers."""
        program = Path(__file__).with_name("data_volume.py").read_text("utf-8")
        device = volume.id.apply(
            # udev's name for it, on a Nitro VM.
            lambda volume_id: f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume_id.replace('-', '')}"
        )
        command(
            f"{self._name}-data-volume",
            self,
            create=MOUNT,
            delete=None,
            stdin=pulumi.Output.json_dumps(
                {"device": device, "program": program, "size": self._args.data_volume_size}, sort_keys=True
            ),
            opts=self._child(depends_on=after),
            # A new VM takes its minute.
            connection=self._connection(self.connection.host, dial_error_limit=40),
        )


def _in_zone(name: str, subnet: Any, zone: str, volume: str) -> Any:
    """The subnet, if the data volume can be attached to a VM in it."""
    if subnet.availability_zone != zone:
        raise_any(
            [
                Fault(
                    f"{name}.subnetId",
                    f"in {subnet.availability_zone}, and the data volume {volume} is in {zone}",
                    "Name a subnet there; or make a snapshot of the volume, and from it a volume in the other zone",
                    show(subnet.id),
                )
            ]
        )
    return subnet
