"""The bench of the log, at a size for every day; `make bench-log` is the whole of it."""

import json
import sys

from tests.conftest import ROOT, call


def test_every_operation_of_many_users_at_once_is_in_the_log_and_in_the_timeline_once() -> None:
    done = call(sys.executable, ROOT / "bench" / "log.py", "--operations", "4000")
    assert done.code == 0, done
    figures = json.loads(done.out)
    assert figures["operations"] == 4000
    assert figures["log"] == figures["timeline"]
