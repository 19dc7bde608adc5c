"""What of OpenSSH's own behaviour the jail relies on, with sshd alone and nothing of ours, on each Debian release.

Each login has an sshd of its own (sshd(8), -i), with the configuration that the test says: what fails here after an
upgrade of OpenSSH is no fault of ours, but what is ours must change with it.
"""

import re
import shlex
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import MACHINE, RELEASES, Done, Key, Machine, call, make_key

TOP = "/chain"
JAIL = f"{TOP}/jails/guest"
CHAIN = ("/", TOP, f"{TOP}/jails", JAIL)
"""Every directory down to the chroot, itself included."""

FOLDER = "/etc/ssh/try"
CONFIG = f"{FOLDER}/sshd_config"

START = f"""\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile {FOLDER}/keys
# Else it looks at the directories above the keys as well.
StrictModes no
Subsystem sftp internal-sftp
"""

IN_THE_JAIL = f"ChrootDirectory {JAIL}\nForceCommand internal-sftp\n"


class Server:
    """A machine with the account `guest`, in the groups `guests` and, not as the primary one, `extra`; and four
    directories to be shut in, each with its own name in it."""

    def __init__(self, machine: Machine, key: Key) -> None:
        self.machine = machine
        self._key = key
        places = " ".join((JAIL, *(f"{TOP}/{name}" for name in ("a", "b", "home"))))
        machine.root(
            *("sh", "-ec"),
            "groupadd guests; groupadd extra; useradd --gid guests --groups extra --no-create-home --password '*' "
            f"--home-dir {TOP}/home guest; mkdir -p /run/sshd {FOLDER} {places}; "
            f"for place in {places}; do touch $place/$(basename $place); install -d -m 777 $place/tmp; done; "
            f"echo '{key.public}' > {FOLDER}/keys",
        )

    def remove(self) -> None:
        """Nothing of it is left on the machine."""
        self.machine.root("sh", "-ec", f"userdel guest; groupdel guests; groupdel extra; rm -r {FOLDER} {TOP}")

    def login(self, config: str, *commands: str, **included: str) -> Done:
        """What sftp(1) and sshd say when guest logs in and gives these commands.

        :param included: further files for Include, by name
        """
        files = {CONFIG: START + config, **{f"{FOLDER}/{name}.conf": text for name, text in included.items()}}
        script = "".join(f"printf %s {shlex.quote(text)} > {path}; " for path, text in files.items())
        inside = [f"rm -f {FOLDER}/*.conf; {script} exec /usr/sbin/sshd -i -e -f {CONFIG}"]
        proxy = [sys.executable, str(MACHINE), "run", self.machine.spec["directory"], "--", "sh", "-c", *inside]
        options = [*self.machine.ssh_options(self._key), f"-oProxyCommand={shlex.join(proxy).replace('%', '%%')}"]
        batch = "\n".join(commands or ["ls -1 /"]) + "\n"
        return call("sftp", *options, "-b", "-", f"guest@{self.machine.address}", stdin=batch)

    def place(self, config: str, **included: str) -> str:
        """The name of the directory where guest is shut in."""
        done = self.login(config, **included)
        assert done.code == 0, done
        (name,) = {line.strip("/ ") for line in done.out.splitlines()[1:]} - {"tmp"}
        return name


