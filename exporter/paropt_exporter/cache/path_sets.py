"""The paths that tasks with traced inputs used, and the keys of their results: a weak key, path sets, strong keys.

The weak key of a task has its command, tools and variables. Under it are up to 8 sets of paths, the last used first,
since which files a program reads depends on those that it has read before. A set with the states of its paths makes a
strong key, under which the result is kept. The strong key also includes where PATH has the programs that the task
looked for: with another PATH, a script may find another program although all paths of the set are unchanged. If the
task used files outside of the project that a relative path may have named, the key includes the folder in which the
checkout is: elsewhere, the same path names another file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files, git, plain_json
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry, is_digest
from paropt_exporter.cache.file_states import Entry, FileStates, UnusableFile, get_state
from paropt_exporter.cache.keys import TaskKey
from paropt_exporter.cache.result_store import Store

MOST_SETS = 8
_VERSION = 3
_LARGEST_MANIFEST_BYTES = 1 << 14
_LARGEST_SET_BYTES = 1 << 26
ABSENT_STATE, UNUSABLE_STATE = "-", "unusable"
MADE_FOLDER = "/"  # before the names in it
_PLACE = "the folder of this checkout"  # in the list of programs
CACHES = frozenset({*git.CACHES, ".paropt"})  # folders with a CACHEDIR.TAG are caches too
_NODE_CACHES = frozenset({".cache", ".vite", ".vite-temp"})  # in node_modules
_CACHE_TAG = "CACHEDIR.TAG"


class UsedPath(Struct, frozen=True, order=True):
    """A path that a task used, relative to the config's folder if inside it. `listed`: the names in the folder count.

    `own`: what the task itself leaves there and which counts as absent: a state, or names in the folder, joined by
    slashes, after MADE_FOLDER if the task made the folder.
    """

    path: str
    listed: bool = False
    own: str = ""


class PathSet(Struct, frozen=True):
    """The digests of a set's two parts: paths in the project, and other paths, which most tasks share."""

    project: str
    others: str


class Manifest(Struct, frozen=True, kw_only=True):
    """The sets under a weak key, and how many runs have proved them: these would have been hits, and ended equally."""

    sets: tuple[PathSet, ...] = ()
    proofs: int = 0


class StrongKey(Struct, frozen=True):
    """The key of a result under a set. `listings` has the lists of states by digest."""

    key: TaskKey
    path_set: PathSet
    listings: Mapping[str, bytes]


