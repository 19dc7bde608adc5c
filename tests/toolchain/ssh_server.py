"""An SSH server in the test's process. It runs nothing: it writes down what it is asked and answers by a script."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import asyncssh


@dataclass
class Answer:
    """What a command says and how it ends; a `held` one goes on after its output until `SshServer.release`."""

    stdout: str = ""
    stderr: str = ""
    status: int = 0
    held: bool = False


@dataclass
class Run:
    """A command that a client asked for; `stdin` is None as long as its end has not come."""

    command: str
    username: str
    env: dict[str, str]
    stdin: Optional[str] = None


@dataclass
class Login:
    """What a user may log in with."""

    key: Optional[str] = None
    password: Optional[str] = None
    asked: Optional[str] = None


@dataclass
class SshServer:
    """A server on 127.0.0.1 and a port of its own. A command without an answer writes nothing and succeeds."""

    logins: dict[str, Login] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    refused_env: set[str] = field(default_factory=set)
    forwards: bool = False

    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    tunnels: list[tuple[str, int]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.loop = asyncio.new_event_loop()
        self.held: list[tuple[asyncssh.SSHServerChannel[str], Answer]] = []
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.acceptor = self._call(self._listen())
        self.port = self.acceptor.get_port()

    @property
    def host_key(self) -> str:
        """As a known_hosts file has it."""
        return self.key.export_public_key("openssh").decode().strip()

    @property
    def commands(self) -> list[str]:
        """The commands that clients asked for."""
        return [run.command for run in self.runs]

    def release(self) -> None:
        """End the commands that are held."""

        async def end() -> None:
            for channel, answer in self.held:
                channel.exit(answer.status)
            self.held.clear()

        self._call(end())

    def close(self) -> None:
        """Nothing of it is left."""
        self._call(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _listen(self) -> asyncssh.SSHAcceptor:
        return await asyncssh.create_server(lambda: _Connection(self), "127.0.0.1", 0, server_host_keys=[self.key])

    async def _end(self) -> None:
        self.acceptor.close()
        for connection in self.connections:
            connection.abort()
        for connection in self.connections:
            with contextlib.suppress(Exception):
                await connection.wait_closed()
        await self.acceptor.wait_closed()

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


@contextlib.contextmanager
def ssh_server(**options: Any) -> Iterator[SshServer]:
    """A server for as long as the block lasts."""
    server = SshServer(**options)
    try:
        yield server
    finally:
        server.close()


class _Connection(asyncssh.SSHServer):
    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.login = Login()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connection = conn
        self.server.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        self.username = username
        self.login = self.server.logins.get(username, Login())
        return True

    def public_key_auth_supported(self) -> bool:
        return self.login.key is not None

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.export_public_key("openssh").decode().split()[:2] == (self.login.key or "").split()[:2]

    def password_auth_supported(self) -> bool:
        return self.login.password is not None

    def validate_password(self, username: str, password: str) -> bool:
        return password == self.login.password

    def kbdint_auth_supported(self) -> bool:
        return self.login.asked is not None

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("What is it? ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return list(responses) == [self.login.asked]

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        if self.server.forwards:
            self.server.tunnels.append((dest_host, dest_port))
        return self.server.forwards

    def session_requested(self) -> Any:
        # asyncssh takes every variable. There is no public way to say no, as sshd does without AcceptEnv.
        channel: Any = self.connection.create_server_channel()
        accept = channel._process_env_request

        def process(packet: Any) -> bool:
            before = dict(channel._env)
            accept(packet)
            refused = [name for name in channel._env if name.decode() in self.server.refused_env]
            if refused:
                channel._env = before
            return not refused

        channel._process_env_request = process
        return channel, _Session(self.server, self.username)


class _Session(asyncssh.SSHServerSession[str]):
    """It answers after the end of stdin, never before."""

    def __init__(self, server: SshServer, username: str) -> None:
        self.server = server
        self.username = username
        self.stdin = ""

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        self.channel = chan

    def exec_requested(self, command: str) -> bool:
        self.run = Run(command, self.username, {str(k): str(v) for k, v in self.channel.get_environment().items()})
        self.server.runs.append(self.run)
        return True

    def data_received(self, data: str, datatype: Optional[int]) -> None:
        self.stdin += data

    def eof_received(self) -> bool:
        self.run.stdin = self.stdin
        answer = self.server.answers.get(self.run.command, Answer())
        self.channel.write(answer.stdout)
        self.channel.write_stderr(answer.stderr)
        if answer.held:
            self.server.held.append((self.channel, answer))
        else:
            self.channel.exit(answer.status)
        return True
