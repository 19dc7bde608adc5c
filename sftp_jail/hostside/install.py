"""Installs jailctl on a server, or takes it away: run by `python3 -c`, with the program's own files as its input.

Not imported by anything: a one-line command reads a JSON map of path to content from stdin and executes this entry
of it, with the map in `files` and `install` or `uninstall` as the only argument. The other files are in the archive;
the map has their digests for whoever compares it with another one.
"""

import base64
import bz2
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")
SUPPORTED = {"debian": ("11", "12", "13"), "ubuntu": ("22.04", "24.04")}
"""By ID, the VERSION_IDs of os-release(5)."""

LIBRARY = Path("/usr/local/lib/sftp-jail")
CURRENT = LIBRARY / "current"
LAUNCHER = Path("/usr/local/sbin/jailctl")

LAUNCHER_TEXT = """\
#!/usr/bin/python3 -IS
# Written by sftp-jail. Nothing of the server's own site-packages is looked at (-S). The version is settled once, so
# that an upgrade in between cannot mix two of them.
import os
import sys

sys.path.insert(0, os.path.realpath("/usr/local/lib/sftp-jail/current"))
from jailctl.__main__ import main

code = main()
sys.stdout.flush()
sys.stderr.flush()
# All is done: what is left is Python taking itself apart, which is a seventh of what a run takes.
os._exit(code)
"""


def objection() -> str:
    """Why jailctl is not for this system; empty if it is."""
    lines = OS_RELEASE.read_text().splitlines() if OS_RELEASE.exists() else []
    known = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    system, version = known.get("ID", "an unknown system"), known.get("VERSION_ID", "")
    if version in SUPPORTED.get(system, ()):
        return ""
    wanted = ", ".join(f"{name} {number}" for name, numbers in SUPPORTED.items() for number in numbers)
    return (
        f"jailctl: this server is {f'{system} {version}'.strip()}, and nothing was changed; it must be one of {wanted}"
    )


def unpacked(sent: dict[str, str]) -> dict[str, str]:
    """The text of each file."""
    archive = json.loads(bz2.decompress(base64.b64decode(sent["archive"])))
    return {"install.py": sent["install.py"], **archive}


def install(sent: dict[str, str]) -> str:
    """Write this version beside the current one, then switch to it: nobody ever runs half a program."""
    version = hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()[:12]
    files = unpacked(sent)
    folder = LIBRARY / version
    if CURRENT.is_symlink() and os.readlink(CURRENT) == version and _is_whole(folder, files):
        return "no change"
    LIBRARY.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        _write(folder / "jailctl" / name, text, 0o644)
    _write(LAUNCHER, LAUNCHER_TEXT, 0o755)
    new = LIBRARY / ".current"
    new.unlink(missing_ok=True)
    new.symlink_to(version)
    new.replace(CURRENT)
    for other in LIBRARY.iterdir():
        if other not in (CURRENT, folder):
            shutil.rmtree(other)
    return f"jailctl {version}: installed"


def _is_whole(folder: Path, files: dict[str, str]) -> bool:
    try:
        return LAUNCHER.read_text() == LAUNCHER_TEXT and all(
            (folder / "jailctl" / name).read_text() == text for name, text in files.items()
        )
    except OSError:
        return False


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    new.replace(path)


def uninstall() -> str:
    """Take the program away."""
    if not LIBRARY.exists() and not LAUNCHER.exists():
        return "no change"
    LAUNCHER.unlink(missing_ok=True)
    shutil.rmtree(LIBRARY, ignore_errors=True)
    return "jailctl: removed"


if __name__ == "__main__":
    os.umask(0o022)
    if sys.argv[1] == "install" and objection():
        sys.exit(objection())
    print(install(files) if sys.argv[1] == "install" else uninstall())  # type: ignore[name-defined]  # noqa: F821
