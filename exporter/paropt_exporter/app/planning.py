"""Plan a lane's next run from the config, what is asked, and what earlier runs taught."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from paropt_exporter import plan as plans
from paropt_exporter.app.request import Request
from paropt_exporter.autoscaling import ControlState
from paropt_exporter.config import Config
from paropt_exporter.engine import pools_of
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Strategy
from paropt_exporter.history import History
from paropt_exporter.plan import Plan

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.feedback import PastRuns
    from paropt_exporter.autoscaling.jobserver import Jobserver


class Planner:
    """Makes the plan of each run anew: history goes on from run to run. `past`: what Prometheus knows, if asked."""

    def __init__(self, request: Request, config: Config, lane: str, history: History, past: PastRuns | None) -> None:
        self._request = request
        self._config = config
        self._lane = lane
        self._history = history
        self._past = past

    def plan(self) -> Plan:
        """Return what would run. UsageError where that is nothing."""
        request = self._request
        only = self._history.failed_stages(self._lane) if request.failed_only else None
        if request.failed_only and not only:
            known = "no run of it is known" if only is None else "every stage of its last run succeeded"
            raise UsageError(f"--failed: nothing to run again in lane {self._lane}: {known}")
        return plans.build(
            self._config,
            self._lane,
            expected=self._expected(),
            expected_tasks=self._history.task_seconds(self._lane),
            known_items=self._history.known_items(),
            cpu_shares=self._history.cpu_shares(self._lane),
            only=only,
            only_items=self._history.failed_items(self._lane) if request.failed_only else {},
            strategy=request.strategy,
            workers=request.workers,
            fail_fast=request.fail_fast,
        )

    def started(self, plan: Plan, standing: ControlState) -> Plan:
        """Let the lane begin with the size that query results, a person's order or its own past say."""
        if plan.strategy is Strategy.SEQUENTIAL:
            return plan
        configured = self._config.lanes[plan.lane].workers.start is not None or self._request.workers is not None
        past = None if configured else self._past_size(plan)
        start = standing.start_size(plan.workers.start if past is None else past)
        return replace(plan, workers=replace(plan.workers, start=start))

    def _past_size(self, plan: Plan) -> int | None:
        """Return the size that earlier runs of the lane could use; None: nothing is known."""
        known = self._past.sizes if self._past is not None else {}
        sizes = [known[pool] for pool in pools_of(plan) if pool in known]
        return round(max(sizes)) if sizes else self._history.usual_size(plan.lane)

    def _expected(self) -> Mapping[str, float]:
        """Return known durations of stages: what Prometheus knows of all hosts' week beats what this one remembers."""
        own = self._history.expected(self._lane)
        return {**own, **self._past.durations} if self._past is not None else own


def sharing(plan: Plan, jobserver: Jobserver | None) -> Plan:
    """Make the lane's commands clients of the jobserver, if there is one; what a stage's own `env` says stays."""
    if jobserver is None or plan.strategy is Strategy.SEQUENTIAL:
        return plan
    ours = jobserver.environment(os.environ, plan.workers.maximum)
    return replace(plan, stages=tuple(replace(stage, env={**ours, **stage.env}) for stage in plan.stages))


def known_peaks(plan: Plan, measured: Mapping[str, int]) -> Mapping[str, int]:
    """Return the most bytes that a task of each stage takes, as earlier runs measured it or its `memory` says."""
    peaks = {stage.name: max(stage.memory_bytes, measured.get(stage.name, 0)) for stage in plan.stages}
    return {stage: peak for stage, peak in peaks.items() if peak}
