"""What of the log is sent on, whatever becomes of its files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sftp_jail.hostside.forward import Log, Place

OLD, NEW = "2026-05-01T00:00:00.000001+00:00 old", "2026-05-02T00:00:00.000001+00:00 new"
LATE = "2026-04-30T23:59:59.999999+00:00 what the journal brought late"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log that was rotated once, with a line in each file."""
    path = tmp_path / "sftp.log"
    write(tmp_path / "sftp.log.1", "2026-04-01T00:00:00.000001+00:00 older")
    write(path, OLD)
    return path


def write(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def everything(log: Log) -> list[str]:
    lines = []
    while more := log.read():
        lines += more
    return lines


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("gone", [deleted, emptied])
@pytest.mark.parametrize("lines", [[NEW], [NEW] * 100, [LATE, NEW]], ids=["one", "more than before", "late"])
@pytest.mark.parametrize("asleep", [False, True], ids=["awake", "asleep"])
def test_what_comes_after_the_log_was_deleted_or_emptied_is_sent_and_nothing_before_it(
    log: Path, gone: Callable[[Path], None], lines: list[str], asleep: bool
) -> None:
    reader = Log(str(log), None)
    reader.skip()
    place = reader.place
    gone(log)
    if not asleep:
        assert everything(reader) == []
    write(log, *lines)
    if asleep:
        reader = Log(str(log), place)
    assert everything(reader) == lines
    again = Log(str(log), reader.place)
    assert everything(again) == []
    write(log, "2026-05-03T00:00:00.000001+00:00 later")
    assert len(everything(again)) == 1


def test_what_was_rotated_and_deleted_since_is_passed_over(log: Path) -> None:
    place = Place(f"{OLD}\n", 0)
    log.rename(f"{log}.2")
    Path(f"{log}.2").unlink()
    Path(f"{log}.1").unlink()
    write(Path(f"{log}.1"), NEW)
    write(log, "2026-05-03T00:00:00.000001+00:00 newest")
    assert len(everything(Log(str(log), place))) == 2
