"""Whatever is asked of a server and done to it, in whatever order: what is asked for next is done, and at once.

SFTP_JAIL_EXAMPLES=200 tries that many sequences, at random; by default, a few that are always the same.
"""

import json
import os
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.conftest import Key
from tests.hostside.conftest import JAIL, OWNER, RECORDS
from tests.hostside.faults.driver import KILLED, Fault
from tests.hostside.faults.rounds import Server
from tests.hostside.faults.test_users import HASH

EXAMPLES = int(os.environ.get("SFTP_JAIL_EXAMPLES", "0"))

usernames = st.sampled_from(["jack", "jill"])
labels = st.sampled_from(["laptop", "desk"])
key_numbers = st.dictionaries(labels, st.sampled_from([0, 1]), max_size=2)
limits = st.fixed_dictionaries(
    {},
    optional={
        "access": st.sampled_from(["read-write", "read-only", "upload-only"]),
        "allowFrom": st.lists(
            st.sampled_from(["10.213.0.0/16", "192.0.2.7/32", "2001:db8::/32"]), min_size=1, max_size=2
        ),
        "expires": st.sampled_from(["2020-01-01", "2199-12-07", "2199-12-07T18:00:00Z"]),
        "onRemoval": st.sampled_from(["archive", "keep", "delete"]),
    },
)
jails = st.fixed_dictionaries(
    {},
    optional={
        "hardening": st.booleans(),
        "logLevel": st.sampled_from(["INFO", "VERBOSE"]),
        "umask": st.sampled_from(["022", "077"]),
    },
)

TAMPERINGS_WITH_A_USER = (
    *("chmod 0777 /sftp/jail/{name}", "chown {name} /sftp/jail/{name}", "rm -r /sftp/jail/{name}"),
    *("rm /sftp/jail/{name}/dev/log", "chmod 000 /sftp/jail/{name}/uploads"),
    *("echo x >> /etc/ssh/sftp-jail/keys/{name}", "rm /etc/ssh/sftp-jail/keys/{name}"),
    *("usermod -s /bin/sh -d / {name}", "usermod -g nogroup {name}", "usermod -G adm,sftp-only-upload {name}"),
    *("chage -E 0 {name}", "chage -M 1 -d 2001-01-01 {name}", "usermod -L {name}", "userdel {name}"),
    *("sed -i '/^{name}:/d' /etc/passwd", "sed -i '/^{name}:/d' /etc/shadow"),
)
TAMPERINGS_WITH_THE_HOST = (
    *("chmod 0777 /sftp", "chmod 0755 /sftp/jail", "rm -r /etc/ssh/sftp-jail", "rm /sftp/state/log-names.json"),
    *("sed -i '/^sftp-only-read:/d' /etc/group", "sed -i '/^sftp-only/d' /etc/gshadow", "groupdel sftp-only-password"),
    *("rm /etc/ssh/sshd_config.d/00-sftp-jail.conf", "systemctl disable --now sftp-jail-expiry.timer"),
    *("systemctl stop sftp-jail-log.socket", "rm /etc/systemd/system/sftp-jail-*"),
)


