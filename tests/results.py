"""What became of each case of tests/cases.py, as a page that people can read: `make results`."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cases import CASES

PARTS = {"A": "What a jailed user may try", "B": "The operator's bad days", "C": "Bad input"}

COLUMNS = {"bullseye": "Debian 11", "bookworm": "Debian 12", "trixie": "Debian 13", "": "any"}
"""By a test's release, empty for one that is of none."""

HEAD = """\
# What the jail stands up to

Written by `make results`, from one run of `make test`. Each line is a case of [cases.py](cases.py), and how many tests
of it passed: with a real sshd, real clients and a real Pulumi engine, on machines that were booted for it; under *any*,
what is of no Debian release. A dash is what was not run.
"""


class Results:
    """A pytest plugin that remembers the outcome of each test of a case, and writes the page in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes: dict[str, str] = {}
        self._tests: dict[tuple[str, str], set[str]] = defaultdict(set)
        """By case and release."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """pytest's hook, of a test's set-up, call and teardown, each of which may fail."""
        if report.when == "call" or not report.passed:
            self._outcomes[report.nodeid] = report.outcome
        properties = [(name, str(value)) for name, value in report.user_properties]
        for case in (value for name, value in properties if name == "case"):
            for release in [value for name, value in properties if name == "release"] or [""]:
                self._tests[case, release].add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """pytest's hook."""
        self._path.write_text(self.page())

    def page(self) -> str:
        """The page, in Markdown."""
        return "\n".join([HEAD, *(self._part(part, cases) for part, cases in CASES.items())])

    def _part(self, part: str, cases: dict[int, str]) -> str:
        columns = [release for release in COLUMNS if any(self._tests[f"{part} {number}", release] for number in cases)]
        rows = [["", PARTS[part], *(COLUMNS[release] for release in columns), "tests"], ["---"] * (len(columns) + 3)]
        for number, what in cases.items():
            tests = [self._tests[f"{part} {number}", release] for release in columns]
            rows.append([f"{part} {number}", what, *map(self._cell, tests), _sentences(set().union(*tests))])
        return "\n".join([f"## {part}. {PARTS[part]}", "", *(f"| {' | '.join(row)} |" for row in rows), ""])

    def _cell(self, tests: set[str]) -> str:
        # Of a run that was stopped, some were begun and have none.
        outcomes = [self._outcomes[test] for test in tests if test in self._outcomes]
        others = [
            f"**{outcomes.count(outcome)} {outcome}**" for outcome in ("failed", "skipped") if outcome in outcomes
        ]
        passed = [f"{outcomes.count('passed')} passed"] if "passed" in outcomes else []
        return ", ".join(others + passed) or "-"


def _sentences(tests: Iterable[str]) -> str:
    """The names of the tests, each a sentence that leads to where it stands."""
    found = sorted({tuple(test.partition("[")[0].split("::")) for test in tests})
    return "; ".join(
        f"[{name.removeprefix('test_').replace('_', ' ')}]({file.removeprefix('tests/')})" for file, name in found
    )
