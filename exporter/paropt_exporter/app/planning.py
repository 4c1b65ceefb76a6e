"""Plan a lane's next run from the config, the request and the history."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter import plan as plans
from paropt_exporter.app.request import Request
from paropt_exporter.autoscaling.state import ADVISE, PAUSE, ControlState
from paropt_exporter.config import Config
from paropt_exporter.engine.pool_sizes import get_pool_names
from paropt_exporter.errors import NothingFailed, UsageError, format_count, join_names
from paropt_exporter.events import Scope, Shard, Strategy
from paropt_exporter.history import History
from paropt_exporter.plan import EarlierRuns, Plan, PlannedStage, PlanOptions, Retry, Selection

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.feedback import PastRuns
    from paropt_exporter.autoscaling.jobserver import Jobserver
    from paropt_exporter.changes import ChangeFinder
    from paropt_exporter.history.failures import Failures
    from paropt_exporter.input_files import InputPatterns


class Planner:
    """Builds the plan of each run of a lane, as its config is now.

    `load_past` returns Prometheus' values, or None without feedback; `say` prints the stages that --failed leaves out.
    """

    def __init__(
        self,
        request: Request,
        config: Config,
        lane: str,
        history: History,
        load_past: Callable[[], PastRuns | None],
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self._request = request
        self._lane = lane
        self._history = history
        self._load_past = load_past
        self._say = say
        self._prepared: Plan | None = None

    def prepare(self) -> Plan:
        """Return the next plan, which `take` returns again: the commands of `items` may have effects."""
        self._prepared = self.plan()
        return self._prepared

    def take(self) -> Plan:
        """Return the prepared plan if there is one, otherwise another."""
        plan, self._prepared = self._prepared or self.plan(), None
        return plan

    def change(self, read: Config) -> Plan:
        """Continue with the lanes and stages of a changed config. Return its plan, without items.

        Raises UsageError if the lane can't run with it, and then changes nothing.
        """
        # The parts of this process were built from the other sections.
        config = replace(self.config, lanes=read.lanes, stages=read.stages, places=read.places, notes=read.notes)
        options = self._request.options
        plans.choose_stages(config, self._lane, options.selection, options.arguments)
        whole = replace(options, selection=options.selection.drop_items(config.stages))
        shape = plans.build_plan(_drop_items(config), self._lane, whole)
        self.config, self._prepared = config, None
        return shape

    def plan(self, stages: Collection[str] | None = None) -> Plan:
        """Return the next plan, of only these stages if some are given.

        Raises UsageError if nothing can run, NothingFailed or NothingAffected if the flags leave nothing.
        """
        request, options, failed = self._request, self._request.options, None
        if stages is not None:  # of a watched lane, whose flags chose the first run only
            options = replace(options, selection=options.selection.keep_stages(stages, self.config.stages))
        else:
            if request.affected:
                options = replace(options, affected_by=self._build_change_finder())
            if request.failed_only:
                failed = find_failures(self._history, self.config, self._lane, options.selection)
        plan = plan_lane(self.config, self._lane, options, self._load_earlier_runs(), failed)
        if request.deadline_seconds is not None:
            plan = narrow_to_deadline(plan, request.deadline_seconds, self._history, reads_cache=not request.no_cache)
        for note in plan.notes:
            if note not in self.config.notes:  # those of the config are shown once, at the start
                self._say(note)
        if plan.choice:
            self._say(plan.choice)
        if failed is not None:
            self._say(format_failures(plan, failed))
        return plan

    def set_start_size(self, plan: Plan, control_state: ControlState) -> Plan:
        """Set the starting size from query results, a pinned or paused size, or earlier runs.

        Not from earlier runs in the modes advise and pause, in which the lane can't correct it. For those with advice,
        Prometheus has the sizes that were recommended.
        """
        if plan.strategy is Strategy.SEQUENTIAL:
            return plan
        configured = self.config.lanes[plan.lane].workers.start is not None or self._request.options.workers is not None
        stays = control_state.override.mode in (ADVISE, PAUSE)
        past = None if configured or stays else self._find_past_size(plan)
        start = control_state.get_start_size(plan.workers.start if past is None else past)
        return replace(plan, workers=replace(plan.workers, start=start))

    def _find_past_size(self, plan: Plan) -> int | None:
        """Return the size that earlier runs of the lane used, or None if there are none."""
        past = self._load_past()
        known = past.sizes if past is not None else {}
        sizes = [known[pool] for pool in get_pool_names(plan) if pool in known]
        return round(max(sizes)) if sizes else self._history.load_usual_size(plan.lane)

    def _build_change_finder(self) -> ChangeFinder:
        from paropt_exporter.changes import ChangeFinder

        return ChangeFinder(self.config.root, self._request.affected_ref)

    def _identify_tree_state(self) -> str:
        """Return the state of the files if a success in it may prove a failure flaky, otherwise ""."""
        if not self._history.has_failed_with_state(self._lane):
            return ""
        from paropt_exporter import git  # here: most runs need no git

        return git.identify_tree_state(self.config.root)

    def _load_earlier_runs(self) -> EarlierRuns:
        """Return the facts from earlier runs. Prometheus' durations, of all hosts, override those of this host.

        A shard uses only the history: shards ask at different moments, and must come to the same split.
        """
        shard, tree_state = self._request.options.shard, self._identify_tree_state()
        earlier = self._history.load_earlier_runs(self._lane)
        past = self._load_past()
        flaky = self._history.load_flakiness(self._lane)
        shard_name = "" if shard is None else str(shard)
        return replace(
            earlier,
            seconds={**earlier.seconds, **past.durations} if past is not None and shard is None else earlier.seconds,
            flakiness={stage: each for (_, stage), each in flaky.items()},
            open_failures=self._history.load_open_failures(self._lane, tree_state, shard=shard_name),
            tree_state=tree_state,
        )


def _drop_items(config: Config) -> Config:
    """Return the config without the items of its stages, whose commands run only once for each run."""
    return replace(config, stages=tuple(replace(stage, items=None) for stage in config.stages))


def plan_lane(config: Config, lane: str, options: PlanOptions, earlier: EarlierRuns, failed: Failures | None) -> Plan:
    """Return the plan of a lane, or of only its failures. Raises UsageError and NothingAffected as `build_plan`."""
    if failed is None:
        return plans.build_plan(config, lane, options, earlier=earlier)
    options = replace(options, retry=_build_retry(failed, options.shard))
    plan = plans.build_plan(config, lane, options, earlier=earlier)
    if not _list_unknown(plan, failed):
        return plan
    return replace(plan, partial=True)  # its success would not be one of the lane: stages have never run


def _build_retry(failed: Failures, shard: Shard | None) -> Retry:
    """Return the failures that a run, or a shard of it, repeats: items and stages in the shard in which they failed.

    A shard whose history lacks the runs of the others comes to the same result for its own part. Failures of a lane
    that had another number of shards can't be assigned to one.
    """
    count = 0 if shard is None else shard.count
    pins = {place: one.index for place, one in failed.shards.items() if one.count == count}
    return Retry(stages=failed.stages, items=failed.items, pins=pins)


def narrow_to_deadline(plan: Plan, deadline_seconds: float, history: History, *, reads_cache: bool) -> Plan:
    """Return the plan with only the stages that end before a deadline. Raises UsageError if there are none."""
    from paropt_exporter.plan.deadline import apply_deadline  # here: few runs have a deadline

    hits = _find_hits(plan) if reads_cache else frozenset()
    past = history.load_stage_pasts(plan.lane)
    return apply_deadline(plan, deadline_seconds, past, hits=hits, affected=_find_affected(plan))


def _find_hits(plan: Plan) -> frozenset[str]:
    """Return the stages that the cache can skip as a whole."""
    if not any(stage.cached for stage in plan.stages):
        return frozenset()
    from paropt_exporter.cache.preview import find_hits, preview_plan
    from paropt_exporter.cache.result_store import open_store

    return find_hits([*preview_plan(plan, open_store(os.environ), os.environ)])


def _find_affected(plan: Plan) -> frozenset[str]:
    """Return the stages with an input that differs from the main branch; none if git can't tell."""
    from paropt_exporter.changes import UnknownChange, find_changes

    stages = [stage for stage in plan.stages if stage.inputs is not None]
    try:
        changes = find_changes(plan.root) if stages else None
    except UnknownChange:
        return frozenset()
    return frozenset(
        stage.name for stage in stages if changes is not None and changes.find_match(_build_input_patterns(plan, stage))
    )


