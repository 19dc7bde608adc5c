"""What is, what should be, and how to get there: the one thing that apply, check and remove all work on."""

from collections.abc import Iterable, Iterator
from typing import Callable, NamedTuple

from .failure import Failure

REPAIR = "sudo jailctl repair"


class Difference(NamedTuple):
    """One way in which the server is not what the spec says.

    Areas yield these lazily, in the order in which they must be mended; the next one is looked for when this
    one has been dealt with. So what `apply` sees is the server as it is by then, and what `check` sees is the
    server as it is.
    """

    subject: str
    actual: str
    wanted: str
    mend: Callable[[], object]
    remedy: str = REPAIR
    """What an operator types to have it mended; where jailctl must not mend it, what he has to see to."""

    def __str__(self) -> str:
        return f"{self.subject}: {self.actual}, should be {self.wanted}; to repair: {self.remedy}"


def refusal(subject: str, actual: str, wanted: str, failure: Failure) -> Difference:
    """A difference that is not jailctl's to mend: to try is the failure."""

    def give_up() -> None:
        raise failure

    return Difference(subject, actual, wanted, give_up, failure.command or failure.hint)


def told(subject: str, differences: Iterable[Difference]) -> Iterator[Difference]:
    """The differences; and where something is so wrong that they cannot be told, that: whoever lists them goes on with
    what is left."""
    try:
        yield from differences
    except Failure as failure:
        yield refusal(subject, failure.message, "as specified", failure)
    except OSError as error:
        yield refusal(subject, str(error), "as specified", Failure(str(error), "Put that right and run it again"))


def apply(differences: Iterable[Difference]) -> list[str]:
    """Mend all of them; returns a line for each."""
    lines = []
    for difference in differences:
        difference.mend()
        lines.append(f"{difference.subject}: {difference.wanted} (was: {difference.actual})")
    return lines
