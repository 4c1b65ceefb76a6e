"""Foretell when a running stage will end, from its own tasks and from its earlier runs: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

# What runs longer than expected is expected to run on for a tenth of its age: never "any moment now".
OVERDUE_RATIO = 0.1


def stage_remaining_seconds(
    *,
    expected_seconds: float | None,
    elapsed_seconds: float,
    task_seconds: float | None,
    ages_seconds: Sequence[float],
    waiting: int,
) -> float | None:
    """Return how long a stage will still run; None: nothing is known.

    `task_seconds`: how long one task takes (None: not known); `ages_seconds`: how long each running task has run;
    `waiting`: tasks that have not begun. `expected_seconds`: the stage's duration in earlier runs, where no more is
    known.
    """
    if task_seconds is not None:
        return remaining_seconds(task_seconds, ages_seconds, waiting, max(1, len(ages_seconds)))
    if expected_seconds is None:
        return None
    return left_seconds(expected_seconds, elapsed_seconds)


def remaining_seconds(task_seconds: float, ages_seconds: Sequence[float], waiting: int, workers: int) -> float:
    """Return when the last of equally long tasks ends: each worker takes the next one as it gets free.

    The first to get free take one task more, r_i + (waiting // N + 1) d; the others r_i + (waiting // N) d.
    """
    left = sorted(left_seconds(task_seconds, age) for age in ages_seconds)
    free = [0.0] * max(0, workers - len(left)) + left
    rounds, rest = divmod(waiting, len(free))
    return max(moment + (rounds + (place < rest)) * task_seconds for place, moment in enumerate(free))


def left_seconds(expected_seconds: float, age_seconds: float) -> float:
    """Return what is left of something that takes `expected_seconds` and has run for `age_seconds`."""
    return max(expected_seconds - age_seconds, OVERDUE_RATIO * age_seconds)


def workers_within(seconds: float, task_seconds: float, ages_seconds: Sequence[float], waiting: int) -> int:
    """Return the smallest number of workers that end all tasks in time, which as many workers as tasks can."""
    least, most = max(1, len(ages_seconds)), len(ages_seconds) + waiting
    while least < most:
        middle = (least + most) // 2
        if remaining_seconds(task_seconds, ages_seconds, waiting, middle) <= seconds:
            most = middle
        else:
            least = middle + 1
    return least
