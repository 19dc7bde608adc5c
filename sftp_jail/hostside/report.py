"""What `check` says: all that differs, each with what mends it; whose access ends soon, and what quotas are used."""

import contextlib
import json
from datetime import datetime, timedelta, timezone

from . import quota, state
from .difference import Difference
from .failure import Failure
from .validate import end_of_access

SOON = timedelta(days=14)


class Drift(Exception):
    """The server is not as it should be; the text is the report."""


def report(differences: list[Difference], form: str) -> str:
    """The report as text, a line each; or as JSON: `differences`, each with `subject`, `actual`, `wanted` and `remedy`;
    `expiring`, each with `username` and `expires`; and `quotas`, each with the fields of `quota.Use`.

    :param form: `text` or `json`
    :raises Drift: with the report, where anything differs
    """
    expiring: list[state.User] = []
    quotas: list[quota.Use] = []
    # What keeps them from being told is among the differences.
    with contextlib.suppress(Failure):
        expiring = [user for user in state.users() if _ends_soon(user)]
        quotas = quota.uses()
    if form == "json":
        fields = ("subject", "actual", "wanted", "remedy")
        found = {
            "differences": [{field: getattr(difference, field) for field in fields} for difference in differences],
            "expiring": [{"username": user.username, "expires": user.expires} for user in expiring],
            "quotas": [use._asdict() for use in quotas],
        }
        text = json.dumps(found, indent=1)
    else:
        ends = [
            f"{user.username}: access {'ended' if user.has_expired else 'ends'} {user.expires}" for user in expiring
        ]
        text = "\n".join([*(map(str, differences) if differences else ["no difference"]), *ends, *map(str, quotas)])
    if differences:
        raise Drift(text)
    return text


def _ends_soon(user: state.User) -> bool:
    return user.expires is not None and end_of_access(user.expires) <= datetime.now(timezone.utc) + SOON
