"""Build the record of an ended run: its result, its bottlenecks by the thresholds of the tuning guide, and advice.

A bottleneck is a fact about the records. Advice is given only for changes that shorten the schedule of the recorded
tasks. All functions are pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.engine.attempt import build_timing, compute_alone_seconds
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.errors import format_count
from paropt_exporter.events import Bottleneck, PoolUse, Result, RunRecord, StageRecord, Strategy, TaskRecord, TaskTiming
from paropt_exporter.plan import Plan, start_up
from paropt_exporter.plan.structure import Commands
from paropt_exporter.sla import Watch

if TYPE_CHECKING:
    from paropt_exporter.engine.what_if import RecordedTask, Workload

SLOW_RATIO = 1.5  # a stage over 1.5x the average stage
UNEVEN_RATIO = 3.0  # slowest over 3x the fastest
UNDER_USED_RATIO = 0.5  # busy under 50 % of the slots' time
SATURATED_RATIO = 0.9  # busy over 90 %
_FEWEST_STAGES = 3  # of two stages, one is over 1.5x their average if it takes over 3x the other: `uneven`
_NOTICEABLE_SECONDS = 0.1  # ratios between shorter durations are noise
MOST_TASKS = 2000  # ten sizes with 32 workers take 2 s of CPU for so many, and time grows with tasks x workers
_GAIN_RATIO = 0.9  # of the time: a smaller gain is lost in the differences between runs
_EQUAL_RATIO = 1.02  # of the time: too little to notice
# Of the run's duration. If the schedule of the recorded tasks takes much less, starting them took the rest; if it takes
# more, it misses something about them.
_TRUSTED_RATIOS = 0.75, 1.25
_MOST_WORKERS = 64


class RunEnd(Struct, frozen=True, kw_only=True):
    """How a run came to its end.

    `stopping`: the request that stopped it (None: it ran to its end); `critical`: the critical limit that it broke, or
    ""; `total`: the lane's limit; `queued`: whether any task waited for a slot; `abandoned`: calls that still run;
    `stale`: why it was wound down, or "".
    """

    stopping: Stop | None
    critical: str
    total: Watch | None
    queued: bool
    abandoned: tuple[str, ...]
    stale: str = ""

    @property
    def interrupted(self) -> bool:
        """Whether the user ended the run."""
        return self.stopping is not None and self.stopping.interrupted


class AttemptTotals:
    """Sums over the attempts of a run, for its record.

    `timings`: when the first MOST_TASKS of them ran, and one more if there were more. `alone_seconds`: how long all
    would have taken one after another, with the machine to themselves.
    """

    def __init__(self) -> None:
        self.timings: list[TaskTiming] = []
        self.alone_seconds = 0.0

    def add(self, record: TaskRecord, *, gil_bound: bool) -> None:
        if len(self.timings) <= MOST_TASKS:
            self.timings.append(build_timing(record))
        self.alone_seconds += compute_alone_seconds(record, gil_bound=gil_bound)


class RecordedRun:
    """An ended run that can be scheduled again. `peak_size`: the largest size of any of its pools.

    What is derived from it is computed once, when it is first read: most runs need no advice.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        timings: Sequence[TaskTiming],
        duration_seconds: float,
        peak_size: int,
        cores: float,
        memory_bytes: int,
    ) -> None:
        self.plan = plan
        self.timings = timings
        self.duration_seconds = duration_seconds
        self.peak_size = peak_size
        self.cores = cores
        self.memory_bytes = memory_bytes

    def estimate_seconds(self, size: int, tasks: Iterable[RecordedTask] | None = None) -> float:
        """Return how long the lane would have taken: its duration times the ratio of the computed makespans."""
        from paropt_exporter.engine.what_if import Workload

        workload = Workload(tasks=self.tasks if tasks is None else tuple(tasks))
        return self.duration_seconds * self._compute_makespan(workload, size) / self._recorded_makespan

    @cached_property
    def tasks(self) -> tuple[RecordedTask, ...]:
        return self._workload.tasks

    def has_retries(self, stage: str) -> bool:
        """Return whether any task of a stage had several attempts."""
        tried = [timing.task for timing in self.timings if timing.stage == stage]
        return len(tried) > len(set(tried))

    @cached_property
    def size(self) -> int:
        """The number of workers: the fixed one, otherwise as many as were used at once."""
        if self.plan.strategy is Strategy.SEQUENTIAL:
            return 1
        from paropt_exporter.engine.what_if import count_most_at_once

        used = count_most_at_once((each.started_seconds, each.ended_seconds) for each in self.timings)
        return self.plan.workers.maximum if self.plan.workers.fixed else max(1, used)

    @cached_property
    def is_explained(self) -> bool:
        """Whether the recorded tasks explain the run's duration."""
        if not 0 < len(self.timings) <= MOST_TASKS or self.duration_seconds <= 0:
            return False
        least, most = _TRUSTED_RATIOS
        explained = least <= self._compute_makespan(self._workload, self.size) / self.duration_seconds <= most
        return explained and self._recorded_makespan > 0

    @cached_property
    def _workload(self) -> Workload:
        from paropt_exporter.engine.what_if import build_workload

        return build_workload(self.timings, self.cores)

    @cached_property
    def _recorded_makespan(self) -> float:
        # Without other processes, here and in each trial: no advice takes cores from them.
        from paropt_exporter.engine.what_if import Workload

        return self._compute_makespan(Workload(tasks=self.tasks), self.size)

    def _compute_makespan(self, workload: Workload, size: int) -> float:
        from paropt_exporter.engine.what_if import compute_makespan

        return compute_makespan(
            workload, self.plan.stages, workers=size, cores=self.cores, memory_bytes=self.memory_bytes
        )


