r"""How a review is written, and how what others wrote gets into it.

A value out of the preview is ASCII, cut to a length, and everything else in it is written as in Python (`\u202e`). In
Markdown it is in a code span as well, unless it is a plain word or number: backslashes would not stop GitHub, which
looks for @mentions, #123 and links in the text that Markdown has become, but not in code.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

LONGEST = 80
"""Characters of a value."""

LONGEST_PROSE = 2000
"""Characters of an error message of Pulumi's."""

PLAIN = re.compile(r"(?!.*(gh-[0-9]|[0-9a-f]{7}))([a-z][a-z0-9]*(-[a-z0-9]+)*|[0-9]+([./][0-9]+)*)")
"""A user's name, a label, an IPv4 range, a number: nothing that Markdown or GitHub would make more of. To GitHub,
GH-1 is an issue, and seven hexadecimal digits may be a commit."""


def visible(text: str, forbidden: str, longest: int) -> str:
    """The text in ASCII, without the forbidden characters, and not longer."""
    shown = "".join(
        f"\\x{ord(character):02x}"
        if character in forbidden
        else character
        if character.isascii() and character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode()
        for character in text[:longest]
    )
    return shown if len(shown) <= longest and len(text) <= longest else f"{shown[:longest]}..."


@dataclass(frozen=True)
class Style:
    """A format's marks."""

    strong: str
    """Around what stands out."""

    code: str
    """Around a fingerprint."""

    quote: str
    """Around a value that is no plain word."""

    forbidden: str
    """What a value may not have as it is; what else would be markup in a code span goes, too, for whatever reads the
    comment besides GitHub."""

    def value(self, value: object) -> str:
        """A value out of the preview."""
        text = str(value)
        if PLAIN.fullmatch(text) and len(text) <= LONGEST:
            return text
        return f"{self.quote}{visible(text, self.forbidden, LONGEST)}{self.quote}" if text else "(empty)"

    def json(self, value: Any) -> str:
        """A value of JSON; a text as it is."""
        return self.value(value if isinstance(value, str) else json.dumps(value, sort_keys=True))

    def user(self, name: object) -> str:
        """A user's name."""
        return f"{self.strong}{self.value(name)}{self.strong}"

    def fingerprint(self, text: str) -> str:
        """A fingerprint that we have computed."""
        return f"{self.code}{text}{self.code}"

    def heading(self, text: str) -> str:
        """A line of our own that begins a part."""
        return f"{self.strong}{text}{self.strong}"

    def prose(self, text: str) -> str:
        """A text of more than one line, for a terminal; its lines stay."""
        return "\n".join(visible(line, "", LONGEST_PROSE) for line in text.splitlines())


MARKDOWN = Style(strong="**", code="`", quote="`", forbidden="`|<>&")
TEXT = Style(strong="", code="", quote='"', forbidden='"')
STYLES = {"markdown": MARKDOWN, "text": TEXT}
