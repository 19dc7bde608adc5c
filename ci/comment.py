#!/usr/bin/env python3
"""The pull request's comments, one a stack, written with `gh`, GitHub's own program, and updated in place.

    ci/comment.py write STACK FILE    the stack's comment becomes the file's Markdown
    ci/comment.py outdate             every comment there is says that it has no review of the newest commit

`outdate` comes first in a run. So whatever ends the run early, and whatever the newest commit no longer touches,
nobody reads a review of another commit and takes it for this one's.

From the environment: PULL_REQUEST, its number; HEAD_SHA, its newest commit; GH_TOKEN, which `gh` logs in with; and
GITHUB_REPOSITORY, GITHUB_SERVER_URL and GITHUB_RUN_ID, which every run has.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

MARKER = re.compile(r"<!-- sftp-jail: stack ([\w.-]+) -->\n", re.ASCII)
"""The first line of our comments, which no reader sees."""

AUTHOR = "github-actions[bot]"
"""Who a workflow's token writes as. Somebody else's comment with our marker is not ours: its author could change it."""


class Comment(NamedTuple):
    """One of ours."""

    id: int
    stack: str


def gh(path: str, *options: str, body: Optional[str] = None) -> Any:
    """Ask GitHub's REST API, or with a body tell it; what it answers."""
    argv = ["gh", "api", f"repos/{os.environ['GITHUB_REPOSITORY']}/issues/{path}", *options]
    if body is not None:
        argv += ["--input", "-"]
    text = json.dumps({"body": body}) if body is not None else ""
    done = subprocess.run(argv, input=text, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def ours() -> Iterator[Comment]:
    """Our comments on the pull request, the oldest first."""
    pages = gh(f"{os.environ['PULL_REQUEST']}/comments?per_page=100", "--paginate", "--slurp")
    for found in (comment for page in pages for comment in page):
        marker = MARKER.match(found["body"].replace("\r\n", "\n"))
        if marker and found["user"]["login"] == AUTHOR:
            yield Comment(found["id"], marker[1])


def whole(stack: str, text: str) -> str:
    """The comment's text, with what it is of."""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(os.environ)
    return f"<!-- sftp-jail: stack {stack} -->\n{text}\n\nCommit {os.environ['HEAD_SHA']}, [run]({run})\n"


def write(stack: str, text: str) -> None:
    """Update the stack's comment, or make it."""
    old = next((comment for comment in ours() if comment.stack == stack), None)
    if old is None:
        gh(f"{os.environ['PULL_REQUEST']}/comments", "--method", "POST", body=whole(stack, text))
    else:
        gh(f"comments/{old.id}", "--method", "PATCH", body=whole(stack, text))


def outdate() -> None:
    """Take what was said of earlier commits out of all comments."""
    for comment in ours():
        text = (
            f"### Stack `{comment.stack}`\n\nNo review of the newest commit. Either its run has not come that far, or"
            " has failed, or the commit does not concern this stack any more."
        )
        gh(f"comments/{comment.id}", "--method", "PATCH", body=whole(comment.stack, text))


def main() -> int:
    """Do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    writes = verbs.add_parser("write")
    writes.add_argument("stack")
    writes.add_argument("file", type=Path)
    verbs.add_parser("outdate")
    options = parser.parse_args()
    try:
        if options.verb == "outdate":
            outdate()
        elif text := options.file.read_text().strip():
            write(options.stack, text)
        else:
            print(f"{options.file}: empty, so the preview did not come to its end", file=sys.stderr)
            return 1
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # gh has said why
    return 0


if __name__ == "__main__":
    sys.exit(main())
