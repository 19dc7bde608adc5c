"""The lines in the order in which things happened.

What users' processes say reaches the log at once. What sshd says as root comes through the journal, with the time at
which it was said, and may lie behind lines that are younger. Each of the two is in order; together they are merged.
No line of a process ever passes another of the same: a clock that was set back does not tear request and answer.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Optional

from . import parse

TENS = 6
"""Steps of ten seconds that a line may be late by."""

MANY = 20_000
"""Lines that are held back at most."""

Read = tuple[str, Optional[parse.Line]]
"""A line as it is, and its parts; None where it has none."""


def merged(lines: Iterable[str]) -> Iterator[Read]:
    """The lines, those of the journal where they belong."""
    direct: deque[tuple[int, str, Read]] = deque()
    journal: deque[tuple[int, str, Read]] = deque()
    tens, step = "", 0
    for raw in lines:
        line = parse.line(raw)
        time = tens if line is None else line.time
        if time[:18] != tens[:18]:
            tens = time
            step += 1
        late = line is not None and line.user == "root" and line.program in parse.SSHD
        (journal if late else direct).append((step, time, (raw, line)))
        while direct and journal:
            yield (journal if journal[0][1] <= direct[0][1] else direct).popleft()[2]
        queue = journal or direct
        while queue and (step - queue[0][0] > TENS or len(queue) > MANY):
            yield queue.popleft()[2]
    for _, _, read in [*journal, *direct]:
        yield read
