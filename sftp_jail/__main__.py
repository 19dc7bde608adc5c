"""`python -m sftp_jail`: what an operator asks for besides `pulumi`."""

import argparse
import sys
from typing import NoReturn

from . import check, review, timeline

COMMANDS = (check, review, timeline)
"""Each has `add_parser(subparsers)`, which sets `func`: what runs it, and returns the exit status."""


class Parser(argparse.ArgumentParser):
    """One whose own status is no answer of a command's: argparse's is 2."""

    def error(self, message: str) -> NoReturn:
        """Say how it is used, and exit with 3."""
        self.print_usage(sys.stderr)
        self.exit(3, f"{self.prog}: error: {message}\n")


def main() -> int:
    """Run the one that is asked for."""
    parser = Parser(prog="python -m sftp_jail", description="Look at a stack's SFTP host.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args()
    status: int = options.func(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
