"""The inner loop: while a lane runs, look at its own counters and move its size between floor and ceiling."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from paropt_exporter.autoscaling.concurrency_meter import CompanyMeter
from paropt_exporter.autoscaling.decisions import written_choice, written_situation
from paropt_exporter.autoscaling.peak_meter import PeakMeter
from paropt_exporter.autoscaling.policy.fixed_workload import (
    Load,
    Loads,
    Sizing,
    Work,
    lock_is_full,
)
from paropt_exporter.autoscaling.policy.memory import Memory
from paropt_exporter.autoscaling.policy.run import (
    STABLE_SECONDS,
    RunSituation,
    RunState,
    RunStep,
    count_of,
    counted,
    decide_run,
    memory_bound,
    outlook,
    run_sizing,
    spare_slots,
)
from paropt_exporter.autoscaling.policy.stage_concurrency import limits
from paropt_exporter.autoscaling.state import ACT, ADVISE, PAUSE, PIN, PROMETHEUS, ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.engine import Admission, Demand
from paropt_exporter.events import Decision, Event, RunningTask
from paropt_exporter.executors.demand import DemandMeter, build_samples
from paropt_exporter.families import DECISION_REASONS
from paropt_exporter.plan import THREADS

log = logging.getLogger(__name__)

TICK_SECONDS = 0.03  # lanes of a few seconds gain nothing from a slower eye; one look costs about 0.1 ms
STUCK_SECONDS = 0.7  # that unknown tasks wait; those that only sleep shall not be held back for a second
_WHOLE_CORE = 0.75  # a task that wants this much is counted as one that only computes
IDLE_TICK_SECONDS = 0.1  # the same while no task waits, and nothing can be decided
QUIET_SECONDS = 2.0  # by then a wrong size is corrected, and a demand known
QUIET_TICK_SECONDS = 0.5  # between looks while nothing waits and nothing has changed for so long
_LOOK_RATIO = 0.1  # of a core for looks at most: with a thousand waiting stages one takes milliseconds
DEADLINE = "deadline"
_HOLD_SECONDS = 1.0  # a hold is told when its reason or a stage's limit changes, at most so often


class Steerable(Protocol):
    """What the loop needs of a run."""

    @property
    def size(self) -> int: ...

    def demand(self) -> Demand: ...

    def resize(self, size: int) -> None: ...

    def limit(self, stages: Mapping[str, int]) -> None:
        """Let at most so many tasks of these stages run at once, and any number of others'."""

    def admit(self, admission: Admission | None) -> None:
        """Start only tasks that the cores have room for; None: any that have a slot."""


class Resizable(Protocol):
    """What the loop needs of the pools."""

    def running(self) -> tuple[RunningTask, ...]: ...

    def shares(self, size: int) -> Mapping[str, int]:
        """Return what each pool of the lane would get of a lane of `size`."""

    def share(self, size: int, reason: str, tasks: Mapping[str, int] | None = None) -> tuple[tuple[str, int, int], ...]:
        """Set the pools' targets for a lane of `size`; return (pool, old, new) for each that changed.

        `tasks`: how many of the lane's tasks are for each pool; None: any number for any.
        """


