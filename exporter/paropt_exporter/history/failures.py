"""Find which stages and items of a lane failed in its last runs, for `--failed`.

The last run is the one that began last (`sequence`), not the one with the latest timestamp, since wall clocks jump.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from types import MappingProxyType

from msgspec import Struct, field

from paropt_exporter.events import Result, Shard
from paropt_exporter.history.values import to_shard, to_text, to_texts


class Failures(Struct, frozen=True, kw_only=True):
    """The stages that failed or did not run in a lane's last runs, and their failed items where these are known.

    `succeeded` and `unknown` are the other stages; no run planned the unknown ones. `shards`: the shard in which a
    stage or item failed, by stage and item ("" for the stage), if it was one.
    """

    stages: frozenset[str]
    items: Mapping[str, frozenset[str]]
    succeeded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shards: Mapping[tuple[str, str], Shard] = field(default_factory=lambda: MappingProxyType({}))


def find_failures(connection: sqlite3.Connection, project: str, lane: str, stages: Collection[str]) -> Failures | None:
    """Return the stages of a lane that failed or did not run in its last runs; None if no run of the lane has ended.

    The last run that planned a stage decides its state, unless that run gave it arguments. If that was one shard of a
    split, the last runs of its other shards decide too. In a run that was not successful, a stage without a record and
    a skipped stage count as failures too, but not one without items.
    """
    query = """
    SELECT run_id, result, planned, shard, split FROM runs
    WHERE project = ? AND lane = ? AND ended_ts IS NOT NULL ORDER BY sequence DESC
    """
    states = {stage: _StageState() for stage in stages}
    known = False
    for run_id, result, planned, shard, split in connection.execute(query, (project, lane)):
        known = True
        if all(state.decided for state in states.values()):
            break
        part = to_shard(shard, split)
        names = [name for name in to_texts(planned) if name in states and states[name].takes(part)]
        if not names:
            continue
        decided = frozenset(names) - _load_stages_with_arguments(connection, run_id)
        done = decided if result == Result.SUCCESS else _load_succeeded_stages(connection, run_id)
        for name in decided:
            states[name].add(to_text(run_id), part, failed=name not in done)
    if not known:
        return None
    return _collect_failures(connection, states)


class _StageState(Struct):
    """A stage's state by the last runs, latest first. `first`: the shard of the last run that planned it, if any."""

    runs: int = 0
    first: Shard | None = None
    indexes: set[int] = field(default_factory=set)
    failed: list[tuple[str, Shard | None]] = field(default_factory=list)
    closed: bool = False

    @property
    def decided(self) -> bool:
        return self.closed or (self.runs > 0 and (self.first is None or len(self.indexes) == self.first.count))

    def takes(self, shard: Shard | None) -> bool:
        """Return whether a run that planned the stage counts: the latest one, or another shard of its split."""
        if self.decided:
            return False
        if self.runs == 0:
            return True
        if shard is None or self.first is None or (shard.count, shard.split) != (self.first.count, self.first.split):
            self.closed = True
            return False
        return shard.index not in self.indexes

    def add(self, run_id: str, shard: Shard | None, *, failed: bool) -> None:
        if self.runs == 0:
            self.first = shard
        self.runs += 1
        if shard is not None:
            self.indexes.add(shard.index)
        if failed:
            self.failed.append((run_id, shard))


def _collect_failures(connection: sqlite3.Connection, states: Mapping[str, _StageState]) -> Failures:
    items: dict[str, frozenset[str]] = {}
    shards: dict[tuple[str, str], Shard] = {}
    for stage, state in states.items():
        each = [(_load_failed_items(connection, run_id, stage), shard) for run_id, shard in state.failed]
        if each and all(found for found, _ in each):
            items[stage] = frozenset(item for found, _ in each for item in found)
        for found, shard in each:
            if shard is not None:
                shards.update(dict.fromkeys([(stage, item) for item in found] or [(stage, "")], shard))
    return Failures(
        stages=frozenset(stage for stage, state in states.items() if state.failed),
        items=items,
        succeeded=tuple(stage for stage, state in states.items() if state.runs and not state.failed),
        unknown=tuple(stage for stage, state in states.items() if not state.runs),
        shards=shards,
    )


def _load_stages_with_arguments(connection: sqlite3.Connection, run_id: str) -> frozenset[str]:
    found = connection.execute("SELECT stage FROM stages WHERE run_id = ? AND scope = 'arguments'", (run_id,))
    return frozenset(to_text(stage) for (stage,) in found)


def _load_succeeded_stages(connection: sqlite3.Connection, run_id: str) -> frozenset[str]:
    query = """
    SELECT stage FROM stages WHERE run_id = ? AND (result = ? OR (result = ? AND message LIKE 'no items:%'))
    """
    values = (run_id, Result.SUCCESS.value, Result.SKIP.value)
    return frozenset(to_text(stage) for (stage,) in connection.execute(query, values))


def _load_failed_items(connection: sqlite3.Connection, run_id: str, stage: str) -> frozenset[str]:
    """Return the items of a stage that failed in a run, if none of its tasks was stopped.

    It returns no items for a stopped stage, since other items did not run either.
    """
    query = """
    SELECT item FROM failed_items JOIN stages USING (run_id, stage) WHERE run_id = :run AND stage = :stage
      AND tasks = (SELECT count(*) FROM tasks AS ended WHERE ended.run_id = :run
                   AND ended.stage = :stage AND final AND ended.result <> :cancelled)
    """
    values = {"run": run_id, "stage": stage, "cancelled": Result.CANCELLATION.value}
    return frozenset(to_text(item) for (item,) in connection.execute(query, values))
