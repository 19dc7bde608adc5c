"""A user with a password: it works, and nothing but the encrypted state ever has its hash."""

import asyncio
import json
import subprocess
from pathlib import Path

import asyncssh
import pytest

from tests.conftest import Done
from tests.engine.conftest import STACK, Project

PASSWORD = "correct horse battery staple"
OTHER = "tr0ub4dor&3"


def crypt(password: str) -> str:
    """A crypt(3) string, made the way an operator would."""
    return subprocess.check_output(["openssl", "passwd", "-6", "-stdin"], input=password, text=True).strip()


class Watched:
    """A project, and everything that its runs have said."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.said: list[str] = []
        self.hashes: list[str] = []

    def __call__(self, *argv: str) -> Done:
        done = self.project(*argv)
        self.said += [done.out, done.err]
        return done

    def set(self, password: str) -> None:
        """Put the hash of a password into the stack file, as the README says."""
        self.hashes.append(crypt(password))
        path = "sftp-jail:users.joan.passwordHash"
        done = self("config", "set", "--stack", STACK, "--secret", "--path", path, self.hashes[-1])
        assert done.code == 0, done

    def lets_in(self, password: str) -> bool:
        """Whether joan gets in with it, by the protocol's `password` and nothing else."""
        address = json.loads(self.project("stack", "output", "--json").out)["address"]

        async def log_in() -> None:
            async with (
                asyncssh.connect(
                    address,
                    username="joan",
                    password=password,
                    known_hosts=str(self.project.folder / ".local" / STACK / "known_hosts"),
                    host_key_alias=STACK,
                    client_keys=None,
                    agent_path=None,
                    config=None,
                    preferred_auth="password",
                ) as connection,
                connection.start_sftp_client() as sftp,
            ):
                assert "uploads" in await sftp.listdir("/")

        try:
            asyncio.run(log_in())
        except asyncssh.PermissionDenied:
            return False
        return True


@pytest.fixture(scope="module")
def joan(project: Project) -> Watched:
    """A stack whose one user has a password and no key."""
    watched = Watched(project)
    watched.set(PASSWORD)
    assert watched("preview", "--diff").code == 0
    assert watched("up", "--yes").code == 0
    return watched


def test_the_password_lets_in_and_no_other_does(joan: Watched) -> None:
    assert joan.lets_in(PASSWORD)
    assert not joan.lets_in(OTHER)


def test_a_new_password_changes_the_password_alone_and_replaces_the_old_one(joan: Watched) -> None:
    joan.set(OTHER)
    steps = json.loads(joan("preview", "--json").out)["steps"]
    touched = {step["urn"].rsplit("::", 1)[1] for step in steps if step["op"] != "same"}
    assert touched == {"jail-joan.password"}
    assert joan("preview", "--diff").code == 0
    assert joan("up", "--yes", "--diff").code == 0
    assert joan.lets_in(OTHER)
    assert not joan.lets_in(PASSWORD)


def test_a_password_that_cannot_be_set_fails_without_showing_it(joan: Watched) -> None:
    joan.project.run("chattr", "+i", "/etc/shadow")
    joan.project.run("mv", "/usr/sbin/chpasswd", "/usr/sbin/chpasswd.away")
    joan.project.run("mv", "/usr/sbin/usermod", "/usr/sbin/usermod.away")
    joan.set(PASSWORD)
    done = joan("up", "--yes", "--diff", "--debug")
    joan.project.run("chattr", "-i", "/etc/shadow")
    joan.project.run("mv", "/usr/sbin/chpasswd.away", "/usr/sbin/chpasswd")
    joan.project.run("mv", "/usr/sbin/usermod.away", "/usr/sbin/usermod")
    assert done.code != 0
    assert "apply-password" in done.out + done.err
    assert joan("up", "--yes").code == 0
    assert joan.lets_in(PASSWORD)


def test_a_plain_hash_in_the_stack_file_is_refused_without_showing_it(joan: Watched) -> None:
    path = joan.project.folder / "stacks" / f"Pulumi.{STACK}.yaml"
    good = path.read_text()
    joan.hashes.append(crypt("another"))
    path.write_text(
        f"{good.split('config:')[0]}config: {{sftp-jail:users: {{joan: {{passwordHash: {joan.hashes[-1]}}}}}}}\n"
    )
    done = joan("up", "--yes")
    path.write_text(good)
    assert done.code != 0
    assert "a password hash that is no secret" in done.out + done.err


def test_nothing_that_was_said_or_kept_has_a_hash(joan: Watched) -> None:
    kept = [file.read_text(errors="ignore") for file in _files(joan.project.folder / ".local" / "state")]
    assert any("jail-joan.password" in text for text in kept)
    exported = joan.project("stack", "export").out
    server = joan.project.run("sh", "-c", "journalctl --no-pager -o verbose; cat /var/log/*.log").out
    assert "joan" in server
    plugin_output = "".join(joan.said)
    assert "jail-joan.password" in plugin_output
    for number, crypted in enumerate(joan.hashes):
        for place, text in {
            "said": plugin_output,
            "state": "".join(kept),
            "export": exported,
            "server": server,
        }.items():
            assert crypted not in text, f"hash {number} in {place}"
            assert crypted.rsplit("$", 1)[1] not in text, f"hash {number} in {place}"


def test_on_the_server_root_alone_can_read_the_hash(joan: Watched) -> None:
    holders = joan.project.run(
        "grep", "-rlF", joan.hashes[2], "/etc", "/var", "/usr/local", "/sftp", "/run"
    ).out.split()
    assert "/etc/shadow" in holders
    assert joan.project.run("setpriv", "--reuid=nobody", "--clear-groups", "cat", *holders).out == ""


def test_taking_the_password_away_leaves_no_way_in_by_it(joan: Watched) -> None:
    key = joan.project.key("joan", "laptop")
    joan.project.config["sftp-jail:users"] = {"joan": {"keys": {"laptop": key.public}}}
    joan.project.write()
    assert joan("up", "--yes").code == 0
    assert not joan.lets_in(PASSWORD)
    assert joan.project.sftp("joan", key, "ls").code == 0
    assert joan.project.check().out == "no difference\n"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
