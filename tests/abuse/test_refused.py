"""What a user may not do to what is not his own: it is refused, it is logged, and his session goes on."""

from collections.abc import Iterator
from typing import NamedTuple, Optional

import asyncssh
import pytest

from tests.abuse.conftest import Client, User, client
from tests.conftest import Machine, until

LOG = "/var/log/sftp.log"

NOT_HIS = (
    "find /sftp/jail -path '/sftp/jail/jack/uploads/*' -prune -o -printf '%p %y %m %U %G %i\\n'; "
    "sha256sum /etc/passwd /etc/group /etc/shadow"
)
"""A shell line that shows what jack may not change."""

WORK = "/uploads/work"
OWN, FOLDER, NEW = f"{WORK}/own", f"{WORK}/folder", f"{WORK}/new"
"""A file and a directory of jack's, and what he has not yet."""

DENIED, MISSING = asyncssh.SFTPPermissionDenied, asyncssh.SFTPNoSuchFile

IN_THE_LOG = {DENIED: "sent status Permission denied", MISSING: "sent status No such file"}


class Offender(NamedTuple):
    """Jack's session, and what was not his when it began."""

    machine: Machine
    session: Client
    not_his: str

    def assert_refused(self, method: str, arguments: tuple, error: type[asyncssh.SFTPError], words: str) -> None:
        """A request fails, changes nothing, and is in the log under jack's name, its answer as well."""
        with pytest.raises(error):
            self.ask(method, *arguments)
        until(lambda: self._is_logged(words, IN_THE_LOG[error]), f"{words} in the log")
        assert self.machine.root("sh", "-c", NOT_HIS) == self.not_his

    def ask(self, method: str, *arguments: object) -> object:
        """What becomes of a request, by asyncssh's name for it."""
        return self.session(getattr(self.session.sftp, method)(*arguments))

    def _is_logged(self, words: str, status: str) -> bool:
        lines = [line.split(maxsplit=3) for line in self.machine.root("tail", "-n", "50", LOG).splitlines()]
        told = [line[3] for line in lines if line[1] == "jack"]
        asked = [number for number, line in enumerate(told) if line.startswith(words)]
        return bool(asked) and told[asked[-1] + 1 : asked[-1] + 2] == [status]


@pytest.fixture(scope="module")
def whole_session(jail: Machine, jack: User, jill: User) -> Iterator[Offender]:
    """The one session in which all of it is tried; jill has the file `secret`."""
    assert jill.sftp("put /etc/hostname secret").code == 0
    with client(jack) as session:
        yield Offender(jail, session, jail.root("sh", "-c", NOT_HIS))


@pytest.fixture
def offender(whole_session: Offender) -> Iterator[Offender]:
    """With what jack has of his own, new for each test."""
    sftp = whole_session.session.sftp
    for method, *arguments in (("mkdir", WORK), ("mkdir", FOLDER), ("put", __file__, OWN)):
        whole_session.ask(method, *arguments)
    yield whole_session
    whole_session.session(sftp.rmtree(WORK))


def attempt(
    case: str, words: str, method: str, refused: tuple, allowed: tuple, error: type[asyncssh.SFTPError] = DENIED
) -> object:
    """A request, how it begins in the log, and its arguments with which it is refused, and with which it is not."""
    name = " ".join(map(str, (method, *refused)))
    return pytest.param(method, refused, allowed, error, words, marks=pytest.mark.case(case), id=name)


@pytest.mark.parametrize(
    ("method", "refused", "allowed", "error", "words"),
    [
        attempt("A 1", 'mkdir name "/x"', "mkdir", ("/x",), (NEW,)),
        attempt("A 2", 'set "/" mode 0777', "chmod", ("/", 0o777), (OWN, 0o600)),
        attempt("A 3", 'rename old "/uploads" new "/u"', "rename", ("/uploads", "/u"), (FOLDER, NEW)),
        attempt("A 4", 'rmdir name "/uploads"', "rmdir", ("/uploads",), (FOLDER,)),
        attempt("A 6", 'remove name "/dev/log"', "remove", ("/dev/log",), (OWN,)),
        attempt("A 7", f'rename old "/dev/log" new "{NEW}"', "rename", ("/dev/log", NEW), (OWN, NEW)),
        attempt("A 8", f'hardlink old "/dev/log" new "{NEW}"', "link", ("/dev/log", NEW), (OWN, NEW)),
        attempt("A 9", 'open "/dev/x" flags WRITE', "open", ("/dev/x", "w"), (NEW, "w")),
        attempt("A 10", 'opendir "/proc"', "listdir", ("/proc",), ("/dev",), MISSING),
        *(
            attempt("A 14", f'open "{path}" flags READ', "open", (path, "r"), (OWN, "r"), MISSING)
            for path in ("/sftp/jail/jill/uploads/secret", "/../jill/uploads/secret")
        ),
    ],
)
def test_what_is_not_ones_own_is_refused_and_logged_and_the_session_goes_on(
    offender: Offender, method: str, refused: tuple, allowed: tuple, error: type[asyncssh.SFTPError], words: str
) -> None:
    offender.assert_refused(method, refused, error, words)
    offender.ask(method, *allowed)


@pytest.mark.case("A 14")
def test_who_has_a_file_can_read_what_his_neighbour_cannot(offender: Offender, jill: User) -> None:
    assert jill.sftp("get secret /dev/null").code == 0


@pytest.mark.parametrize(
    ("uid", "gid"),
    [
        pytest.param(0, None, marks=pytest.mark.case("A 5"), id="root's user"),
        pytest.param(None, 0, marks=pytest.mark.case("A 15"), id="root's group"),
    ],
)
def test_a_file_is_given_to_nobody_else(offender: Offender, uid: Optional[int], gid: Optional[int]) -> None:
    found = offender.session(offender.session.sftp.stat(OWN))
    to = (found.uid if uid is None else uid, found.gid if gid is None else gid)
    offender.assert_refused("chown", (OWN, *to), DENIED, f'set "{OWN}" owner {to[0]} group {to[1]}')
    offender.ask("chown", OWN, found.uid, found.gid)


@pytest.mark.case("A 11")
@pytest.mark.parametrize("path", ["/../../..", "../../../..", "/uploads/../../"])
def test_above_the_jails_root_is_the_jails_root(offender: Offender, path: str) -> None:
    assert set(offender.session(offender.session.sftp.listdir(path))) == {".", "..", "dev", "uploads"}


@pytest.mark.case("A 12")
@pytest.mark.parametrize(
    ("path", "real"), [("/../../etc", "/etc"), ("../../..", "/"), (f"{WORK}/out", "/etc"), (f"{FOLDER}/../own", OWN)]
)
def test_the_real_path_of_an_escape_is_a_path_inside(offender: Offender, path: str, real: str) -> None:
    offender.ask("symlink", "../../../../etc", f"{WORK}/out")
    assert offender.ask("realpath", path) == real


@pytest.mark.case("A 13")
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "/sftp/jail/jill/uploads/secret"])
def test_a_symbolic_link_leads_to_nowhere_outside(offender: Offender, target: str) -> None:
    offender.ask("symlink", target, NEW)
    offender.assert_refused("open", (NEW, "r"), MISSING, f'open "{NEW}" flags READ')
    offender.ask("remove", NEW)
    offender.ask("symlink", OWN, NEW)
    offender.ask("open", NEW, "r")
