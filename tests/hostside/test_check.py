"""What `jailctl check` tells."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.conftest import Done, Key, Machine
from tests.hostside.conftest import add


def check(machine: Machine) -> tuple[int, dict[str, Any]]:
    """The exit status, and the report."""
    done = machine.run("/usr/local/sbin/jailctl", "check", "--format=json")
    report: dict[str, Any] = json.loads(done.out)
    return done.code, report


def test_nobodys_jail_is_found_and_left_to_the_administrator(jail: Machine, jack: Key) -> None:
    add(jail, "jack", laptop=jack)
    jail.root("mkdir", "-p", "/sftp/jail/jill/uploads")
    code, report = check(jail)
    assert code == 1
    (found,) = report["differences"]
    assert (found["subject"], found["actual"]) == ("/sftp/jail/jill", "nobody's jail")
    assert jail.run("/usr/local/sbin/jailctl", "repair").code == 0
    assert check(jail)[0] == 1
    jail.root("rm", "-r", "/sftp/jail/jill")
    assert check(jail)[0] == 0


def test_whose_access_ends_within_14_days_is_told_and_is_no_difference(jail: Machine, jack: Key, jill: Key) -> None:
    today = datetime.now(timezone.utc).date()
    soon, later = ((today + timedelta(days=days)).isoformat() for days in (12, 16))
    add(jail, "jack", {"expires": soon}, laptop=jack)
    add(jail, "jill", {"expires": later}, laptop=jill)
    assert check(jail) == (0, {"differences": [], "expiring": [{"username": "jack", "expires": soon}], "quotas": []})
    assert jail.jailctl("check") == Done(0, f"no difference\njack: access ends {soon}\n", "")
