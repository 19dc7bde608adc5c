"""`timeline`: what `jailctl timeline` tells on a stack's host, asked from the deployer's side.

It goes the way that `check` goes: the connection that the stack's state has, with the pinned host key.
"""

import argparse
import signal
import sys
from typing import Any

from . import check
from .hostside.failure import Failure
from .hostside.timeline import options

CANNOT_SAY = 2
"""The exit status when there is no answer, or only the beginning of one."""


def add_parser(subparsers: Any) -> None:
    """Add `timeline` to the command line."""
    parser = subparsers.add_parser(
        "timeline",
        help="tell what the users of a stack's server did, and who let them in",
        description="Tell the log of a stack's server as a story: logins, sessions, files, and what jailctl did.",
        epilog="Exit status: 0, all of it is told; 2, it could not be told.",
    )
    parser.add_argument("-s", "--stack", help="the stack (default: the one that is selected)")
    options.add(parser)
    parser.set_defaults(func=run)


def run(given: argparse.Namespace) -> int:
    """Tell the story of the stack's host on stdout; the exit status."""
    # So that the private key's file goes, too, when a CI job is cancelled.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(CANNOT_SAY))
    try:
        options.read(given)  # a fault is told at once, and not by the server
        found = check.connections(check.resources(given.stack))
        if len(found) > 1:
            raise check.NoAnswer("the stack's state names two servers, since an `up` has failed: run pulumi up first")
        done = check.jailctl(found[0], "timeline", *options.arguments(given), stdout=sys.stdout.fileno())
        if done.returncode != 0:
            raise check.NoAnswer(check.why(done, found[0]))
    except (check.NoAnswer, Failure) as reason:
        print(f"timeline: {reason}", file=sys.stderr)
        return CANNOT_SAY
    return 0
