"""Escape the control characters of other people's text, so that no terminal acts on it."""

from __future__ import annotations

import re

from paropt_exporter.lazy_patterns import compile_later

# Controls but newline and tab; marks that change the direction of text; line separators. The stream's encoding handles
# halves of surrogate pairs.
_CONTROLS = compile_later("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")


def visible(text: str) -> str:
    r"""Return the text with its control characters written as escapes: \x1b, \u202e."""
    if text.replace("\n", "").isprintable():
        return text  # most lines
    return _CONTROLS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
