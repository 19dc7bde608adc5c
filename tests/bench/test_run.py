"""The bench of all that the jail costs, at a size for every day; `make bench` is the whole of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

SMALL = [
    *("--contenders", "floor", "ours", "--sizes", "3", "--rounds", "1"),
    *("--verb-sizes", "2", "--idle-seconds", "1"),
    *("--gibibytes", "0.01", "--small-files", "40", "--clients", "4"),
]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a small bench has written."""
    folder = tmp_path_factory.mktemp("bench")
    argv = [sys.executable, str(ROOT / "bench" / "run.py"), *SMALL, "--output", str(folder)]
    done = subprocess.run(argv, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def figures(output: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((output / "results.json").read_text())
    return figures


def test_every_operation_is_measured_for_all_who_took_part_and_for_nobody_else(figures: dict[str, Any]) -> None:
    for operation in ("create", "noop", "add_one", "rotate_one", "remove_one", "preview"):
        seconds = figures[f"{operation}_3"]
        measured = {name for name, value in seconds.items() if value is not None}
        assert measured == {"ours"} | ({"floor"} if operation != "preview" else set())
        assert all(value > 0 for value in seconds.values() if value is not None)
        assert seconds.keys() == {"floor", "ours", "bare", "ansible", "pyinfra"}


def test_one_user_more_is_one_connection_and_a_preview_and_a_run_without_a_change_are_none(
    figures: dict[str, Any],
) -> None:
    connections = {key: value["connections"]["ours"] for key, value in figures["details"].items()}
    assert connections == {
        "create_3": 3,
        "noop_3": 0,
        "add_one_3": 1,
        "rotate_one_3": 1,
        "remove_one_3": 1,
        "preview_3": 0,
    }


def test_uploads_are_measured_both_ways(figures: dict[str, Any]) -> None:
    for kind in ("throughput_1GiB", "throughput_small", "throughput_clients"):
        assert figures[kind]["ours"] > 0
        assert figures[kind]["stock"] > 0


def test_no_verb_takes_more_memory_than_40_mb(figures: dict[str, Any]) -> None:
    verbs = figures["verbs"]["2"]
    assert all(0 < figure["peak"] <= 40 for figure in verbs.values()), verbs


def test_the_split_accounts_for_engine_program_plugin_and_machine(figures: dict[str, Any]) -> None:
    for split in figures["split_3"].values():
        assert all(split[part] > 0 for part in ("engine", "program", "plugin", "machine", "peak")), split


def test_the_report_has_a_row_for_each_operation_and_no_number_for_what_was_not_measured(output: Path) -> None:
    rows = [line for line in (output / "RESULTS.md").read_text().splitlines() if line.startswith("| making 3 users")]
    assert len(rows) == 2
    floor, ours, bare, ansible, pyinfra = (cell.strip() for cell in rows[0].strip("|").split("|")[1:])
    assert (bare, ansible, pyinfra) == ("-", "-", "-")
    assert float(floor) > 0
    assert float(ours) > 0
