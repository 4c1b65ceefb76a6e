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
        self._marks: dict[str, tuple[float, RunningTask]] = {}  # label -> where its window began
        self._shares: dict[str, float] = {}
        self._stages: dict[str, float] = {}

    def look(self, tasks: Iterable[RunningTask], now: float) -> None:
        """Take the CPU seconds of what runs at the monotonic moment `now`."""
        seen = {task.label: task for task in tasks}
        for label, task in seen.items():
            began, before = self._marks.setdefault(label, (now, task))
            if now - began >= WINDOW_SECONDS:
                self._shares[label] = self._stages[label.partition("[")[0]] = _share(before, task, now - began)
                self._marks[label] = (now, task)
        for label in self._marks.keys() - seen.keys():
            del self._marks[label]
            self._shares.pop(label, None)

    def of_task(self, label: str) -> float | None:
        return self._shares.get(label)

    def of_stage(self, stage: str) -> float | None:
        return self._stages.get(stage)


def _share(before: RunningTask, after: RunningTask, seconds: float) -> float:
    """Return c = cpu / (wall - run delay): what the task would use of a core that it need not share.

    The delay of several processes may exceed the wall time; what a tree uses beyond one core is told by its CPU alone.
    """
    cpu = max(0.0, after.cpu_seconds - before.cpu_seconds)
    delay = max(0.0, after.run_delay_seconds - before.run_delay_seconds)
    alone = cpu / max(cpu, seconds - delay, 1e-6)
    return max(cpu / seconds, alone)
