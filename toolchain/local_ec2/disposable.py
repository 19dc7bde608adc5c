"""Part of a stand-in for EC2: the library that boots disposable machines, sftp_jail/hosts/machine.py.

It is loaded from its file because it is a program of its own: its package imports Pulumi, which takes a second.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftp_jail.hosts import machine
else:
    _file = Path(__file__).parents[2] / "sftp_jail" / "hosts" / "machine.py"
    _spec = importlib.util.spec_from_file_location("machine", _file)
    machine = importlib.util.module_from_spec(_spec)
    sys.modules["machine"] = machine
    _spec.loader.exec_module(machine)

__all__ = ["machine"]
