"""Export the stages of an AdaptiveWorkerPool on a program's own endpoint, and record its runs in a history."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from time import monotonic

from paropt_exporter import families
from paropt_exporter.aggregation import LastValues, Totals
from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.stage import Finals, find_worst_result
from paropt_exporter.errors import shorten
from paropt_exporter.events import Event, Result, RunRecord, RunStarted, StageRecord, StageStarted, Strategy, TaskRecord
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.base import PROCESSES, THREADS, check_label
from paropt_exporter.executors.counters import WorkerTime
from paropt_exporter.guide.worker_pool import AdaptiveWorkerPool, EndedTask
from paropt_exporter.history import History
from paropt_exporter.metrics.client import Collector, Metric
from paropt_exporter.metrics.event_state import EventState, LaneLabels, StageLabels
from paropt_exporter.metrics.page import Page

_CLOCK = SystemClock()
_SCRAPED_FAMILIES = (families.STAGE_RUNNING, families.STAGE_PROGRESS)
STAGE_FAMILIES = (
    families.RUNS,
    families.RUN_DURATION,
    families.RUN_TASKS,
    families.RUN_IN_PROGRESS,
    families.RUN_STARTED,
    families.RUN_LAST_SUCCESS,
    families.RUN_LAST_COMPLETION,
    families.RUN_LAST_DURATION,
    families.STAGE_DURATION,
    families.STAGE_LAST_DURATION,
    families.STAGE_LAST_RESULT,
    families.STAGE_FAILING,
    families.STAGE_RUNS,
    families.STAGE_CPU,
    families.STAGE_MEMORY_PEAK,
    families.STAGE_INFO,
    families.TASK_DURATION,
    families.TASK_QUEUE_WAIT,
    families.TASK_ATTEMPTS,
    *_SCRAPED_FAMILIES,
)


class StageCollector(Collector):
    """A collector for the `paropt_run_*`, `paropt_stage_*` and `paropt_task_*` families of a pool's stages.

        submit_stage, ends of tasks ──> events ──flush(): wait_all, shutdown, each scrape──> history, then page

    `REGISTRY.register(StageCollector(pool, project="shop", lane="nightly"))` registers it with prometheus_client's
    registry. A run lasts from the first `submit_stage` to the `wait_all` that finds all tasks ended, or to the end of
    the pool's `shutdown`. A stage has the first name that its number had; results of stages are known when their run
    ends, those of tasks at once. `history` is the path of a history for `paropt-exporter history`; totals continue from
    it, and it keeps the last 1,000 runs of the project. Raises HistoryError if the file is not a history.

    Guarantees:
      * Tasks do no I/O for it: their ends only add events to a queue.
      * The history has an event before the page shows it, so no total is lower after a restart.
      * A forked child has a page of its own, and writes nothing to the history.
    """

    def __init__(
        self, pool: AdaptiveWorkerPool, *, project: str, lane: str, history: str | os.PathLike[str] | None = None
    ) -> None:
        """Observe the stages from now on. Raises TypeError for another kind of pool, and labels that are no strings."""
        if not isinstance(pool, AdaptiveWorkerPool):
            raise TypeError(f"{pool!r} has no stages: expected an AdaptiveWorkerPool, or use a PoolCollector")
        check_label("project", project)
        check_label("lane", lane)
        self._history = None if history is None else _open_history(Path(history), project)
        self._inherited: History | None = None  # the parent's, in a forked child
        if self._history is not None:
            self._history.mark_interrupted_runs()
        self._totals = self._history.load_totals() if self._history is not None else Totals()
        self._last = self._history.load_last_values() if self._history is not None else LastValues()
        self._recorder = _RunRecorder(lane, pool.strategy.pool_strategy)
        self._project = project
        self._start_page()
        self._pool = pool
        pool.observe_stages(self._recorder, self.flush)
        lifetime.register_lock_owner(self)

    def _start_page(self) -> None:
        self._lock = RLock()  # guards: the order of events; _state, _page, _stages
        self._stages: tuple[StageLabels, ...] = ()
        self._state = EventState([self._build_labels()], self._totals, self._last)
        self._page = Page(self._project)

    def collect(self) -> Iterator[Metric]:
        """Yield the current families; from the scraping thread."""
        with self._lock:
            self.flush()
            for family, labels, value in self._state.iter_changes():
                if value is None:
                    self._page.drop(family, labels)
                else:
                    self._page.put(family, labels, value)
            for stage, submitted, ended in self._recorder.count_tasks():
                place = (self._recorder.lane, stage)
                self._page.put(families.STAGE_RUNNING, place, float(ended < submitted))
                self._page.put(families.STAGE_PROGRESS, place, ended / submitted)
            metrics = tuple(self._page.iter_metrics(STAGE_FAMILIES))
        yield from metrics

    def describe(self) -> Iterable[Metric]:
        """Return nothing: without this method a registry collects everything once at registration."""
        return ()

    def flush(self) -> None:
        """Write waiting events to the history and apply them to the series. Never raises because of a disk."""
        self._pool.note_ended_tasks()
        with self._lock:
            for event in self._recorder.pop_events():
                if self._history is not None:
                    self._history.observe(event)
                if isinstance(event, StageStarted):
                    self._add_stage(event)
                elif isinstance(event, StageRecord):  # a later run may lack the stage
                    self._page.put(families.STAGE_PROGRESS, (event.lane, event.stage), 1.0)
                self._state.observe(event)

    def close(self) -> None:
        """Write waiting events and close the history; call it after the pool's shutdown."""
        with self._lock:
            self.flush()
            if self._history is not None:
                self._history.close()
                self._history = None

    def reset_after_fork(self) -> None:
        """Reset in a forked child, where locks may be held. The history and the waiting events are the parent's."""
        # Kept, since a thread of the parent may be in SQLite: closing the connection would wait for it.
        self._inherited, self._history = self._inherited or self._history, None
        self._recorder.clear()
        self._start_page()

    def _add_stage(self, started: StageStarted) -> None:
        """Create the series of a stage, at 0 or the history's values, before it changes them."""
        if started.stage in {stage.name for stage in self._stages}:
            return
        labels = StageLabels(name=started.stage, number=started.number, pool=started.pool)
        self._stages = (*self._stages, labels)
        self._state.reconfigure([self._build_labels()], self._totals, self._last)

    def _build_labels(self) -> LaneLabels:
        return LaneLabels(lane=self._recorder.lane, stages=self._stages)


