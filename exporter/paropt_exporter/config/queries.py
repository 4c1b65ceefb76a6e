"""Find what any PromQL parser would refuse at once: a bracket or a quote that is not closed."""

from __future__ import annotations

import re

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"'  # strings, with escapes ...
    r"|'(?:[^'\\\n]|\\.)*'"
    r"|`[^`]*`"  # ... and raw
    r"|\#[^\n]*"  # a comment, up to the line's end
    r"|(?P<quote>[\"'`])|(?P<opened>[(\[{])|(?P<closed>[)\]}])"
)


def fault(query: str) -> str | None:
    """Return what is wrong with the query's brackets and quotes, or None; its grammar is the server's to judge."""
    expected: list[str] = []
    for token in _TOKEN.finditer(query):
        if token["quote"]:
            return f"the quote {token['quote']} is not closed"
        if token["opened"]:
            expected.append(_CLOSING[token["opened"]])
        elif token["closed"] and (not expected or expected.pop() != token["closed"]):
            return f"{token['closed']} closes nothing"
    return f"{expected[-1]} is missing" if expected else None
