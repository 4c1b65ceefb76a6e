"""Find flaky attempts in a run: first attempts that failed, after which the task passed with the same files."""

from __future__ import annotations

from msgspec import Struct, field

from paropt_exporter.events import Result, Scope, TaskRecord
from paropt_exporter.plan import OpenFailures, PlannedStage


class FlakyAttempts(Struct):
    """The first attempts of one stage in a run, and the flaky ones with their items."""

    first_attempts: int = 0
    flaky_attempts: int = 0
    items: set[str] = field(default_factory=set)
    _failed: dict[int, tuple[str, ...]] = field(default_factory=dict)  # by task, after its first attempt

    def add(self, record: TaskRecord) -> None:
        """Add an ended attempt. Those that were stopped or not started and cached results prove nothing."""
        if record.cached or record.could_not_start:
            return
        passed = record.result is Result.SUCCESS
        if record.attempt == 1 and (passed or record.result.bad):
            self.first_attempts += 1
            if not passed:
                self._failed[record.task] = list_failed_items(record)
        elif passed and record.task in self._failed:
            self.flaky_attempts += 1
            self.items.update(self._failed.pop(record.task))

    def conclude(self, stage: PlannedStage, result: Result) -> tuple[int, tuple[str, ...]]:
        """Return the flaky attempts and items, including those of earlier runs that the stage's success proves."""
        opened = stage.open_failures
        if opened is None or result is not Result.SUCCESS or not _covers(stage, opened):
            return self.flaky_attempts, tuple(sorted(self.items))
        return self.flaky_attempts + opened.attempts, tuple(sorted(self.items | opened.items))


def _covers(stage: PlannedStage, opened: OpenFailures) -> bool:
    """Return whether the stage runs everything that failed: in a shard, or with `--failed`, it has only some items."""
    if stage.scope is Scope.ARGUMENTS:
        return False
    if stage.scope is not Scope.ITEMS:
        return True
    items = {item for task in stage.tasks for item in task.items or (task.item,)}
    elsewhere = {part for task in stage.tasks for part in task.apart} - items
    return bool(opened.items) and all(
        item in items or (item.partition("::")[0] in items and item not in elsewhere) for item in opened.items
    )


def is_known_flaky(stage: PlannedStage, failed: TaskRecord) -> bool:
    """Return whether earlier runs show that the failure of an attempt may be flaky.

    In a stage with items, only items that were flaky before can fail flakily; in other stages, any failure can be
    flaky.
    """
    known = stage.flakiness
    if known is None or not known.flaky_attempts:
        return False
    items = list_failed_items(failed)
    return not items or known.items.issuperset(items)


def list_failed_items(record: TaskRecord) -> tuple[str, ...]:
    """Return the items of a failed attempt that did not succeed; none in a stage without items."""
    if record.items:
        return tuple(each.item for each in record.items if each.result is not Result.SUCCESS)
    return () if record.item is None else (record.item,)
