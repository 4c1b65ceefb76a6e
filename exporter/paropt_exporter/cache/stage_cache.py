"""The cache of stages: looks up the tasks of each stage before it starts, and keeps the results of those that ran."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.keys import KeyLocks
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.open_cache import CacheSetup, OpenCache, Tracing, open_cache
from paropt_exporter.cache.result_loader import ResultLoader, StageResults
from paropt_exporter.cache.result_store import StoreUnusable
from paropt_exporter.cache.stage_keys import StagePart, StageReading, miss_all, sum_up
from paropt_exporter.engine.inbox import SimpleQueue
from paropt_exporter.engine.interfaces import KeptResult, StageLookup
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedStage, PlannedTask

if TYPE_CHECKING:
    from paropt_exporter.cache.result_keeper import LookedUpStage, ResultKeeper

log = logging.getLogger(__name__)

Report = Callable[[StageLookup], None]

WAIT_SECONDS = 3600.0  # for another run of the same task; then it runs here too
_END_SECONDS = 60.0  # for the last writes of a run
_LOOKUP_END_SECONDS = 1.0  # for a lookup whose run has ended
_KEPT_NOTHING = "the cache failed: no result is kept"


class StageCache:
    """The results of earlier runs, for one run at a time: serves the engine's requests on a thread.

    ```
    look_up -> [thread: read inputs -> keys -> store] -> report: each task is skipped, or runs for a reason
    keep    -> results wait -> flush -> [thread: inputs unchanged? -> outputs and result into the store] -> done
    ```
    Guarantees: all methods return at once, except `end_run`; a result is kept only if its task succeeded and no input
    changed between the lookup and the moment after its end; errors of the disk cost a miss and one line, never a run; a
    lookup that takes long (a slow disk, a huge input) delays no end of a run: its thread is left behind with its
    state.
    """

    def __init__(self, setup: CacheSetup) -> None:
        self._setup = setup
        self._tracing = Tracing(setup)
        self._thread: _JobThread | None = None
        self._run: _RunCache | None = None

    def begin_run(self) -> None:
        if self._thread is None:
            self._thread = _JobThread()
        self._run = _RunCache(self._setup, self._tracing, self._thread.put)
        if self._setup.remote is not None:
            self._setup.remote.begin_run()

    # The engine's interface, between begin_run and end_run

    def look_up(self, stage: PlannedStage, report: Report) -> None:
        thread, run = self._get_current()
        thread.put(lambda: run.look_up(stage, report))

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        thread, run = self._get_current()
        thread.put(lambda: run.keep(stage, task, result))

    def flush(self, stage: PlannedStage, done: Callable[[], None]) -> None:
        thread, run = self._get_current()
        thread.put(lambda: run.flush(stage.name, done))

    def end_run(self) -> None:
        """Wait for the writes of the run, release its locks, and make room in the store."""
        (thread, run), ended = self._get_current(), threading.Event()
        self._run = None
        run.given_up.set()
        thread.put(lambda: run.end(ended.set))
        if not ended.wait(_LOOKUP_END_SECONDS) and run.is_looking_up:
            run.abandon()
            thread.finish()
            self._thread = None
        elif not ended.wait(_END_SECONDS):
            log.warning("the cache is still being written", extra={"seconds": _END_SECONDS})

    def close(self) -> None:
        """End the thread."""
        if self._run is not None:
            self._run.given_up.set()
        if self._thread is not None:
            self._thread.finish()
            self._thread.join(_END_SECONDS)
            self._thread = None
        if self._run is not None:
            self._run.abandon()

    def _get_current(self) -> tuple[_JobThread, _RunCache]:
        assert self._thread is not None
        assert self._run is not None
        return self._thread, self._run


class _JobThread:
    """A thread that does jobs in order."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="paropt-cache", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def finish(self) -> None:
        """Let the thread end after the jobs that it has."""
        self._jobs.put(None)

    def join(self, timeout_seconds: float) -> None:
        self._thread.join(timeout_seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it would keep an ended run in memory


class _OpenParts(Struct, frozen=True):
    cache: OpenCache
    loader: ResultLoader


class _RunCache:
    """The cached stages of one run: looks each up under locks that other runs respect, and keeps its results.

    All methods but `abandon` are called on the thread of the cache, and a wait for another run has a thread of its own.
    Once `given_up` is set, nothing is reported any more.
    """

    def __init__(self, setup: CacheSetup, tracing: Tracing, put: Callable[[Callable[[], None]], None]) -> None:
        """`put` hands a job to the run's thread."""
        self._setup = setup
        self._locks = KeyLocks(setup.store.lock_path)
        self._tracing = tracing
        self._put = put
        self.given_up = threading.Event()
        self.is_looking_up = False
        self._stages: dict[str, LookedUpStage] = {}
        self._opened: _OpenParts | Miss | None = None  # a Miss: why this run does not use the store
        self._keeper: ResultKeeper | None = None  # until a task runs

    def look_up(
        self, stage: PlannedStage, report: Report, locked: Iterable[str] = (), *, may_wait: bool = True
    ) -> None:
        """Report the results of a stage, once no other run works on it. `locked`: the digests that it has locked."""
        held = {*locked}
        if self.given_up.is_set():
            self._locks.release(held)
            return
        self.is_looking_up = True
        try:
            found = self._find_results(stage, report, held, may_wait=may_wait)
        except Exception as error:  # a fault of the cache must not end the run, nor hang it
            log.exception("the cache failed: the stage runs", extra={"stage": stage.name})
            found = miss_all(stage, Miss(CacheReason.STORE, f"the cache failed: {error}"))
        self.is_looking_up = False
        if found is not None and not self.given_up.is_set():
            report(found)

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        """Add the result of a task, which is kept when its stage has ended, or earlier."""
        looked_up = self._stages.get(stage.name)
        if looked_up is None or self._keeper is None:
            return
        try:
            failed = self._keeper.add(looked_up, task, result)
            self._release(looked_up, _list_keys(looked_up.reading, failed))
        except Exception:  # without the thread no stage would end
            log.exception(_KEPT_NOTHING, extra={"stage": stage.name})
            self._stages.pop(stage.name, None)
            self._release(looked_up, looked_up.locks)

    def flush(self, name: str, done: Callable[[], None]) -> None:
        """Keep the results of a stage that has ended."""
        looked_up = self._stages.pop(name, None)
        if looked_up is not None and self._keeper is not None:
            try:
                self._keeper.end_stage(looked_up)
            except Exception:  # the stage's result must not wait for the cache without a limit
                log.exception(_KEPT_NOTHING, extra={"stage": name})
            self._release(looked_up, looked_up.locks)
        done()

    def end(self, done: Callable[[], None]) -> None:
        """Keep the results of stages that have not ended, and make room in the store."""
        try:
            for name in [*self._stages]:
                self.flush(name, lambda: None)
            if isinstance(self._opened, _OpenParts):
                self._opened.cache.states.save()
            if self._setup.store.written_bytes:
                self._setup.store.prune_if_full()
        except Exception:  # the run has ended: its result stands
            log.exception("the cache failed at the end of the run")
        self._locks.close()
        done()

    def abandon(self) -> None:
        """Keep no more results, and release all locks: the next run would wait for them. From any thread."""
        self._stages = {}
        self._locks.close()

    def _find_results(
        self, stage: PlannedStage, report: Report, held: set[str], *, may_wait: bool
    ) -> StageLookup | None:
        """Return the stage's results and misses, or None if it waits for another run. Unlock all that it does not need.

        `held`: its locks, on its outputs first, so that no two runs wait for each other, then on its missed parts.
        """
        needed: set[str] = set()
        try:
            opened = self._open()
            if isinstance(opened, Miss):
                return miss_all(stage, opened)
            stage = self._tracing.choose_inputs(stage)
            outputs = self._list_output_locks(stage)
            if not self._lock(outputs, held) and may_wait:
                self._wait(stage, report, outputs)
                return None
            results = opened.loader.find(stage)
            if isinstance(results, Miss):
                return miss_all(stage, results)
            missed = results.list_missed()
            if not missed or self.given_up.is_set():
                return sum_up(results.reading, results.found)
            looked_up = self._begin_stage(opened.cache, results)
            if not self._lock(missed, held) and may_wait:
                kept = held.intersection(outputs)
                self._wait(stage, report, missed, kept)
                needed = kept
                return None
            more = opened.loader.find_kept_meanwhile(results)  # now under their locks
            needed = held.intersection((*outputs, *missed)).difference(_list_keys(results.reading, more))
            looked_up.locks |= needed
            self._stages[stage.name] = looked_up
            return sum_up(results.reading, {**results.found, **more})
        finally:
            self._locks.release(held - needed)

    def _lock(self, wanted: Sequence[str], held: set[str]) -> bool:
        """Lock those that are not held yet, and add them to `held`; or return False if another run has one."""
        new = [digest for digest in wanted if digest not in held]
        if not self._locks.try_acquire(new):
            return False
        held.update(new)
        return True

    def _open(self) -> _OpenParts | Miss:
        """Open the store at the first lookup. Return why it can't be used, if so."""
        if self._opened is None:
            try:
                cache = open_cache(self._setup)
            except StoreUnusable as error:
                self._opened = Miss(CacheReason.STORE, str(error))
            else:
                self._opened = _OpenParts(cache, ResultLoader(self._setup, cache, self.given_up))
        return self._opened

    def _begin_stage(self, cache: OpenCache, results: StageResults) -> LookedUpStage:
        """Return a stage whose results can be kept, once its tasks have run."""
        if self._keeper is None:
            from paropt_exporter.cache.result_keeper import ResultKeeper  # here: a run without misses keeps nothing

            self._keeper = ResultKeeper(self._setup, cache)
        return self._keeper.begin_stage(results.reading, results.outputs)

    def _wait(self, stage: PlannedStage, report: Report, wanted: Sequence[str], held: Iterable[str] = ()) -> None:
        """Look the stage up again once another run has ended it; `held`: the locks that it keeps meanwhile."""
        self._setup.say(f"{stage.name}: waits for another run of it")

        def wait() -> None:
            acquired = self._locks.acquire(wanted, self.given_up, WAIT_SECONDS)
            locked = (*held, *(wanted if acquired else ()))
            self._put(lambda: self.look_up(stage, report, locked, may_wait=acquired))

        threading.Thread(target=wait, name="paropt-cache-wait", daemon=True).start()

    def _list_output_locks(self, stage: PlannedStage) -> tuple[str, ...]:
        """Return the lock on the outputs of a stage in this checkout, if it has some.

        With other variables or arguments its key is another one, but its files are the same: what two runs at once
        write or restore would be mixed in one result.
        """
        if not stage.outputs and stage.output_file is None:
            return ()
        return (hash_bytes(os.fsencode(f"outputs\0{os.path.realpath(self._setup.root)}\0{stage.name}")),)

    def _release(self, stage: LookedUpStage, digests: Iterable[str]) -> None:
        """Unlock those of the digests that a stage has locked."""
        released = stage.locks.intersection(digests)
        stage.locks -= released
        self._locks.release(released)


def _list_keys(reading: StageReading, parts: Iterable[StagePart]) -> list[str]:
    return [reading.keys[part].digest for part in parts]
