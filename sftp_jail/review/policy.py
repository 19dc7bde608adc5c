"""The policy file: what a review refuses."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import yaml  # type: ignore[import-untyped]

from .preview import Unusable


@dataclass(frozen=True)
class Policy:
    """What is refused of what a preview makes or changes. Default: nothing."""

    maxDays: Optional[int] = None
    """The longest grant in days from today on; one without an end is longer."""

    requireExpiry: bool = False
    """Whether every user must have an end."""

    forbidPasswords: bool = False
    """Whether a password is refused."""

    forbidAnyone: bool = False
    """Whether a range of all addresses is refused: of a user, and of a rule that lets in."""


def read_policy(path: Path) -> Policy:
    """The policy in a YAML file.

    :raises Unusable: if it cannot be read, or is not wholly understood
    """
    try:
        found: Any = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Unusable(f"cannot read the policy {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unusable(f"the policy {path} is not YAML: {error}") from None
    known = [field.name for field in fields(Policy)]
    if not isinstance(found, dict) or not found:
        raise Unusable(f"the policy {path} is no map of rules; known: {', '.join(known)}")
    for key, value in found.items():
        if key not in known:
            raise Unusable(f"the policy {path} has an unknown key: {key}; known: {', '.join(known)}")
        if key == "maxDays" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise Unusable(f"the policy {path}: {key} is not a whole number of days, 1 or more")
        if key != "maxDays" and not isinstance(value, bool):
            raise Unusable(f"the policy {path}: {key} is neither true nor false")
    return Policy(**found)