def build_run_record(
    run_id: str,
    recorded: RecordedRun,
    stages: tuple[StageRecord, ...],
    pools: tuple[PoolUse, ...],
    end: RunEnd,
    *,
    started_timestamp_seconds: float,
    sequential_seconds: float,
) -> RunRecord:
    """Return the record of a run, with its bottlenecks and advice from `recorded` (none without timings)."""
    plan, busy_ratio = recorded.plan, compute_busy_ratio(pools)
    result, reason = decide_result(plan, stages, end)
    found = find_bottlenecks(stages, busy_ratio=busy_ratio, queued=end.queued)
    return RunRecord(
        run_id=run_id,
        lane=plan.lane,
        strategy=plan.strategy,
        result=result,
        reason=reason,
        duration_seconds=recorded.duration_seconds,
        started_timestamp_seconds=started_timestamp_seconds,
        ended_timestamp_seconds=started_timestamp_seconds + recorded.duration_seconds,
        stages=stages,
        sequential_seconds=sequential_seconds,
        busy_ratio=busy_ratio,
        total=plan.total,
        warned=end.total is not None and end.total.warned,
        broken=end.total is not None and end.total.broken,
        critical_sla=bool(end.critical),
        interrupted=end.interrupted,
        bottlenecks=add_advice(found, recorded),
        advice=advise_on_single_stage(stages, recorded),
        pools=pools,
        abandoned=end.abandoned,
        partial=plan.partial,
        failed_only=plan.failed_only,
        shard=plan.shard,
    )


def decide_result(plan: Plan, stages: Sequence[StageRecord], end: RunEnd) -> tuple[Result, str]:
    """Return the result of a run and the reason: a critical limit first, then the user's wish, then failed stages.

    A run succeeds only if each stage of its plan has succeeded or was planned to be skipped, and no deadline left out
    any.
    """
    if end.critical:
        return Result.FAILURE, end.critical
    if end.stopping is not None and end.interrupted:
        return Result.CANCELLATION, end.stopping.reason
    if bad := [stage.stage for stage in stages if stage.result.bad]:
        return Result.FAILURE, f"{', '.join(bad)} failed"
    if end.stale:
        return Result.CANCELLATION, end.stale
    succeeded = {stage.stage for stage in stages if stage.result is Result.SUCCESS}
    missing = [stage.name for stage in plan.stages if not stage.skip and stage.name not in succeeded]
    if plan.deadline is not None and (missing or plan.deadline.left_out):
        named = ", ".join((*missing, *plan.deadline.left_out))
        return Result.CANCELLATION, f"no time for {named} before the deadline of {plan.deadline.seconds:g} s"
    return (Result.FAILURE, f"{', '.join(missing)} did not succeed") if missing else (Result.SUCCESS, "")


def compute_busy_ratio(pools: Sequence[PoolUse]) -> float:
    """Return busy over available worker time of the pools together."""
    slot_seconds = sum(pool.slot_seconds for pool in pools)
    return min(1.0, sum(pool.busy_seconds for pool in pools) / slot_seconds) if slot_seconds else 0.0


