"""Find the stages that may write the same files, and those that may write another stage's inputs.

Patterns are compared as text. No stage is compared with every other one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from paropt_exporter.config.needs import find_reachable
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.stage_patterns import list_written

if TYPE_CHECKING:
    from paropt_exporter.config import Stage

_WILDCARD = compile_later(r"[*?\[]")


def map_shared_outputs(stages: Sequence[Stage]) -> dict[str, str]:
    """Return an output of each stage that another stage may write, too, unless one needs the other.

    Patterns are compared as text: `dist` overlaps with `dist/*.js`, but `out/a*` not with `out/*b`.
    """
    written = {stage.name: list_written(stage) for stage in stages if stage.outputs or stage.file}
    if len(written) < 2:
        return {}
    compiled = {name: InputPatterns(patterns) for name, patterns in written.items()}
    texts = {name: [each for each in patterns if not each.startswith("!")] for name, patterns in written.items()}
    needs = {stage.name: stage.needs for stage in stages}
    found: dict[str, str] = {}
    for one, other in _iter_near(texts):
        shared = next(filter(compiled[other].matches, texts[one]), None)
        if shared is not None and not _is_needed(one, other, needs) and not _is_needed(other, one, needs):
            found.setdefault(one, shared)
            found.setdefault(other, texts[other][0])
    return found


class OutputIndex:
    """The outputs of stages, by the folder before their wildcards. Patterns with `!` are left out."""

    def __init__(self, outputs: Mapping[str, Sequence[str]]) -> None:
        """`outputs`: the patterns of each stage, relative to the config's folder."""
        self._by_folder: dict[str, list[tuple[str, str]]] = {}  # stages and patterns
        for stage, patterns in outputs.items():
            for pattern in patterns:
                if not pattern.startswith("!"):
                    self._by_folder.setdefault(_find_folder(pattern), []).append((stage, pattern))
        self._folders = sorted(self._by_folder)

    def iter_below(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yield the stages and outputs that a pattern may match: those in the folder before its wildcards, or below."""
        folder = _find_folder(pattern)
        for index in range(bisect_left(self._folders, folder), len(self._folders)):
            if not self._folders[index].startswith(folder):
                break
            yield from self._by_folder[self._folders[index]]

    def may_write(self, pattern: str, *, reader: str) -> bool:
        """Return whether another stage than `reader` may write a file that the pattern matches.

        Patterns are compared as texts: each may match the other one.
        """
        reads = InputPatterns((pattern,))
        if any(stage != reader and reads.matches(output) for stage, output in self.iter_below(pattern)):
            return True
        return any(
            stage != reader and _compile(output).matches(pattern)
            for folder in _iter_folders_above(_find_folder(pattern))
            for stage, output in self._by_folder.get(folder, ())
        )


def _iter_near(texts: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield pairs of stages, in both orders, if the folder before the wildcards of one is the other's or above it."""
    places = sorted({(_cut_wildcards(pattern), name) for name, patterns in texts.items() for pattern in patterns})
    for index, (place, one) in enumerate(places):
        for inner, other in islice(places, index + 1, None):
            if not inner.startswith(place):
                break
            if one != other:
                yield from ((one, other), (other, one))


def _cut_wildcards(pattern: str) -> str:
    """Return the part of a pattern before the first path segment with a wildcard, with a slash at its end."""
    first = _WILDCARD.search(pattern)
    return f"{pattern}/" if first is None else pattern[: pattern.rfind("/", 0, first.start()) + 1]


def _is_needed(name: str, by: str, needs: Mapping[str, Sequence[str]]) -> bool:
    return name in find_reachable(needs[by], lambda each: needs.get(each, ()))


@lru_cache(maxsize=1024)
def _compile(output: str) -> InputPatterns:
    return InputPatterns((output,))


def _find_folder(pattern: str) -> str:
    return _cut_wildcards(pattern).removeprefix("./")  # the config's folder itself is the text ""


def _iter_folders_above(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, each with a slash at its end."""
    yield folder
    while folder:
        folder = folder[: folder.rfind("/", 0, -1) + 1]
        yield folder
