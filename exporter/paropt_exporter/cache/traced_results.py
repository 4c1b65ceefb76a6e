"""Look up and keep the results of tasks with traced inputs.

    weak key -> path sets -> strong keys -> a result: a hit, once the sets under the weak key have proved themselves
    trace -> used paths -> path set -> strong key -> the result is kept

Until two runs would have been hits and ended with equal outputs, the task runs nevertheless (shadow mode).
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.cache.entry import Entry as Result
from paropt_exporter.cache.file_states import ABSENT, KERNEL, Entry, FileStates, UnusableFile, get_state
from paropt_exporter.cache.inputs import list_written
from paropt_exporter.cache.keys import TaskKey, parse_listing
from paropt_exporter.cache.misses import Miss, MissExplainer, Notes, TaskNotes
from paropt_exporter.cache.path_sets import (
    CACHES,
    MADE_FOLDER,
    MOST_SETS,
    UNUSABLE_STATE,
    Manifest,
    PathSet,
    PathSets,
    PathStates,
    StrongKey,
    UsedPath,
    has_cache_name,
    is_cache_folder,
)
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.stage_keys import StagePart
from paropt_exporter.events import CacheReason
from paropt_exporter.executors.commands.traces import Access, Trace
from paropt_exporter.executors.supervisor.tracing import LIST, READ, STAT, WRITE
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.plan.implied_inputs import is_settings_file, list_item_inputs, list_named_paths
from paropt_exporter.plan.stage_environment import build_command_environment
from paropt_exporter.plan.stage_patterns import list_input_patterns, list_output_patterns
from paropt_exporter.plan.structure import PlannedStage

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage

PROOFS = 2  # how many runs must have been hits in theory before one is skipped
_MEMORY_FOLDERS = ("/var/tmp/", "/dev/shm/")  # nosec B108 # compared with paths; nothing is created there
_NPM_CACHES = ("_logs", "_cacache", "_update-notifier-last-checked")
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE: the kernel's clock of files
_WHOLE_SECONDS_NS = 2_000_000_000  # as coarse as the times of any file system (FAT)
_USES = STAT | READ | LIST
_HEAD_BYTES = 1 << 12
_MOST_INTERPRETERS = 8
_ELF_HEADER = struct.Struct("<16xHHIQQQIHHH")  # of 64-bit programs, from the type to the number of program headers
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_PT_INTERP = 3
# They count in other ways, or contain no sources.
_OTHER_FOLDERS = CACHES | {".git", "node_modules"}


def find_refusal() -> str:
    """Return why no command can be traced here; "" if they can."""
    from paropt_exporter.executors.supervisor import seccomp  # here: few stages are traced

    return seccomp.find_refusal()


def explain_unproved(weak: TaskKey, proofs: int, notes: TaskNotes) -> Miss:
    """Return why a task runs that would be a hit if its inputs had proved themselves."""
    proof = f"unchanged: it runs to prove its traced inputs ({proofs + 1} of {PROOFS})"
    return notes.get_unkept(weak) or Miss(CacheReason.NEW, proof)


class Candidates(Struct, frozen=True, kw_only=True):
    """The strong keys of a task with the files' current states, the last used first."""

    manifest: Manifest
    keys: tuple[StrongKey, ...]

    @property
    def proved(self) -> bool:
        return self.manifest.proofs >= PROOFS


def explain_traced_miss(weak: TaskKey, candidates: Candidates, notes: TaskNotes, explainer: MissExplainer) -> Miss:
    """Return why there is no result under any strong key of a task."""
    if (unkept := notes.get_unkept(weak)) is not None:
        return unkept
    if not candidates.keys:
        return explainer.explain(weak, notes, {})
    nearest = candidates.keys[0]
    return explainer.explain(nearest.key, notes, nearest.listings)


