"""What a test machine with disks leaves behind."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import call, until
from tests.disks import DISK, MachineWithDisks


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_machine_that_is_gone_has_let_go_of_its_disks(tmp_path: Path, end: str) -> None:
    machine = MachineWithDisks(tmp_path, "trixie")
    try:
        machine.root("sh", "-c", f"truncate -s 16M {DISK}/inner.img && mkfs.ext4 -q {DISK}/inner.img")
        machine.root("mount", "-o", "loop", f"{DISK}/inner.img", "/mnt")
        attached = call("losetup", "--all").out
        assert str(tmp_path) in attached
        assert f"{DISK}/inner.img" in attached
        if end == "killed":
            os.kill(int((tmp_path / "machine" / "supervisor.pid").read_text()), signal.SIGKILL)
            until(lambda: str(tmp_path) not in call("losetup", "--all").out, "the end of its disks")
    finally:
        machine.stop()
    until(lambda: str(tmp_path) not in call("losetup", "--all").out, "the end of its disks")