class Controller:
    """Steers one run from a thread of its own; `with Controller(...):` around the run.

    Guarantees: it alone writes the run's size; no move down within STABLE_SECONDS of a moment that needed more; where
    the size is its own to set, no task starts that the cores have no room for, by the demands known then; each
    change is told as a Decision for each pool that it moved, each new reason to hold as one for each pool. `objective`:
    fast, or deadline: just enough workers to keep the lane's total. A stage of which more tasks at once get no more
    done is limited by itself, and the lane's other stages have its slots. `offer` is told at each look how many jobs
    beside the run's tasks there is room for.
    """

    def __init__(
        self,
        run: Steerable,
        pools: Resizable,
        *,
        standing: ControlState,
        cores: Callable[[], float],
        memory_available_bytes: Callable[[], int],
        emit: Callable[[Event], None],
        clock: Clock,
        run_id: str,
        known_shares: Mapping[str, float] = MappingProxyType({}),
        known_peaks: Mapping[str, int] = MappingProxyType({}),
        objective: str = "fast",
        offer: Callable[[int], None] | None = None,
    ) -> None:
        self._run = run
        self._pools = pools
        self._standing = standing
        self._cores = cores
        self._memory = memory_available_bytes
        self._emit = emit
        self._clock = clock
        self._run_id = run_id
        self._objective = objective
        self._offer = offer
        self._meter = DemandMeter(known_shares)
        self._peaks = PeakMeter(known_peaks)
        self._company = CompanyMeter()
        self._limits: Mapping[str, int] = {}
        self._state = RunState()
        self._peak = 0
        self._waiting = True
        self._unknown: dict[str, float] = {}  # stages that wait and were never measured, and since when
        self._tasks: Mapping[str, int] | None = None
        self._kept: dict[str, tuple[int, float]] = {}  # pool -> workers that it keeps, and until when
        self._known = dict(known_shares)
        self._held: tuple[tuple[object, ...], float] = ((), 0.0)  # why it held when that was last told, and when
        self._quiet: tuple[object, ...] = ()  # the running tasks, and what they were to keep to, at the last look
        self._quiet_since = self._stepped = -math.inf
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="paropt-control", daemon=True)

    def __enter__(self) -> Controller:
        self.begin()
        try:
            self._thread.start()
        except RuntimeError as error:  # no thread left: the pools took the last ones
            log.warning("no thread to size the lane: it keeps the size that it has", extra={"err": str(error)})
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        # What the next run wants to know is how much this one could use, not how little was left at its end.
        self._standing.recommend(self._pools.shares(self._peak or self._run.size))

    def begin(self) -> None:
        """Give out the cores by what earlier runs measured, until the first sample of this one."""
        if self._rations():
            self._run.admit(self._admission(self._known, {}, frozenset()))

    def _loop(self) -> None:
        cost = 0.0
        while not self._done.wait(pause_seconds(waiting=self._waiting, cost_seconds=cost)):
            began = time.thread_time()
            if not self.is_quiet():
                self.step()
            cost = time.thread_time() - began

    def is_quiet(self) -> bool:
        """Whether the next look can wait: no task does, and the same ones have been running for seconds."""
        now, demand = self._clock.monotonic(), self._run.demand()
        seen = (self._standing.order, self._standing.band, demand.rescue_size, *(task[2] for task in demand.running))
        if demand.ready or self._offer is not None or seen != self._quiet:
            self._quiet, self._quiet_since = seen, now
        if now >= self._quiet_since + QUIET_SECONDS and now < self._stepped + QUIET_TICK_SECONDS:
            return True
        self._stepped = now
        return False

    def step(self) -> None:
        """Look once and move if there is reason to."""
        if self._settled():
            return
        now, running = self._clock.monotonic(), self._pools.running()
        self._meter.sample(build_samples(running, now), now)
        demand = self._run.demand()
        seen = self._situation(demand, now, {task.label: task.memory_bytes for task in running})
        self._waiting = bool(seen.waiting)
        choice = decide_run(seen)
        self._state = choice.state
        self._limit(limits(choice.state.stages))
        self._run.admit(self._measured_admission(demand, seen) if self._rations() else None)
        given = self._standing.source == PROMETHEUS
        size, reason = self._given(seen) if given else (choice.size, choice.reason)
        if reason == "bounds":
            reason = self._standing.band.reason  # what moved the bound says more
        sizing = run_sizing(seen, outlook(seen))
        self._note_peak(sizing)
        self._tasks = self._lasting(sizing.pools, now) if self._rations() else None
        self._standing.recommend(self._pools.shares(size))
        self._obey(_Made(seen, choice, told=given), size, reason)
        if self._offer is not None:
            self._offer(spare_slots(seen, fixed=self._fixed_slots()))

    def _note_peak(self, sizing: Sizing) -> None:
        """Keep the largest size that this run could use; one that its own measurements contradict was none."""
        self._peak = sizing.size if sizing.surplus else max(self._peak, sizing.size)

    def _lasting(self, pools: Mapping[str, int], now: float) -> Mapping[str, int]:
        """Return how many workers each pool needs: the most that it had tasks for within the stable time."""
        for pool in self._kept.keys() | pools.keys():
            needed, (kept, until) = pools.get(pool, 0), self._kept.get(pool, (0, now))
            if needed >= kept or now >= until:
                self._kept[pool] = needed, now + STABLE_SECONDS
        return {pool: kept for pool, (kept, _) in self._kept.items()}

    def _rations(self) -> bool:
        """Whether cores are given out by demand: not where a person, the config or query results set the size."""
        return self._acts() and not self._standing.bounds.fixed

    def _measured_admission(self, demand: Demand, seen: RunSituation) -> Admission:
        stages = {one[1] for one in demand.ready} | {one[1] for one in demand.running}
        known = {stage: wanted for stage in stages if (wanted := self._meter.get_group_demand(stage)) is not None}
        tasks = {
            label: wanted
            for _, stage, label, _ in demand.running
            if (wanted := self._meter.get_task_demand(label, stage)) is not None
        }
        held = {loads.load.stage for loads in seen.waiting if lock_is_full(seen.running, loads.load)}
        return self._admission(known, tasks, frozenset(held), stuck=seen.stuck)

    def _admission(
        self, stages: Mapping[str, float], tasks: Mapping[str, float], held: frozenset[str], *, stuck: bool = False
    ) -> Admission:
        return Admission(
            cores=self._cores(),
            floor=self._standing.band.floor,
            stages=stages,
            tasks=tasks,
            held=held,
            stuck=stuck,
        )

    def _limit(self, stages: Mapping[str, int]) -> None:
        if stages != self._limits:
            self._limits = stages
            self._run.limit(stages)

    def _fixed_slots(self) -> int | None:
        order, bounds = self._standing.order, self._standing.bounds
        if order.mode == PIN:
            return order.size
        return bounds.maximum if bounds.fixed else None

    def _settled(self) -> bool:
        """Whether nothing could come of a look: the size is fixed, is what it should be, and nobody asks for more."""
        bounds = self._standing.bounds
        at_rest = bounds.fixed and self._run.size == bounds.maximum and self._standing.order.mode != PIN
        return at_rest and self._offer is None

    def _acts(self) -> bool:
        """Whether sizes are this loop's own to set: what nobody follows can't be tried."""
        return self._standing.order.mode == ACT and self._standing.source != PROMETHEUS

    def _given(self, seen: RunSituation) -> tuple[int, str]:
        """Return the size that query results alone decided, and why; until they have, the size stays."""
        band = self._standing.band
        if band.target is None:
            return seen.size, "no_data"
        action = "hold" if band.target == seen.size else "up" if band.target > seen.size else "down"
        return band.target, band.reason if band.reason in DECISION_REASONS[action] else "demand"

    def _situation(self, demand: Demand, now: float, memory_bytes: Mapping[str, int]) -> RunSituation:
        band = self._standing.band
        self._standing.rescue(demand.rescue_size)
        self._meter.learn_ended(demand.ended, now)
        holding = [(pool, stage, memory_bytes.get(label, 0)) for pool, stage, label, _ in demand.running]
        self._peaks.look(holding, demand.peaks)
        running = [
            Load(
                pool=pool,
                stage=stage,
                share=_rounded(self._meter.get_task_demand(label, stage)),
                thread_share=round(self._meter.get_thread_demand(label, stage), 2) if pool == THREADS else 0.0,
                peak_bytes=self._peaks.of_task(pool, stage),
            )
            for pool, stage, label, _ in demand.running
        ]
        waiting = tuple(
            Loads(
                load=Load(
                    pool=pool,
                    stage=stage,
                    share=_rounded(self._meter.get_group_demand(stage)),
                    peak_bytes=self._peaks.of_stage(stage),
                ),
                count=count,
            )
            for pool, stage, count in demand.ready
        )
        return RunSituation(
            now=now,
            size=self._run.size,
            floor=band.floor,
            ceiling=band.ceiling,
            cores=self._cores(),
            running=counted(running),
            waiting=waiting,
            state=self._state,
            stages=self._company.look(demand.stages, self._state.stages, now) if self._acts() else (),
            memory=self._left(self._peaks.held(holding)),
            work=self._work(demand),
            rescue_size=demand.rescue_size if self._objective == DEADLINE else 0,
            stuck=self._stuck(demand, now),
        )

    def _stuck(self, demand: Demand, now: float) -> bool:
        """Whether tasks of unknown demand have waited so long that one should be measured even on full cores.

        Not beside more tasks than cores that only compute: there may never be more than one beyond the cores.
        """
        unknown = {stage for _, stage, _ in demand.ready if self._meter.get_group_demand(stage) is None}
        self._unknown = {stage: self._unknown.get(stage, now) for stage in unknown}
        if not unknown or now - min(self._unknown.values()) < STUCK_SECONDS:
            return False
        wanted = [self._meter.get_task_demand(label, stage) for _, stage, label, _ in demand.running]
        computing = sum(demand is None or demand >= _WHOLE_CORE for demand in wanted)
        return computing <= self._cores()

    def _left(self, held_bytes: int) -> Memory | None:
        available = self._memory()
        return Memory(available_bytes=available, held_bytes=held_bytes) if available else None

    def _work(self, demand: Demand) -> Work | None:
        if self._objective != DEADLINE or demand.left_seconds is None or demand.work_seconds <= 0:
            return None
        return Work(
            seconds=demand.work_seconds,
            critical_path_seconds=demand.path_seconds,
            left_seconds=demand.left_seconds,
        )

    def _obey(self, made: _Made, size: int, reason: str) -> None:
        order = self._standing.order
        if order.mode == PIN and order.size is not None:
            self._move_or_hold(made, order.size, "pinned")
        elif order.mode in (PAUSE, ADVISE):
            self._hold(made, "paused" if order.mode == PAUSE else "advised")
        else:
            self._move_or_hold(made, size, reason)

    def _move_or_hold(self, made: _Made, size: int, reason: str) -> None:
        # Tasks for one pool may take the place of another's while the lane's size stays.
        moving = reason if size != made.seen.size else "demand"
        changed = self._pools.share(size, moving, self._tasks)
        if size == made.seen.size and not changed:
            self._hold(made, reason)
            return
        self._run.resize(size)
        for pool, old, new in changed:
            action = "up" if new > old else "down"
            why = moving if moving in DECISION_REASONS[action] else "plan" if action == "down" else "demand"
            self._tell(made, pool=pool, action=action, reason=why, old=old, new=new)

    def _hold(self, made: _Made, reason: str) -> None:
        why = (reason, *sorted(self._limits.items()))
        told, at = self._held
        if why == told or made.seen.now < at + _HOLD_SECONDS:
            return
        self._held = (why, made.seen.now)
        for pool, size in self._pools.shares(made.seen.size).items():
            self._tell(made, pool=pool, action="hold", reason=reason, old=size, new=size)

    def _tell(self, made: _Made, *, pool: str, action: str, reason: str, old: int, new: int) -> None:
        if made.told and reason not in ("pinned", "paused", "advised"):
            return
        self._emit(
            Decision(
                pool=pool,
                action=action,
                reason=reason,
                old_size=old,
                new_size=new,
                at_timestamp_seconds=self._clock.wall(),
                terms=_terms(made.seen, made.choice),
                run_id=self._run_id,
                situation=written_situation(made.seen),
                choice=written_choice(made.choice),
            )
        )


