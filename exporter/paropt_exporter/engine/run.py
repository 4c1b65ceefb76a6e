"""Run one plan to its end in one thread that waits for messages and timers and decides the next steps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.clock import Clock
from paropt_exporter.cpu_demand import count_task_cores
from paropt_exporter.engine.attempt import Attempt, Ready
from paropt_exporter.engine.cache_requests import CacheRequests, Kept, LookedUp
from paropt_exporter.engine.flaky_attempts import is_known_flaky
from paropt_exporter.engine.inbox import Inbox, Timers
from paropt_exporter.engine.interfaces import (
    Admission,
    Demand,
    MachineLink,
    MachineShare,
    MachineUsage,
    RunningAttempt,
    StageCache,
    StageLookup,
    Stop,
    Wake,
    Workers,
)
from paropt_exporter.engine.observers import EventStream
from paropt_exporter.engine.open_stages import OpenStages, measure_backlog, measure_demand
from paropt_exporter.engine.outcome import build_not_started
from paropt_exporter.engine.resources import Resources
from paropt_exporter.engine.run_record import AttemptTotals, RecordedRun, RunEnd, build_run_record
from paropt_exporter.engine.stage import StageState
from paropt_exporter.engine.task_scheduler import TaskScheduler
from paropt_exporter.engine.time_limits import TERM_GRACE_SECONDS, AttemptEnds, SlaWatches
from paropt_exporter.errors import describe
from paropt_exporter.events import (
    Event,
    LiveStage,
    Result,
    RunRecord,
    RunStarted,
    StageRecord,
    StageStarted,
    Strategy,
    TaskRecord,
    TaskTiming,
)
from paropt_exporter.executors.base import build_task_label
from paropt_exporter.plan import THREADS, Plan
from paropt_exporter.plan.flakiness import MOST_FAILED_STAGES
from paropt_exporter.sla import Watch

log = logging.getLogger(__name__)


class _Ended(Struct, frozen=True):
    attempt: Attempt


class _WindDown(Struct, frozen=True):
    """A request to end stages whose inputs have changed, and to start no others."""

    stale: frozenset[str]
    reason: str


class _SetShare(Struct, frozen=True):
    share: MachineShare | None


class Run:
    """One execution of one plan.

    ```
    waiting stages --needs met, resources fit--> running --all tasks ended--> ended
    normal --fail-fast, critical SLA, deadline, signal--> stopping (no task starts; TERM, KILL after the grace)
       '---inputs have changed--> wound down (no stage starts; the stages with these inputs are stopped)
    ```
    A cached stage is looked up when its needs have succeeded; its tasks start once the answer is there.

    Guarantees: `execute` returns once, with every stage ended or skipped and every attempt ended; stages start in plan
    order as far as there is room; events are emitted in the order in which they happened, a task's record before its
    stage's, a stage's before the run's; `flush` is called before each wait, in a burst of events within BURST_SECONDS.
    Any thread may interrupt, wind down, resize and limit the run, and signal handlers may call `interrupt`.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        run_id: str,
        workers: Workers,
        emit: Callable[[Event], None],
        inbox: Inbox,
        clock: Clock,
        memory_bytes: int,
        cores: float | None = None,
        sums_work: bool = True,
        on_stopping: Callable[[Stop, int], None] | None = None,
        flush: Callable[[], None] | None = None,
        cache: StageCache | None = None,
        link: MachineLink | None = None,
    ) -> None:
        """Prepare the run. `cores`: the cores of all its tasks together; None: those that this process may use.

        `flush` is called as the class says, and before the first task starts: `emit` may hold events until then.
        `sums_work`: whether `measure_demand` has the remaining work and the rescue size, which cost a walk over all
        stages. `on_stopping` is called with the request and the number of running stages, when the run begins to stop
        and when it kills.
        `cache`: the results of earlier runs, for stages that ask for them; None: each stage runs. `link`: to the runs
        that share the machine, to which each change of this run's demand is reported.
        """
        self.plan = plan
        self.run_id = run_id
        self._workers = workers
        self._events = EventStream(clock, emit, flush)
        self._emit = self._events.emit
        self._inbox = inbox
        self._clock = clock
        self._on_stopping = on_stopping
        self._link = link
        self._last_usage: MachineUsage | None = None
        self._memory_bytes = memory_bytes
        self._sums_work = sums_work
        self._cores = host.count_cpus() if cores is None else cores
        in_order = plan.stages
        if plan.strategy is Strategy.SEQUENTIAL:
            in_order = tuple(sorted(plan.stages, key=lambda stage: stage.number))
        self._stages = {stage.name: StageState(stage) for stage in in_order}
        self._open_stages = OpenStages(self._stages)
        self._resources = Resources(memory_bytes, link.share if link is not None else None)
        self._scheduler = TaskScheduler(plan, self._open_stages, self._resources, workers)
        self._cache = CacheRequests(cache, self._open_stages, inbox, clock) if cache is not None else None
        # guards: the changes of one message to running and ready tasks. A measurement after the end of a task, before
        # the stage that needs it is ready, would offer that stage's slot to a jobserver's clients.
        self._changing_tasks = threading.Lock()
        self._timers = Timers()
        self._ends = AttemptEnds(clock, self._timers)
        self._limits = SlaWatches(
            run_id,
            plan.lane,
            clock=clock,
            timers=self._timers,
            emit=self._emit,
            on_critical=self._stop_if_critical,
        )
        self._stop_request: Stop | None = None
        self._critical = ""  # which critical limit was broken
        self._stale = ""  # why the run was wound down
        self._stale_stages: frozenset[str] = frozenset()
        self._failed_stages: set[str] = set()  # with an attempt that failed, even if a retry passed
        self._totals = AttemptTotals()

    @property
    def size(self) -> int:
        """The number of slots."""
        return self._scheduler.size

    def interrupt(self, reason: str, *, now: bool) -> None:
        """End the run on the user's request: TERM to running tasks, KILL after the grace, or `now`."""
        self._inbox.post(Stop(reason, now=now))

    def wind_down(self, stale: frozenset[str], reason: str) -> None:
        """End these stages, since their inputs have changed, and start no others; running ones go on.

        From any thread.
        """
        self._inbox.post(_WindDown(stale, reason))

    def resize(self, size: int) -> None:
        """Set the number of slots; never interrupts running tasks. From any thread."""
        self._scheduler.size = size
        self._inbox.post(Wake())

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        """Run at most so many tasks of these stages at once, and any number of other stages' tasks. From any thread."""
        self._scheduler.set_stage_limits(stages)
        self._inbox.post(Wake())

    def set_admission(self, admission: Admission | None) -> None:
        """Start only tasks for which there are cores, except up to the floor; None: any task with a slot.

        From any thread.
        """
        self._scheduler.admission = admission
        self._inbox.post(Wake())

    def set_share(self, share: MachineShare | None) -> None:
        """Use at most this part of the machine; running tasks are not interrupted. None: no limit. From any thread."""
        self._inbox.post(_SetShare(share))

    def execute(self) -> RunRecord:
        """Run the plan; blocks until every stage has ended. A task's failure is a record, never an exception."""
        try:
            return self._execute()
        finally:
            self._events.flush()

    def _execute(self) -> RunRecord:
        started, started_timestamp = self._clock.monotonic(), self._clock.wall()
        self._emit(
            RunStarted(
                run_id=self.run_id,
                lane=self.plan.lane,
                strategy=self.plan.strategy,
                started_seconds=started,
                started_timestamp_seconds=started_timestamp,
                stages=tuple(stage.name for stage in self.plan.stages),
                partial=self.plan.partial or self.plan.failed_only,
                shard=self.plan.shard,
                tree_state=self.plan.tree_state,
                deadline_seconds=None if self.plan.deadline is None else self.plan.deadline.seconds,
                predicted_seconds=None if self.plan.deadline is None else self.plan.deadline.predicted_seconds,
            )
        )
        if self.plan.total is not None:
            self._limits.watch_lane(Watch(self.plan.total, started))
        if self.plan.deadline is not None:
            stop = Stop(f"the deadline of {self.plan.deadline.seconds:g} s", interrupted=False)
            self._timers.schedule(started + self.plan.deadline.seconds, lambda: self._begin_stopping(stop))
        for state in self._stages.values():
            self._prepare_stage(state, started)
        self._events.flush()
        for message in self._inbox.receive(started):
            self._handle_message(message)  # an interrupt before the first task starts none
        while True:
            self._timers.fire(self._clock.monotonic())
            self._start_tasks()
            self._report_usage()
            if not self._open_stages:
                self._events.flush()
                break
            for message in self._inbox.receive(self._get_next_moment()):
                self._handle_message(message)
        return self._end_run(started, started_timestamp)

    # Views of the run while it goes on; from any thread.

    def snapshot_stages(self) -> tuple[LiveStage, ...]:
        """Return the running stages, measured up to this moment."""
        usage = {task.label: (task.cpu_seconds, task.memory_bytes) for task in self._workers.running()}
        now = self._clock.monotonic()
        return tuple(
            state.build_live_stage(self.plan.lane, usage, now=now) for state in self._open_stages.all() if state.started
        )

    def measure_backlog(self) -> dict[str, tuple[int, float]]:
        """Return, for each pool, how many startable tasks wait for room, and the age of the oldest."""
        can_begin = self._resources.can_begin_stage
        return measure_backlog(self._open_stages.startable(), self._clock.monotonic(), can_begin=can_begin)

    def measure_demand(self) -> Demand:
        """Return the running and the startable tasks, for the controller."""
        ends_seconds = self._limits.ends_seconds
        with self._changing_tasks:
            return measure_demand(
                self._open_stages,
                now=self._clock.monotonic(),
                ends_seconds=ends_seconds,
                sums_work=self._sums_work,
                can_begin=self._resources.can_begin_stage,
            )

    # Starting

    def _prepare_stage(self, state: StageState, now: float) -> None:
        if state.plan.fault:
            self._close_stage(state, Result.ERROR, state.plan.fault)
            self._fail_fast(state)
        else:
            state.startable_seconds = now
            state.ready.extend(Ready(task=task, attempt=1, ready_seconds=now) for task in state.plan.tasks)

    def _close_stage(self, state: StageState, result: Result, why: str) -> None:
        record = state.close(self.run_id, self.plan.lane, result, why)
        self._open_stages.remove(state, self._clock.monotonic())
        self._emit(record)

    def _fail_fast(self, state: StageState) -> None:
        if self.plan.fail_fast and self._stop_request is None:
            self._begin_stopping(Stop(f"fail-fast: {state.name} failed", interrupted=False))

    def _start_tasks(self) -> None:
        if self._stop_request is not None:
            self._skip_unstarted_stages(self._stop_request.reason)
            return
        self._skip_stages_with_failed_needs()
        self._close_planned_skips()
        startable = self._open_stages.startable()
        if self.plan.strategy is Strategy.SEQUENTIAL:
            startable = startable[:1]  # in order, also while it waits for the cache or for a retry
        if self._cache is not None:
            self._cache.look_up(startable)
        self._scheduler.start_tasks(startable, self._start_task)

    def _report_usage(self) -> None:
        """Tell the link the demand for cores and memory, if it has changed."""
        if self._link is None:
            return
        startable = () if self._stop_request is not None else self._open_stages.startable()
        usage = self._scheduler.measure_usage(startable, cores=count_task_cores(self._cores))
        if usage is not None and usage != self._last_usage:
            self._last_usage = usage
            self._link.report_usage(usage)

    def _apply_lookup(self, state: StageState, found: StageLookup) -> None:
        """Skip the tasks whose earlier results hold, and let the others start."""
        if state.ended or self._stop_request is not None:
            return
        now, now_timestamp = self._clock.monotonic(), self._clock.wall()
        for record in state.apply_lookup(self.run_id, self.plan.lane, found, now=now, now_timestamp=now_timestamp):
            self._emit(record)
        if not state.ready:
            self._close_stage(state, Result.SUCCESS, "")

    def _start_task(self, state: StageState) -> None:
        ready, now = state.ready[0], self._clock.monotonic()
        label = build_task_label(state.name, ready.task.index, alone=len(state.plan.tasks) == 1)
        running = self._submit_attempt(state, ready, label)
        since = max(state.startable_seconds, ready.ready_seconds)
        attempt = Attempt(state, ready.task, ready.attempt, since, now, running)
        if not state.started:
            self._begin_stage(state, running.pool, now)
        self._resources.begin_task(state.plan, running.pool, label)
        state.pool = running.pool
        state.attempts.append(attempt)
        # Only now: the controller's thread measures the demand at any time, and would offer this task's slot to jobs.
        state.ready.popleft()
        self._ends.begin(attempt)
        running.future.add_done_callback(lambda _: self._inbox.post(_Ended(attempt)))

    def _submit_attempt(self, state: StageState, ready: Ready, label: str) -> RunningAttempt:
        try:
            return self._workers.start(state.plan, ready.task, label)
        except Exception as error:  # noqa: BLE001 -- a lack of threads or processes costs this task only
            log.warning("a task could not be started", extra={"task": label, "err": describe(error)})
            return build_not_started(state.plan.pool, label, error)

    def _begin_stage(self, state: StageState, pool: str, now: float) -> None:
        state.started_seconds, state.started_timestamp_seconds = now, self._clock.wall()
        self._resources.begin_stage(state.plan)
        self._emit(
            StageStarted(
                run_id=self.run_id,
                lane=self.plan.lane,
                stage=state.name,
                number=state.plan.number,
                pool=pool,
                tasks=len(state.plan.tasks),
                started_seconds=now,
                started_timestamp_seconds=state.started_timestamp_seconds,
                sla=state.plan.sla,
                scope=state.scope,
            )
        )
        self._limits.watch_stage(state, now)

    def _skip_stages_with_failed_needs(self) -> None:
        while lost := self._open_stages.pop_lost():
            state, needs = lost
            self._close_stage(state, Result.SKIP, f"needs {', '.join(needs)}")

    def _close_planned_skips(self) -> None:
        """Close them only after their needs, since stages that need a skipped one need these, too."""
        while (state := self._open_stages.pop_skippable()) is not None:
            self._close_stage(state, Result.SKIP, state.plan.skip)

    # Messages

    def _handle_message(self, message: object) -> None:
        with self._changing_tasks:
            self._apply_message(message)

    def _apply_message(self, message: object) -> None:
        match message:
            case _Ended(attempt):
                record = self._build_task_record(attempt)
                if self._cache is None or not self._cache.offer(attempt, record):
                    self._end_attempt(attempt, record)
            case Kept(attempt, record):
                self._end_attempt(attempt, record)
            case LookedUp(state, found):
                self._apply_lookup(state, found)
            case Stop():
                self._begin_stopping(message)
            case _WindDown(stale, reason):
                self._wind_down(stale, reason)
            case _SetShare(share):
                self._resources.set_share(share)
            case _:
                pass  # Wake: the loop starts tasks after each message anyway

    def _end_attempt(self, attempt: Attempt, record: TaskRecord) -> None:
        state = attempt.stage
        # The attempt leaves the live view before its record adds it to the totals, or a scrape in between would count
        # it twice.
        state.attempts.remove(attempt)
        self._resources.end_task(state.plan, attempt.running.pool, attempt.running.label)
        # Not others: the strategy adaptive has moved them to processes.
        gil_bound = record.pool == THREADS and self._workers.is_gil_bound(state.name)
        state.add_record(record, gil_bound=gil_bound)
        self._totals.add(record, gil_bound=gil_bound)
        self._emit(record)
        if not record.final:
            self._schedule_retry(state, attempt, record)
        elif record.result.bad and not state.is_forgiven(record):
            self._fail_fast(state)
        self._end_stage_if_done(state)

    def _build_task_record(self, attempt: Attempt) -> TaskRecord:
        stage, may_retry = attempt.stage.plan, self._may_retry(attempt.stage)
        record = attempt.build_record(
            self.run_id,
            self.plan.lane,
            may_retry=may_retry and attempt.number <= stage.retries,
            now=self._clock.monotonic(),
            now_timestamp=self._clock.wall(),
        )
        if record.result.bad:
            self._failed_stages.add(stage.name)
            alone = len(self._failed_stages) < MOST_FAILED_STAGES
            if record.final and may_retry and alone and attempt.number <= stage.flaky_retries:
                return replace(record, final=not is_known_flaky(stage, record))
        return record

    def _may_retry(self, state: StageState) -> bool:
        return self._stop_request is None and state.name not in self._stale_stages

    def _schedule_retry(self, state: StageState, attempt: Attempt, record: TaskRecord) -> None:
        wait = state.plan.backoff_seconds * 2.0 ** (attempt.number - 1)
        state.resting += 1
        again = Ready(
            task=state.narrow_task(attempt.task, record),
            attempt=record.attempt + 1,
            ready_seconds=self._clock.monotonic() + wait,
        )
        self._timers.schedule(again.ready_seconds, lambda: self._end_backoff(state, again))

    def _end_backoff(self, state: StageState, ready: Ready) -> None:
        if state.ended or not state.resting:  # it was wound down
            return
        state.resting -= 1
        state.ready.append(ready)

    def _end_stage_if_done(self, state: StageState) -> None:
        if state.ended or not state.is_done:
            return
        self._limits.check_end(state)
        self._resources.end_stage(state.plan)
        record = state.build_record(self.run_id, self.plan.lane)
        self._open_stages.remove(state, self._clock.monotonic())
        self._emit(record)
        self._limits.report_if_critical(state)
        if record.result.bad:  # even without a bad task: none of its batches had a test
            self._fail_fast(state)

    def _get_next_moment(self) -> float | None:
        moments = (self._events.flush_in_turn(), self._timers.next_moment)
        return min((moment for moment in moments if moment is not None), default=None)

    # Stopping and the end

    def _stop_if_critical(self, state: StageState | None, watch: Watch) -> None:
        """Stop the lane, since the stage, or the lane itself (None), has broken a critical limit, even at its end.

        A run that is stopping for another reason fails by the limit too, unless the user has interrupted it.
        """
        if self._critical or (self._stop_request is not None and self._stop_request.interrupted):
            return
        name, limit = (self.plan.lane, "total") if state is None else (state.name, "SLA")
        why = f"broke its critical {limit} of {watch.limit.max_seconds:g} s"
        self._critical = f"{name} {why}"
        for attempt in () if state is None else state.attempts:
            attempt.set_verdict(Result.TIMEOUT, why)
        self._begin_stopping(Stop(self._critical, interrupted=False))

    def _begin_stopping(self, stop: Stop) -> None:
        """End the run; the first reason stays, and a later request may only hasten the end."""
        if self._stop_request is None:
            self._stop_request = stop
        elif not stop.now:
            return
        if self._on_stopping is not None:
            self._events.flush()  # the reason, such as a failed stage, comes first
            self._on_stopping(stop, sum(bool(state.attempts) for state in self._open_stages.all()))
        for attempt in self._iter_attempts():
            attempt.set_verdict(Result.CANCELLATION, f"stopped: {self._stop_request.reason}")
            self._ends.stop(attempt, 0.0 if stop.now else TERM_GRACE_SECONDS)

    def _iter_attempts(self) -> Iterator[Attempt]:
        for state in self._stages.values():
            yield from tuple(state.attempts)

    def _wind_down(self, stale: frozenset[str], reason: str) -> None:
        self._stale = self._stale or reason
        self._stale_stages |= stale
        for state in self._open_stages.all():
            if not state.started:
                self._close_stage(state, Result.SKIP, reason)
            elif state.name in stale:
                state.ready.clear()
                state.resting = 0
                for attempt in state.attempts:
                    attempt.set_verdict(Result.CANCELLATION, reason)
                    self._ends.stop(attempt, TERM_GRACE_SECONDS)
                self._end_stage_if_done(state)

    def _skip_unstarted_stages(self, reason: str) -> None:
        for state in self._open_stages.all():
            if not state.started:
                self._close_stage(state, Result.SKIP, reason)
            state.ready.clear()
            state.resting = 0
            self._end_stage_if_done(state)

    def _end_run(self, started: float, started_timestamp: float) -> RunRecord:
        ended = self._clock.monotonic()
        self._limits.check_lane(ended)
        pools, duration = self._workers.get_pool_uses(), ended - started
        record = build_run_record(
            self.run_id,
            RecordedRun(
                plan=self.plan,
                timings=self._collect_timings() if self._stop_request is None else (),
                duration_seconds=duration,
                peak_size=max((pool.peak_size for pool in pools), default=0),
                cores=self._cores,
                memory_bytes=self._memory_bytes,
            ),
            self._collect_stage_records(),
            pools,
            RunEnd(
                stopping=self._stop_request,
                critical=self._critical,
                total=self._limits.total,
                queued=self._scheduler.had_to_wait,
                abandoned=self._workers.get_abandoned_calls(),
                stale=self._stale,
            ),
            started_timestamp_seconds=started_timestamp,
            sequential_seconds=self._totals.alone_seconds,
        )
        self._emit(record)
        return record

    def _collect_timings(self) -> list[TaskTiming]:
        """Return the timings of all attempts; whether a stage is GIL-bound is known only at its end."""
        bound = {name for name, state in self._stages.items() if state.gil_bound and state.pool == THREADS}
        return [replace(one, gil_bound=True) if one.stage in bound else one for one in self._totals.timings]

    def _collect_stage_records(self) -> tuple[StageRecord, ...]:
        return tuple(state.record for state in self._stages.values() if state.record is not None)