def _open_history(path: Path, project: str) -> History:
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    return History(path.absolute(), project=project, clock=_CLOCK)


@dataclass(slots=True)
class _StageOfRun:
    """One stage of the current run: the sums of its ended tasks. Times are monotonic."""

    name: str
    number: int
    submitted: int = 0
    finals: Finals = field(default_factory=Finals)
    started_seconds: float | None = None
    ended_seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_peak_bytes: int = 0

    def add(self, task: TaskRecord) -> None:
        self.finals.add(task)
        self.started_seconds = min(self.started_seconds or task.started_seconds, task.started_seconds)
        self.ended_seconds = max(self.ended_seconds, task.ended_seconds)
        self.cpu_seconds += task.cpu_seconds
        self.memory_peak_bytes = max(self.memory_peak_bytes, task.memory_peak_bytes)

    def build_record(self, run_id: str, lane: str, pool: str) -> StageRecord:
        started = self.started_seconds or self.ended_seconds
        return StageRecord(
            run_id=run_id,
            lane=lane,
            stage=self.name,
            number=self.number,
            result=(result := find_worst_result(self.finals.counts)),
            message=self.finals.describe(result, self.submitted) if result.bad else "",
            pool=pool,
            tasks=self.submitted,
            tasks_failed=self.finals.count - self.finals.counts[Result.SUCCESS],
            duration_seconds=max(0.0, self.ended_seconds - started),
            started_timestamp_seconds=_to_timestamp(started),
            cpu_seconds=self.cpu_seconds,
            memory_peak_bytes=self.memory_peak_bytes,
            attempts=self.finals.count,
            fastest_task_seconds=self.finals.fastest_seconds,
            slowest_task_seconds=self.finals.slowest_seconds,
            first_attempts=sum(self.finals.counts[each] for each in Result if each is Result.SUCCESS or each.bad),
        )


