"""The timeline's page, in a browser."""

import os
import subprocess
from pathlib import Path

from sftp_jail.hostside.timeline import page
from tests.unit.test_timeline import Log, many, message, written


def test_a_browser_shows_the_page_and_makes_only_the_rows_that_can_be_seen(tmp_path: Path) -> None:
    log = Log()
    log.lines = list(many(20_000))
    log.add("jack internal-sftp[1]", message("remove name", b"</script><b id=x>" + "\u202e".encode()))
    place = tmp_path / "timeline.html"
    place.write_text(written(log.items(), page), "utf-8")
    argv = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser",
            "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom",
            f"file://{place}#/uploads/1234"]  # fmt: skip
    # It makes a folder for its crashes in ~/.config, whatever its --user-data-dir.
    env = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert "11 of 21,001 events" in done.stdout
    assert 'class="bar"' in done.stdout
    assert 5 < done.stdout.count('class="row events"') < 60
    assert '<b id="x">' not in done.stdout
