"""Find stages that start a program for each item although it accepts several files at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paropt_exporter.plan.structure import Commands, PlannedStage

# Test runners, linters and compilers that accept any number of files and start slowly.
_TAKE_SEVERAL = frozenset(
    {
        "pytest", "py.test", "ruff", "flake8", "pylint", "mypy", "pyright", "black", "isort", "bandit", "eslint",
        "prettier", "jest", "vitest", "mocha", "tsc", "rubocop", "rspec", "shellcheck", "yamllint", "markdownlint",
    }
)  # fmt: skip
# They check a program as a whole: each part would read most of the rest again.
_WHOLE_PROGRAM = frozenset({"mypy", "pyright", "tsc"})
_FEWEST_TASKS = 4
_DOMINATES_RATIO = 0.5
LONGEST_START_SECONDS = 5.0  # longer tasks do real work
_NOTICEABLE_SECONDS = 1.0  # of all tasks together


def find_multi_file_program(words: Sequence[str]) -> str | None:
    """Return the multi-file program of a command, which may follow `python -m` or similar words; None without one."""
    return next((name for word in words[:4] if (name := Path(word).name) in _TAKE_SEVERAL), None)


def find_program_of_item(words: Sequence[str], item: str) -> str | None:
    """Return the multi-file program that receives `item` as an argument, or None.

    Before the program, or in an option, an item is not a file: `uv run -p 3.13 pytest`, `pytest --browser=firefox`.
    """
    program = find_multi_file_program(words)
    names = [Path(word).name for word in words]
    after = words[names.index(program) + 1 :] if program is not None else ()
    return program if any(item in word and not word.startswith("-") for word in after) else None


def can_be_split(stage: PlannedStage) -> bool:
    """Return whether a stage could have items: its work is a call, or one command of a multi-file program."""
    work = stage.tasks[0].work if stage.tasks else None
    if not isinstance(work, Commands):
        return work is not None
    program = find_multi_file_program(work.steps[0]) if len(work.steps) == 1 else None
    return program is not None and program not in _WHOLE_PROGRAM


def find_repeated_program(stage: PlannedStage) -> str | None:
    """Return the multi-file program that a stage starts once for each item, or None."""
    first = stage.tasks[0] if stage.tasks else None
    if stage.template is not None or first is None or first.item is None or not isinstance(first.work, Commands):
        return None
    return find_program_of_item(first.work.steps[0], first.item) if len(first.work.steps) == 1 else None


def estimate_start_up_ratio(*, fastest_seconds: float, mean_seconds: float, tasks: int) -> float:
    """Return an upper bound on the ratio of start-up time in the tasks' time; 0 if start-up does not dominate.

    The bound is the fastest task's time, which includes a start-up. It counts only if it is most of the mean task's
    time: tasks of different lengths do real work.
    """
    if tasks < _FEWEST_TASKS or mean_seconds <= 0 or mean_seconds * tasks < _NOTICEABLE_SECONDS:
        return 0.0
    found = min(1.0, fastest_seconds / mean_seconds)
    return found if found >= _DOMINATES_RATIO and fastest_seconds <= LONGEST_START_SECONDS else 0.0


def format_advice(stage: str, started: str, part: float) -> str:
    """Return the advice in one line."""
    return f"{stage}: up to {part:.0%} of its time is {started} starting: use {{items}}, so that one runs several"
