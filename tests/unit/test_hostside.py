"""jailctl as a program that is started once for each user."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

LARGE = {"argparse", "bz2", "hashlib", "ipaddress", "lzma", "pathlib", "random", "shutil", "ssl", "tarfile", "tempfile"}
"""Each takes milliseconds to read, and a user is made, changed and removed without it, or with it at the very end."""

LIST = "import sys; sys.path.insert(0, sys.argv[1]); import jailctl.__main__; print(*sys.modules)"


def test_jailctl_reads_no_large_module_before_a_verb_needs_it(tmp_path: Path) -> None:
    (tmp_path / "jailctl").symlink_to(ROOT / "sftp_jail" / "hostside")
    read = set(subprocess.check_output([sys.executable, "-IS", "-c", LIST, tmp_path], text=True).split())
    assert {"jailctl.__main__", "jailctl.accounts", "subprocess"} <= read
    assert read & LARGE == set()