@pytest.fixture(scope="module", params=RELEASES)
def server(
    request: pytest.FixtureRequest, machines: Callable[[str], Machine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of each Debian release."""
    server = Server(machines(request.param), make_key(tmp_path_factory.mktemp("keys") / "guest"))
    yield server
    server.remove()


# Into which directories sshd shuts somebody in


@pytest.mark.parametrize("component", CHAIN)
@pytest.mark.parametrize("fault", ["chown guest", "chmod 0775", "chmod 0757"])
def test_a_chroot_is_refused_if_anybody_but_root_may_write_to_any_of_its_components(
    server: Server, component: str, fault: str
) -> None:
    server.machine.root(*fault.split(), component)
    try:
        done = server.login(IN_THE_JAIL)
    finally:
        server.machine.root("sh", "-c", f"chown root {component}; chmod 0755 {component}")
    assert done.code != 0
    assert re.search(rf'bad ownership or modes for chroot directory (component )?"{component}/?"', done.err), done


@pytest.mark.parametrize("change", ["chmod 0711", "chmod 0700", "chmod 1755", "chgrp guests"])
def test_a_component_that_only_root_may_write_to_is_accepted(server: Server, change: str) -> None:
    component = CHAIN[2]
    server.machine.root(*change.split(), component)
    try:
        assert server.place(IN_THE_JAIL) == "guest"
    finally:
        server.machine.root("sh", "-c", f"chown root:root {component}; chmod 0755 {component}")


@pytest.mark.parametrize("missing", [f"{TOP}/nowhere", f"{JAIL}/guest", "relative"])
def test_a_chroot_that_is_no_directory_lets_nobody_in(server: Server, missing: str) -> None:
    done = server.login(f"ChrootDirectory {missing}\nForceCommand internal-sftp\n")
    assert done.code != 0
    assert "ls -1" not in done.out


@pytest.mark.parametrize(
    ("pattern", "place"), [(f"{TOP}/jails/%u", "guest"), ("%h", "home"), (f"{TOP}/jails/../home", "home")]
)
def test_a_chroot_is_where_its_tokens_say(server: Server, pattern: str, place: str) -> None:
    assert server.place(f"ChrootDirectory {pattern}\nForceCommand internal-sftp\n") == place


def test_a_percent_sign_that_is_doubled_is_one(server: Server) -> None:
    server.machine.root("mkdir", "-p", f"{TOP}/100%u/hundred")
    try:
        assert server.place(f"ChrootDirectory {TOP}/100%%u\nForceCommand internal-sftp\n") == "hundred"
    finally:
        server.machine.root("rm", "-r", f"{TOP}/100%u")


# Which setting counts


def chroot(place: str) -> str:
    """A line for this directory of the four."""
    return f"ChrootDirectory {TOP}/{place}\n"


FORCED = "ForceCommand internal-sftp\n"


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (f"Match User guest\n{chroot('a')}Match Group guests\n{chroot('b')}", "a"),
        (f"Match Group guests\n{chroot('b')}Match User guest\n{chroot('a')}", "b"),
        (f"{chroot('a')}Match User guest\n{chroot('b')}", "b"),
        (f"Match User somebody\n{chroot('a')}Match all\n{chroot('b')}", "b"),
        (f"Match User guest\n{chroot('a')}Match all\n{chroot('b')}", "a"),
        (f"Match Group extra\n{chroot('a')}Match Group guests\n{chroot('b')}", "a"),
        (f"Match User *,!guest\n{chroot('a')}Match all\n{chroot('b')}", "b"),
        (f"Match Group guests User somebody\n{chroot('a')}Match all\n{chroot('b')}", "b"),
    ],
    ids=[
        "of two that match, the first",
        "also where it says less",
        "a Match, before what is for everybody",
        "only a Match that matches",
        "until the next Match",
        "a further group as well as the primary one",
        "not who is excepted",
        "only where all conditions hold",
    ],
)
def test_the_first_match_counts(server: Server, config: str, place: str) -> None:
    assert server.place(FORCED + config) == place


@pytest.mark.parametrize(
    ("config", "included", "place"),
    [
        (f"Include {FOLDER}/*.conf\n{chroot('b')}", {"10": chroot("a")}, "a"),
        (f"{chroot('b')}Include {FOLDER}/*.conf\n", {"10": chroot("a")}, "b"),
        (f"Include {FOLDER}/*.conf\n", {"20": chroot("b"), "10": chroot("a")}, "a"),
        (f"Include {FOLDER}/*.conf\n", {"a": chroot("b"), "B": chroot("a")}, "a"),
        (f"Include {FOLDER}/*.conf\n", {"00-sftp-jail": chroot("b"), "00-sftp-jail-addresses": chroot("a")}, "a"),
        (f"Include {FOLDER}/*.conf\n{chroot('b')}", {"10": f"Match User somebody\n{chroot('a')}"}, "b"),
        (f"Include {FOLDER}/*.conf\n", {"10": "Match User somebody\n", "20": chroot("a")}, "a"),
        (f"Match User somebody\nInclude {FOLDER}/*.conf\nMatch all\n{chroot('b')}", {"10": chroot("a")}, "b"),
        (
            f"Match User somebody\nInclude {FOLDER}/*.conf\nMatch all\n{chroot('b')}",
            {"10": f"Match User guest\n{chroot('a')}"},
            "b",
        ),
        (f"Include try/*.conf\n{chroot('b')}", {"10": chroot("a")}, "a"),
    ],
    ids=[
        "what is included first is before what follows",
        "and after what came before",
        "files come by their names",
        "in the order of bytes",
        "and a minus is before a dot",
        "a Match ends with its file",
        "also for the file that is next",
        "a file within a Match is for whom it matches",
        "and so is what that matches itself",
        "a name without a slash begins in /etc/ssh",
    ],
)
def test_the_first_file_counts(server: Server, config: str, included: dict[str, str], place: str) -> None:
    assert server.place(FORCED + config, **included) == place


# What a forced command is worth


def mode_of_a_new_directory(server: Server, words: str) -> str:
    """With these arguments of internal-sftp."""
    done = server.login(f"ForceCommand internal-sftp {words}\n{chroot('a')}", "mkdir /tmp/new")
    assert done.code == 0, done
    mode = server.machine.root("stat", "-c", "%a", f"{TOP}/a/tmp/new").strip()
    server.machine.root("rmdir", f"{TOP}/a/tmp/new")
    return mode


@pytest.mark.parametrize(
    ("words", "mode"), [("", "755"), ("-u0077", "700"), ("-u 0077", "700"), ("-lVERBOSE -u0077 -d/tmp", "700")]
)
def test_a_forced_command_has_the_arguments_that_it_is_given(server: Server, words: str, mode: str) -> None:
    assert mode_of_a_new_directory(server, words) == mode


def test_of_a_forced_commands_words_only_the_first_eight_count(server: Server) -> None:
    """Why all of ours are joined."""
    assert mode_of_a_new_directory(server, "-l VERBOSE -f AUTH -P symlink -d /tmp -u 0077") == "755"
    assert mode_of_a_new_directory(server, "-lVERBOSE -fAUTH -Psymlink -d/tmp -u0077") == "700"
