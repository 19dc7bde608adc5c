"""What one user may take of the host at most, so that nobody else notices: processes, and the length of a file.

For sessions (limits.conf(5), by PAM) of everybody in the group; a user's own lines, as his quota has them, come before.
"""

from collections.abc import Iterator

from . import files
from .accounts import GROUP
from .difference import Difference

FILE = "/etc/security/limits.d/sftp-jail.conf"

PROCESSES = 100
"""Two for each session, and two of systemd's for the user: some 49 sessions, of a few MiB each. Clients that transfer
many files side by side open ten or twenty."""

LONGEST_FILE = 1 << 40
"""Bytes, holes included: what has no end takes no room, but any program for ever that reads it whole."""

TEXT = f"""\
# Written by jailctl, which puts it back when it is changed.
@{GROUP} - nproc {PROCESSES}
@{GROUP} - fsize {LONGEST_FILE >> 10}
"""


def differences(wanted: bool) -> Iterator[Difference]:
    """The limits there, or gone."""
    yield from files.file_differences(FILE, TEXT if wanted else None)
