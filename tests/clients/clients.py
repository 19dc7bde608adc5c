"""The SFTP programs and libraries that people use, each behind the same few verbs."""

import asyncio
import base64
import contextlib
import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import asyncssh
import paramiko  # type: ignore[import-untyped]

from tests.conftest import QUICK_KEX, Done, Key, Machine, call, until


class Account:
    """Who logs in, where, and what else is needed for it."""

    def __init__(self, machine: Machine, username: str, key: Key, folder: Path) -> None:
        self.machine = machine
        self.username = username
        self.key = key
        self.folder = folder
        """For a client's own files."""

    @property
    def env(self) -> dict[str, str]:
        """For those that would keep something in one's home: a log, a seed for random numbers."""
        return {**os.environ, "HOME": str(self.folder)}

    @property
    def at(self) -> str:
        """For the command line."""
        return f"{self.username}@{self.machine.address}"

    @property
    def ssh_options(self) -> list[str]:
        """For OpenSSH's programs, and whoever starts its ssh."""
        options = [str(option) for option in self.machine.ssh_options(self.key)]
        # Real clients ask for what they prefer.
        return [option for option in options if QUICK_KEX not in option]

    @property
    def host_key(self) -> bytes:
        """The host key's SHA-256."""
        return hashlib.sha256(base64.b64decode(self.machine.host_key.public.split()[1])).digest()


class Client(Protocol):
    """What each can do. Remote names are in the folder where a session begins."""

    def __init__(self, account: Account) -> None: ...

    def upload(self, local: Path, name: str) -> None:
        """Send a file."""

    def resume(self, local: Path, name: str) -> None:
        """Send the rest of a file whose beginning is there."""

    def download(self, name: str, local: Path) -> None:
        """Fetch a file."""

    def names(self) -> set[str]:
        """What is there."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""


def done(result: Done) -> str:
    """What a program says that must succeed."""
    assert result.code == 0, result
    return result.out


class Sftp:
    """OpenSSH's sftp."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def _run(self, *words: object) -> str:
        account = self._account
        line = shlex.join(map(str, words))
        return done(account.machine.sftp(account.username, account.key, line)).partition("\n")[2]

    def upload(self, local: Path, name: str) -> None:
        self._run("put", local, name)

    def resume(self, local: Path, name: str) -> None:
        self._run("reput", local, name)

    def download(self, name: str, local: Path) -> None:
        self._run("get", name, local)

    def names(self) -> set[str]:
        return {line.strip() for line in self._run("ls", "-1").splitlines()}

    def rename(self, old: str, new: str) -> None:
        self._run("rename", old, new)


class Lftp:
    """lftp, which starts OpenSSH's ssh."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def _run(self, *words: object) -> str:
        account = self._account
        ssh = shlex.join(["ssh", "-a", "-x", *account.ssh_options])
        settings = f"set sftp:connect-program {shlex.quote(ssh)}; set net:max-retries 1; set cmd:fail-exit yes"
        line = shlex.join(map(str, words))
        host = f"sftp://{account.username}:@{account.machine.address}"
        return done(call("lftp", "--norc", "-c", f"{settings}; open {host}; {line}", env=account.env))

    def upload(self, local: Path, name: str) -> None:
        self._run("put", local, "-o", name)

    def resume(self, local: Path, name: str) -> None:
        self._run("put", "-c", local, "-o", name)

    def download(self, name: str, local: Path) -> None:
        self._run("get", name, "-o", local)

    def names(self) -> set[str]:
        return set(self._run("cls", "-1").splitlines())

    def rename(self, old: str, new: str) -> None:
        self._run("mv", old, new)


class Curl:
    """curl, which has libssh2; before 1.11, that has nothing in common with a hardened sshd."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def run(self, name: str, *words: object) -> Done:
        """What it does with a file, or with the folder where the name is empty."""
        account = self._account
        key = ["--key", account.key.path, "--pubkey", f"{account.key.path}.pub"]
        pinned = ["--hostpubsha256", base64.b64encode(account.host_key).decode().rstrip("=")]
        user = ["--user", f"{account.username}:"]
        url = f"sftp://{account.machine.address}/uploads/{quote(name)}"
        return call("curl", "--silent", "--show-error", *key, *pinned, *user, *words, url)

    def upload(self, local: Path, name: str) -> None:
        done(self.run(name, "--upload-file", local))

    def resume(self, local: Path, name: str) -> None:
        done(self.run(name, "--continue-at", "-", "--upload-file", local))

    def download(self, name: str, local: Path) -> None:
        done(self.run(name, "--output", local))

    def names(self) -> set[str]:
        return set(done(self.run("", "--list-only")).splitlines())

    def rename(self, old: str, new: str) -> None:
        done(self.run("", "--list-only", "--quote", f'rename "/uploads/{old}" "/uploads/{new}"'))


