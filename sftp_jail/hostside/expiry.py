"""The end of access that nobody has to be there for: a systemd timer ends the sessions of whoever's time is over.

New logins sshd refuses by itself: by the key's `expiry-time` and by the account's expiry. But a session that is open
goes on for as long as its client likes; and the account's expiry knows whole days only.
"""

import os
from collections.abc import Iterator
from typing import Optional

from . import accounts, audit, difference, files, notes, process, services, state
from .difference import Difference
from .failure import Failure
from .state import User

TIMER = "sftp-jail-expiry.timer"
SERVICE = "sftp-jail-expiry.service"
FOLDER = "/etc/systemd/system"
ENABLED = f"{FOLDER}/timers.target.wants/{TIMER}"

TEXTS = {
    f"{FOLDER}/{TIMER}": """\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=Twice a minute, the end of SFTP sessions whose user's time is over
# However often it was stopped: else the sixth start in ten seconds would be refused (DefaultStartLimitBurst).
StartLimitIntervalSec=0

[Timer]
OnCalendar=*:*:00,30
AccuracySec=1s

[Install]
WantedBy=timers.target
""",
    f"{FOLDER}/{SERVICE}": """\
# Written by jailctl, which puts it back when it is changed.
[Unit]
Description=The end of SFTP sessions whose user's time is over

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/jailctl expire
# Without systemd's own lines on every run.
LogLevelMax=notice
""",
}


def differences(wanted: bool) -> Iterator[Difference]:
    """The timer, running now and after a reboot; or none."""
    if not wanted and (os.path.lexists(ENABLED) or services.is_active(TIMER)):
        yield Difference(TIMER, "there", "gone", lambda: services.disable("--now", TIMER))
    texts: dict[str, Optional[str]] = {path: text if wanted else None for path, text in TEXTS.items()}
    changed = {path: text for path, text in texts.items() if files.read(path) != text}
    if changed:
        yield Difference(
            f"expiry, {', '.join(sorted(changed))}",
            "another unit",
            "the jail's" if wanted else "none",
            lambda: services.install(TIMER, changed, lambda: None, _load),
        )
    if services.is_marked(TIMER):
        yield Difference(TIMER, "an earlier one is loaded", "loaded", _load)
    if wanted and not (os.path.lexists(ENABLED) and services.is_active(TIMER)):
        yield Difference(TIMER, "not running", "running", lambda: services.enable("--now", TIMER))


def _load() -> None:
    services.load(TIMER, SERVICE)
    services.clear(TIMER)


def user_differences(user: User) -> Iterator[Difference]:
    """No session of a user whose time is over."""
    if user.has_expired and process.of(user.uid):
        yield Difference(f"sessions of {user.username}", "open", "ended", lambda: process.end(user.uid))


def end_sessions() -> list[str]:
    """End the sessions of all whose time is over; a line for each.

    Takes no lock: the archive of somebody's uploads may hold it for hours.
    """
    lines, failures = [], []
    for user in state.users():
        for found in user_differences(user):
            try:
                found.mend()
                lines.append(f"{found.subject}: {found.wanted}, for access ended with {user.expires}")
                lines += audit.try_to_note(notes.note("sessions-ended", user=user.username, expires=user.expires))
            except Failure as failure:
                failures.append(failure)
    if failures:
        raise failures[0]
    return lines


def close_accounts() -> list[str]:
    """Close the accounts of all whose time is over, also within the day; a line for each."""
    lines = []
    for user in state.users():
        if user.has_expired and accounts.entry(user) is not None:
            mended = difference.apply(accounts.expiry_differences(user))
            if mended:
                lines += mended
                lines += audit.try_to_note(notes.note("access-expired", user=user.username, expires=user.expires))
    return lines
