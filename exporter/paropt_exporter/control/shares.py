"""Measure which part of a core each running task uses, from one look to the next."""

from __future__ import annotations

from collections.abc import Iterable

from paropt_exporter.records import RunningTask

WINDOW_SECONDS = 0.15  # shorter windows see the 10 ms ticks of /proc as jumps of a tenth of a core


class ShareMeter:
    """Shares of running tasks by label, and of stages by what their tasks last used.

    Guarantees: a share is told only once a task was watched for a window; a task that ended leaves its share to its
    stage, so that the stage's next task is not unknown.
    """

    def __init__(self) -> None:
        self._marks: dict[str, tuple[float, float]] = {}  # label -> (moment, CPU seconds) where its window began
        self._shares: dict[str, float] = {}
        self._stages: dict[str, float] = {}

    def look(self, tasks: Iterable[RunningTask], now: float) -> None:
        """Take the CPU seconds of what runs at the monotonic moment `now`."""
        seen = {task.label: task for task in tasks}
        for label, task in seen.items():
            began, used = self._marks.setdefault(label, (now, task.cpu_seconds))
            if now - began >= WINDOW_SECONDS:
                self._shares[label] = max(0.0, (task.cpu_seconds - used) / (now - began))
                self._stages[label.partition("[")[0]] = self._shares[label]
                self._marks[label] = (now, task.cpu_seconds)
        for label in self._marks.keys() - seen.keys():
            del self._marks[label]
            self._shares.pop(label, None)

    def of_task(self, label: str) -> float | None:
        return self._shares.get(label)

    def of_stage(self, stage: str) -> float | None:
        return self._stages.get(stage)
