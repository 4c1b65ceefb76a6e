"""Find items of one stage that may write the same file, so that a stored result of one would have another's files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from itertools import accumulate

from paropt_exporter.input_files import ITEM, InputPatterns, fill_item


def describe_shared_outputs(outputs: Sequence[str], items: Iterable[str]) -> str:
    """Return two items and an output that both may write, or "" if each has its own.

    Patterns are compared as text, as for stages. Ten thousand items take 0.2 s.
    """
    patterns = [pattern for pattern in outputs if ITEM in pattern and not pattern.startswith("!")]
    names = tuple(dict.fromkeys(items))
    if len(names) < 2 or not patterns:
        return ""
    if (open_pattern := next(filter(_is_open_on_both_sides, patterns), None)) is not None:
        return _describe(names[0], names[1], open_pattern)
    written = [(_fill(pattern, name), name) for name in names for pattern in patterns]
    wild = any("*" in pattern or "?" in pattern or "[" in pattern for pattern in patterns)
    return _find_by_pattern(written, patterns, outputs, names) if wild else _find_by_path(written)


def _find_by_path(written: Sequence[tuple[str, str]]) -> str:
    """Compare outputs without wildcards: two are the same, or one is in the other."""
    owners: dict[str, str] = {}
    for path, name in written:
        if (owner := owners.setdefault(path, name)) != name:
            return _describe(owner, name, path)
    for path, name in written:
        for above in accumulate(path.split("/"), "{}/{}".format):
            if (owner := owners.get(above, name)) != name:
                return _describe(owner, name, path)
    return ""


def _find_by_pattern(
    written: Sequence[tuple[str, str]], patterns: Sequence[str], outputs: Sequence[str], names: Sequence[str]
) -> str:
    """Compare each output with the patterns of items whose names are part of it, since no other pattern matches it."""
    known = {posixpath.normpath(name): name for name in names}
    lengths = sorted({len(name) for name in known})
    befores = {posixpath.normpath(pattern).partition(ITEM)[0] for pattern in patterns}
    compiled: dict[str, InputPatterns] = {}
    for text, name in written:
        places = _list_starts(text, befores)
        parts = {".", *(text[at : at + length] for at in places for length in lengths)}
        for other in sorted(known.keys() & parts):
            owner = known[other]
            if owner == name:
                continue
            if owner not in compiled:
                compiled[owner] = InputPatterns(fill_item(outputs, owner))
            if compiled[owner].matches(text):
                return _describe(owner, name, text)
    return ""


def _list_starts(text: str, befores: Iterable[str]) -> Iterable[int]:
    """Return where an item may begin in a text that matches a pattern; `befores`: the patterns up to the item."""
    if any(mark in before for before in befores for mark in "*?["):
        return range(len(text))
    return [len(before) for before in befores if text.startswith(before)]


def _is_open_on_both_sides(pattern: str) -> bool:
    """Return whether a pattern such as `*{item}*` matches one file for any two items."""
    before, _, after = pattern.partition(ITEM)
    in_one_name = "*" in before.rpartition("/")[2] and "*" in after.partition("/")[0]
    return in_one_name or ("**" in before and "**" in after)


def _fill(pattern: str, item: str) -> str:
    return posixpath.normpath(pattern.replace(ITEM, item))


def _describe(one: str, other: str, output: str) -> str:
    return f"its items {one} and {other} may both write {output}"