class Psftp:
    """PuTTY's psftp, with a key in PuTTY's own form."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._key = account.folder / "jack.ppk"
        done(call("puttygen", account.key.path, "-O", "private", "-o", self._key, env=account.env))

    def _run(self, *words: object) -> str:
        account = self._account
        line = " ".join(f'"{word}"' if " " in str(word) else str(word) for word in words)
        host_key = f"SHA256:{base64.b64encode(account.host_key).decode().rstrip('=')}"
        options = ["-batch", "-be", "-noagent", "-hostkey", host_key, "-i", self._key]
        script = account.folder / "script"
        script.write_text(f"{line}\n")
        # It ends well whatever happens within a session.
        said = done(call("psftp", *options, "-b", script, account.at, env=account.env))
        for words_of_failure in ("failure", "denied", "unable", "no such"):
            assert words_of_failure not in said.lower(), said
        return said

    def upload(self, local: Path, name: str) -> None:
        self._run("put", local, name)

    def resume(self, local: Path, name: str) -> None:
        self._run("reput", local, name)

    def download(self, name: str, local: Path) -> None:
        self._run("get", name, local)

    def names(self) -> set[str]:
        lines = [line for line in self._run("ls").splitlines() if line[:1] in "-d"]
        return {line.split(maxsplit=8)[8] for line in lines}

    def rename(self, old: str, new: str) -> None:
        self._run("mv", old, new)


class Rclone:
    """rclone, which has Go's SSH library. It resumes nothing: what is not whole it sends anew."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def _run(self, *words: object) -> str:
        account = self._account
        options = {
            "host": account.machine.address,
            "user": account.username,
            "key-file": account.key.path,
            "known-hosts-file": account.machine.known_hosts,
        }
        flags = [f"--sftp-{name}={value}" for name, value in options.items()]
        return done(call("rclone", "--config=", *flags, *words))

    def upload(self, local: Path, name: str) -> None:
        self._run("copyto", local, f":sftp:{name}")

    def resume(self, local: Path, name: str) -> None:
        self.upload(local, name)

    def download(self, name: str, local: Path) -> None:
        self._run("copyto", f":sftp:{name}", local)

    def names(self) -> set[str]:
        return set(self._run("lsf", ":sftp:").splitlines())

    def rename(self, old: str, new: str) -> None:
        self._run("moveto", f":sftp:{old}", f":sftp:{new}")


