"""Every case of tests/cases.py has a test among those that `make test` runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cases import ANYWHERE, CASES
from tests.conftest import RELEASES, ROOT, cases_of, releases_of


class Collector:
    """A plugin that writes down, for each case, the releases on which a test is of it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """pytest's hook."""
        found: dict[str, list[str]] = {}
        for item in session.items:
            for name in cases_of(item):
                found.setdefault(name, []).extend(releases_of(item))
        Path(self._path).write_text(json.dumps(found))


COLLECT = """\
import sys, pytest
from tests.unit.test_cases import Collector
sys.exit(pytest.main(["--collect-only", "--quiet", *sys.argv[2:]], plugins=[Collector(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By case, the releases on which a test is of it."""
    path = tmp_path_factory.mktemp("cases") / "cases.json"
    files = [str(file) for file in (ROOT / "tests").rglob("test_*.py") if "mark.case(" in file.read_text()]
    collect = [sys.executable, "-c", COLLECT, str(path), "-m", "not more", "-p", "no:cacheprovider", *files]
    done = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("case", "what"), [(f"{part} {number}", what) for part, cases in CASES.items() for number, what in cases.items()]
)
def test_the_case_is_tested_on_every_release(tested: dict[str, list[str]], case: str, what: str) -> None:
    assert case in tested, what
    if case not in ANYWHERE:
        assert set(RELEASES) - set(tested[case]) == set(), what


def test_a_mark_names_a_case_that_there_is(tested: dict[str, list[str]]) -> None:
    known = {f"{part} {number}" for part, cases in CASES.items() for number in cases}
    assert set(tested) - known == set()
