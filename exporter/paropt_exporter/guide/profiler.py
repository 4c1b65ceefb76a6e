"""Profile a stage's function by calling it a few times, and recommend a strategy."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any, ParamSpec

from msgspec.structs import replace

from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.events import Measurement, Strategy
from paropt_exporter.executors import Router, ThreadPool
from paropt_exporter.executors.adaptive.routing import is_thread_only
from paropt_exporter.executors.worker.payload import Packer
from paropt_exporter.guide.measured_function import ChildCpuMeter, MeasuredFunction
from paropt_exporter.guide.strategies import ParallelizationStrategy
from paropt_exporter.plan import PROCESSES

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class _Trial:
    """One call. `measured` includes the CPU time of its thread and its child processes."""

    measured: Measurement
    own_cpu_seconds: float
    error: str | None

    @property
    def seconds(self) -> float:
        return self.measured.ended_seconds - self.measured.started_seconds


class ParallelizationProfiler:
    """Profiles stages. `profile_results` has each stage's latest profile by its number."""

    def __init__(self, num_iterations: int = 3) -> None:
        if num_iterations < 1:
            raise ValueError(f"num_iterations is {num_iterations}: expected at least 1")
        self.num_iterations = num_iterations
        self.profile_results: dict[int, dict[str, Any]] = {}

    def profile_stage(
        self, stage_number: int, stage_name: str, func: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> dict[str, Any]:
        """Call the function `num_iterations` times in a thread of its own. Blocks until the last call returns.

        Durations and CPU are averages over the successful calls, or over all if none succeeded. `variability_seconds`
        is the standard deviation, `error_message` the last failure, `failed_iterations` the number of failures.
        `avg_cpu_percent` is of one core, child processes included. `recommended_strategy` is the value of a
        ParallelizationStrategy, for `reason`; `parallelizable` is False if that is SEQUENTIAL.
        """
        with ThreadPool(1, name="profile") as pool:
            trials = [_run_trial(pool, stage_name, func, args, kwargs) for _ in range(self.num_iterations)]
        profile = {
            "stage_number": stage_number,
            "stage_name": stage_name,
            "iterations": len(trials),
            **_compute_figures(trials),
            **_choose_strategy(trials, func, args, kwargs),
        }
        self.profile_results[stage_number] = profile
        return profile


def _run_trial(
    pool: ThreadPool, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Trial:
    watched = MeasuredFunction(function, ChildCpuMeter())
    future = pool.submit_named(name, watched, *args, **kwargs)
    error = future.exception()
    measured = future.measurement
    own = watched.own_cpu_seconds or 0.0
    assert measured is not None  # named tasks are always measured
    measured = replace(measured, cpu_seconds=own + watched.children_cpu_seconds)
    return _Trial(measured, own, describe(error) if error is not None else None)


def _compute_figures(trials: list[_Trial]) -> dict[str, Any]:
    failed = [trial for trial in trials if trial.error is not None]
    used = [trial for trial in trials if trial.error is None] or trials
    seconds = [trial.seconds for trial in used]
    cpu = sum(trial.measured.cpu_seconds for trial in used)
    return {
        "avg_duration_seconds": fmean(seconds),
        "variability_seconds": pstdev(seconds),
        "avg_cpu_percent": cpu / sum(seconds) * 100 if sum(seconds) > 0 else 0.0,
        "failed_iterations": len(failed),
        "error_message": failed[-1].error if failed else None,
    }


def _choose_strategy(
    trials: list[_Trial], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return the recommended strategy, by the rule of an ADAPTIVE pool, with the reason."""
    bound = _is_cpu_bound(trials)
    obstacle = _find_obstacle(function, args, kwargs) if bound else ""
    strategy, reason = ParallelizationStrategy.THREAD_POOL, "it waits most of its time, or its child processes work"
    if any(trial.error is not None for trial in trials):
        strategy, reason = ParallelizationStrategy.SEQUENTIAL, "it fails: run it alone until it does not"
    elif obstacle:
        strategy, reason = ParallelizationStrategy.SEQUENTIAL, f"it computes in Python, but {obstacle}"
    elif bound:
        strategy, reason = ParallelizationStrategy.PROCESS_POOL, "it computes in Python, which threads can't do at once"
    return {
        "recommended_strategy": strategy.value,
        "parallelizable": strategy is not ParallelizationStrategy.SEQUENTIAL,
        "reason": reason,
    }


def _is_cpu_bound(trials: list[_Trial]) -> bool:
    router = Router(Strategy.ADAPTIVE)
    for trial in trials:
        own = replace(trial.measured, cpu_seconds=trial.own_cpu_seconds, pid=os.getpid())
        router.learn("it", own, concurrent=1)
    return router.choose("it") == PROCESSES


def _find_obstacle(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the reason why a function can't run in another process, or ""."""
    if is_thread_only(function):
        return "it is marked thread_only"
    try:
        Packer().pack(function, args, kwargs)
    except UnpicklableError as error:
        return str(error)
    return ""
