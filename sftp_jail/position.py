"""Where in the program a resource is made: the SDK puts that into the state, too much of it for a resource a user."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """What is registered within has no stack trace in the state.

    The SDK keeps the whole stack of each resource, down to the files of this computer's Python: 1.2 KB, most of what
    there is to keep of a user, where the engine writes all of the state several times for each of them. It asks
    `traceback` for that stack, and so it goes by `sys.tracebacklimit`.
    """
    before = getattr(sys, "tracebacklimit", None)
    sys.tracebacklimit = 1  # itself: no stack that it could take for the program's
    try:
        yield
    finally:
        if before is None:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before
