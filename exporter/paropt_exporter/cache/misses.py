"""The reasons for misses: each task's last keys, and how the new one differs from them, in one line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from msgspec import Struct

from paropt_exporter import files, plain_json
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry, Entry
from paropt_exporter.cache.keys import TaskKey, parse_listing
from paropt_exporter.cache.result_store import LARGEST_NOTE_BYTES, Store
from paropt_exporter.events import CacheReason

_MOST_KEYS = 8  # of each task: a few branches and checkouts
_MOST_READS = 20_000  # of the files that a traced stage read
_LARGEST_READS_BYTES = 1 << 23
_MOST_COMPARED_BYTES = 1 << 26
_PARSED_LISTINGS = 4  # that stay in memory

_Change = tuple[str | None, str | None]  # the old and the new state of a file


class Miss(Struct, frozen=True):
    """Why a task runs; `text` is one line."""

    reason: CacheReason
    text: str


class TaskNotes(Struct, frozen=True):
    """A task's last results in any checkout of the project, latest first, and why the last run kept no result."""

    keys: tuple[str, ...] = ()
    unkept_key: str = ""
    unkept: Miss | None = None

    def get_unkept(self, key: TaskKey) -> Miss | None:
        """Return why the last run kept no result under a key; None if it kept one, or had another key."""
        return self.unkept if self.unkept_key == key.digest else None


class Notes:
    """The notes on tasks, each in a small file of the store."""

    def __init__(self, folder: Path, project: str) -> None:
        self._folder = folder
        self._project = project

    def load(self, stage: str, item: str | None) -> TaskNotes:
        """Return the notes on a task; empty ones if they are missing or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            values = plain_json.loads(files.read_file(self._find(stage, item), LARGEST_NOTE_BYTES))
            unkept = values["unkept"]
            return TaskNotes(
                keys=tuple(map(str, values["keys"])),
                unkept_key=str(unkept[0]) if unkept else "",
                unkept=Miss(CacheReason(unkept[1]), str(unkept[2])) if unkept else None,
            )
        return TaskNotes()

    def add_key(self, stage: str, item: str | None, key: str) -> None:
        """Note a result that was kept."""
        known = [each for each in self.load(stage, item).keys if each != key]
        self._save(stage, item, TaskNotes(keys=(key, *known[: _MOST_KEYS - 1])))

    def add_unkept(self, stage: str, item: str | None, key: str, why: Miss) -> None:
        """Note why a result was not kept."""
        self._save(stage, item, TaskNotes(self.load(stage, item).keys, key, why))

    def forget_unkept(self, stage: str, item: str | None) -> None:
        """Note that a result was used, so that an earlier failure does not explain a later miss."""
        notes = self.load(stage, item)
        if notes.unkept is not None:
            self._save(stage, item, TaskNotes(keys=notes.keys))

    def load_reads(self, stage: str) -> tuple[str, ...]:
        """Return the files of the project that the stage's last traced run read; none if there was none."""
        with suppress(OSError, ValueError, TypeError):
            return tuple(map(str, plain_json.loads(files.read_file(self._find(stage), _LARGEST_READS_BYTES))))
        return ()

    def save_reads(self, stage: str, paths: Iterable[str]) -> None:
        """Note the files of the project that a traced run of a stage read."""
        with suppress(OSError):
            content = plain_json.dumps(sorted(paths)[:_MOST_READS]).encode()
            files.replace_file(self._find(stage), content, mode=files.PRIVATE_FILE)

    def _save(self, stage: str, item: str | None, notes: TaskNotes) -> None:
        unkept = [notes.unkept_key, notes.unkept.reason, notes.unkept.text] if notes.unkept is not None else None
        with suppress(OSError):  # otherwise the next miss only has a vaguer reason
            content = plain_json.dumps({"keys": notes.keys, "unkept": unkept}).encode()
            files.replace_file(self._find(stage, item), content, mode=files.PRIVATE_FILE)

    def _find(self, stage: str, *item: str | None) -> Path:
        """Return the file for the notes on a task, or for the list of files that a stage read."""
        return self._folder / hash_bytes(os.fsencode(plain_json.dumps([self._project, stage, *item])))[:32]


