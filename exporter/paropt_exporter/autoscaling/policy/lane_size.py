"""Decide a lane's next size from the demands of its known tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.fixed_workload import (
    Load,
    LoadGroup,
    RemainingWork,
    Sizing,
    compute_deadline_size,
    compute_fixed_workload_size,
)
from paropt_exporter.autoscaling.policy.memory import Memory, compute_memory_size
from paropt_exporter.autoscaling.policy.stabilization import ScalingHistory, SizeLimits, WantedSize, decide_size
from paropt_exporter.autoscaling.policy.stage_concurrency import (
    StageLimitState,
    StageMeasurement,
    collect_limits,
    compute_next_states,
)
from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND, count_task_cores

# The size shrinks once a smaller one has sufficed for this long. If this were shorter, the size would follow every task
# that ends; if longer, a size raised by a wrong reading would not be back within two seconds.
STABLE_SECONDS = 1.0
SHORT_SECONDS = 1.0  # how long memory must be short before fewer tasks may run than now


class LaneSizingState(Struct, frozen=True, kw_only=True):
    """The state from step to step. `short_since`: since when more tasks run than memory can hold; None if they fit.

    `stages`: the limits and trials of stages with many tasks.
    """

    history: ScalingHistory = field(default_factory=ScalingHistory)
    short_since: float | None = None
    stages: tuple[StageLimitState, ...] = ()


class LaneObservation(Struct, frozen=True, kw_only=True):
    """All inputs of a decision about a lane's size.

    `stages`: measurements of stages with several tasks, if the controller sets the size; `memory`: the memory left
    (None: unknown); `work`: the remaining work, if the objective is the deadline; `rescue_size`: the size that
    then keeps the stages within their own limits (0: one worker for each does). `stuck`: tasks of unknown
    demand have waited for a while beside computing ones, so that one of them may start in order to be measured.
    """

    now: float
    size: int
    floor: int
    ceiling: int
    cores: float
    running: tuple[LoadGroup, ...]
    waiting: tuple[LoadGroup, ...]
    state: LaneSizingState = field(default_factory=LaneSizingState)
    stages: tuple[StageMeasurement, ...] = ()
    memory: Memory | None = None
    work: RemainingWork | None = None
    rescue_size: int = 0
    stuck: bool = False


class LaneDecision(Struct, frozen=True, kw_only=True):
    """A decision about a run's size."""

    size: int
    action: str
    reason: str
    state: LaneSizingState


class LaneAssessment(Struct, frozen=True, kw_only=True):
    """The next states of the stages, and the waiting tasks that may start.

    `memory_size`: N_mem for the running tasks and these; None: unknown.
    """

    stages: tuple[StageLimitState, ...]
    waiting: tuple[LoadGroup, ...]
    memory_size: int | None


def assess_lane(observation: LaneObservation) -> LaneAssessment:
    """Return the assessment of a lane on which the size is based."""
    stages = compute_next_states(
        observation.stages, observation.state.stages, now=observation.now, cores=observation.cores
    )
    waiting = _select_admissible(observation, collect_limits(stages))
    size = None if observation.memory is None else compute_memory_size(observation.running, waiting, observation.memory)
    return LaneAssessment(stages=stages, waiting=waiting, memory_size=size)


def decide_lane_size(observation: LaneObservation) -> LaneDecision:
    """Decide a lane's size from its running and waiting tasks."""
    assessment = assess_lane(observation)
    return decide_by_sizing(observation, assessment, compute_lane_sizing(observation, assessment))


def decide_by_sizing(observation: LaneObservation, assessment: LaneAssessment, sizing: Sizing) -> LaneDecision:
    """Decide as `decide_lane_size` does, from an assessment and a sizing, which take most of its time."""
    reason = "demand" if sizing.size > observation.size else sizing.reason
    wanted = WantedSize(size=count_slots(sizing), reason=reason, exact=True)
    if observation.work is not None:
        enough, why = max((compute_deadline_size(observation.work), "deadline"), (observation.rescue_size, "rescue"))
        if enough < sizing.size:
            why = why if enough > observation.size else "deadline"  # a rescue is a reason to grow, never to shrink
            wanted = WantedSize(size=max(enough, observation.floor), reason=why, exact=True)
    decision = decide_size(
        observation.now,
        observation.size,
        wanted,
        _build_size_limits(observation, assessment),
        observation.state.history,
    )
    state = LaneSizingState(
        history=decision.history, short_since=_find_short_since(observation, assessment), stages=assessment.stages
    )
    return LaneDecision(size=decision.size, action=decision.action, reason=decision.reason, state=state)