class TracedResults:
    """The path sets of tasks, and their states during a run. Only one thread may use it at a time."""

    def __init__(
        self, store: Store, states: FileStates, environ: Mapping[str, str], own_files: Iterable[Path] = ()
    ) -> None:
        """`own_files`: the files that the exporter itself writes."""
        self._own_files = frozenset(_iter_trace_names(own_files, os.path.realpath(states.folder)))
        self._store = store
        self._states = states
        self._environ = environ
        self._sets = PathSets(store)
        self._now = self._make_path_states()
        self._reader = TraceReader(states)
        # by the id of the trace, which the items of a batch share
        self._kept: dict[int, tuple[Trace, PathSet | Miss]] = {}
        self.expected: dict[StagePart, Result] = {}  # in shadow mode, the results that would have been hits

    def refresh(self) -> None:
        """Forget the states of files, so that they are read again."""
        self._now = self._make_path_states()
        self._reader = TraceReader(self._states)
        self._kept.clear()

    def _make_path_states(self) -> PathStates:
        return PathStates(self._states, self._environ.get("HOME", ""))

    def find_candidates(self, weak: TaskKey) -> Candidates:
        """Return the keys under which the store may have a result."""
        manifest = self._sets.load(weak)
        keys = (self._sets.build_key(weak, each, self._now) for each in manifest.sets)
        return Candidates(manifest=manifest, keys=tuple(key for key in keys if key is not None))

    def mark_used(self, weak: TaskKey, key: StrongKey) -> None:
        """Record that a set was used, for the choice of files to remove."""
        self._store.touch_path_sets(weak.digest, (key.path_set.project, key.path_set.others))

    def find_key(self, stage: PlannedStage, weak: TaskKey, trace: Trace | None) -> StrongKey | Miss:
        """Return the key of a task that has ended, or why its result can't be kept. Raises StoreUnusable."""
        if trace is None:
            return Miss(CacheReason.UNCACHEABLE, "not traceable: it ran where nothing could trace it")
        if id(trace) not in self._kept:
            self._kept[id(trace)] = trace, self._keep_set(weak, trace, self._describe(stage))
        path_set = self._kept[id(trace)][1]
        if isinstance(path_set, Miss):
            return path_set
        key = self._sets.build_key(weak, path_set, self._now)
        assert key is not None
        return key

    def _keep_set(self, weak: TaskKey, trace: Trace, task: TracedTask) -> PathSet | Miss:
        """Keep the set of a trace, and the lists of the states of its paths.

        The states are those that the first of two comparisons of the files with the trace found, or were read between
        both, so they are those that the task saw.
        """
        used = self._reader.find_used_paths(trace, task)
        if isinstance(used, Miss):
            return used
        self._now.add(used.entries)
        path_set = self._sets.add(used.paths)
        key = self._sets.build_key(weak, path_set, self._now)
        assert key is not None
        if not used.are_unchanged():
            again = TraceReader(self._states).find_used_paths(trace, task)
            if isinstance(again, Miss):
                return again
            if again.paths != used.paths:
                return Miss(CacheReason.EDITED, "a file changed after its end")
        for content in key.listings.values():
            self._store.add(content)
        return path_set

    def list_read_files(self, key: StrongKey) -> set[str]:
        """Return the files of the project in a set that exist and that the task did not make itself."""
        listing = parse_listing(key.listings[key.key.listings[0]])
        return {path for path, state in listing.items() if state[:2] in ("f ", "x ", "l ")}

    def save(self, weak: TaskKey, key: StrongKey, *, proofs: int) -> None:
        """Put a set first among those of a task. Raises StoreUnusable."""
        manifest = self._sets.load(weak)
        others = tuple(each for each in manifest.sets if each != key.path_set)
        self._sets.save(weak, Manifest(sets=(key.path_set, *others)[:MOST_SETS], proofs=proofs))

    def disprove(self, weak: TaskKey) -> None:
        """Make a task prove its sets again, since it ended differently with equal inputs. Raises StoreUnusable."""
        self._sets.save(weak, replace(self._sets.load(weak), proofs=0))

    def _describe(self, stage: PlannedStage) -> TracedTask:
        variables = build_command_environment(stage, self._environ)
        temporary = variables.get("TMPDIR") or "/tmp"  # nosec B108 # compared with paths
        return TracedTask(
            outputs=InputPatterns(list_written(stage, self._states.folder)),
            needed_outputs=InputPatterns(stage.needed_outputs),
            caches=CACHES.difference(*(pattern.split("/") for pattern in stage.needed_outputs)),
            temporary_folders=(f"{os.path.realpath(temporary).rstrip('/')}/", *_MEMORY_FOLDERS),
            cache_folders=tuple(_iter_cache_folders(variables)),
            own_files=self._own_files,
            allows_servers=stage.allows_servers,
        )


def _iter_trace_names(paths: Iterable[Path], folder: str) -> Iterator[str]:
    """Yield paths as a trace has them: with links resolved, and relative to the project's folder if inside it."""
    for path in paths:
        yield os.path.realpath(path).removeprefix(f"{folder}/")