class MissExplainer:
    """Explains misses by the difference from the most similar known result. Only one thread may use it at a time.

    Thousands of items share most of their files, so two lists of files are compared only once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest: tuple[str, dict[str, str]] = "", {}  # the last new list, by its digest
        self._parse = lru_cache(maxsize=_PARSED_LISTINGS)(self._parse_kept)
        self._changes: dict[tuple[str, str], dict[str, _Change]] = {}  # by the digests of two lists: new, old

    def explain(self, key: TaskKey, notes: TaskNotes, listings: Mapping[str, bytes]) -> Miss:
        """Return why there is no result under a key.

        `listings`: the contents of the key's lists of files, by digest.
        """
        if (unkept := notes.get_unkept(key)) is not None:
            return unkept
        if key.digest in notes.keys:
            return Miss(CacheReason.EVICTED, "its result was evicted from the cache")
        known = [entry for digest in notes.keys if (entry := _load(self._store, digest)) is not None]
        if not known:
            if notes.keys:
                return Miss(CacheReason.EVICTED, "its earlier results were evicted from the cache")
            return notes.unkept or Miss(CacheReason.NEW, "no result in the cache yet")
        each = [(_list_differences(key, entry), self._list_changed_files(key, entry, listings)) for entry in known]
        differences, changed = min(each, key=lambda pair: (len(pair[0]), math.inf if pair[1] is None else len(pair[1])))
        if not key.listings and not differences:
            return Miss(CacheReason.EVICTED, "its traced inputs were evicted from the cache")
        return _describe(differences, [("a file", "", "")] if changed is None else changed)

    def _list_changed_files(
        self, key: TaskKey, entry: Entry, listings: Mapping[str, bytes]
    ) -> list[tuple[str, str | None, str | None]] | None:
        """Return the files that differ with their old and new states, sorted; None if the old ones are lost."""
        if not key.listings:  # those of a weak key are unknown
            return []
        found: dict[str, _Change] = {}
        try:
            for new, old in zip_longest(key.listings, entry.listings, fillvalue=""):
                for path, change in self._compare(new, old, listings).items() if new != old else ():
                    earlier = found.get(path, (None, None))  # it is in two lists if it is now one task's own file
                    found[path] = earlier[0] or change[0], earlier[1] or change[1]
        except BadEntry:
            return None
        return [(path, old, new) for path, (old, new) in sorted(found.items()) if old != new]

    def _compare(self, new: str, old: str, listings: Mapping[str, bytes]) -> dict[str, _Change]:
        """Return the old and new states of the paths that differ between two lists. Raises BadEntry."""
        if (new, old) not in self._changes:
            if self._newest[0] != new:
                self._newest = new, parse_listing(listings.get(new, b""))
            now, before = self._newest[1], self._parse(old) if old else {}
            differ = {path for path, _ in now.items() ^ before.items()}
            self._changes[new, old] = {path: (before.get(path), now.get(path)) for path in differ}
        return self._changes[new, old]

    def _parse_kept(self, digest: str) -> dict[str, str]:
        return parse_listing(self._store.read(digest, _MOST_COMPARED_BYTES))


def explain_missing_leftover(path: str) -> Miss:
    """Return why a result does not count: a file is missing that its task had found among its outputs."""
    return Miss(CacheReason.INPUTS, f"{path} is gone or changed: the kept run had found it there")


def _load(store: Store, digest: str) -> Entry | None:
    with suppress(BadEntry):
        return store.load(digest)
    return None


def _list_differences(key: TaskKey, entry: Entry) -> list[tuple[str, str | None, str | None]]:
    """Return the components that differ: name, old value, new value."""
    new, old = dict(key.components), dict(entry.components)
    return [(name, old.get(name), new.get(name)) for name in {**new, **old} if old.get(name) != new.get(name)]


def _describe(
    differences: Sequence[tuple[str, str | None, str | None]], changed: Sequence[tuple[str, str | None, str | None]]
) -> Miss:
    """Return the first difference in one line; differences that users most likely made come first."""
    tools = [*_iter_tools(differences)]
    variables = [name.removeprefix("env ") for name, _, _ in differences if name.startswith("env ")]
    if changed:
        return Miss(CacheReason.INPUTS, _add_count(_describe_file(*changed[0]), len(changed)))
    if tools:
        return Miss(CacheReason.TOOLS, _add_count(tools[0], len(tools)))
    if variables:
        return Miss(CacheReason.ENVIRONMENT, _add_count(f"env {variables[0]} changed", len(variables)))
    names = {name: name for name, _, _ in differences}
    name = next((name for name in ("command", "item", "cwd", "outputs", "platform") if name in names), "format")
    return Miss(CacheReason.COMMAND, f"its {name} changed")


def _iter_tools(differences: Sequence[tuple[str, str | None, str | None]]) -> Iterator[str]:
    found = {name.removeprefix("tool "): (old, new) for name, old, new in differences if name.startswith("tool ")}
    old, new = found.pop("packages", (None, None))
    if old and new:  # a program whose packages changed differs, too; without packages it is another program
        yield from _iter_packages(old, new)
        return
    yield from (f"{name} changed" for name in found if name != "environment")
    if "environment" in found:
        yield "the virtual environment changed"


def _iter_packages(old: str | None, new: str | None) -> Iterator[str]:
    before, after = _parse_packages(old), _parse_packages(new)
    # Upgrades first: another interpreter has other packages, too.
    for name in sorted(before.keys() | after.keys(), key=lambda name: (name not in before or name not in after, name)):
        if before.get(name) != after.get(name):
            yield f"{name} {before.get(name, 'not there')} -> {after.get(name, 'not there')}"


def _parse_packages(names: str | None) -> dict[str, str]:
    """Return the version of each package, or its versions in several environments."""
    found: dict[str, list[str]] = {}
    for word in (names or "").split():
        name, _, version = word.rpartition("-")
        found.setdefault(name, []).append(version)
    return {name: ", ".join(versions) for name, versions in found.items()}


def _describe_file(path: str, old: str | None, new: str | None) -> str:
    if old is None or (old == "-" and new not in (None, "-")):
        return f"{path} is new"
    if new is None or (new == "-" and old != "-"):
        return f"{path} is gone"
    if path.endswith("/"):
        return f"the files in {path} are others"
    if old[:1] + new[:1] in ("fx", "xf") and old[1:] == new[1:]:
        return f"{path} has another mode"
    return f"{path} changed"


def _add_count(text: str, count: int) -> str:
    return text if count == 1 else f"{text} (+{count - 1})"
