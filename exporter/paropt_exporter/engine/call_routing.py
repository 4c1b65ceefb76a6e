"""Choose threads or processes for the calls of lanes, by earlier measurements of each call."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.executors.demand import WINDOW_SECONDS, compute_thread_demand
from paropt_exporter.plan import PROCESSES, Call, Plan, PlannedStage

if TYPE_CHECKING:
    from paropt_exporter.events import Measurement, RunningTask
    from paropt_exporter.executors.adaptive.routing import FunctionProfile, Router


class CallRouting:
    """The router for the calls of plans; it keeps its measurements from run to run.

    `profiles`: a file with measurements of earlier processes, read for the first plan with calls; None: there is none.
    """

    def __init__(self, profiles: Path | None) -> None:
        self._path = profiles
        self._profiles: tuple[FunctionProfile, ...] | None = None  # None: not read yet
        self._routers: dict[tuple[str, str], Router] = {}  # by lane and strategy, which a changed config may change
        self._router: Router | None = None  # of the plan's calls, if it has any
        self._targets: dict[str, frozenset[str]] = {}  # of the stages' calls
        self._lock = threading.Lock()  # guards: everything below
        self._trials: dict[str, str] = {}  # the targets of unknown calls that run in threads, by label
        self._computing: frozenset[str] = frozenset()  # those of them that compute, at the last sample

    def prepare(self, plan: Plan) -> None:
        """Route the calls of this plan from now on."""
        self._targets = {stage.name: targets for stage in plan.stages if (targets := _get_call_targets(stage))}
        self._router = self._get_router(plan) if self._targets else None

    def choose(self, target: str) -> str:
        """Return the name of the pool for a call of the plan.

        While the first call of a function computes in a thread, the next ones go to processes, if the strategy has any.
        """
        assert self._router is not None
        unknown = self._router.get_cpu_demand(target) is None
        if unknown and target in self._computing and self._router.uses_processes:
            return PROCESSES
        return self._router.choose(target)

    def note_start(self, label: str, target: str) -> None:
        """Note that a call starts in a thread; from the engine's thread."""
        if self._router is not None and self._router.get_cpu_demand(target) is None:
            with self._lock:
                self._trials[label] = target

    def note_running(self, tasks: Iterable[RunningTask]) -> None:
        """Learn from samples of running tasks which unknown functions compute; from any thread."""
        if not self._trials:
            return
        computing = [task.label for task in tasks if task.label in self._trials and _computes(task)]
        with self._lock:  # calls that have ended meanwhile are no trials any more
            self._computing = frozenset(self._trials[label] for label in computing if label in self._trials)

    def note_end(self, label: str) -> None:
        """Note that a call has ended; from any thread."""
        with self._lock:
            self._trials.pop(label, None)
            self._computing &= frozenset(self._trials.values())

    def learn(self, target: str, measured: Measurement, *, concurrent: int) -> None:
        """Learn from an ended call. `concurrent`: how many calls, including itself, shared its GIL."""
        if self._router is not None:
            self._router.learn(target, measured, concurrent=concurrent)

    def is_gil_bound(self, stage: str) -> bool:
        """Return whether the stage's calls were measured to be CPU-bound Python in threads."""
        router = self._router
        return router is not None and any(router.is_gil_bound(target) for target in self._targets.get(stage, ()))

    def save_profiles(self) -> None:
        """Write the file of profiles, if anything was learned."""
        learned = [profile for router in self._routers.values() for profile in router.build_profiles()]
        if self._path is not None and learned:
            from paropt_exporter.executors.adaptive.routing import save_profiles

            save_profiles(self._path, learned)

    def _get_router(self, plan: Plan) -> Router:
        from paropt_exporter.executors.adaptive.routing import Router, load_profiles  # here: commands need no router

        if self._profiles is None:
            self._profiles = load_profiles(self._path) if self._path is not None else ()
        key = plan.lane, plan.strategy
        if key not in self._routers:
            self._routers[key] = Router(plan.strategy)
            self._routers[key].load_profiles(self._profiles)
        return self._routers[key]


def _computes(task: RunningTask) -> bool:
    """Return whether a task's thread has computed for most of its time so far."""
    from paropt_exporter.executors.adaptive.routing import CPU_BOUND_DEMAND  # here, as below

    seconds = (task.sampled_seconds or 0.0) - task.started_seconds
    return seconds >= WINDOW_SECONDS and compute_thread_demand(task) >= CPU_BOUND_DEMAND


def _get_call_targets(stage: PlannedStage) -> frozenset[str]:
    return frozenset(task.work.target for task in stage.tasks if isinstance(task.work, Call))
