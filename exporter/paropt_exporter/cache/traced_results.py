"""Look up and keep the results of tasks with traced inputs.

    weak key -> path sets -> strong keys -> a result: a hit, once the sets under the weak key have proved themselves
    trace -> used paths -> path set -> strong key -> the result is kept

In shadow mode, until two runs would have been hits and ended with equal outputs, such a task runs nevertheless.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cache.file_states import FileStates
from paropt_exporter.cache.keys import TaskKey, parse_listing
from paropt_exporter.cache.misses import Miss, TaskNotes, explain_miss
from paropt_exporter.cache.path_sets import MOST_SETS, Manifest, PathSet, PathSets, PathStates, StrongKey
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.traced_inputs import TracedTask, TraceReader
from paropt_exporter.events import CacheReason
from paropt_exporter.executors.commands.traces import Trace
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.plan.stage_environment import build_command_environment
from paropt_exporter.plan.structure import PlannedStage

PROOFS = 2  # runs that would have been hits, before one is
_MEMORY_FOLDERS = ("/var/tmp/", "/dev/shm/")  # nosec B108 # compared with paths; nothing is created there


def find_refusal() -> str:
    """Return why no command can be traced here; "" if they can."""
    from paropt_exporter.executors.supervisor import tracing  # here: few stages are traced

    return tracing.find_refusal()


def describe_proof(proofs: int) -> str:
    """Return why a task runs that would be a hit if its inputs had proved themselves."""
    return f"unchanged: it runs to prove its traced inputs ({proofs + 1} of {PROOFS})"


class Candidates(Struct, frozen=True, kw_only=True):
    """The strong keys of a task as the files are now, the last used first."""

    manifest: Manifest
    keys: tuple[StrongKey, ...]

    @property
    def proved(self) -> bool:
        return self.manifest.proofs >= PROOFS


def explain_traced_miss(weak: TaskKey, candidates: Candidates, notes: TaskNotes, store: Store) -> Miss:
    """Return why there is no result under any strong key of a task."""
    if notes.unkept is not None and notes.unkept_key == weak.digest:
        return notes.unkept
    if not candidates.keys:
        return explain_miss(weak, notes, store, {})
    nearest = candidates.keys[0]
    return explain_miss(nearest.key, notes, store, nearest.listings)


class TracedResults:
    """The path sets of tasks, and what is known of them during a run. One thread at a time uses it."""

    def __init__(self, store: Store, states: FileStates, environ: Mapping[str, str]) -> None:
        self._store = store
        self._states = states
        self._environ = environ
        self._sets = PathSets(store)
        self._now = PathStates(states)
        self._reader = TraceReader(states)
        self._kept: dict[int, tuple[Trace, PathSet | Miss]] = {}  # by the trace: the items of a batch share one

    def refresh(self) -> None:
        """Forget the states of files: they are read again."""
        self._now = PathStates(self._states)
        self._reader = TraceReader(self._states)
        self._kept.clear()

    def find_candidates(self, weak: TaskKey) -> Candidates:
        """Return the keys under which a result may be."""
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

        The states are read between two comparisons of the files with the trace: they are those that the task saw.
        """
        paths = self._reader.find_used_paths(trace, task)
        if isinstance(paths, Miss):
            return paths
        path_set = self._sets.add(paths)
        key = self._sets.build_key(weak, path_set, self._now)
        assert key is not None
        again = TraceReader(self._states).find_used_paths(trace, task)
        if again != paths:
            return again if isinstance(again, Miss) else Miss(CacheReason.EDITED, "a file changed after its end")
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
        """Let the sets of a task prove themselves again: with equal inputs it had another end. Raises StoreUnusable."""
        self._sets.save(weak, replace(self._sets.load(weak), proofs=0))

    def _describe(self, stage: PlannedStage) -> TracedTask:
        variables = build_command_environment(stage, self._environ)
        temporary = variables.get("TMPDIR") or "/tmp"  # nosec B108 # compared with paths
        cache = variables.get("XDG_CACHE_HOME") or os.path.join(variables.get("HOME", ""), ".cache")
        patterns = [*stage.outputs]
        if stage.output_file is not None:
            patterns.append(os.path.relpath(stage.output_file, self._states.folder))
        return TracedTask(
            outputs=InputPatterns(_fill_items(tuple(patterns), stage)),
            temporary_folders=(f"{temporary.rstrip('/')}/", *_MEMORY_FOLDERS),
            cache_folders=(f"{cache}/",) if Path(cache).is_absolute() else (),
            allows_servers=stage.allows_servers,
        )


def _fill_items(patterns: tuple[str, ...], stage: PlannedStage) -> tuple[str, ...]:
    from paropt_exporter.cache.inputs import list_written

    return tuple(dict.fromkeys((*list_written(replace(stage, outputs=patterns)),)))
