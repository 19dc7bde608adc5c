"""Which systems jailctl is for."""

from pathlib import Path

import pytest

from sftp_jail.hostside import install

SYSTEMS = {
    "Debian 13": ('PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n', True),
    "Debian 11": ('VERSION_ID="11"\nID=debian\nHOME_URL="https://www.debian.org/?a=b"\n', True),
    "Ubuntu 24.04": ('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n', True),
    "Ubuntu 22.04": ('VERSION_ID="22.04"\nVERSION="22.04.5 LTS (Jammy Jellyfish)"\nID=ubuntu\nID_LIKE=debian\n', True),
    "Debian 10": ('VERSION_ID="10"\nID=debian\n', False),
    "Debian unstable": ("ID=debian\n", False),
    "Ubuntu 20.04": ('VERSION_ID="20.04"\nID=ubuntu\nID_LIKE=debian\n', False),
    "Ubuntu 25.04": ('VERSION_ID="25.04"\nID=ubuntu\nID_LIKE=debian\n', False),
    "another of Debian's kind": ('VERSION_ID="12"\nID=raspbian\nID_LIKE=debian\n', False),
    "nothing that is known": ("", False),
}


@pytest.mark.parametrize(("text", "supported"), SYSTEMS.values(), ids=SYSTEMS)
def test_what_is_not_supported_is_refused_by_its_name(
    text: str, supported: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "os-release"
    release.write_text(text)
    monkeypatch.setattr(install, "OS_RELEASE", release)
    objection = install.objection()
    assert (objection == "") == supported
    if not supported:
        assert "and nothing was changed; it must be one of debian 11," in objection
        assert "ubuntu 24.04" in objection