def _iter_cache_folders(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield the user's cache folder, and npm's folders for logs and packages. What npx runs is not a cache."""
    home = variables.get("HOME", "")
    npm = variables.get("npm_config_cache") or os.path.join(home, ".npm")
    user = variables.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    for folder in (user, *(os.path.join(npm, name) for name in _NPM_CACHES)):
        if os.path.isabs(folder):
            yield f"{os.path.realpath(folder)}/"


class TracedTask(Struct, frozen=True, kw_only=True):
    """The facts about a task with which its trace is compared.

    `outputs`: the patterns of the stage's outputs; `needed_outputs`: those of the stages that it needs. `caches`: the
    names of tools' caches, unless these patterns name them. `temporary_folders`: folders in which only the content of
    files counts. `cache_folders`: folders to leave out, apart from virtual environments in them. Links in both are
    resolved, as in traces. `own_files`: the exporter's, which change during a run, and count only if the task reads
    them. `allows_servers`: the result counts although the task connected to servers.
    """

    outputs: InputPatterns
    needed_outputs: InputPatterns
    caches: frozenset[str]
    temporary_folders: tuple[str, ...]
    cache_folders: tuple[str, ...] = ()
    own_files: frozenset[str] = frozenset()
    allows_servers: bool = False


class TraceReader:
    """Turns the traces of tasks that end at about the same time into the paths that results depend on; for one thread.

    For each path, the state before the first use, from the trace, is compared with the state after the task:

        before   after      the task wrote it   it is
        same     same       no                  an input: content, absence, or the names in a folder
        there    same       yes                 an input that it wrote again with the same content
        absent   there      yes                 the task's own: it counts as absent while it is as the task left it
                                                (left out if not used before that)
        absent   absent     yes                 a temporary file: left out
        there    different  yes                 an input that it changed: no result; left out if not used before that
        any      different  no                  edited during the run: no result

    An output of an earlier run is an input only if the task read its content before it wrote it.
    """

    def __init__(self, states: FileStates) -> None:
        self._states = states
        self._roots = tuple(dict.fromkeys(f"{root}/" for root in (states.folder, os.path.realpath(states.folder))))
        self._left_out: dict[str, bool] = {}

    def find_used_paths(self, trace: Trace, task: TracedTask) -> UsedPaths | Miss:
        """Return the paths that a task used, in their current states, or why its result can't be kept."""
        if trace.problems:
            return _explain(f"not traceable: {trace.problems[0]}", len(trace.problems))
        if trace.servers and not task.allows_servers:
            why = f"not traceable: it connected to {trace.servers[0]}; `cache: true` allows this"
            return _explain(why, len(trace.servers))
        paths = {self._name(path): access for path, access in trace.paths.items()}
        moves = [(self._name(source), self._name(target)) for source, target in trace.moves]
        if _may_hide_reads(moves, paths, task.temporary_folders):
            return _explain("not traceable: it moves a folder that it did not make", len(moves))
        reading = _Reading(self._states, paths, task, self._is_left_out, self._is_file_left_out)
        try:
            return UsedPaths(tuple(reading.iter_used_paths()), reading.entries, reading.is_current)
        except _Unproved as error:
            return error.why

    def _name(self, path: bytes) -> str:
        """Return a path in the form of path sets."""
        text = os.fsdecode(path)
        for root in self._roots:
            if text.startswith(root):
                return text[len(root) :]
            if text == root[:-1]:
                return "."
        return text

    def _is_left_out(self, path: str) -> bool:
        """Return whether a path is a folder without sources, or is inside one."""
        known = self._left_out.get(path)
        if known is None:
            known = self._left_out[path] = self._is_file_left_out(path) or self._is_cache_folder(path)
        return known

    def _is_file_left_out(self, path: str) -> bool:
        """Return the same for a path that is no folder."""
        parent = path.rpartition("/")[0]
        return (parent != "" and self._is_left_out(parent)) or has_cache_name(path)

    def _is_cache_folder(self, path: str) -> bool:
        return is_cache_folder(os.path.join(self._states.folder, path))


class UsedPaths(Struct, frozen=True):
    """The paths that a task used, with their entries, None for a file without a comparable state.

    `are_unchanged` reads the entries again, and returns whether they are the same.
    """

    paths: tuple[UsedPath, ...]
    entries: Mapping[str, Entry | None]
    are_unchanged: Callable[[], bool]


class _Unproved(Exception):
    def __init__(self, reason: CacheReason, text: str) -> None:
        super().__init__(text)
        self.why = Miss(reason, text)


class _Reading:
    """One trace, compared with the files as they are now."""

    def __init__(
        self,
        states: FileStates,
        paths: Mapping[str, Access],
        task: TracedTask,
        is_left_out: Callable[[str], bool],
        is_file_left_out: Callable[[str], bool],
    ) -> None:
        self._states = states
        self._paths = paths
        self._task = task
        self._is_left_out = is_left_out
        self._is_file_left_out = is_file_left_out
        self.entries: dict[str, Entry | None] = {}
        self._names: dict[str, list[str]] = {}
        self._made: dict[str, bool] = {}
        self._environments: dict[str, bool] = {}

    def iter_used_paths(self) -> Iterator[UsedPath]:
        """Yield the paths. Raises _Unproved."""
        for path, access in self._paths.items():
            if self._is_temporary(path) and self._is_irrelevant_temporary(path, access):
                continue
            is_known = self._is_file_left_out if _is_regular(access) else self._is_left_out
            if (is_known(path) or self._is_cached_for_user(path)) and not self._is_needed_output(path):
                continue
            if path in self._task.own_files and not access.is_used(READ):
                continue
            if self._task.outputs.matches(path):
                yield from self._judge_output(path, access)
            elif self._is_in_made_folder(path):
                yield from self._judge_made(path, access, self._get_entry(path))
            else:
                yield from self._judge(path, access)

    def is_current(self) -> bool:
        """Return whether all states are as they were when the paths were found."""
        try:
            return all(self._read_entry(path) == entry for path, entry in self.entries.items()) and all(
                self._read_names(path) == names for path, names in self._names.items()
            )
        except _Unproved:
            return False

    def _is_temporary(self, path: str) -> bool:
        return f"{path}/".startswith(self._task.temporary_folders)

    def _is_irrelevant_temporary(self, path: str, access: Access) -> bool:
        """Return whether a temporary file, of which there may be thousands, is the task's own or was not read."""
        is_read = access.is_used(READ) and not _is_folder(access)
        return (not is_read or self._is_in_made_folder(path)) and not self._task.outputs.matches(path)

    def _is_cached_for_user(self, path: str) -> bool:
        """Return whether a path is in the user's caches, but not in an environment, which Poetry keeps there."""
        is_cached = f"{path}/".startswith(self._task.cache_folders)
        return is_cached and not any(map(self._is_environment, _iter_parents(path)))

    def _is_environment(self, folder: str) -> bool:
        known = self._environments.get(folder)
        if known is None:
            known = self._environments[folder] = os.path.exists(f"{folder}/pyvenv.cfg")
        return known

    def _is_needed_output(self, path: str) -> bool:
        """Return whether a file in a cache, such as cargo's `target`, is an output of a needed stage.

        Not caches that tools put beside such outputs, such as `__pycache__`.
        """
        return self._task.needed_outputs.matches(path) and self._task.caches.isdisjoint(path.split("/"))

    def _judge(self, path: str, access: Access) -> Iterator[UsedPath]:
        now = self._get_entry(path)
        if _is_unchanged(access, now):
            yield from self._judge_unchanged(path, access, now)
        elif not access.is_used(WRITE):
            what = "appeared" if access.state is None else "changed"
            raise _Unproved(CacheReason.EDITED, f"{path} {what} during the run")
        elif self._is_temporary(path):
            return
        elif access.state is None:
            yield from self._judge_made(path, access, now)
        elif access.is_used_unwritten(_USES):
            raise _Unproved(CacheReason.OWN_INPUT, f"it changes its own input {path}: name it in `outputs`")

    def _judge_unchanged(self, path: str, access: Access, now: Entry | None) -> Iterator[UsedPath]:
        if now == ABSENT and access.is_used(WRITE) and not access.is_used_unwritten(_USES):
            return  # a temporary file
        is_file = _is_file(access)
        if is_file and isinstance(access.state, tuple):
            self._check_age(path, access.state, access.first_timestamp_ns)
        if access.is_used(LIST):
            yield self._judge_names(path, access)
            return
        if is_file and now is None and access.is_used(READ) and not isinstance(access.state, int):
            raise _Unproved(CacheReason.UNCACHEABLE, f"not traceable: {path} has no content that can be compared")
        yield UsedPath(path)
        if is_file and access.is_used(READ) and now is not None and get_state(now)[:1] in "xl":
            yield from (UsedPath(each) for each in _iter_interpreters(os.path.join(self._states.folder, path)))

    def _judge_made(self, path: str, access: Access, now: Entry | None) -> Iterator[UsedPath]:
        """Judge a path that the task made, or that is in a folder which the task made: the next run may find it.

        If a file had a state before its first use, it came with a folder that the task moved there.
        """
        if now == ABSENT:
            if access.state is None and access.is_used_unwritten(_USES) and not self._is_in_removed_folder(path):
                yield UsedPath(path)
        elif access.is_used(LIST):
            yield UsedPath(path, listed=True, own=MADE_FOLDER + "/".join(self._list_names(path)))
        elif access.is_used_unwritten(_USES) or (access.state is not None and access.is_used(_USES)):
            yield UsedPath(path, own=_describe(now))

    def _judge_names(self, path: str, access: Access) -> UsedPath:
        """Return a listed folder without the names that the task made or removed, and without the exporter's own.

        Outputs of the task are left out, too: if one is gone, a hit restores it.
        """
        now = set(self._list_names(path))
        before = {os.fsdecode(name) for name in access.names or ()}
        prefix = "" if path == "." else path.rstrip("/") + "/"
        own = {name for name in now | before if (child := self._paths.get(prefix + name)) and child.is_used(WRITE)}
        own |= {name for folder, name in map(os.path.split, self._task.own_files) if (folder or ".") == path}
        own |= {name for name in now | before if self._task.outputs.matches(prefix + name)}
        foreign = sorted(name for name in (now ^ before) - own if not self._is_left_out(prefix + name))
        if foreign:
            what = "appeared" if foreign[0] in now else "vanished"
            raise _Unproved(CacheReason.EDITED, f"{prefix}{foreign[0]} {what} during the run")
        return UsedPath(path, listed=True, own="/".join(sorted(own)))

    def _judge_output(self, path: str, access: Access) -> Iterator[UsedPath]:
        """Yield an output of an earlier run if the task read it. If the task then changed it, there is no result."""
        if not (_is_file(access) and access.is_used_unwritten(READ)):
            return
        if access.is_used(WRITE) and not _is_unchanged(access, self._get_entry(path)):
            raise _Unproved(CacheReason.OWN_INPUT, f"it reads its own output {path}, and then changes it")
        yield from self._judge(path, access)

    def _list_names(self, path: str) -> list[str]:
        names = self._names[path] = self._read_names(path)
        return names

    def _read_names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._states.folder, path)))
        except OSError as error:
            raise _Unproved(CacheReason.EDITED, f"{path} can't be listed: {error.strerror}") from None

    def _check_age(self, path: str, state: tuple[object, ...], first_ns: int) -> None:
        """Refuse a file that changed in the same clock tick in which it was used: a later change would not show."""
        times = int(str(state[1])), int(str(state[2]))
        coarse = all(each % 1_000_000_000 == 0 for each in times)
        if max(times) > first_ns - (_WHOLE_SECONDS_NS if coarse else _compute_tick_ns()):
            raise _Unproved(CacheReason.EDITED, f"{path} changed during the run")

    def _is_in_made_folder(self, path: str) -> bool:
        parent = path.rpartition("/")[0]
        if not parent:
            return False
        known = self._made.get(parent)
        if known is None:
            known = self._made[parent] = self._is_in_made_folder(parent) or self._is_made(parent)
        return known

    def _is_in_removed_folder(self, path: str) -> bool:
        return any(self._is_made(parent) and self._get_entry(parent) == ABSENT for parent in _iter_parents(path))

    def _is_made(self, path: str) -> bool:
        access = self._paths.get(path)
        return access is not None and access.state is None and access.is_used(WRITE)

    def _get_entry(self, path: str) -> Entry | None:
        """Return the entry of a path; None for a file without a comparable state."""
        if path not in self.entries:
            self.entries[path] = self._read_entry(path)
        return self.entries[path]

    def _read_entry(self, path: str) -> Entry | None:
        try:
            return self._states.take_entry(path)
        except UnusableFile:
            return None