class PathStates:
    """The states of used paths at one moment: each is read once. Only one thread may use it at a time."""

    def __init__(self, states: FileStates, home: str = "") -> None:
        """`home`: the user's home folder."""
        self._states = states
        self._home = os.path.realpath(home) if home else ""
        self._found: dict[tuple[str, bool], str] = {}
        self._listings: dict[str, tuple[str, bytes]] = {}
        self._names: dict[str, tuple[str, ...] | None] = {}
        self._folders: dict[str, dict[str, None]] = {}
        self._places: dict[tuple[str, str], str] = {}
        self._programs: dict[tuple[PathSet, str], tuple[str, bytes]] = {}
        self._root = os.path.realpath(states.folder) + "/"

    def add(self, entries: Mapping[str, Entry | None]) -> None:
        """Add the states of paths whose entries were read a moment ago; None for a file without a comparable state."""
        for path, entry in entries.items():
            self._found.setdefault((path, False), UNUSABLE_STATE if entry is None else get_state(entry))

    def get_state(self, used: UsedPath) -> str:
        """Return the state of a path as it appears in a key."""
        if used.listed:
            names = self._list_names(used.path)
            if names is None and used.own.startswith(MADE_FOLDER) and self._read(used.path) == ABSENT_STATE:
                names = ()
            if names is not None:
                kept = [name for name in names if name.partition("/")[0] not in used.own.split("/")]
                return f"names {hash_bytes(os.fsencode(chr(0).join(kept)))[:32]}"
        state = self._found.get((used.path, used.listed))
        if state is None:
            state = self._found[(used.path, used.listed)] = self._read(used.path)
        return ABSENT_STATE if state == used.own else state

    def build_listing(self, digest: str, paths: Iterable[UsedPath]) -> tuple[str, bytes]:
        """Return the list of states of a part of a set, and the list's digest; `digest` is the part's."""
        found = self._listings.get(digest)
        if found is None:
            lines = [f"{each.path}{'/' if each.listed else ''}\0{self.get_state(each)}\0" for each in paths]
            content = "".join(lines).encode("utf-8", "surrogateescape")
            found = self._listings[digest] = hash_bytes(content), content
        return found

    def build_programs(self, path_set: PathSet, paths: Iterable[UsedPath], search_path: str) -> tuple[str, bytes]:
        """Return the list of the programs that a task looked for on PATH, with their places now, and its digest.

        They are the set's names in the folders of PATH. Programs that the task itself makes are left out. The list also
        has the folder of the checkout, if that matters.
        """
        if (path_set, search_path) not in self._programs:
            folders = self._list_folders(search_path)
            names, own, is_near = set[str](), set[str](), False
            for each in paths:
                is_near = is_near or self._may_be_relative(each.path)
                folder, _, name = (each.path if each.path[:1] == "/" else self._root + each.path).rpartition("/")
                if folder in folders:
                    (own if each.own else names).add(name)
            lines = [f"{name} on PATH\0{self._find_program(name, search_path)}\0" for name in sorted(names - own)]
            if is_near:
                lines.append(f"{_PLACE}\0{os.path.dirname(self._root[:-1])}\0")
            content = "".join(lines).encode("utf-8", "surrogateescape")
            self._programs[path_set, search_path] = hash_bytes(content), content
        return self._programs[path_set, search_path]

    def _may_be_relative(self, path: str) -> bool:
        """Return whether a task may have reached a path by going up from the project, as to `../shared`.

        Not for a path that is below the root folder only together with the project, nor for one in a hidden folder of
        the user's home, such as ~/.pyenv, which programs find by HOME.
        """
        if path[:1] != "/" or path.split("/", 2)[1] != self._root.split("/", 2)[1]:
            return False
        hidden = f"{self._home}/."
        return not self._home or not path.startswith(hidden) or self._root.startswith(hidden)

    def _list_folders(self, search_path: str) -> dict[str, None]:
        """Return the folders of PATH in order, with links resolved."""
        if search_path not in self._folders:
            named = (os.path.join(self._states.folder, folder) for folder in search_path.split(os.pathsep))
            self._folders[search_path] = dict.fromkeys(os.path.realpath(folder) for folder in named)
        return self._folders[search_path]

    def _find_program(self, name: str, search_path: str) -> str:
        """Return the path of a program, relative to the config's folder if inside it; ABSENT_STATE if there is none."""
        if (name, search_path) not in self._places:
            places = (f"{folder}/{name}" for folder in self._list_folders(search_path))
            found = next((path for path in places if os.path.isfile(path) and os.access(path, os.X_OK)), ABSENT_STATE)
            self._places[name, search_path] = found.removeprefix(self._root)
        return self._places[name, search_path]

    def _read(self, path: str) -> str:
        try:
            return get_state(self._states.take_entry(path))
        except UnusableFile:
            return UNUSABLE_STATE

    def _list_names(self, path: str) -> tuple[str, ...] | None:
        """Return the names in a folder, without caches; None if it is none. Folders end with "/", links with "/l"."""
        if path not in self._names:
            try:
                self._names[path] = tuple(sorted(_iter_names(os.path.join(self._states.folder, path))))
            except OSError:
                self._names[path] = None
        return self._names[path]


