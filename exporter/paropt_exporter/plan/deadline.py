"""Choose the most valuable stages of a plan that end before a deadline.

Stages are taken in this order, each with the stages that it needs, as long as all taken stages fit: first those that
the cache can skip, then those that a change affects, then those with the highest probability of failure per second.
They fit if Graham's bound on the 90 % quantiles of their durations is within the deadline, for any order of the starts
(R. L. Graham: Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 1969). A task takes a part of the lane:
one of its workers or, if it sizes itself, so much of the cores as the task wants, if that is more. Until a task of the
longest chain can start, other tasks take the whole lane:

    bound = sum of duration * part over all tasks + longest sum of duration * (1 - part) over a chain

With one worker for each task, this is work / workers + (1 - 1 / workers) * longest chain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.needs import find_reachable
from paropt_exporter.errors import UsageError, join_names
from paropt_exporter.events import Scope
from paropt_exporter.plan.stage_graph import map_dependents, measure_chain
from paropt_exporter.plan.stage_load import count_usable_workers, sum_up_stage
from paropt_exporter.plan.structure import Deadline, Plan, PlannedStage, compute_median, compute_quantile

QUANTILE = 0.9  # with fewer than ten durations, this is the largest


class StagePast(Struct, frozen=True, kw_only=True):
    """A stage in earlier runs: the seconds of its last successes, and how often it ran and failed."""

    seconds: tuple[float, ...]
    runs: int
    failures: int

    @property
    def failure_ratio(self) -> float:
        """The estimated probability of a failure; without runs it is 1/2 (the mean of Jeffreys' posterior)."""
        return (self.failures + 0.5) / (self.runs + 1.0)


class _Stage(Struct, frozen=True, kw_only=True):
    """A stage's work in seconds of the whole lane, and the seconds of its chain in which others may run."""

    name: str
    needs: tuple[str, ...]
    work_seconds: float
    chain_seconds: float
    failure_ratio: float


def apply_deadline(
    plan: Plan,
    deadline_seconds: float,
    past: Mapping[str, StagePast],
    *,
    hits: Collection[str] = (),
    affected: Collection[str] = (),
) -> Plan:
    """Return the plan with only the stages that fit, and with the prediction.

    `hits`: the stages that the cache can skip, which take no time. `affected`: those that a change affects. A plan
    without stages, that of a shard with nothing to do, stays as it is. Raises UsageError if no duration is known, or if
    nothing fits.
    """
    if not plan.stages:
        return plan
    known = {stage.name: _measure(plan, stage, past, hits) for stage in plan.stages}
    dependents = map_dependents({stage.name: stage.needs for stage in plan.stages})
    # If a stage's duration is unknown, no stage that needs it can be planned, either.
    unknown = find_reachable((name for name, stage in known.items() if stage is None), dependents.__getitem__)
    stages = {name: stage for name, stage in known.items() if stage is not None and name not in unknown}
    if not stages:
        raise UsageError("--deadline: no duration is known yet: run the lane once without it")
    choice = _Choice(stages)
    choice.take_all(_order(stages, hits, affected), deadline_seconds)
    everything = _Choice(stages)
    everything.take_all(stages, float("inf"))
    if not choice.taken:
        raise UsageError(
            f"--deadline: no stage ends within {deadline_seconds:g} s; all together need "
            f"{_format_seconds(everything.bound_seconds)}"
        )
    left_out = tuple(stage.name for stage in plan.stages if stage.name not in choice.taken)
    line = _describe(plan, choice, stages, left_out, deadline_seconds, everything.bound_seconds)
    return replace(
        plan,
        stages=tuple(stage for stage in plan.stages if stage.name in choice.taken),
        total=None if left_out else plan.total,
        partial=plan.partial or bool(left_out),
        choice="; ".join(filter(None, (plan.choice, line))),
        deadline=Deadline(seconds=deadline_seconds, predicted_seconds=choice.bound_seconds, left_out=left_out),
    )


class _Choice:
    """The stages taken so far, with the bound on their duration."""

    def __init__(self, stages: Mapping[str, _Stage]) -> None:
        self.taken: set[str] = set()
        self._stages = stages
        self._work_seconds = 0.0
        self._chain_seconds = 0.0
        self._chains: dict[str, float] = {}
        self._needs = {name: stage.needs for name, stage in stages.items()}
        self._seconds = {name: stage.chain_seconds for name, stage in stages.items()}

    @property
    def bound_seconds(self) -> float:
        return self._work_seconds + self._chain_seconds

    def take_all(self, names: Collection[str], deadline_seconds: float) -> None:
        """Take the stages that fit, in this order, each with its needs."""
        for name in names:
            more = self._list_missing(name)
            work = self._work_seconds + sum(self._stages[each].work_seconds for each in more)
            chain = max(self._chain_seconds, measure_chain(name, self._needs, self._seconds, self._chains))
            if work + chain <= deadline_seconds:
                self.taken |= more
                self._work_seconds, self._chain_seconds = work, chain

    def _list_missing(self, name: str) -> set[str]:
        """Return the stage and the stages that it needs, as far as they have not been taken."""

        def is_missing(each: str) -> bool:
            return each in self._stages and each not in self.taken

        return find_reachable(filter(is_missing, [name]), lambda each: filter(is_missing, self._stages[each].needs))


def _measure(plan: Plan, stage: PlannedStage, past: Mapping[str, StagePast], hits: Collection[str]) -> _Stage | None:
    """Return a stage's duration and work; None if they are unknown."""
    ratio = past[stage.name].failure_ratio if stage.name in past else 0.5
    if stage.name in hits or stage.skip or stage.fault:
        return _Stage(name=stage.name, needs=stage.needs, work_seconds=0.0, chain_seconds=0.0, failure_ratio=ratio)
    known = past[stage.name].seconds if stage.name in past else ()
    if not known:
        return None
    seconds = compute_quantile(known, QUANTILE)
    if stage.scope is Scope.ITEMS and stage.expected_seconds is not None and (usual := compute_median(known)):
        seconds *= min(1.0, stage.expected_seconds / usual)
    load, workers = sum_up_stage(stage, seconds), max(1, count_usable_workers(plan))
    part, task_part = load.at_once * stage.slots / workers, 1 / workers
    if plan.cores:
        # Its duration includes its waits for a core if it wants more than all.
        part = max(part, min(1.0, load.cores / plan.cores))
        task_part = max(task_part, min(1.0, load.task_cores / plan.cores))
    return _Stage(
        name=stage.name,
        needs=stage.needs,
        work_seconds=seconds * part,
        chain_seconds=seconds * (1 - task_part),
        failure_ratio=ratio,
    )


def _order(stages: Mapping[str, _Stage], hits: Collection[str], affected: Collection[str]) -> list[str]:
    def rank(stage: _Stage) -> tuple[bool, bool, float]:
        value = stage.failure_ratio / max(stage.work_seconds, 1e-3)
        return stage.name not in hits, stage.name not in affected, -value

    return [stage.name for stage in sorted(stages.values(), key=rank)]


def _describe(
    plan: Plan,
    choice: _Choice,
    stages: Mapping[str, _Stage],
    left_out: Sequence[str],
    deadline_seconds: float,
    all_seconds: float,
) -> str:
    line = (
        f"--deadline {deadline_seconds:g} s: {len(choice.taken)} of {len(plan.stages)} stages, expected to end within "
        f"{_format_seconds(choice.bound_seconds)}"
    )
    slow = [name for name in left_out if name in stages]
    unknown = [name for name in left_out if name not in stages]
    line += f"; leaves out {join_names(slow)}: no time (all fit in {_format_seconds(all_seconds)})" if slow else ""
    return line + (f"; leaves out {join_names(unknown)}: unknown duration, or that of a need" if unknown else "")


def _format_seconds(seconds: float) -> str:
    """Return a prediction; a short one has milliseconds, or it could seem to be over a short deadline."""
    return f"{seconds:.1f} s" if seconds >= 0.1 else f"{max(seconds, 0.001):.3f} s"