def _build_input_patterns(plan: Plan, stage: PlannedStage) -> InputPatterns:
    """Return the inputs of all of a stage's tasks."""
    from paropt_exporter.input_files import ITEM, InputPatterns, fill_item

    patterns = [pattern for pattern in stage.inputs or () if ITEM not in pattern]
    of_items = [pattern for pattern in stage.inputs or () if ITEM in pattern and not pattern.startswith("!")]
    items = {item for task in stage.tasks for item in task.items or (task.item or "",)} if of_items else ()
    cwd = os.path.relpath(stage.cwd, plan.root)
    return InputPatterns([*patterns, *(each for item in items for each in fill_item(of_items, item, cwd))])


def find_failures(history: History, config: Config, lane: str, selection: Selection) -> Failures:
    """Return the failures of the selected stages of a lane. Raises UsageError if no run of it is known."""
    members, _ = plans.choose_stages(config, lane, selection)
    found = history.find_failures(lane, [stage.name for stage in members])
    if found is None:
        raise UsageError(f"--failed: no run of lane {lane} is known: run it without --failed first")
    if not found.stages:
        unknown = f" (not run yet: {join_names(found.unknown)})" if found.unknown else ""
        raise NothingFailed(f"--failed: nothing to run: no stage of lane {lane} failed when it last ran{unknown}")
    return found


