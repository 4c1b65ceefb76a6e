"""A fault of a config with its place in the file, and suggestions for misspelled names."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from msgspec import Struct

from paropt_exporter.lazy_patterns import compile_later

Location = tuple[str | int, ...]
_PLAIN_KEY = compile_later(r"[\w-]+")
MOST_FAULTS = 1000  # the most faults of a kind to find: a hundred are shown, and each may search for similar names
_LONGEST_KEY = 60
_MOST_COMPARED = 500  # names; 10,000 wrong ones against 10,000 known took 35 s
_MOST_LISTED = 20


class Fault(Struct, frozen=True, kw_only=True):
    """A fault at a value (`location`: the path to it from the root), or at the value's key (`on_key`)."""

    location: Location
    message: str
    on_key: bool = False


class PlacedFault(Struct, frozen=True, kw_only=True, order=True):
    """A fault with its line and column, from 1, and its path, such as `stages[2].sla.max`."""

    line: int
    column: int
    path: str
    message: str

    def format(self, file: str) -> str:
        return f"{file}:{self.line}:{self.column}: {self.path}: {self.message}"


def format_path(location: Location) -> str:
    """Return a location as `stages[2].sla.max`; the whole file is `file`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{format_key(part)}" if text else format_key(part)
    return text or "file"


def suggest_name(word: object, known: Collection[str]) -> str:
    """Return `: did you mean 'x'?`, or a list of the known names if none is similar."""
    if len(known) <= _MOST_COMPARED:
        import difflib  # here: for errors only

        near = difflib.get_close_matches(str(word)[:_LONGEST_KEY].lower(), known, n=1, cutoff=0.6)
        if near:
            return f": did you mean {near[0]!r}?"
    listed = [_shorten(name) for name in islice(known, _MOST_LISTED) if name.isprintable()]
    more = ", ..." if len(known) > _MOST_LISTED else ""
    return f": choose from {', '.join(listed)}{more}" if listed else ""


def format_key(key: str) -> str:
    """Return a key for messages: short, in quotes unless it is a word, and without the value of a variable."""
    if _PLAIN_KEY.fullmatch(key) and len(key) <= _LONGEST_KEY:
        return key
    name, equals, _ = key.partition("=")
    key = f"{name}=..." if equals else key  # a variable with its value, which may be a secret
    return repr(_shorten(key))


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_KEY else name[: _LONGEST_KEY - 3] + "..."