def _may_hide_reads(
    moves: Sequence[tuple[str, str]], paths: Mapping[str, Access], temporary_folders: tuple[str, ...]
) -> bool:
    """Return whether a task may have read files at paths where its moves of folders put them.

    The trace lacks their original paths. In temporary folders only opened files count, so a move between two of them,
    by which pytest removes folders of earlier runs, hides nothing unless the task opened a file below the new path.
    """
    if not all(path.startswith(temporary_folders) for move in moves for path in move):
        return True
    targets = tuple(f"{target}/" for _, target in moves)
    return bool(targets) and any(
        access.is_used(READ) and path.startswith(targets) and not _is_folder(access) for path, access in paths.items()
    )


def _is_folder(access: Access) -> bool:
    return isinstance(access.state, tuple) and stat.S_ISDIR(int(str(access.state[4])))


def _is_regular(access: Access) -> bool:
    return isinstance(access.state, tuple) and stat.S_ISREG(int(str(access.state[4])))


@cache
def _compute_tick_ns() -> int:
    """Return two ticks of the clock of files."""
    return 2 * int(time.clock_getres(_COARSE_CLOCK) * 1e9)


def _is_file(access: Access) -> bool:
    return isinstance(access.state, tuple) and not _is_folder(access)


def _iter_parents(path: str) -> Iterator[str]:
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _is_unchanged(access: Access, now: Entry | None) -> bool:
    """Return whether a path is as before its first use, or a file that the task rewrote with the same content."""
    if _is_same(access.state, now):
        return True
    if access.digest is None or now is None or not isinstance(access.state, tuple):
        return False
    executable = int(str(access.state[4])) & 0o111
    return get_state(now) == f"{'x' if executable else 'f'} {access.digest}"


