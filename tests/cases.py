"""What the product must stand up to: each case is a test, really run on every Debian release, and marked with it.

`@pytest.mark.case("A 13")` beside a test, or as a mark of one of its parameters, says that it is of case 13 of part A;
several cases are several words. tests/unit/test_cases.py sees to it that none is without.
"""

ABUSE = {
    # Refused, logged, and the session goes on
    1: "a directory made in the jail's root",
    2: "another mode for the jail's root",
    3: "/uploads renamed",
    4: "/uploads removed",
    5: "one's file given to root",
    6: "/dev/log removed",
    7: "/dev/log renamed",
    8: "/dev/log hard-linked",
    9: "a file put into /dev",
    10: "/proc listed",
    11: "/../../.. listed",
    12: "the real path of an escape",
    13: "an absolute symbolic link to /etc/passwd",
    14: "another jail's path",
    15: "one's file given to a foreign group",
    # No channel but SFTP
    16: "a command",
    17: "a shell",
    18: "a terminal",
    19: "scp -O",
    20: "rsync",
    21: "-L to a TCP port",
    22: "-R from a TCP port",
    23: "-D",
    24: "-w",
    25: "-A",
    26: "-X",
    27: "-L to a Unix socket in the jail",
    28: "a login by password and keyboard-interactive",
    29: "a key with a command of its own",
    30: "another user's key",
    31: "root, with a jailed user's key",
    # Bounded, and nobody else notices
    32: "the disk filled",
    33: "the inodes filled",
    34: "a sparse file of 4 EiB",
    35: "a tree deeper than PATH_MAX",
    36: "a flood of log lines",
    37: "many sessions on one connection",
    38: "many connections",
    39: "a flood of connections that never log in",
    40: "an idle session",
    41: "a disconnect in mid-upload",
    42: "a directory of a million entries",
    # Evidence and persistence
    43: "a newline in a name",
    44: "ESC and BEL in a name",
    45: "a name with quotes that looks like a line of the log",
    46: "a name so long that its line is cut",
    47: "a name that is not UTF-8",
    48: "the names -rf and *",
    49: "setuid and setgid bits",
    50: "an mtime of 1970",
    51: "modes 2777 and 000 on one's own directories",
    52: "one's own keys edited",
    53: "a planted symbolic link where root works later",
    54: "a hard link, then a chown by root",
    55: "a session held open through the loss of key, time and account",
    56: "one key twice, with and without options",
    57: "a denied request in the log",
    58: "false lines from an account of the host",
    59: "files swapped under whoever reads them",
}
"""A. What a jailed user may try, by number."""

CASES = {"A": ABUSE}
"""By the letter of the part."""
