"""Names as a person may safely look at them."""

import re
import unicodedata

DOUBTFUL = re.compile(r"[^ !-\[\]-~]")
"""All but ASCII that prints, less the backslash."""


def visible(text: str, right_to_left: bool = False) -> str:
    """The text with all that does not print, or moves what does, as backslash escapes; a backslash is doubled.

    Letters that are written from right to left turn what stands beside them; they are escaped unless whoever shows
    the text keeps it apart (`right_to_left`). A byte that is not UTF-8 becomes `\\xNN`.
    """
    return DOUBTFUL.sub(lambda found: _one(found[0], right_to_left), text)


LETTERS = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _one(char: str, right_to_left: bool) -> str:
    if char in LETTERS:
        return LETTERS[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    category = unicodedata.category(char)
    hidden = category[0] == "C" or (category[0] == "Z" and char != " ")
    if hidden or (not right_to_left and unicodedata.bidirectional(char) in ("R", "AL", "AN")):
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def name(path: bytes) -> str:
    """A name as text, for `visible`: UTF-8, and surrogates where it is not."""
    return path.decode("utf-8", "surrogateescape")
