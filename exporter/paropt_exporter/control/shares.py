"""Measure which part of a core each running task uses, from one look to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from paropt_exporter.control.policy.closed import UNKNOWN_SHARE
from paropt_exporter.records import RunningTask

WINDOW_SECONDS = 0.06  # a command is looked at each 20 ms, in ticks of 10 ms: three looks tell work from waiting
# Work that waits for a core this much of its time may raise a share, never lower it: over-subscribed work looks as if
# it waited by itself, and would be given more company still.
CROWDED_RATIO = 0.1
QUIET_SECONDS = 0.08  # no news for so long says that a command did less than what makes news:
_YOUNG_SECONDS, _YOUNG_NEWS_SECONDS, _NEWS_SECONDS = 0.6, 0.002, 0.05  # as the guardian has it, and a look more


class ShareMeter:
    """Shares of running tasks by label, and of stages by what their tasks last used.

    Guarantees: a task's own share is told only once it was watched for a window; until then its stage's is, which each
    task leaves to the next; `stages` are shares known from earlier runs.
    """

    def __init__(self, stages: Mapping[str, float] = MappingProxyType({})) -> None:
        self._marks: dict[str, tuple[float, RunningTask]] = {}  # label -> where its window began
        self._shares: dict[str, float] = {}
        self._stages = dict(stages)
        self._watched: set[str] = set()  # stages of which a running task was watched for a window in this run

    def look(self, tasks: Iterable[RunningTask], now: float) -> None:
        """Take what runs at the monotonic moment `now`."""
        seen = {task.label: task for task in tasks if task.measured_seconds != 0}
        for label, task in seen.items():
            share = self._share(label, task, now)
            if share is not None:
                stage = label.partition("[")[0]
                self._shares[label] = self._stages[stage] = share
                self._watched.add(stage)
        for label in self._marks.keys() - seen.keys():
            del self._marks[label]
            self._shares.pop(label, None)

    def _share(self, label: str, task: RunningTask, now: float) -> float | None:
        """Return what the numbers that are new, or old, say about a task; None: nothing yet."""
        at = now if task.measured_seconds is None else task.measured_seconds
        began, before = self._marks.setdefault(label, (at, task))
        # A crowded machine leaves a task little of a window, and CPU comes in ticks: what counts is the time it had.
        delay = max(0.0, task.run_delay_seconds - before.run_delay_seconds)
        if at - began - delay >= WINDOW_SECONDS:
            self._marks[label] = (at, task)
            share = share_between(before, task, at - began)
            crowded = delay > CROWDED_RATIO * (at - began)
            return max(share, self._known(label)) if crowded else share
        if now - at >= QUIET_SECONDS:
            news = _YOUNG_NEWS_SECONDS if now - task.started_seconds < _YOUNG_SECONDS else _NEWS_SECONDS
            return min(self._shares.get(label, 1.0), news / (now - at))
        return None

    def _known(self, label: str) -> float:
        return self._shares.get(label, self._stages.get(label.partition("[")[0], UNKNOWN_SHARE))

    def learn(self, ended: Iterable[tuple[str, float]]) -> None:
        """Take what tasks used that have ended, by stage: many are over before a window is."""
        for stage, share in ended:
            if stage not in self._watched:
                self._stages[stage] = share

    def of_task(self, label: str, stage: str) -> float | None:
        """Return a running task's own share; until it was watched, its stage's."""
        return self._shares.get(label, self._stages.get(stage))

    def of_stage(self, stage: str) -> float | None:
        return self._stages.get(stage)


def share_between(before: RunningTask, after: RunningTask, seconds: float) -> float:
    """Return c = cpu / (wall - run delay): what the task would use of a core that it need not share.

    The delay of several processes may exceed the wall time; what a tree uses beyond one core is told by its CPU alone.
    """
    cpu = max(0.0, after.cpu_seconds - before.cpu_seconds)
    delay = max(0.0, after.run_delay_seconds - before.run_delay_seconds)
    alone = cpu / max(cpu, seconds - delay, 1e-6)
    return max(cpu / seconds, alone)
