"""`review`: what a preview would change of who may do what, in words that need no programmer.

It reads the JSON of `pulumi preview --json --show-sames`, and asks neither Pulumi nor a server. Whatever the JSON
says is taken for written by an attacker: see style.py. What it cannot read is an error, never a review without
changes.
"""

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import Any

from .policy import Policy, read_policy
from .preview import Unusable, read_preview
from .report import report
from .style import STYLES, TEXT

NOTHING, WARNINGS, REFUSED, UNUSABLE = 0, 1, 2, 3
"""The exit statuses."""


def add_parser(subparsers: Any) -> None:
    """Add `review` to the command line."""
    parser = subparsers.add_parser(
        "review",
        help="say in plain words what a preview would change of who may do what",
        description=(
            "Say in plain words what a preview would change of who may do what. Make the preview with"
            " `pulumi preview --json --show-sames`: without --show-sames, little is known of unchanged users,"
            " and nothing of the unchanged password of a changed one. Never with --show-secrets."
        ),
        epilog=(
            "Exit status: 0, nothing to warn of; 1, warnings; 2, refused by the policy; 3, no review, because the"
            " preview failed, or the input, the policy file or an option is unusable."
        ),
    )
    parser.add_argument("file", nargs="?", default="-", help="what the preview printed (default: standard input)")
    parser.add_argument("--format", choices=list(STYLES), default="markdown", help="default: markdown")
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help=(
            "what to refuse, as YAML: maxDays: 30, the longest grant from today on, one without an end included;"
            " requireExpiry: true; forbidPasswords: true; forbidAnyone: true, no 0.0.0.0/0 or ::/0 in allowFrom and in"
            " AWS's rules. Only what the preview makes or changes is refused (default: nothing)"
        ),
    )
    parser.add_argument(
        "--today", metavar="DATE", type=date.fromisoformat, default=None, help="the day to count from: 2026-12-07"
    )
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> int:
    """Print the review; the exit status."""
    try:
        policy = read_policy(Path(options.policy)) if options.policy is not None else Policy()
        preview = read_preview(_read(options.file))
        review = report(preview, policy, options.today or date.today(), STYLES[options.format])
    except Unusable as reason:
        print(f"review: {TEXT.prose(str(reason))}", file=sys.stderr)
        return UNUSABLE
    print(review.text, end="")
    return REFUSED if review.refused else WARNINGS if review.warned else NOTHING


def _read(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode()
    except OSError as error:
        raise Unusable(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable("the input is not UTF-8, so no output of pulumi preview --json") from None
