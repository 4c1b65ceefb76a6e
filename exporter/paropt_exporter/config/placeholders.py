"""The placeholders of a stage's commands, and the quotes in their lines."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from functools import lru_cache

from paropt_exporter.lazy_patterns import compile_later

ITEM = "{item}"  # one item for each task
ITEMS = "{items}"  # several items for each command
ARGS = "{args}"  # the arguments after -- on the command line
SHELL = ("/bin/sh", "-ec")  # reads the line of a stage with `shell: true`, and ends at the first failure
_ANY_PLACEHOLDER = "|".join(map(re.escape, (ITEM, ITEMS, ARGS)))
_PLACEHOLDER = compile_later(_ANY_PLACEHOLDER)
# Tokens that change the meaning of the text after them, as POSIX shells and bash read a line.
_TOKEN = compile_later(
    rf"\\(?:{_ANY_PLACEHOLDER}|.)|'|\"|`|\$?\(\(|\$\(|\(|\)|\$(?:\{{[!#]?\w*)?\[|\[|\]"
    rf"|(?:(?<=[\s;&|(])|^)#|(?<=[)<>])#|<<|{_ANY_PLACEHOLDER}",
    re.DOTALL,
)
_NAMES = {
    "'": "quotes", '"': "quotes", "`": "backquotes", "#": "a comment", "<<": "a here-document", "\\": "an escape",
    "((": "an arithmetic expression", "[": "an arithmetic expression",
}  # fmt: skip
_ENDS = {"'": compile_later("'|$"), "#": compile_later("\n|$")}  # tokens up to there have no meaning
_BEFORE_SOME_COMMENTS = (")", "<", ">")  # after these, `#` begins a comment in some places only
_ALL_THE_WAY_IN = ("`", "<<", "((", "[")  # they change backslashes and dollars, or the result, at any depth inside
QUOTED = compile_later(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\[^\n]""", re.DOTALL)


@lru_cache(maxsize=16)  # each check of a stage splits its lines, and so does each of its items
def split_line(line: str) -> tuple[str, ...]:
    """Return the words of a line. Raises ValueError for an open quote."""
    return tuple(shlex.split(line))


def drop_quoted(line: str) -> str:
    """Return a command line with `_` in place of each quoted part, in which nothing has a meaning for a shell."""
    return QUOTED.sub("_", line)


def find_unprotected(line: str) -> tuple[str, str] | None:
    """Return the first placeholder in surroundings in which its quotes don't protect it, with their name.

    Each value is quoted for the shell. Inside other quotes, its own quotes would end them, a backslash takes its first
    one away, and arithmetic expressions know none.
    """
    inside = _Nesting()
    at = comment_end = 0  # the end of a line that may have begun a comment
    while (token := _TOKEN.search(line, at)) is not None:
        text, at = token[0], token.end()
        innermost = inside.innermost
        if _PLACEHOLDER.fullmatch(text):
            if at <= comment_end:
                return text, _NAMES["#"]
            around = next((each for each in _ALL_THE_WAY_IN if each in inside), innermost)
            if around in _NAMES:
                return text, _NAMES[around]
        elif text[0] == "\\":
            if _PLACEHOLDER.fullmatch(text, 1):
                return text[1:], _NAMES["\\"]
        elif text == "#" and innermost != '"' and line[token.start() - 1 : token.start()] in _BEFORE_SOME_COMMENTS:
            if comment_end < at:
                newline = line.find("\n", at)
                comment_end = newline if newline >= 0 else len(line)
        elif text in _ENDS and innermost != '"':
            end = _ENDS[text].search(line, at)
            if end is not None:
                if found := _PLACEHOLDER.search(line, at, end.start()):
                    return found[0], _NAMES[text]
                at = end.end()
        elif text == ")" and innermost == "((":
            inside.close()
            if line[at : at + 1] == ")":
                at += 1
            else:
                inside.open("(")  # a command in two parentheses
        else:
            inside.note(text)
    return None


class _Nesting:
    """The open tokens of a line: " ` << ( (( [. All methods take the same time, however deep they are nested."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._counts: Counter[str] = Counter()

    def __contains__(self, token: str) -> bool:
        return self._counts[token] > 0

    @property
    def innermost(self) -> str:
        return self._open[-1] if self._open else ""

    def open(self, token: str) -> None:
        self._open.append(token)
        self._counts[token] += 1

    def close(self) -> str:
        token = self._open.pop()
        self._counts[token] -= 1
        return token

    def note(self, text: str) -> None:
        """Open or close what a token stands for."""
        innermost = self.innermost
        if text == "`" and "`" in self:
            while self.close() != "`":
                pass
        elif (text, innermost) in ((")", "("), ("]", "["), ('"', '"')):
            self.close()
        elif text[0] == "$" or text == "`" or (text in ('"', "(", "((") and innermost != '"'):
            self.open("[" if text[-1] == "[" else text.lstrip("$"))
        elif text == "[" and "[" in self:
            self.open("[")
        elif text == "<<" and innermost not in ('"', "((", "["):  # in $((1 << 2)) it shifts
            self.open("<<")