def _is_same(before: object, now: Entry | None) -> bool:
    """Return whether a path is as it was before its first use. For a folder only its existence counts."""
    if before is None or now == ABSENT:
        return before is None and now == ABSENT
    if now is None:  # unreadable, or a device: unchanged if it had no state before, either
        return True
    if not isinstance(before, tuple):
        return False
    if now[5] == "d":
        return (before[3], before[4]) == (now[3], now[4])
    if before[:5] != now[:5]:
        return False
    return len(now) == 6 or _is_same_target(before[5], now[6])


def _is_same_target(before: object, now: Entry) -> bool:
    if now == KERNEL:  # /proc/self is another folder for each process
        return True
    if before is None or now == ABSENT:
        return before is None and now == ABSENT
    return now[5] == "d" or before == now[:5]


def _describe(now: Entry | None) -> str:
    return UNUSABLE_STATE if now is None else get_state(now)


def _explain(text: str, count: int) -> Miss:
    return Miss(CacheReason.UNCACHEABLE, text if count == 1 else f"{text} (+{count - 1})")


def _iter_interpreters(path: str) -> Iterator[str]:
    """Yield the programs that the kernel needs to run a program: the interpreter of a script, the dynamic loader."""
    for _ in range(_MOST_INTERPRETERS):
        found = _find_interpreter(path)
        if not found:
            return
        yield found
        path = found