def find_bottlenecks(stages: Sequence[StageRecord], *, busy_ratio: float, queued: bool) -> tuple[Bottleneck, ...]:
    """Return the bottlenecks of a run. `queued`: whether tasks waited for a slot.

    A pool is saturated only if a task waited for it: five busy slots for five tasks are just right.
    """
    # A stage that could not start, was stopped (by a timeout too), or was cached, says nothing about its duration.
    ran = [stage for stage in stages if stage.result in (Result.SUCCESS, Result.FAILURE) and not stage.has_cached]
    # A stage that failed at once is not the fastest one, and would halve the average.
    whole = [stage for stage in ran if stage.result is Result.SUCCESS]
    return (
        *_iter_stage_bottlenecks(ran, whole),
        *_iter_lane_bottlenecks(ran, whole, busy_ratio=busy_ratio, queued=queued),
    )


def add_advice(found: Sequence[Bottleneck], run: RecordedRun) -> tuple[Bottleneck, ...]:
    """Return the bottlenecks, with advice where following it would have helped."""
    return tuple(replace(each, advice=_ADVICE[each.kind](each, run)) for each in found)


def advise_on_single_stage(stages: Sequence[StageRecord], run: RecordedRun) -> str:
    """Return the advice to give items to the only stage of a lane, if that would have helped; "" if not."""
    if len(stages) != 1 or run.plan.partial or stages[0].tasks != 1 or stages[0].result is not Result.SUCCESS:
        return ""
    return _try_split(Bottleneck(kind="uneven", stage=None, sentence=""), run)


def _iter_stage_bottlenecks(ran: Sequence[StageRecord], whole: Sequence[StageRecord]) -> Iterator[Bottleneck]:
    average = sum(stage.duration_seconds for stage in whole) / len(whole) if whole else 0.0
    for stage in ran:
        ratio = stage.duration_seconds / average if average else 0.0
        if len(whole) >= _FEWEST_STAGES and ratio > SLOW_RATIO and stage.duration_seconds >= _NOTICEABLE_SECONDS:
            yield Bottleneck(
                kind="slow",
                stage=stage.stage,
                sentence=f"{stage.stage} is slow: {_format_ratio(ratio)} the average stage",
            )
        if stage.tasks > 1 and _is_uneven(stage.fastest_task_seconds, stage.slowest_task_seconds):
            ratio = stage.slowest_task_seconds / max(stage.fastest_task_seconds, 1e-3)
            sentence = f"{stage.stage} is uneven: its slowest task took {_format_ratio(ratio)} its fastest"
            yield Bottleneck(kind="uneven", stage=stage.stage, sentence=sentence)
        if stage.gil_bound and stage.cpu_seconds >= _NOTICEABLE_SECONDS:
            sentence = f"{stage.stage} is CPU-bound Python in threads: High CPU usage"
            yield Bottleneck(kind="gil_bound", stage=stage.stage, sentence=sentence)


def _iter_lane_bottlenecks(
    ran: Sequence[StageRecord], whole: Sequence[StageRecord], *, busy_ratio: float, queued: bool
) -> Iterator[Bottleneck]:
    fastest = min(whole, key=lambda stage: stage.duration_seconds, default=None)
    slowest = max(ran, key=lambda stage: stage.duration_seconds, default=None)
    if fastest and slowest and _is_uneven(fastest.duration_seconds, slowest.duration_seconds):
        ratio = slowest.duration_seconds / max(fastest.duration_seconds, 1e-3)
        sentence = f"stages are uneven: {slowest.stage} took {_format_ratio(ratio)} as long as {fastest.stage}"
        yield Bottleneck(kind="uneven", stage=None, sentence=sentence)
    noticeable = slowest is not None and slowest.duration_seconds >= _NOTICEABLE_SECONDS
    if noticeable and busy_ratio < UNDER_USED_RATIO:
        sentence = f"workers were busy {busy_ratio:.0%} of their time"
        yield Bottleneck(kind="under_used", stage=None, sentence=sentence)
    if noticeable and queued and busy_ratio > SATURATED_RATIO:
        sentence = f"workers were busy {busy_ratio:.0%} of their time while tasks waited"
        yield Bottleneck(kind="saturated", stage=None, sentence=sentence)