def format_failures(plan: Plan, failed: Failures) -> str:
    """Return a line with the stages that --failed runs and leaves out."""
    runs = [
        f"{stage.name} ({_format_item_count(stage)} only)" if stage.scope is Scope.ITEMS else stage.name
        for stage in plan.stages
    ]
    planned = {stage.name for stage in plan.stages}
    left_out = [name for name in failed.succeeded if name not in planned]
    unknown = _list_unknown(plan, failed)
    parts = [f"--failed runs {join_names(runs) or 'nothing in this shard'}"]
    parts += [f"leaves out {join_names(left_out)}, which succeeded"] if left_out else []
    parts += [f"and {join_names(unknown)}, not run yet"] if unknown else []
    return "; ".join(parts)


def _list_unknown(plan: Plan, failed: Failures) -> list[str]:
    """Return the stages that have not run yet, and that a plan leaves out."""
    planned = {stage.name for stage in plan.stages}
    return [name for name in failed.unknown if name not in planned]


def _format_item_count(stage: PlannedStage) -> str:
    count = sum(max(1, len(task.items)) for task in stage.tasks)
    return format_count(count, "failed item")


def share_jobserver(plan: Plan, jobserver: Jobserver | None) -> Plan:
    """Add the jobserver's environment to the lane's commands. A stage's own `env` overrides it."""
    if jobserver is None or plan.strategy is Strategy.SEQUENTIAL:
        return plan
    ours = jobserver.build_environment(os.environ, plan.workers.maximum)
    return replace(plan, stages=tuple(replace(stage, env={**ours, **stage.env}) for stage in plan.stages))


def collect_memory_peaks(plan: Plan, measured: Mapping[str, int]) -> Mapping[str, int]:
    """Return the peak memory of a task of each stage in bytes, from earlier runs or its `memory`."""
    peaks = {stage.name: max(stage.memory_bytes, measured.get(stage.name, 0)) for stage in plan.stages}
    return {stage: peak for stage, peak in peaks.items() if peak}