def pause_seconds(*, waiting: bool, cost_seconds: float) -> float:
    """Return how long to wait for the next look, after one that took `cost_seconds` of CPU time."""
    return max(TICK_SECONDS if waiting else IDLE_TICK_SECONDS, cost_seconds / _LOOK_RATIO)


@dataclass(frozen=True, slots=True)
class _Made:
    """What was seen, and what policy makes of it by itself: recorded whatever a person says.

    `told`: the outer loop has decided and told of it already.
    """

    seen: RunSituation
    choice: RunStep
    told: bool


def _rounded(demand: float | None) -> float | None:
    """Return a demand to the hundredth of a core: no finer than it is measured, and equal ones count together."""
    return None if demand is None else round(demand, 2)


def _terms(seen: RunSituation, choice: RunStep) -> Mapping[str, float]:
    terms: dict[str, float] = {
        "running": count_of(seen.running),
        "waiting": count_of(seen.waiting),
        "cores": seen.cores,
        "cores_used": sum((loads.load.share or 0.0) * loads.count for loads in seen.running),
        "floor": seen.floor,
        "ceiling": seen.ceiling,
        "lane_size": seen.size,
        "lane_size_chosen": choice.size,
    }
    if seen.memory is not None:
        terms |= {"memory_available_bytes": seen.memory.available_bytes, "memory_held_bytes": seen.memory.held_bytes}
    if (bound := memory_bound(seen, outlook(seen))) is not None:
        terms["memory_size"] = bound
    return terms