class _RunRecorder:
    """Turns the stages of a pool into the events of runs. The pool's lock guards its methods `note_…`.

    note_submitted() ──first one──> run ──note_ended() ...──> note_run_end() ──> none
    """

    def __init__(self, lane: str, strategy: Strategy) -> None:
        self.lane = lane
        self._strategy = strategy
        self._pool = PROCESSES if strategy is Strategy.PROCESS else THREADS
        self.clear()

    def clear(self) -> None:
        """Forget the run and its events."""
        self._events: deque[Event] = deque()  # appending and popping are atomic
        self._names: dict[int, str] = {}
        self._stages: dict[int, _StageOfRun] = {}
        self._run_id = ""
        self._started_seconds = 0.0
        self._worker_time = WorkerTime()

    def pop_events(self) -> Iterator[Event]:
        """Yield and remove the waiting events, oldest first; from one thread at a time."""
        while self._events:
            yield self._events.popleft()

    def count_tasks(self) -> tuple[tuple[str, int, int], ...]:
        """Return for each stage of the current or last run how many tasks were submitted, and have ended."""
        return tuple((stage.name, stage.submitted, stage.finals.count) for stage in tuple(self._stages.values()))

    def note_submitted(self, number: int, name: str, submitted_seconds: float) -> None:
        if not self._run_id:
            self._start_run(submitted_seconds)
        stage = self._stages.get(number)
        if stage is None:
            self._stages = {**self._stages, number: (stage := self._start_stage(number, name, submitted_seconds))}
        stage.submitted += 1

    def note_ended(self, task: EndedTask) -> None:
        stage, measured, outcome = self._stages[task.number], task.measured, task.outcome
        record = TaskRecord(
            run_id=self._run_id,
            lane=self.lane,
            stage=stage.name,
            task=stage.finals.count,
            item=task.name if task.name != stage.name else None,
            attempt=1,
            final=True,
            result=outcome.result,
            message=shorten(outcome.message),
            pool=task.pool,
            worker=measured.worker,
            ready_seconds=task.submitted_seconds,
            started_seconds=measured.started_seconds,
            ended_seconds=measured.ended_seconds,
            started_timestamp_seconds=_to_timestamp(measured.started_seconds),
            cpu_seconds=measured.cpu_seconds,
            run_delay_seconds=measured.run_delay_seconds,
            memory_peak_bytes=measured.memory_peak_bytes,
        )
        stage.add(record)
        self._events.append(record)

    def note_run_end(self, worker_time: WorkerTime) -> None:
        """End the run, whose tasks have all ended; `worker_time` is the pool's since its start."""
        if not self._run_id:
            return
        records = tuple(stage.build_record(self._run_id, self.lane, self._pool) for stage in self._stages.values())
        self._events.extend(records)
        self._events.append(self._build_run_record(records, worker_time))
        self._run_id, self._worker_time = "", worker_time

    def _start_run(self, now_seconds: float) -> None:
        began = datetime.fromtimestamp(_to_timestamp(now_seconds), UTC)
        self._run_id = f"{began:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._started_seconds, self._stages = now_seconds, {}
        self._events.append(
            RunStarted(
                run_id=self._run_id,
                lane=self.lane,
                strategy=self._strategy,
                started_seconds=now_seconds,
                started_timestamp_seconds=began.timestamp(),
                stages=(),
            )
        )

    def _start_stage(self, number: int, name: str, now_seconds: float) -> _StageOfRun:
        if number not in self._names:
            while name in self._names.values():  # a label value must mean one stage
                name = f"{name}_{number}"
            self._names[number] = name
        self._events.append(
            StageStarted(
                run_id=self._run_id,
                lane=self.lane,
                stage=self._names[number],
                number=number,
                pool=self._pool,
                tasks=1,
                started_seconds=now_seconds,
                started_timestamp_seconds=_to_timestamp(now_seconds),
            )
        )
        return _StageOfRun(self._names[number], number)

    def _build_run_record(self, stages: tuple[StageRecord, ...], worker_time: WorkerTime) -> RunRecord:
        worst = find_worst_result(stage.result for stage in stages)
        ended = max(self._started_seconds, *(stage.ended_seconds for stage in self._stages.values()))
        unsuccessful = [stage.stage for stage in stages if stage.result is not Result.SUCCESS]
        return RunRecord(
            run_id=self._run_id,
            lane=self.lane,
            strategy=self._strategy,
            result=Result.FAILURE if worst.bad else worst,
            reason=f"{', '.join(unsuccessful)} failed" if unsuccessful else "",
            duration_seconds=ended - self._started_seconds,
            started_timestamp_seconds=_to_timestamp(self._started_seconds),
            ended_timestamp_seconds=_to_timestamp(ended),
            stages=stages,
            sequential_seconds=sum(stage.finals.seconds for stage in self._stages.values()),
            busy_ratio=(worker_time - self._worker_time).ratio,
        )


def _to_timestamp(moment_seconds: float) -> float:
    return _CLOCK.wall() - max(0.0, monotonic() - moment_seconds)
