"""Part of a stand-in for EC2: moto's answers, given when the machines agree with them.

Where moto accepts what EC2 refuses, and a machine would show it, it is refused here, with EC2's own error code
(docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).
"""

import base64
import ipaddress
import re
import sys
import threading
import traceback
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.instances import Instance
from moto.ec2.responses import EC2Response

from . import amis
from .addresses import ELASTIC
from .computer import Computer
from .disposable import machine

LOCK = threading.RLock()
"""Held from a request's arrival until it is answered."""

USER_DATA_BYTES = 16384

DESCRIPTION = re.compile(r"[A-Za-z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}")
"""Of a security group, and of a rule of one (IpRange, API reference)."""

READING = ("Describe", "Get")


class Api(EC2Response):
    """EC2's actions. `computer` is set before the first request."""

    computer: Computer

    def call_action(self) -> Any:
        """Answer a request; what has happened to machines since the last one is known by then."""
        with LOCK:
            try:
                if self.computer.notice():
                    self._settle()
                return super().call_action()
            except Exception as fault:
                # What moto has no answer for, and our own faults: a client retries what is not in EC2's form.
                traceback.print_exc()
                return super().serialized(ActionResult(EC2ClientError("InternalFailure", repr(fault))))

    def serialized(self, action_result: ActionResult) -> Any:
        """The answer, or an InternalError where machines cannot be made to agree with it."""
        # After a refusal too, because moto may have done half of what it was asked for.
        if not self._get_action().startswith(READING):
            try:
                self._settle()
            except machine.Problem as problem:
                action_result = ActionResult(EC2ClientError("InternalError", str(problem)))
        return super().serialized(action_result)

    def _settle(self) -> None:
        try:
            self.computer.settle()
        except (machine.Problem, OSError) as fault:
            # XML has no words for most control characters, and consoles are full of them.
            text = "".join(character for character in str(fault) if character.isprintable() or character == "\n")
            print(f"local_ec2: {text}", file=sys.stderr, flush=True)
            raise machine.Problem(text) from fault

    # Instances

    def run_instances(self) -> ActionResult:
        """Boot them; a request that is sent again, since the first was not answered in time, boots no others."""
        if token := self._get_param("ClientToken"):
            for known in self.ec2_backend.reservations.values():
                if known.instances and known.instances[0].client_token == token:
                    return ActionResult(known)
        ami_id = self._get_param("ImageId")
        try:
            amis.release(self.ec2_backend, ami_id)
        except (KeyError, ValueError, AttributeError):
            raise EC2ClientError("InvalidAMIID.NotFound", f"The image id '[{ami_id}]' does not exist") from None
        if len(decoded(self._get_param("UserData"))) > USER_DATA_BYTES:
            raise EC2ClientError("InvalidParameterValue", "User data is limited to 16384 bytes")
        root = self.ec2_backend.amis[ami_id].root_device_name
        mappings = self._get_param("BlockDeviceMappings", [])
        for mapping in mappings:
            disk = mapping.get("Ebs", {})
            if disk.get("SnapshotId") and mapping.get("DeviceName") != root:
                refuse_snapshots()
            disk.setdefault("DeleteOnTermination", True)
        if root not in [mapping.get("DeviceName") for mapping in mappings]:
            default = {"VolumeSize": 8, "VolumeType": "gp2", "DeleteOnTermination": True}
            self.params["BlockDeviceMappings"] = [*mappings, {"DeviceName": root, "Ebs": default}]
        result = super().run_instances()
        reservation: Any = result.result
        for instance in reservation.instances:
            nic = instance.nics[0]
            nic.delete_on_termination = True
            instance.security_groups = list(nic.group_set)
        return result

    def start_instances(self) -> ActionResult:
        """Boot what is off."""
        self._refuse_terminated()
        return super().start_instances()

    def stop_instances(self) -> ActionResult:
        """Shut down."""
        self._refuse_terminated()
        return super().stop_instances()

    def terminate_instances(self) -> ActionResult:
        """Shut down for good; again is no fault."""
        wanted = self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", []))
        gone = {instance.id for instance in wanted if instance.state == "terminated"}
        if not gone:
            return super().terminate_instances()
        if rest := [instance.id for instance in wanted if instance.id not in gone]:
            self.ec2_backend.terminate_instances(rest)
        state = {"Code": 48, "Name": "terminated"}
        return ActionResult(
            {
                "TerminatingInstances": [
                    {"InstanceId": instance.id, "CurrentState": state, "PreviousState": state} for instance in wanted
                ]
            }
        )

    def reboot_instances(self) -> ActionResult:
        """Reboot, and be back."""
        for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
            if not instance.is_running():
                refuse_state(instance)
        result = super().reboot_instances()
        for instance_id in self._get_param("InstanceIds"):
            try:
                self.computer.reboot(instance_id)
            except machine.Problem as problem:
                raise EC2ClientError("InternalError", str(problem)) from problem
        return result

    def modify_instance_attribute(self) -> ActionResult:
        """What moto can change, and what it takes for a change of groups to none."""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        behavior = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if behavior is not None:
            instance.instance_initiated_shutdown_behavior = behavior
            return ActionResult({})
        for name in ("UserData", "InstanceType"):
            given = self._get_param(f"{name}.Value") is not None
            if (given or self._get_param("Attribute", "").lower() == name.lower()) and instance.state != "stopped":
                refuse_state(instance)
        if (plain := self._get_param("UserData.Value")) is not None:
            # The request's own base64 is off by now; moto expects another one below it.
            instance.user_data = Base64EncodedString.from_encoded_bytes(base64.b64encode(plain))
            return ActionResult({})
        result = super().modify_instance_attribute()
        if self._get_param("Groups"):
            instance.nics[0]._group_set = list(instance.security_groups)
        return result

    def modify_network_interface_attribute(self) -> ActionResult:
        """The groups of an instance are those of its first interface."""
        result = super().modify_network_interface_attribute()
        nic = self.ec2_backend.get_network_interface(self._get_param("NetworkInterfaceId"))
        if self._get_param("Groups") and nic.instance is not None:
            nic.instance.security_groups = list(nic._group_set)
        return result

    def get_console_output(self) -> ActionResult:
        """What the VM said while it booted."""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        text = self.computer.console(instance.id)
        output = Base64EncodedString.from_raw_string(text)
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    def _refuse_terminated(self) -> None:
        for instance in self.ec2_backend.get_multi_instances_by_id(self._get_param("InstanceIds", [])):
            if instance.state == "terminated":
                refuse_state(instance)

    # Volumes

    def create_volume(self) -> ActionResult:
        """An empty one."""
        if self._get_param("SnapshotId"):
            refuse_snapshots()
        return super().create_volume()

    def modify_volume(self) -> ActionResult:
        """Let it grow."""
        volume, size = self._volume(), self._get_param("Size")
        if size is not None and size < volume.size:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"New size cannot be smaller than existing size: {size} < {volume.size}",
            )
        return super().modify_volume()

    def attach_volume(self) -> ActionResult:
        """Show it in the VM."""
        volume = self._volume()
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        device = self._get_param("Device")
        if volume.attachment is not None:
            raise EC2ClientError(
                "VolumeInUse", f"{volume.id} is already attached to an instance: {volume.attachment.instance_id}"
            )
        if instance.state == "terminated":
            refuse_state(instance)
        if volume.availability_zone != instance.availability_zone:
            raise EC2ClientError(
                "InvalidVolume.ZoneMismatch",
                f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
            )
        if device in instance.block_device_mapping:
            raise EC2ClientError(
                "InvalidParameterValue",
                f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
            )
        return super().attach_volume()

    def detach_volume(self) -> ActionResult:
        """Take it away; EC2 waits for ever for a mounted one, here it is refused."""
        volume = self._volume()
        if volume.attachment is not None and volume.attachment.instance.is_running():
            if volume.attachment.device == volume.attachment.instance.root_device_name:
                raise EC2ClientError("OperationNotPermitted", "Unable to detach root volume of a running instance")
            if self.computer.is_mounted(volume):
                raise EC2ClientError("IncorrectState", f"The volume '{volume.id}' is mounted: unmount it in the VM")
        if volume.attachment is not None:  # moto wants to be told what it knows
            self.params.setdefault("InstanceId", volume.attachment.instance_id)
        return super().detach_volume()

    def _volume(self) -> Volume:
        return self.ec2_backend.get_volume(self._get_param("VolumeId"))

    # Addresses

    def allocate_address(self) -> ActionResult:
        """One of our own range."""
        wanted = self._get_param("Address")
        if wanted is not None and ipaddress.ip_address(wanted) not in ELASTIC:
            raise EC2ClientError("InvalidParameterValue", f"{wanted} is not in {ELASTIC}, where this EC2's are")
        return super().allocate_address()

    def associate_address(self) -> ActionResult:
        """Move it; the VM that had it has it no more."""
        before = [(elastic, elastic.eni) for elastic in self.ec2_backend.addresses]
        result = super().associate_address()
        for elastic, nic in before:
            if nic is not None and nic is not elastic.eni and nic.public_ip == elastic.public_ip:
                nic.public_ip = None
                nic.check_auto_public_ip()
        return result

    def release_address(self) -> ActionResult:
        """Give it back, if nobody has it."""
        wanted = (self._get_param("AllocationId"), self._get_param("PublicIp"))
        for elastic in self.ec2_backend.addresses:
            if elastic.eni is not None and (elastic.allocation_id in wanted or elastic.public_ip in wanted):
                raise EC2ClientError("InvalidIPAddress.InUse", f"Address {elastic.public_ip} is in use.")
        return super().release_address()

    # Security groups

    def create_security_group(self) -> ActionResult:
        """Make it."""
        refuse_description(self._get_param("Description"))
        return super().create_security_group()

    def authorize_security_group_ingress(self) -> ActionResult:
        """Let something in."""
        self._refuse_descriptions_of_rules()
        return super().authorize_security_group_ingress()

    def authorize_security_group_egress(self) -> ActionResult:
        """Let something out."""
        self._refuse_descriptions_of_rules()
        return super().authorize_security_group_egress()

    def _refuse_descriptions_of_rules(self) -> None:
        for permission in self._get_param("IpPermissions", []):
            for kind in ("IpRanges", "Ipv6Ranges", "PrefixListIds", "Groups"):
                for source in permission.get(kind, []):
                    refuse_description(source.get("Description"))

    def delete_security_group(self) -> ActionResult:
        """Forget it, if nothing has it."""
        wanted = (self._get_param("GroupId"), self._get_param("GroupName"))
        for group in self.ec2_backend.describe_security_groups():
            if group.id not in wanted and group.name not in wanted:
                continue
            if any(group in nic.group_set for nic in self.ec2_backend.enis.values()):
                raise EC2ClientError("DependencyViolation", f"resource {group.id} has a dependent object")
        return super().delete_security_group()


def decoded(user_data: Any) -> bytes:
    """User data as it was before base64; nothing where there is none, or where it is no base64, which moto refuses."""
    try:
        return Base64EncodedString(str(user_data)).decode("latin-1").encode("latin-1") if user_data else b""
    except ValueError:
        return b""


def refuse_description(text: Any) -> None:
    """Say that it has a character which EC2 does not take."""
    if text and not DESCRIPTION.fullmatch(text):
        allowed = "strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*"
        raise EC2ClientError("InvalidParameterValue", f"Invalid rule description. Valid descriptions are {allowed}")


def refuse_state(instance: Instance) -> None:
    """Say that the instance is in no state for this."""
    raise EC2ClientError(
        "IncorrectInstanceState", f"The instance '{instance.id}' is not in a state for this: {instance.state}"
    )


def refuse_snapshots() -> None:
    """Say that there are none."""
    raise EC2ClientError("UnsupportedOperation", "this stand-in for EC2 keeps no snapshots: leave SnapshotId out")
