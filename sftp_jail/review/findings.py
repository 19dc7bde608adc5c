"""What a review warns of, or refuses: of each kind, whom or what it concerns."""

import ipaddress

ANYONE = "Open to anyone"
DATA = "Data that will be deleted"
UNREADABLE = "Not readable in this preview, so not reviewed"
WEAKER = "A weaker setting"

FORBID_ANYONE = "Open to anyone (forbidAnyone)"
NO_SETTINGS = "Settings that cannot be read"


class Findings:
    """Warnings, or refusals."""

    def __init__(self) -> None:
        self.by_kind: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.by_kind.values()))

    def add(self, kind: str, whom: str) -> None:
        """Note it, once."""
        found = self.by_kind.setdefault(kind, [])
        if whom not in found:
            found.append(whom)

    def add_all(self, others: "Findings") -> None:
        """Note what others have."""
        for kind, found in others.by_kind.items():
            for whom in found:
                self.add(kind, whom)


def says_anyone(value: object) -> bool:
    """Whether it is a range of all addresses, however it is spelt."""
    try:
        return isinstance(value, str) and "/" in value and ipaddress.ip_network(value.strip(), False).prefixlen == 0
    except ValueError:
        return False
