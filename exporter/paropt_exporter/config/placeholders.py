"""Find items in a shell's line where their own quotes don't protect it: an item's name would be run as code."""

from __future__ import annotations

import re

_ITEM = re.compile(r"\{(?:items?|args)\}")
# What changes the meaning of the text after it, as POSIX shells read a line.
_TOKEN = re.compile(rf"\\.|'|\"|`|\$\(|\(|\)|(?:(?<=[\s;&|(])|^)#|<<|{_ITEM.pattern}", re.DOTALL)
_NAMES = {"'": "quotes", '"': "quotes", "`": "backquotes", "#": "a comment", "<<": "a here-document"}
_ENDS = {"'": re.compile("'|$"), "#": re.compile("\n|$")}  # what stands in between has no meaning of its own
_ALL_THE_WAY_IN = ("`", "<<")  # backslashes and dollars have another meaning in whatever stands in them


def find_unprotected(line: str) -> tuple[str, str] | None:
    """Return the first item that stands where its quotes are no quotes, and what it stands in; None: there is none.

    Each item is quoted for a shell when it is put in. Inside of other quotes these would end them.
    """
    inside: list[str] = []  # what is open, the innermost last: " ` << (
    at = 0
    while (token := _TOKEN.search(line, at)) is not None:
        text, at = token[0], token.end()
        innermost = inside[-1] if inside else ""
        if _ITEM.fullmatch(text):
            around = next((each for each in _ALL_THE_WAY_IN if each in inside), innermost)
            if around in _NAMES:
                return text, _NAMES[around]
        elif text in _ENDS and innermost != '"':
            end = _ENDS[text].search(line, at)
            if end is not None:
                if found := _ITEM.search(line, at, end.start()):
                    return found[0], _NAMES[text]
                at = end.end()
        else:
            _track_nesting(inside, text)
    return None


def _track_nesting(inside: list[str], text: str) -> None:
    innermost = inside[-1] if inside else ""
    if text == "`" and "`" in inside:
        del inside[inside.index("`") :]
    elif (text == '"' and innermost == '"') or (text == ")" and innermost == "("):
        inside.pop()
    elif text in ("`", "$(") or (text in ('"', "(") and innermost != '"'):
        inside.append(text.lstrip("$"))
    elif text == "<<" and innermost != '"' and inside[-2:] != ["(", "("]:  # in $((1 << 2)) it shifts
        inside.append("<<")