def _find_interpreter(path: str) -> str:
    try:
        head = files.read_start(Path(path), limit_bytes=_HEAD_BYTES)
    except OSError:
        return ""
    if head.startswith(b"#!"):
        words = head[2:].partition(b"\n")[0].split()
        return os.fsdecode(words[0]) if words and words[0].startswith(b"/") else ""
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < _ELF_HEADER.size:
        return ""
    _, _, _, _, offset, _, _, _, size, count = _ELF_HEADER.unpack_from(head)
    for place in range(offset, offset + size * count, max(size, 1)):
        if place + _PROGRAM_HEADER.size > len(head):
            break
        kind, _, start, _, _, length, _, _ = _PROGRAM_HEADER.unpack_from(head, place)
        if kind == _PT_INTERP:
            return os.fsdecode(head[start : start + length].rstrip(b"\0"))
    return ""


def find_missed_reads(config: Config, stage: Stage, store: Store) -> list[str]:
    """Return the files that a stage's last traced run read but that its inputs leave out, sorted."""
    reads = Notes(store.last_folder, config.project).load_reads(stage.name)
    if not reads:
        return []  # as for most stages: below, the outputs of thousands of stages would be listed for each
    declared = InputPatterns((*list_input_patterns(stage), *list_item_inputs(stage)))
    outputs = InputPatterns([each for other in config.stages for each in list_output_patterns(other)])
    named = list_named_paths(config, stage)
    environments = {folder for folder in {path.partition("/")[0] for path in reads} if _is_environment(config, folder)}
    return [
        path
        for path in reads
        if not declared.matches(path)
        and not outputs.matches(path)
        and not is_settings_file(path)
        and path not in named
        and _OTHER_FOLDERS.isdisjoint(path.split("/"))
        and path.partition("/")[0] not in environments
        and os.path.lexists(os.path.join(config.root, path))
    ]


def _is_environment(config: Config, folder: str) -> bool:
    return os.path.exists(os.path.join(config.root, folder, "pyvenv.cfg"))
