"""Part of a stand-in for EC2: the machines of this computer, made to agree with what moto says of EC2."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

from moto.ec2.models import ec2_backends
from moto.ec2.models.elastic_block_store import Volume
from moto.ec2.models.instances import Instance

from . import amis, firewall
from .addresses import UNKNOWN
from .disposable import machine
from .network import Network
from .vm import VM

GIB = 2**30


class Computer:
    """All VMs, and the files of all volumes, in one directory; what moto says is asked for anew each time."""

    def __init__(self, directory: Path) -> None:
        """Clear away what an earlier server left in the directory, which ended with it all the same."""
        self._vms: dict[str, VM] = {}
        self._instances, self._volumes = directory / "instances", directory / "volumes"
        for folder in self._instances.glob("*/machine"):
            machine.end(folder)
        for folder in (self._instances, self._volumes):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()

    def notice(self) -> bool:
        """Tell moto of VMs that have switched themselves off; whether there are any."""
        off = [i for i in instances() if i.is_running() and i.id in self._vms and not self._vms[i.id].is_running()]
        for instance in off:
            if instance.instance_initiated_shutdown_behavior == "terminate":
                instance.terminate()
            else:
                instance.stop()
        return bool(off)

    def settle(self) -> None:
        """Mend every difference between moto and the machines; `Problem` if some cannot be, all else is done."""
        problems = []
        for instance in instances():
            if instance.id in self._vms and not instance.is_running():
                self._vms[instance.id].shut_down()
        self._keep_files()
        for instance in filter(Instance.is_running, instances()):
            try:
                self._detach(instance)
                self._attach(instance)
                self._boot(instance)
            except (machine.Problem, OSError) as problem:
                problems.append(f"{instance.id}: {problem}")
                self._give_up(instance)
        for instance in instances():
            if instance.id in self._vms:
                show_address(instance, self._vms[instance.id])
                if instance.is_running():
                    self._vms[instance.id].connect(self._network(instance))
                if instance.state == "terminated":
                    self._vms.pop(instance.id).remove()
                    leave_addresses(instance)
        if problems:
            raise machine.Problem("; ".join(problems))

    def end(self) -> None:
        """End all of it at once."""
        for vm in self._vms.values():
            vm.cut_power()

    def reboot(self, instance_id: str) -> None:
        """Reboot a VM that runs."""
        self._vms[instance_id].reboot()

    def is_mounted(self, volume: Volume) -> bool:
        """Whether a file system of the volume is in use."""
        vm = self._vms.get(volume.attachment.instance_id) if volume.attachment else None
        return vm is not None and vm.is_mounted(volume.id)

    def console(self, instance_id: str) -> str:
        """What a VM said while it booted, also when it is gone."""
        try:
            return (self._instances / instance_id / "console.log").read_text(errors="replace").replace("\r", "")
        except FileNotFoundError:
            return ""

    def _file(self, volume_id: str) -> Path:
        return self._volumes / volume_id

    def _keep_files(self) -> None:
        """A sparse file for each volume, as large as that, and none else."""
        wanted = {volume.id: volume.size * GIB for volume in volumes()}
        for file in self._volumes.iterdir():
            if file.name not in wanted:
                self._let_go(file.name)
                file.unlink()
        for volume_id, size in wanted.items():
            with open(self._file(volume_id), "ab") as opened:
                if opened.tell() == size:
                    continue
                opened.truncate(size)
            for vm in self._vms.values():
                if volume_id in vm.volumes():
                    vm.grow(volume_id)

    def _let_go(self, volume_id: str) -> None:
        for vm in self._vms.values():
            if volume_id in vm.volumes():
                vm.detach(volume_id)

    def _vm(self, instance: Instance) -> VM:
        if instance.id not in self._vms:
            release = amis.release(instance.ec2_backend, instance.image_id)
            self._vms[instance.id] = VM(self._instances / instance.id, instance.id, instance.image_id, release)
        return self._vms[instance.id]

    def _detach(self, instance: Instance) -> None:
        vm = self._vm(instance)
        for volume_id in set(vm.volumes()) - {volume.id for volume in attached(instance)}:
            vm.detach(volume_id)

    def _attach(self, instance: Instance) -> None:
        vm = self._vm(instance)
        for volume in attached(instance):
            if volume.id not in vm.volumes():
                vm.attach(volume.id, self._file(volume.id))

    def _boot(self, instance: Instance) -> None:
        vm = self._vms[instance.id]
        if not vm.is_running():
            vm.boot(base64.b64decode(str(instance.user_data or "")), self._network(instance))

    def _give_up(self, instance: Instance) -> None:
        """A VM that never ran is terminated, as on EC2; another one is off."""
        vm = self._vms[instance.id]
        vm.cut_power()
        if vm.address is None:
            instance.terminate()
        else:
            instance.stop()

    def _network(self, instance: Instance) -> Network:
        elastic = frozenset(e.public_ip for e in instance.ec2_backend.addresses if e.eni is instance.nics[0])
        return Network(firewall.ruleset(instance.nics[0].group_set, self._members), elastic)

    def _members(self, group_id: str) -> Iterator[str]:
        for instance in instances():
            in_group = instance.is_running() and group_id in {group.id for group in instance.nics[0].group_set}
            vm = self._vms.get(instance.id)
            if in_group and vm is not None and vm.address is not None:
                yield vm.address


def instances() -> list[Instance]:
    """Every instance that moto knows, of all regions."""
    return [
        i for account in list(ec2_backends.values()) for backend in account.values() for i in backend.all_instances()
    ]


def volumes() -> Iterator[Volume]:
    """Every volume but those that a VM has as its root, whose files are the machine's own."""
    for account in list(ec2_backends.values()):
        for backend in account.values():
            yield from (volume for volume in backend.volumes.values() if not is_root(volume))


def attached(instance: Instance) -> list[Volume]:
    """The volumes that an instance has beside its root."""
    return [v for v in volumes() if v.attachment and v.attachment.instance_id == instance.id]


def is_root(volume: Volume) -> bool:
    """Whether an instance has the volume as its root."""
    attachment = volume.attachment
    return attachment is not None and attachment.device == attachment.instance.root_device_name


def show_address(instance: Instance, vm: VM) -> None:
    """Tell moto what the VM's address is."""
    nic = instance.nics[0]
    if vm.address is None:
        return
    nic.private_ip_address = vm.address
    nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": vm.address}]
    if nic.public_ip == UNKNOWN:
        nic.public_ip = vm.address


def leave_addresses(instance: Instance) -> None:
    """Free the Elastic IPs of an instance that is gone, as EC2 does and moto does not."""
    for elastic in instance.ec2_backend.addresses:
        if elastic.eni is instance.nics[0]:
            instance.ec2_backend.disassociate_address(elastic.public_ip)