class Sshfs:
    """sshfs: a folder of the client's, and its ordinary programs."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @contextlib.contextmanager
    def _mounted(self) -> Iterator[Path]:
        account = self._account
        place = account.folder / "mounted"
        place.mkdir(exist_ok=True)
        command = shlex.join(["ssh", *account.ssh_options])
        argv = ["sshfs", "-f", "-o", f"ssh_command={command}", f"{account.at}:", str(place)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            until(lambda: place.is_mount() or process.poll() is not None, "the mount")
            assert process.poll() is None, process.communicate()
            try:
                yield place
            finally:
                done(call("fusermount3", "-u", place))
                # It would not end by itself while a machine that was booted meanwhile has the mount as well.
                process.terminate()
                process.wait(60)

    def upload(self, local: Path, name: str) -> None:
        with self._mounted() as place:
            done(call("cp", local, place / name))

    def resume(self, local: Path, name: str) -> None:
        with self._mounted() as place, open(place / name, "ab") as file:
            file.write(local.read_bytes()[file.tell() :])

    def download(self, name: str, local: Path) -> None:
        with self._mounted() as place:
            done(call("cp", place / name, local))

    def names(self) -> set[str]:
        with self._mounted() as place:
            return {path.name for path in place.iterdir()}

    def rename(self, old: str, new: str) -> None:
        with self._mounted() as place:
            done(call("mv", place / old, place / new))


class Perl:
    """Net::SFTP::Foreign, which starts OpenSSH's ssh."""

    PROGRAM = """
use strict; use warnings; use Encode qw(decode_utf8); binmode STDOUT, ":utf8";
my ($at, $options, @words) = map { decode_utf8($_) } @ARGV;
my ($user, $host) = split /@/, $at;
my $sftp = Net::SFTP::Foreign->new(
    $host, user => $user, more => [split /\\n/, $options], autodie => 1, fs_encoding => "utf8");
my ($verb, @arguments) = @words;
if ($verb eq "ls") { print "$_->{filename}\\n" for @{$sftp->ls(".")} }
elsif ($verb eq "resume") { $sftp->put(@arguments, resume => 1) }
else { $sftp->$verb(@arguments) }
"""

    def __init__(self, account: Account) -> None:
        self._account = account

    def _run(self, *words: object) -> str:
        account = self._account
        options = "\n".join(account.ssh_options)
        return done(call("perl", "-MNet::SFTP::Foreign", "-e", self.PROGRAM, account.at, options, *words))

    def upload(self, local: Path, name: str) -> None:
        self._run("put", local, name)

    def resume(self, local: Path, name: str) -> None:
        self._run("resume", local, name)

    def download(self, name: str, local: Path) -> None:
        self._run("get", name, local)

    def names(self) -> set[str]:
        return set(self._run("ls").splitlines())

    def rename(self, old: str, new: str) -> None:
        self._run("rename", old, new)


class Paramiko:
    """paramiko."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        account = self._account
        with paramiko.SSHClient() as client:
            client.load_host_keys(str(account.machine.known_hosts))
            key = {"key_filename": str(account.key.path), "allow_agent": False, "look_for_keys": False}
            client.connect(account.machine.address, username=account.username, **key)
            yield client.open_sftp()

    def upload(self, local: Path, name: str) -> None:
        with self._session() as sftp:
            sftp.put(str(local), name)

    def resume(self, local: Path, name: str) -> None:
        with self._session() as sftp, sftp.open(name, "ab") as file:
            file.write(local.read_bytes()[sftp.stat(name).st_size :])

    def download(self, name: str, local: Path) -> None:
        with self._session() as sftp:
            sftp.get(name, str(local))

    def names(self) -> set[str]:
        with self._session() as sftp:
            return set(sftp.listdir())

    def rename(self, old: str, new: str) -> None:
        with self._session() as sftp:
            sftp.rename(old, new)


class Asyncssh:
    """asyncssh."""

    def __init__(self, account: Account) -> None:
        self._account = account

    @contextlib.asynccontextmanager
    async def _session(self) -> "Any":
        account = self._account
        keys = {"known_hosts": str(account.machine.known_hosts), "client_keys": [str(account.key.path)]}
        async with (
            asyncssh.connect(
                account.machine.address, username=account.username, config=None, agent_path=None, **keys
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            yield sftp

    def _run(self, method: str, *arguments: object) -> Any:
        async def run() -> Any:
            async with self._session() as sftp:
                return await getattr(sftp, method)(*arguments)

        return asyncio.run(run())

    def upload(self, local: Path, name: str) -> None:
        self._run("put", str(local), name)

    def resume(self, local: Path, name: str) -> None:
        async def run() -> None:
            async with self._session() as sftp, sftp.open(name, "ab") as file:
                await file.write(local.read_bytes()[(await file.stat()).size :])

        asyncio.run(run())

    def download(self, name: str, local: Path) -> None:
        self._run("get", name, str(local))

    def names(self) -> set[str]:
        return set(self._run("listdir"))

    def rename(self, old: str, new: str) -> None:
        self._run("rename", old, new)


CLIENTS: list[type[Client]] = [Asyncssh, Lftp, Paramiko, Perl, Psftp, Rclone, Sftp, Sshfs]
