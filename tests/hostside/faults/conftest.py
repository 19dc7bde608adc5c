"""A server with a driver in it that interrupts jailctl."""

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import RELEASES, Machine, make_key
from tests.hostside.conftest import JAIL
from tests.hostside.faults.driver import driving
from tests.hostside.faults.rounds import Server


@pytest.fixture(scope="module", params=RELEASES)
def driven(
    request: pytest.FixtureRequest, machines: Callable[[str], Machine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A machine of each Debian release, for all that is done to it here."""
    machine, keys = machines(request.param), tmp_path_factory.mktemp("keys")
    machine.install()
    machine.root("rm", "-rf", "/sftp/archive")  # of users of the same names, in tests before
    with driving(machine) as driver:
        server = Server(machine, driver, make_key(keys / "laptop"), make_key(keys / "desk"))
        yield server
        server.must("remove-jail", {**JAIL, "forceDestroy": True})
        driver.shell("rm -rf /sftp/archive")


@pytest.fixture
def server(driven: Server) -> Iterator[Server]:
    """The same, with a jail that nobody is in."""
    driven.must("apply-jail", JAIL)
    yield driven
    driven.must("remove-user", driven.jack)