class Operators(RuleBasedStateMachine):
    """What those who run a server and its stacks may come to do."""

    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.jail = JAIL
        self.is_tampered_with = False

    def ask(self, verb: str, spec: dict) -> None:
        """A verb does all that is asked of it, if need be after the host's stack has put the host right."""
        done = self.server.run(verb, spec).done
        if done.code and self.is_tampered_with:
            self.put_right()
            done = self.server.run(verb, spec).done
        assert done.code == 0, done
        again = self.server.run(verb, spec).done
        assert again == (0, "no change\n", ""), (done, again)

    def put_right(self) -> None:
        self.server.must("apply-jail", self.jail)
        self.is_tampered_with = False

    def user(self, name: str, keys: dict[str, int], given: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        public = [self.server.laptop.public, self.server.desk.public]
        return {
            "user": f"{OWNER}/{name}",
            **{f"key {label}": public[number] for label, number in keys.items()},
            **(given or {}),
        }

    @rule(name=usernames, keys=key_numbers, given=limits)
    def apply_user(self, name: str, keys: dict[str, int], given: dict[str, Any]) -> None:
        self.ask("apply-user", self.user(name, keys, given))

    @rule(name=usernames)
    def remove_user(self, name: str) -> None:
        self.ask("remove-user", self.user(name, {}))

    @rule(name=usernames, wanted=st.booleans())
    def password(self, name: str, wanted: bool) -> None:
        if not wanted or name in {record["username"] for record in records(self.server)}:
            self.ask("apply-password" if wanted else "remove-password", {"username": name, "passwordHash": HASH})

    @rule(given=jails)
    def apply_jail(self, given: dict[str, Any]) -> None:
        self.jail = {**JAIL, **given}
        self.put_right()
        assert self.server.run("apply-jail", self.jail).done == (0, "no change\n", "")

    @rule(name=usernames, tampering=st.sampled_from(TAMPERINGS_WITH_A_USER))
    def tamper_with_a_user(self, name: str, tampering: str) -> None:
        self.server.driver.shell(f"{tampering.format(name=name)} || true")

    @rule(tampering=st.sampled_from(TAMPERINGS_WITH_THE_HOST))
    def tamper_with_the_host(self, tampering: str) -> None:
        self.server.driver.shell(f"{tampering} || true")
        self.is_tampered_with = True

    @rule(name=usernames, keys=key_numbers, given=limits, step=st.integers(0, 30), wanted=st.booleans())
    def be_killed(self, name: str, keys: dict[str, int], given: dict[str, Any], step: int, wanted: bool) -> None:
        verb = "apply-user" if wanted else "remove-user"
        self.server.run(verb, self.user(name, keys, given), Fault(KILLED, step))

    @rule(given=jails, step=st.integers(0, 60))
    def be_killed_at_the_host(self, given: dict[str, Any], step: int) -> None:
        self.jail = {**JAIL, **given}
        self.server.run("apply-jail", self.jail, Fault(KILLED, step))
        # What is on trial is nobody's access.
        self.is_tampered_with = True

    def teardown(self) -> None:
        """In the end the host's stack applies, and everybody gets in who has a record, and nobody else."""
        self.put_right()
        checked = self.server.run("check").done
        assert checked.out.startswith("no difference\n"), checked
        known = {record["username"]: record for record in records(self.server)}
        for name in ("jack", "jill"):
            for key in (self.server.laptop, self.server.desk):
                done = self.server.machine.sftp(name, key, "pwd")
                assert (done.code == 0) == may_come_in(known.get(name), key), (name, key, known.get(name), done)
        for name in known:
            self.ask("remove-user", self.user(name, {}))


def records(server: Server) -> list[dict[str, Any]]:
    return json.loads(server.machine.root("python3", "-c", RECORDS))


def may_come_in(record: Optional[dict[str, Any]], key: Key) -> bool:
    """Whether somebody from this computer is to get in with the key."""
    return (
        record is not None
        and key.public in record["keys"].values()
        and (record["expires"] is None or record["expires"] > "2021")
        and (record["allow_from"] is None or "10.213.0.0/16" in record["allow_from"])
    )


@pytest.mark.parametrize("driven", ["trixie"], indirect=True)
def test_what_is_asked_for_is_done_in_one_run_whatever_has_been_done_to_the_server(server: Server) -> None:
    class OperatorsOfThis(Operators):
        pass

    OperatorsOfThis.server = server
    run_state_machine_as_test(
        OperatorsOfThis,
        settings=settings(
            max_examples=EXAMPLES or 2,
            stateful_step_count=12,
            derandomize=not EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, *([Phase.shrink] if EXAMPLES else [])],
            suppress_health_check=list(HealthCheck),
        ),
    )
