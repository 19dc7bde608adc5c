"""The review itself: the counts first, then what to be wary of, then every change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

from .access import Access
from .findings import Findings
from .policy import Policy
from .preview import Preview
from .server import Server
from .style import Style


@dataclass(frozen=True)
class Review:
    """A review, and what it comes to."""

    text: str
    """Ends with a line break."""

    warned: bool
    """Whether there is something to warn of."""

    refused: bool
    """Whether the policy refuses something."""


def report(preview: Preview, policy: Policy, today: date, style: Style) -> Review:
    """Review a preview.

    :param preview: what would change
    :param policy: what is refused of it
    :param today: the day that grants are counted from
    :param style: how it is written
    """
    access = Access(preview, policy, today, style)
    server = Server(preview, access.reviewed, policy, style)
    warnings, refusals = Findings(), Findings()
    for part in (access, server):
        warnings.add_all(part.warnings)
        refusals.add_all(part.refusals)
    lines = [
        f"{style.heading(_verdict(refusals, warnings))} Users: {access.counts}."
        f" Server: {_changes(server.lines)}. Other resources: {_changes(server.others)}.",
        "",
        f"Unchanged users: {access.unchanged}",
        *_part(style, "Refused by policy", _findings(refusals)),
        *_part(style, "Warnings", _findings(warnings)),
        *_part(style, "Users", access.lines),
        *_part(style, "Server", server.lines),
        *_part(style, "Other resources", server.others),
    ]
    return Review("\n".join([*lines, ""]), warned=len(warnings) > 0, refused=len(refusals) > 0)


def _verdict(refusals: Findings, warnings: Findings) -> str:
    parts = [f"{len(refusals)} refused by policy"] if refusals else []
    if warnings:
        parts.append("1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings")
    return f"{', '.join(parts) or 'Nothing to warn of'}."


def _changes(lines: list[str]) -> str:
    return "no change" if not lines else "1 change" if len(lines) == 1 else f"{len(lines)} changes"


def _findings(findings: Findings) -> Iterator[str]:
    for kind, whom in findings.by_kind.items():
        yield f"{kind}: {', '.join(whom)}"


def _part(style: Style, heading: str, lines: Iterable[str]) -> Iterator[str]:
    bullets = [f"- {line}" for line in lines]
    if bullets:
        yield from ("", style.heading(heading), "", *bullets)
