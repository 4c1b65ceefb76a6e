"""Find the files that patterns match, in bounded time: links in a checkout may lead to each other."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from itertools import islice

MOST_NAMES = 300_000  # a repository of 100,000 files is large; to compare them takes one to two seconds
_RECURSIVE = "**"
_Place = tuple[str, int]  # a path, and the index of the pattern's next part


class GlobSearch:
    """Searches that together compare at most `most_names` names; after that they find nothing more."""

    def __init__(self, most_names: int = MOST_NAMES) -> None:
        self._left = most_names

    def iter_matches(self, root: str | os.PathLike[str], pattern: str) -> Iterator[str]:
        """Yield the paths that a pattern matches, relative to `root` unless the pattern is absolute, in any order.

        As in a shell, `*`, `?` and `[...]` match within a name, but no dot at its beginning. `**` stands for any number
        of folders, and follows no link; of a pattern with several of them a path may come more than once.
        """
        parts = pattern.lstrip("/").split("/")
        waiting: list[Iterator[_Place]] = [iter([("/" if pattern.startswith("/") else "", 0)])]
        while waiting:
            place = next(waiting[-1], None)
            if place is None:
                waiting.pop()
            elif place[1] == len(parts):
                yield place[0]
            else:
                waiting.append(self._iter_next(os.fspath(root), place, parts[place[1]]))

    def _iter_next(self, root: str, place: _Place, part: str) -> Iterator[_Place]:
        """Yield the places to which one part of a pattern leads."""
        folder, index = place
        if part == _RECURSIVE:
            yield folder, index + 1
            for entry in self._list_entries(root, folder):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield os.path.join(folder, entry.name), index
        elif set("*?[").isdisjoint(part):
            self._left -= 1
            path = os.path.join(folder, part)
            if self._left > 0 and os.path.lexists(os.path.join(root, path)):
                yield path, index + 1
        else:
            matches = re.compile(fnmatch.translate(part)).match
            for entry in self._list_entries(root, folder):
                if matches(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                    yield os.path.join(folder, entry.name), index + 1

    def _list_entries(self, root: str, folder: str) -> list[os.DirEntry[str]]:
        if self._left <= 0:
            return []
        try:
            with os.scandir(os.path.join(root, folder) or ".") as listing:
                found = list(islice(listing, self._left))
        except (OSError, ValueError):  # no folder, one that this user may not read, or a name that none can have
            found = []
        self._left -= len(found) + 1
        return found
