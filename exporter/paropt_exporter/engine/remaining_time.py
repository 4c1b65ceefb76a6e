"""Estimate how long a stage will still run, from the durations of its tasks or of its earlier runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

DEADLINE_RATIO = 0.9  # of the time left until a limit; the rest is for errors of the estimate
# An overdue stage is expected to run for another tenth of its age, so that a prediction never says "now".
OVERDUE_RATIO = 0.1
_ROUNDING = 1e-9


def estimate_stage_remaining_seconds(
    *,
    expected_seconds: float | None,
    elapsed_seconds: float,
    task_seconds: float | None,
    ages_seconds: Sequence[float],
    waiting: int,
) -> float | None:
    """Return how many seconds a stage will still run; None: unknown.

    `task_seconds`: the duration of one task (None: unknown); `ages_seconds`: the age of each running task; `waiting`:
    the number of tasks that have not begun. `expected_seconds`: the stage's duration in earlier runs, used if
    `task_seconds` is unknown.
    """
    if task_seconds is not None:
        return estimate_remaining_seconds(task_seconds, ages_seconds, waiting, max(1, len(ages_seconds)))
    if expected_seconds is None:
        return None
    return estimate_left_seconds(expected_seconds, elapsed_seconds)


def estimate_remaining_seconds(task_seconds: float, ages_seconds: Sequence[float], waiting: int, workers: int) -> float:
    """Return the seconds until the last of equally long tasks ends if each free worker takes the next one.

    The workers that become free first run one task more, r_i + (waiting // N + 1) d; the others r_i + (waiting // N) d.
    """
    left = sorted(estimate_left_seconds(task_seconds, age) for age in ages_seconds)
    idle = max(0, workers - len(left))
    rounds, rest = divmod(waiting, idle + len(left))
    ends = [moment + (rounds + (idle + place < rest)) * task_seconds for place, moment in enumerate(left)]
    if idle:
        ends.append((rounds + (rest > 0)) * task_seconds)
    return max(ends)


def estimate_left_seconds(expected_seconds: float, age_seconds: float) -> float:
    """Return the rest of a duration of `expected_seconds` after `age_seconds`."""
    return max(expected_seconds - age_seconds, OVERDUE_RATIO * age_seconds)


def count_workers_within(
    seconds: float, task_seconds: float, ages_seconds: Sequence[float], waiting: int
) -> int | None:
    """Return the smallest number of workers that ends all tasks in time; None: one worker for each task would not.

    A worker takes floor((seconds - r) / d) more tasks, with the rest r of its present one. All running tasks end. With
    fewer workers than these, the youngest ones' go on, since the first tasks that end leave no free worker.
    """
    task_seconds = max(task_seconds, _ROUNDING)
    left = [estimate_left_seconds(task_seconds, age) for age in sorted(ages_seconds)]
    if max(left, default=0.0) > seconds:
        return None
    taken = 0
    for workers, rest in enumerate(left, 1):
        taken += math.floor((seconds - rest) / task_seconds + _ROUNDING)
        if taken >= waiting:
            return workers
    each = math.floor(seconds / task_seconds + _ROUNDING)
    return len(left) + math.ceil((waiting - taken) / each) if each > 0 else None
