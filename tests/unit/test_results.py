"""The page of what became of each case says what failed, what was skipped and what was not run."""

from pathlib import Path
from typing import Literal

import pytest

from tests.results import Results

Outcome = Literal["passed", "failed", "skipped"]
When = Literal["setup", "call", "teardown"]


def report(test: str, outcome: Outcome, *properties: tuple[str, str], when: When = "call") -> pytest.TestReport:
    return pytest.TestReport(
        f"tests/abuse/test_x.py::{test}", ("", 0, ""), {}, outcome, None, when, user_properties=properties
    )


def row_of(case: str, *reports: pytest.TestReport) -> list[str]:
    """What the page says of a case."""
    results = Results(Path("unused"))
    for each in reports:
        results.pytest_runtest_logreport(each)
    (row,) = [line for line in results.page().splitlines() if line.startswith(f"| {case} |")]
    return [cell.strip() for cell in row.strip("|").split(" | ")][2:]


A_1, NEWEST, OLDEST = ("case", "A 1"), ("release", "trixie"), ("release", "bullseye")


def test_what_passed_is_counted_by_release_and_named_as_a_sentence() -> None:
    row = row_of(
        "A 1",
        report("test_it_holds[trixie-x]", "passed", A_1, NEWEST),
        report("test_it_holds[trixie-y]", "passed", A_1, NEWEST),
        report("test_it_holds[bullseye-x]", "passed", A_1, OLDEST),
        report("test_another", "passed", ("case", "A 2"), ("release", "bookworm")),
    )
    assert row == ["1 passed", "-", "2 passed", "[it holds](abuse/test_x.py)"]


def test_what_failed_or_was_skipped_is_said_beside_what_passed() -> None:
    row = row_of(
        "A 1",
        report("test_it_holds[trixie-x]", "passed", A_1, NEWEST),
        report("test_it_holds[trixie-y]", "failed", A_1, NEWEST),
        report("test_it_holds[trixie-z]", "skipped", A_1, NEWEST, when="setup"),
    )
    assert row[0] == "**1 failed**, **1 skipped**, 1 passed"


def test_what_passed_and_then_fails_to_clear_up_has_failed() -> None:
    row = row_of(
        "A 1",
        report("test_it_holds", "passed", A_1),
        report("test_it_holds", "failed", A_1, when="teardown"),
    )
    assert row == ["**1 failed**", "[it holds](abuse/test_x.py)"]


def test_a_set_up_that_fails_is_not_forgotten_when_clearing_up_goes_well() -> None:
    row = row_of(
        "A 1",
        report("test_it_holds", "failed", A_1, when="setup"),
        report("test_it_holds", "passed", A_1, when="teardown"),
    )
    assert row[0] == "**1 failed**"


def test_what_has_no_test_is_a_dash_and_not_a_success() -> None:
    results = Results(Path("unused"))
    results.pytest_runtest_logreport(report("test_it_holds", "passed", A_1))
    assert "| A 2 | another mode for the jail's root | - |  |" in results.page()
