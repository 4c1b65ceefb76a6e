"""Find the stages that may write another stage's inputs, without comparing every stage with every other."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from paropt_exporter.input_files import InputPatterns
from paropt_exporter.plan.stage_builder import cut_wildcards


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


@lru_cache(maxsize=1024)
def _compile(output: str) -> InputPatterns:
    return InputPatterns((output,))


def _find_folder(pattern: str) -> str:
    return cut_wildcards(pattern).removeprefix("./")  # the config's folder itself is the text ""


def _iter_folders_above(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, each with a slash at its end."""
    yield folder
    while folder:
        folder = folder[: folder.rfind("/", 0, -1) + 1]
        yield folder
