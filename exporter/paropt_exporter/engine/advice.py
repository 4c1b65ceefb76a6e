"""Say what to change about a run's bottlenecks: each change is tried on the recorded run, and named with its gain."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from paropt_exporter.engine.what_if import Piece, Workload, makespan_seconds, most_at_once, workload_of
from paropt_exporter.events import Bottleneck, Strategy, TaskTiming
from paropt_exporter.plan import Plan

MOST_TASKS = 2000  # trying ten sizes with 32 workers takes 2 s of CPU for so many, and grows with tasks x workers
_GAIN_RATIO = 0.9  # of the time: a smaller gain is lost in the differences between runs
_EQUAL_RATIO = 1.02  # of the time: nobody notices that much more
# Of the run's duration. Where the schedule of the recorded tasks takes much less, starting them took the rest; where it
# takes more, it misses something about them.
_TRUSTED_RATIOS = 0.75, 1.25
_MOST_WORKERS = 64


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A run that has ended, to be scheduled again. `peak_size`: the largest size that one of its pools had."""

    plan: Plan
    timings: Sequence[TaskTiming]
    duration_seconds: float
    peak_size: int
    cores: float
    memory_bytes: int

    def seconds(self, size: int, pieces: Iterable[Piece] | None = None) -> float:
        """Return how long the lane would have taken, by the ratio to the same computation for the run as it was."""
        workload = Workload(pieces=self.pieces if pieces is None else tuple(pieces))
        return self.duration_seconds * self._makespan(workload, size) / self._makespan_as_it_was

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        return self._workload.pieces

    @cached_property
    def size(self) -> int:
        """The number of workers that it had: what was fixed, otherwise as many as were used at once."""
        if self.plan.strategy is Strategy.SEQUENTIAL:
            return 1
        used = most_at_once((each.started_seconds, each.ended_seconds) for each in self.timings)
        return self.plan.workers.maximum if self.plan.workers.fixed else max(1, used)

    @cached_property
    def explained(self) -> bool:
        """Whether the recorded tasks explain how long the run took."""
        if not 0 < len(self.timings) <= MOST_TASKS or self._makespan_as_it_was <= 0 or self.duration_seconds <= 0:
            return False
        least, most = _TRUSTED_RATIOS
        return least <= self._makespan(self._workload, self.size) / self.duration_seconds <= most

    @cached_property
    def _workload(self) -> Workload:
        return workload_of(self.timings, self.cores)

    @cached_property
    def _makespan_as_it_was(self) -> float:
        # Without others on the machine, here and in each trial: no change is advised that takes cores from them.
        return self._makespan(Workload(pieces=self.pieces), self.size)

    def _makespan(self, workload: Workload, size: int) -> float:
        return makespan_seconds(
            workload, self.plan.stages, workers=size, cores=self.cores, memory_bytes=self.memory_bytes
        )


def advise(found: Sequence[Bottleneck], run: RecordedRun) -> tuple[Bottleneck, ...]:
    """Return the bottlenecks, with advice where following it would have helped."""
    if not found or not run.explained:
        return tuple(found)
    return tuple(replace(each, advice=_ADVICE[each.kind](each, run)) for each in found)


def _more_workers(_: Bottleneck, run: RecordedRun) -> str:
    """An adaptive lane below its maximum had a reason not to grow; SEQUENTIAL has one worker whatever is asked."""
    at_maximum = run.plan.workers.fixed or run.peak_size >= run.plan.workers.maximum
    if not at_maximum or run.plan.strategy is Strategy.SEQUENTIAL:
        return ""
    sizes, size = [], max(run.size, run.plan.workers.maximum)
    most = min(len(run.pieces), _MOST_WORKERS)
    while size < most:
        size = min(2 * size, most)
        sizes.append(size)
    took = {size: run.seconds(size) for size in sizes}
    enough = next((size for size in sizes if took[size] <= _EQUAL_RATIO * min(took.values())), None)
    if enough is None or took[enough] > _GAIN_RATIO * run.duration_seconds:
        return ""
    return f"{enough} workers would have taken {_gain(took[enough], run)}"


def _fewer_workers(_: Bottleneck, run: RecordedRun) -> str:
    if not run.plan.workers.fixed or run.plan.strategy is Strategy.SEQUENTIAL:
        return ""
    most_seconds = _EQUAL_RATIO * run.duration_seconds
    enough = 1 + bisect_left(range(1, run.size), True, key=lambda size: run.seconds(size) <= most_seconds)
    if enough >= run.size:
        return ""
    return f"{enough} worker{'' if enough == 1 else 's'} would have taken {run.seconds(enough):.1f} s too"


def _processes(found: Bottleneck, run: RecordedRun) -> str:
    pieces = [replace(each, gil_bound=False) if each.stage == found.stage else each for each in run.pieces]
    return _if_faster("run it in processes", pieces, run, run.size)


def _split(found: Bottleneck, run: RecordedRun) -> str:
    """Try the longest task of the stage, or of the lane, in two halves."""
    places = [place for place, each in enumerate(run.pieces) if found.stage in (None, each.stage)]
    if not places:
        return ""
    longest = max(places, key=lambda place: run.pieces[place].seconds)
    half = replace(run.pieces[longest], seconds=run.pieces[longest].seconds / 2)
    pieces = [*run.pieces[:longest], half, half, *run.pieces[longest + 1 :]]
    of_stage = sum(each.stage == half.stage for each in run.pieces)
    if of_stage > 1:
        what = "its longest task" if found.stage else f"the longest task of {half.stage}"
        split = f"split {what} in two"
    else:
        split = f"split {'it' if found.stage else half.stage} in two (items)"
    # A lane that sizes itself gives the second half a worker.
    size = run.size if run.plan.workers.fixed else run.size + 1
    return _if_faster(split, pieces, run, size)


def _if_faster(change: str, pieces: Sequence[Piece], run: RecordedRun, size: int) -> str:
    seconds = run.seconds(size, pieces)
    return f"{change}: {_gain(seconds, run)}" if seconds <= _GAIN_RATIO * run.duration_seconds else ""


def _gain(seconds: float, run: RecordedRun) -> str:
    return f"{seconds:.1f} s instead of {run.duration_seconds:.1f} s"


_ADVICE: dict[str, Callable[[Bottleneck, RecordedRun], str]] = {
    "saturated": _more_workers,
    "under_used": _fewer_workers,
    "gil_bound": _processes,
    "slow": _split,
    "uneven": _split,
}
