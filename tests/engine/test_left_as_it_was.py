"""A server that exists has had all that there is, and is as it was before, on every Debian release."""

from pathlib import Path

import pytest

from tests.conftest import RELEASES, Machine, neighbour
from tests.disks import MachineWithDisks
from tests.engine.conftest import STACK, Project
from tests.engine.test_existing import agent_with, host_of, live_in, manifest
from tests.unit import keys

LASTING = "2199-12-07"


def everything(project: Project, server: Machine) -> None:
    """A stack file in which nothing is left out, and users of every kind."""
    project.config = {
        "sftp-jail:host": host_of(server),
        "sftp-jail:users": {},
        "sftp-jail:hardening": True,
        "sftp-jail:logLevel": "INFO",
        "sftp-jail:quotas": "loop",
        # Nobody listens there: what is to be sent waits.
        "sftp-jail:siem": {"host": neighbour(server.address), "port": 6514, "protocol": "tcp"},
        "sftp-jail:umask": "027",
    }
    for name in ("jack", "jill", "joan", "jim"):
        project.user(name, "laptop")
    users = project.config["sftp-jail:users"]
    users["jack"] |= {"expires": LASTING, "quota": "16MiB", "allowFrom": ["10.213.0.0/16"]}
    users["jill"] |= {"access": "upload-only", "onRemoval": "keep", "quota": "16MiB"}
    users["joan"] |= {"access": "read-only", "onRemoval": "delete"}
    project.write()
    path = "sftp-jail:users.jim.passwordHash"
    crypted = keys.STRONG_HASHES["sha512"]
    assert project("config", "set", "--stack", STACK, "--secret", "--path", path, crypted).code == 0


@pytest.mark.parametrize("release", RELEASES)
def test_destroy_leaves_nothing_of_all_that_can_be_set(project: Project, release: str, tmp_path: Path) -> None:
    server = MachineWithDisks(tmp_path, release)
    try:
        live_in(server)
        with agent_with(server.admin_key, tmp_path) as agent:
            project.env["SSH_AUTH_SOCK"] = agent
            before = manifest(server)
            everything(project, server)
            project.up()
            for name in ("jack", "jill", "jim"):
                assert server.sftp(name, project.key(name, "laptop"), "put /etc/hostname kept").code == 0
            during = "\n".join(manifest(server) - before)
            for trace in ("ext4", "sftp-jail-expiry.timer", "sftp-jail-log.service", "hardening", "jim", "siem"):
                assert trace in during
            assert project("destroy", "--yes", "--skip-preview").code == 0
            after = manifest(server)
            assert (sorted(after - before), sorted(before - after)) == ([], [])
            assert "uploads/kept" in server.root("sh", "-c", "tar tf /sftp/archive/jack-*.tar")
    finally:
        server.stop()
