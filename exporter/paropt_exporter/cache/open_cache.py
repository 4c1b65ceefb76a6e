"""What the cache works with: the same for all runs of a process, and opened for one run or preview."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.file_states import FileStates
from paropt_exporter.cache.misses import MissExplainer, Notes
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.stage_keys import StageReader
from paropt_exporter.clock import Clock
from paropt_exporter.plan.structure import PlannedStage

if TYPE_CHECKING:
    from paropt_exporter.cache.remote import RemoteCache
    from paropt_exporter.cache.traced_results import TracedResults


class CacheSetup(Struct, frozen=True, kw_only=True):
    """What the cache of a project needs from its process.

    `reads` False: every task runs, and its result replaces the one in the store. `say` shows a line. `remote`: another
    cache, which is asked for results that the store lacks. `own_files`: those that this process writes, which are
    inputs only if a task is seen to read them, or if a stage names them. `read_clock_ns`: the clock of files.
    `find_refusal` returns why commands can't be traced, or ""; None: the system is asked.
    """

    root: Path
    store: Store
    project: str
    environ: Mapping[str, str]
    clock: Clock
    say: Callable[[str], None]
    reads: bool = True
    remote: RemoteCache | None = None
    own_files: Sequence[Path] = ()
    read_clock_ns: Callable[[], int] = time.time_ns
    find_refusal: Callable[[], str] | None = None


def open_cache(setup: CacheSetup) -> OpenCache:
    """Open the cache for a run, and create the store if it is missing. Raises StoreUnusable."""
    setup.store.prepare()
    return OpenCache(setup, setup.store.read_secret())


def open_cache_as_it_is(setup: CacheSetup) -> OpenCache:
    """Open the cache for a preview, which writes nothing. Raises StoreUnusable where `open_cache` does."""
    setup.store.check_access()
    return OpenCache(setup, setup.store.find_secret() or b"")


class OpenCache:
    """The store and the states of files, opened for one run. One thread at a time uses it."""

    def __init__(self, setup: CacheSetup, secret: bytes) -> None:
        """Read the states of files as the last run left them. `secret`: the store's, for digests of variables."""
        index = setup.store.index_folder / hash_bytes(os.fsencode(setup.root))[:32]
        self.states = FileStates(os.fspath(setup.root), index, read_clock_ns=setup.read_clock_ns)
        self.reader = StageReader(setup.root, self.states, setup.environ, secret, setup.own_files)
        self.notes = Notes(setup.store.last_folder, setup.project)
        self.explainer = MissExplainer(setup.store)
        self._setup = setup

    @cached_property
    def traced(self) -> TracedResults:
        """The results of tasks with traced inputs."""
        from paropt_exporter.cache.traced_results import TracedResults  # here: it loads the executors

        return TracedResults(self._setup.store, self.states, self._setup.environ, self._setup.own_files)


class Tracing:
    """Finds out once whether commands can be traced here, and prints a line if they can't."""

    def __init__(self, setup: CacheSetup) -> None:
        self._setup = setup
        self._refusal: str | None = None

    def choose_inputs(self, stage: PlannedStage) -> PlannedStage:
        """Return a stage with its declared inputs if it can't be traced."""
        if not stage.traces_inputs:
            return stage
        if self._refusal is None:
            from paropt_exporter.cache.traced_results import find_refusal  # here: few stages are traced

            self._refusal = (self._setup.find_refusal or find_refusal)()
            if self._refusal:
                self._setup.say(f"inputs: auto: nothing can be traced ({self._refusal}): the declared inputs count")
        return replace(stage, traces_inputs=False) if self._refusal else stage
