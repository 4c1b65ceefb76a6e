"""Show text that others wrote without letting a terminal act on it: the one function that all of it goes through."""

from __future__ import annotations

import re

# Controls but newline and tab; marks that change the direction of text; line separators. Halves of surrogate pairs are
# left to the stream's encoding.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")


def visible(text: str) -> str:
    r"""Return the text with such characters written as escapes: \x1b, \u202e."""
    return _ACTING.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