class PathSets:
    """The manifests and sets of the store. Only one thread may use it at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: dict[str, tuple[UsedPath, ...]] = {}

    def load(self, weak: TaskKey) -> Manifest:
        """Return the manifest of a task; an empty one if it is missing, damaged or of another version."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            values = plain_json.loads(files.read_file(self._store.find_path_sets(weak.digest), _LARGEST_MANIFEST_BYTES))
            if values["version"] == _VERSION:
                pairs = [(project, others) for project, others in values["sets"] if is_digest(project)]
                sets = tuple(PathSet(project, others) for project, others in pairs if is_digest(others))
                return Manifest(sets=sets[:MOST_SETS], proofs=int(values["proofs"]))
        return Manifest()

    def save(self, weak: TaskKey, manifest: Manifest) -> None:
        """Write the manifest of a task. Raises StoreUnusable."""
        values = {
            "version": _VERSION,
            "proofs": manifest.proofs,
            "sets": [[each.project, each.others] for each in manifest.sets[:MOST_SETS]],
        }
        self._store.save_path_sets(weak.digest, plain_json.dumps(values).encode())

    def add(self, paths: Sequence[UsedPath]) -> PathSet:
        """Keep a set. Raises StoreUnusable."""
        outside = [each for each in paths if each.path.startswith("/")]
        inside = [each for each in paths if not each.path.startswith("/")]
        return PathSet(self._add_part(inside), self._add_part(outside))

    def build_key(self, weak: TaskKey, path_set: PathSet, states: PathStates) -> StrongKey | None:
        """Return the strong key of a set, with the current states of its paths; None if it was evicted or damaged."""
        listings: list[tuple[str, bytes]] = []
        used: list[UsedPath] = []
        for digest in (path_set.project, path_set.others):
            paths = self._load_part(digest)
            if paths is None:
                return None
            listings.append(states.build_listing(digest, paths))
            used += paths
        listings.append(states.build_programs(path_set, used, weak.stage.search_path))
        found = tuple(digest for digest, _ in listings)
        digest = hash_bytes("\0".join((weak.digest, path_set.project, path_set.others, *found)).encode())
        return StrongKey(replace(weak, digest=digest, listings=found), path_set, dict(listings))

    def _add_part(self, paths: Sequence[UsedPath]) -> str:
        ordered = tuple(sorted(paths))
        lines = [f"{each.path}\0{'l' if each.listed else 'f'}\0{each.own}\0" for each in ordered]
        digest = self._store.add(zlib.compress("".join(lines).encode("utf-8", "surrogateescape")))
        self._parts[digest] = ordered
        return digest

    def _load_part(self, digest: str) -> tuple[UsedPath, ...] | None:
        if digest not in self._parts:
            try:
                content = zlib.decompressobj().decompress(self._store.read(digest), _LARGEST_SET_BYTES)
                self._parts[digest] = _parse_paths(content)
            except (BadEntry, zlib.error, ValueError):
                return None
        return self._parts[digest]


def _parse_paths(content: bytes) -> tuple[UsedPath, ...]:
    """Return the paths of a set. Raises ValueError."""
    fields = content.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return tuple(
        UsedPath(path, kind == "l", own)
        for path, kind, own in zip(fields[0::3], fields[1::3], fields[2::3], strict=True)
    )


def has_cache_name(path: str) -> bool:
    """Return whether a path has the name of a well-known tool's cache."""
    parent, _, name = path.rpartition("/")
    return name in CACHES or (name in _NODE_CACHES and parent.rpartition("/")[2] == "node_modules")


def is_cache_folder(path: str) -> bool:
    """Return whether a folder is a cache without sources, by its name or a marker file in it."""
    if has_cache_name(path):
        return True
    # uv marks its virtual environments as caches.
    return os.path.exists(os.path.join(path, _CACHE_TAG)) and not os.path.exists(os.path.join(path, "pyvenv.cfg"))


def _iter_names(folder: str) -> Iterable[str]:
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.name in CACHES:
                continue
            if entry.is_symlink():
                yield f"{entry.name}/l"  # a listing shows programs that it is a link
            elif not entry.is_dir(follow_symlinks=False):
                yield entry.name
            elif not is_cache_folder(entry.path):
                yield f"{entry.name}/"
