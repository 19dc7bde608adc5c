#!/usr/bin/env python3
"""Preview a stack, and print the Markdown of a pull request's comment: the access review, and the raw diff below it.

Exits with 0 if the change may be merged, else with 1: the preview failed, the review says that a policy refuses the
change, or the stack's file is gone while the stack is not. The Markdown says which. The whole diff goes to stderr.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

LIMIT = 64_000
"""Characters in a comment. GitHub takes 65,536; the rest is for what ci/comment.py adds."""

LEAST_ROOM = 1_000
"""Characters that must be left for the diff."""

POLICY = Path("policy.yaml")
"""What the review refuses, where there is such a file; see `python -m sftp_jail review --help`."""

REVIEW_REFUSED = 2
"""The exit status of `python -m sftp_jail review` for a change that a policy refuses; 0 and 1 are a review, too."""


class Failed(Exception):
    """There is no review: `remedy` is a sentence for the reader, `output` is what was said instead."""

    def __init__(self, remedy: str, output: str = "") -> None:
        super().__init__(remedy)
        self.remedy = remedy
        self.output = output


def pulumi(*argv: str) -> str:
    """What pulumi prints; Failed with everything that it said, if it fails."""
    done = subprocess.run(
        ["pulumi", "--non-interactive", "--color", "never", *argv], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise Failed("The preview failed, so nobody knows what this change would do. Nothing may be merged yet.", said)
    return done.stdout


def review(changes: str) -> tuple[int, str]:
    """The access review of `pulumi preview --json`: its exit status and its Markdown."""
    policy = ["--policy", str(POLICY)] if POLICY.exists() else []
    command = [sys.executable, "-m", "sftp_jail", "review", *policy]
    done = subprocess.run(command, input=changes, capture_output=True, text=True, check=False)
    if done.returncode > REVIEW_REFUSED or not done.stdout.strip():
        raise Failed("The preview could not be reviewed. Read the diff in the run's log.", done.stderr)
    return done.returncode, done.stdout


def folded(summary: str, text: str, room: int) -> str:
    """The text in a block that opens on a click, cut to so many characters with all that is around it."""
    # The text cannot end the block: the fence is longer than any that is in there.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    before, after = f"<details><summary>{summary}</summary>\n\n{fence}\n", f"\n{fence}\n\n</details>"
    note = f"\n[cut here: the run's log has all {len(text)} characters]"
    room -= len(before + after)
    if len(text) > room:
        text = text[: max(0, room - len(note))] + note
    return before + text.rstrip() + after


def comment_on_change(stack: str) -> tuple[int, str]:
    """The review of what `pulumi up` would do, which is never cut, and the diff."""
    diff = pulumi("preview", "--stack", stack, "--diff")
    print(diff, file=sys.stderr)
    # With what stays as it is: of a user who has changed, not all has.
    status, text = review(pulumi("preview", "--stack", stack, "--json", "--show-sames"))
    room = LIMIT - len(text)
    if room < LEAST_ROOM:
        print(text, file=sys.stderr)
        raise Failed("The review is longer than a comment can be. The run's log has it.")
    return status, f"{text.rstrip()}\n\n{folded('pulumi preview --diff', diff, room)}"


def comment_on_removal(stack: str) -> str:
    """What to know of a stack whose file the change removes: that alone ends nobody's access."""
    counts = {
        found["name"].rpartition("/")[2]: found.get("resourceCount")
        for found in json.loads(pulumi("stack", "ls", "--json"))
    }
    # Pulumi Cloud may not have counted: None is no promise that nothing is left.
    if stack in counts and counts[stack] != 0:
        raise Failed(
            f"This change removes the stack's file, which ends nobody's access: the stack is still there. First run"
            f" `pulumi destroy -s {stack}` and `pulumi stack rm {stack}`."
        )
    return "The stack's file is removed. Nothing is left of the stack."


def main() -> int:
    """Print the comment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack")
    stack = parser.parse_args().stack
    try:
        if Path(f"stacks/Pulumi.{stack}.yaml").exists():
            status, text = comment_on_change(stack)
        else:
            status, text = 0, comment_on_removal(stack)
    except Failed as failed:
        print(failed.output, file=sys.stderr)
        # An error is at the end.
        said = failed.output[-LIMIT // 2 :]
        output = f"\n\n{folded('the end of what it said', said, LIMIT)}" if said else ""
        status, text = REVIEW_REFUSED, f"**{failed.remedy}**{output}"
    print(f"### Stack `{stack}`\n\n{text}")
    return 1 if status == REVIEW_REFUSED else 0


if __name__ == "__main__":
    sys.exit(main())
