"""Ask the cache for the results of stages that may start, and offer it those of their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from paropt_exporter.clock import Clock
from paropt_exporter.engine.attempt import Attempt
from paropt_exporter.engine.inbox import Inbox
from paropt_exporter.engine.interfaces import StageCache, StageLookup
from paropt_exporter.engine.open_stages import OpenStages
from paropt_exporter.engine.stage import StageState
from paropt_exporter.events import TaskRecord


class LookedUp(Struct, frozen=True):
    """A message of the cache: the results of a stage."""

    stage: StageState
    found: StageLookup


class Kept(Struct, frozen=True):
    """A message of the cache: it has kept the results of an ended stage, of which this was the last attempt."""

    attempt: Attempt
    record: TaskRecord


class CacheRequests:
    """The requests of one run. The cache answers on its own thread, by messages to the inbox."""

    def __init__(self, cache: StageCache, open_stages: OpenStages, inbox: Inbox, clock: Clock) -> None:
        self._cache = cache
        self._open_stages = open_stages
        self._inbox = inbox
        self._clock = clock
        self._revision = -1  # of the open stages, up to which the cache has been asked

    def look_up(self, startable: Sequence[StageState]) -> None:
        """Ask about the stages that have become startable; a LookedUp answers for each.

        A single one may have been startable before: a sequential lane comes to one stage after another.
        """
        if len(startable) > 1 and self._revision == self._open_stages.revision:
            return
        self._revision = self._open_stages.revision
        for state in startable:
            if state.plan.cached and not state.asked_cache:
                state.asked_cache = state.awaits_cache = True
                self._cache.look_up(state.plan, partial(self._post_lookup, state))

    def _post_lookup(self, state: StageState, found: StageLookup) -> None:
        self._inbox.post(LookedUp(state, found))

    def offer(self, attempt: Attempt, record: TaskRecord) -> bool:
        """Offer an attempt's result. Return whether the attempt ends only once the cache has kept it, with a Kept.

        The last one of a stage does: stages that need it may change its files.
        """
        state = attempt.stage
        if not state.plan.cached or not record.final:
            return False
        outcome = attempt.read_outcome()
        if state.plan.output_file is None or outcome.output_path is not None:  # otherwise its file is not whole
            self._cache.keep(state.plan, attempt.task, attempt.build_kept_result(self._clock.monotonic()))
        if state.ready or state.resting or len(state.attempts) > 1:
            return False
        self._cache.flush(state.plan, lambda: self._inbox.post(Kept(attempt, record)))
        return True
