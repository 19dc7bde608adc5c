"""The unit that sends the log on to a receiver of the operator's (`forward`), where the spec names one."""

import json
import os
from collections.abc import Iterator
from typing import Any, Optional

from . import files, services
from .difference import Difference
from .process import run, succeeds
from .rsyslog import CONFIG_FOLDER, LOG, UNITS, WRITTEN

UNIT = "sftp-jail-siem.service"
SPEC = f"{CONFIG_FOLDER}/siem.json"
AUTHORITIES = f"{CONFIG_FOLDER}/siem.pem"
PROGRAM = "/usr/local/lib/sftp-jail/current/jailctl/forward.py"
ENABLED = f"{UNITS}/multi-user.target.wants/{UNIT}"


def texts(siem: Optional[dict[str, Any]]) -> dict[str, Optional[str]]:
    """Every file, by path; None where there should be none."""
    if siem is None:
        return {SPEC: None, AUTHORITIES: None, f"{UNITS}/{UNIT}": None}
    return {
        SPEC: json.dumps(siem, indent=1, sort_keys=True) + "\n",
        AUTHORITIES: siem.get("ca"),
        f"{UNITS}/{UNIT}": unit_text(),
    }


def unit_text() -> str:
    """The unit. It is another one when the program is, so that an upgrade restarts it."""
    from hashlib import sha256

    with open(f"{os.path.dirname(__file__)}/forward.py", "rb") as program:
        version = sha256(program.read()).hexdigest()[:12]
    return f"""\
{WRITTEN}[Unit]
Description=Log of the jailed SFTP users, sent on
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0
[Service]
# forward.py {version}
ExecStart=/usr/bin/python3 -I {PROGRAM} {SPEC} {LOG} /var/lib/sftp-jail-siem
Restart=always
RestartSec=1
# Nobody, but that the log is adm's to read.
DynamicUser=yes
SupplementaryGroups=adm
StateDirectory=sftp-jail-siem
CapabilityBoundingSet=
[Install]
WantedBy=multi-user.target
"""


def differences(siem: Optional[dict[str, Any]]) -> Iterator[Difference]:
    """The unit running with this spec, now and after a boot; without one, no unit."""
    wanted = texts(siem)
    changed = {path: text for path, text in wanted.items() if files.read(path) != text}
    if changed:
        yield Difference(
            f"siem, {', '.join(sorted(changed))}",
            "another configuration",
            "none" if siem is None else f"{siem['host']}:{siem['port']}",
            lambda: services.install(UNIT, changed, lambda: None, lambda: _load(siem)),
        )
    if services.is_marked(UNIT):
        yield Difference("siem", "runs with an earlier configuration", "restarted", lambda: _load(siem))
    if siem is not None and not (os.path.lexists(ENABLED) and services.is_active(UNIT)):
        yield Difference(UNIT, "not running", "running", lambda: _load(siem))


def _load(siem: Optional[dict[str, Any]]) -> None:
    services.load(UNIT)
    # By what is there: the one before is put back where another one cannot be loaded.
    if os.path.exists(f"{UNITS}/{UNIT}"):
        services.enable(UNIT)
        services.act("restart", UNIT)
    else:
        succeeds("systemctl", "stop", UNIT)
        files.remove(ENABLED)
        # Where another receiver begins is not where this one has stopped.
        for left in ("/var/lib/sftp-jail-siem", "/var/lib/private/sftp-jail-siem"):
            run("rm", "-rf", left)
    services.clear(UNIT)