def compute_lane_sizing(observation: LaneObservation, assessment: LaneAssessment) -> Sizing:
    """Return how many tasks may run at once, and why not more: the smaller one of the sizes for cores and memory."""
    sizing = compute_fixed_workload_size(
        observation.running,
        assessment.waiting,
        cores=observation.cores,
        minimum=observation.floor,
        maximum=observation.ceiling,
        stuck=observation.stuck,
    )
    bound = compute_memory_bound(observation, assessment)
    if bound is not None and sizing.size > max(bound, observation.floor):
        return replace(sizing, size=max(bound, observation.floor), reason="memory_limit")
    if sizing.reason != "plan" or count_tasks(assessment.waiting) == count_tasks(observation.waiting):
        return sizing
    # Running tasks beyond a stage's limit keep their slots until they end, if other tasks wait for slots.
    surplus = 0 if assessment.waiting else _count_beyond_limits(observation, assessment)
    return replace(sizing, size=max(sizing.size - surplus, observation.floor, 1), reason="ineffective")


def count_slots(sizing: Sizing) -> int:
    """Return the slots for a size: running tasks beyond it keep theirs, but take none from tasks that may start."""
    return sizing.size + (sizing.surplus if sizing.admitted else 0)


def compute_memory_bound(observation: LaneObservation, assessment: LaneAssessment) -> int | None:
    """Return N_mem; None if it is unknown, or if memory holds all tasks.

    It may be less than the running tasks only after SHORT_SECONDS: the memory of an ended task is not free at once, and
    the memory of running tasks is measured slightly later than the available memory.
    """
    size, running, waiting = assessment.memory_size, sum_slots(observation.running), sum_slots(assessment.waiting)
    if size is None or not waiting or size >= running + waiting:
        return None
    brief = observation.state.short_since is None or observation.now < observation.state.short_since + SHORT_SECONDS
    return running if size < running and brief else size


def count_tasks(tasks: Iterable[LoadGroup]) -> int:
    """Return the number of tasks."""
    return sum(group.count for group in tasks)


def sum_slots(tasks: Iterable[LoadGroup]) -> int:
    """Return the slots that tasks take."""
    return sum(group.slots for group in tasks)


def _select_admissible(observation: LaneObservation, most: Mapping[str, int]) -> tuple[LoadGroup, ...]:
    """Return the waiting tasks that may start under their stages' limits."""
    if not most:
        return observation.waiting
    room = dict(most)
    for group in observation.running:
        if group.load.stage in room:
            room[group.load.stage] -= group.count
    admissible = (
        replace(one, count=min(one.count, max(0, room.get(one.load.stage, one.count)))) for one in observation.waiting
    )
    return tuple(group for group in admissible if group.count)


def _count_beyond_limits(observation: LaneObservation, assessment: LaneAssessment) -> int:
    """Return the slots of the tasks that run beyond their stages' limits."""
    most, slots = collect_limits(assessment.stages), {one.load.stage: one.load.slots for one in observation.running}
    return sum(
        max(0, one.running - most.get(one.stage, one.running)) * slots.get(one.stage, 1) for one in observation.stages
    )


def _find_short_since(observation: LaneObservation, assessment: LaneAssessment) -> float | None:
    if assessment.memory_size is None or assessment.memory_size >= sum_slots(observation.running):
        return None
    return observation.now if observation.state.short_since is None else observation.state.short_since


def _build_size_limits(observation: LaneObservation, assessment: LaneAssessment) -> SizeLimits:
    """Return the bounds. A lack of memory applies at once, since a task can't be taken back after its start."""
    bound = compute_memory_bound(observation, assessment)
    if bound is None or bound >= observation.ceiling:
        return SizeLimits(floor=observation.floor, ceiling=observation.ceiling, stable_seconds=STABLE_SECONDS)
    ceiling = max(bound, observation.floor)
    return SizeLimits(
        floor=observation.floor, ceiling=ceiling, stable_seconds=STABLE_SECONDS, ceiling_reason="memory_limit"
    )


def count_spare_slots(observation: LaneObservation, *, fixed: int | None) -> int:
    """Return how many jobs the commands of a run may start together, in addition to one for each task.

    `fixed`: the lane's slots if they are fixed. None: a slot is a core, and each task takes one, unless it is known to
    sleep. Waiting tasks take precedence over jobs of running ones; before the first task runs, a lane may not know yet
    that they wait.
    """
    if not observation.running:
        return 0
    tasks = (*observation.running, *assess_lane(observation).waiting)
    if fixed is not None:
        return max(0, fixed - sum_slots(tasks))
    slots = min(observation.ceiling, max(1, math.floor(count_task_cores(observation.cores) + CORE_SLACK)))
    return max(0, slots - sum(group.count for group in tasks if not _mostly_waits(group.load)))


def _mostly_waits(load: Load) -> bool:
    return load.cpu_demand is not None and load.cpu_demand < WAITING_DEMAND


def group_equal_loads(group: Iterable[Load]) -> tuple[LoadGroup, ...]:
    """Group neighbours with equal loads: a lane of a thousand equal tasks is one entry."""
    return tuple(LoadGroup(load=load, count=len([*same])) for load, same in groupby(group))