def _format_ratio(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"


def _is_uneven(fastest: float, slowest: float) -> bool:
    return slowest >= _NOTICEABLE_SECONDS and slowest > UNEVEN_RATIO * fastest


def _try_more_workers(_: Bottleneck, run: RecordedRun) -> str:
    """Try more workers, unless an adaptive lane stayed below its maximum for a reason, or SEQUENTIAL allows one."""
    at_maximum = run.plan.workers.fixed or run.peak_size >= run.plan.workers.maximum
    if not at_maximum or run.plan.strategy is Strategy.SEQUENTIAL or not run.is_explained:
        return ""
    sizes, size = [], max(run.size, run.plan.workers.maximum)
    most = min(len(run.tasks), _MOST_WORKERS)
    while size < most:
        size = min(2 * size, most)
        sizes.append(size)
    took = {size: run.estimate_seconds(size) for size in sizes}
    enough = next((size for size in sizes if took[size] <= _EQUAL_RATIO * min(took.values())), None)
    if enough is None or took[enough] > _GAIN_RATIO * run.duration_seconds:
        return ""
    return f"{enough} workers would have taken {_format_gain(took[enough], run)}"


def _try_fewer_workers(_: Bottleneck, run: RecordedRun) -> str:
    if not run.plan.workers.fixed or run.plan.strategy is Strategy.SEQUENTIAL or not run.is_explained:
        return ""
    most_seconds = _EQUAL_RATIO * run.duration_seconds
    enough = 1 + bisect_left(range(1, run.size), True, key=lambda size: run.estimate_seconds(size) <= most_seconds)
    if enough >= run.size:
        return ""
    return f"{format_count(enough, 'worker')} would have taken {run.estimate_seconds(enough):.1f} s too"


def _try_processes(found: Bottleneck, run: RecordedRun) -> str:
    if not run.is_explained:
        return ""
    tasks = [replace(each, gil_bound=False) if each.stage == found.stage else each for each in run.tasks]
    return _format_if_faster("run it in processes", tasks, run, run.size)


def _try_split(found: Bottleneck, run: RecordedRun) -> str:
    """Try the longest task of the stage, or of the lane, in two halves, which saves its own time at most."""
    longest_seconds = max((each.duration_seconds for each in run.timings), default=0.0)
    if longest_seconds <= (1 - _GAIN_RATIO) * run.duration_seconds or not run.is_explained:
        return ""
    places = [place for place, each in enumerate(run.tasks) if found.stage in (None, each.stage)]
    if not places:
        return ""
    longest = max(places, key=lambda place: run.tasks[place].seconds)
    if run.has_retries(run.tasks[longest].stage):
        return ""  # the time of all attempts is not the task's duration
    whole = run.tasks[longest]
    start_seconds = 0.0
    if sum(each.stage == whole.stage for each in run.tasks) > 1:
        if _is_batch(run, whole.stage):
            return ""  # the next run cuts batches by their items' durations
        target = "its longest task" if found.stage else f"the longest task of {whole.stage}"
        split = f"split {target} in two"
    else:
        stage = next((stage for stage in run.plan.stages if stage.name == whole.stage), None)
        if stage is None or not start_up.can_be_split(stage):
            return ""
        if isinstance(stage.tasks[0].work, Commands):  # both halves start the program
            start_seconds = min(start_up.LONGEST_START_SECONDS, whole.seconds)
        split = f"split {'it' if found.stage else whole.stage} in two (items)"
    half = replace(whole, seconds=(whole.seconds + start_seconds) / 2)
    tasks = [*run.tasks[:longest], half, half, *run.tasks[longest + 1 :]]
    # An adaptive lane gives the second half a worker.
    size = run.size if run.plan.workers.fixed else run.size + 1
    return _format_if_faster(split, tasks, run, size)


def _is_batch(run: RecordedRun, stage: str) -> bool:
    """Return whether the longest task of a stage was a batch of several items."""
    longest = max((each for each in run.timings if each.stage == stage), key=lambda each: each.duration_seconds)
    planned = (task for each in run.plan.stages if each.name == stage for task in each.tasks)
    return any(task.index == longest.task and len(task.items or ()) > 1 for task in planned)


def _format_if_faster(change: str, tasks: Sequence[RecordedTask], run: RecordedRun, size: int) -> str:
    seconds = run.estimate_seconds(size, tasks)
    return f"{change}: {_format_gain(seconds, run)}" if seconds <= _GAIN_RATIO * run.duration_seconds else ""


def _format_gain(seconds: float, run: RecordedRun) -> str:
    return f"{seconds:.1f} s instead of {run.duration_seconds:.1f} s"


_ADVICE: dict[str, Callable[[Bottleneck, RecordedRun], str]] = {
    "saturated": _try_more_workers,
    "under_used": _try_fewer_workers,
    "gil_bound": _try_processes,
    "slow": _try_split,
    "uneven": _try_split,
}
