"""Run a lane: plan -> engine -> pools, observed by history, metrics and screen."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import config as configs
from paropt_exporter import host
from paropt_exporter import plan as plans
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.app import parts
from paropt_exporter.app.config_file import ConfigFile
from paropt_exporter.app.planning import Planner, collect_memory_peaks, share_jobserver
from paropt_exporter.app.request import READER_SECONDS, Request, Screen
from paropt_exporter.autoscaling.controller import Controller
from paropt_exporter.autoscaling.lane_observer import DEADLINE, KnownStages
from paropt_exporter.clock import Clock
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.observers import Observer, Observers
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers, get_pool_names
from paropt_exporter.errors import (
    EXIT_CRITICAL_SLA,
    EXIT_FAILED,
    EXIT_INTERNAL,
    EXIT_PARTIAL,
    EXIT_SIGNAL_BASE,
    join_names,
)
from paropt_exporter.events import Result, RunRecord, Strategy
from paropt_exporter.executors.base import PROFILES_NAME
from paropt_exporter.executors.commands import supervisor_client
from paropt_exporter.exposition import deliveries
from paropt_exporter.history import History
from paropt_exporter.metrics import Metrics, Snapshot
from paropt_exporter.plan import PROCESSES, THREADS, Plan
from paropt_exporter.signals import Signals

if TYPE_CHECKING:
    from paropt_exporter.app.watching import LaneWatch
    from paropt_exporter.autoscaling.feedback import PastRuns
    from paropt_exporter.cache.stage_cache import StageCache
    from paropt_exporter.history.recovery import InterruptedRun

_HISTORY = "history"  # the observer that must not drop records
# Sections of the config that a process can't change.
_FIXED_SECTIONS = ("project", "web", "push", "feedback", "dask", "history")


class LaneSetup(Struct, frozen=True, kw_only=True):
    """What the exporter of a lane starts with.

    `config` has the host's settings applied, `config_as_read` has not. `file` tells when the config was changed.
    """

    request: Request
    lane: str
    config: configs.Config
    config_as_read: configs.Config
    host: HostConfig
    file: ConfigFile
    screen: Screen
    signals: Signals
    clock: Clock


def run_exporter(setup: LaneSetup) -> int:
    """Open the history, end what a killed exporter left behind, run the lane and return the exit code."""
    say = setup.screen.say
    with ExitStack() as stack:
        history = stack.enter_context(closing(parts.open_history(setup.config, setup.clock)))
        for interrupted in history.mark_interrupted_runs():
            say(_format_interrupted(interrupted))
        if orphans := supervisor_client.end_orphans(setup.config.root):
            say(f"ended processes that a killed exporter left behind: {join_names(orphans)}")
        exporter = Exporter(setup, history)
        stack.callback(exporter.close)
        return exporter.serve()


def _format_interrupted(interrupted: InterruptedRun) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(interrupted.started_timestamp_seconds))
    stages = ", ".join(interrupted.running) or "no stage"
    return f"the run of {interrupted.lane} that began {began} was interrupted: {stages} running (again: --failed)"


def _import_before_calls(plan: Plan, *, reloads: bool) -> None:
    """Import all modules before the project's folder, which may hide them, joins the import path with a call."""
    if {THREADS, PROCESSES} & set(get_pool_names(plan)):
        parts.import_late_modules(reloads=reloads)


def _drop_items(config: configs.Config) -> configs.Config:
    """Return the config without the items of its stages, whose commands run only once for each run."""
    return replace(config, stages=tuple(replace(stage, items=None) for stage in config.stages))


class Exporter:
    """Runs one lane, once or repeatedly, and exports it.

    ```
    serve: bind -> run -> (once: end) | wait for the next start or a signal -> run ...
    ```
    Guarantees: the endpoint serves from before the first task until the end; runs never overlap; history stores an
    event before the endpoint shows it.
    """

    def __init__(self, setup: LaneSetup, history: History) -> None:
        request, config, lane, clock, say = setup.request, setup.config, setup.lane, setup.clock, setup.screen.say
        self._request = request
        self._config, self._config_as_read, self._host = config, setup.config_as_read, setup.host
        self._file = setup.file
        self._lane = lane
        self._history = history
        self._screen = setup.screen
        self._signals = setup.signals
        self._clock = clock
        self._logs = parts.open_task_logs(config, history, clock)
        self._workers = PoolWorkers(
            config.history_path.with_name(PROFILES_NAME),
            logs=self._logs,
            open_cluster=parts.build_cluster_opener(config, lambda: setup.signals.number),
        )
        self._jobserver = parts.build_jobserver(config)
        self._cache: StageCache | None = None
        self._run: Run | None = None
        self._last_record: RunRecord | None = None
        self._missing_before = 0  # records that the history lacked after the last run
        self._feedback = parts.build_feedback(config, clock)
        self._planner = self._make_planner(config)
        plan = self._planner.plan()
        _import_before_calls(plan, reloads=request.every_seconds is not None)
        self._next_plan: Plan | None = plan  # the first run uses this plan: items commands may have effects
        self._refusal = ""  # of `serve`, the last one that was said
        self._link = parts.register_with_serve(request, config, plan, clock, say, self._say_refusal)
        if self._link is not None and parts.leaves_port(request, config):
            # Without a port this process has nothing to serve after its lane.
            once = request.every_seconds is None and not request.watch
            self._request = request = replace(request, once=once, linger_seconds=None)
        self._control_state = parts.build_control_state(config, plan, self._feedback)
        self._readings = parts.build_host_readings(config, plan, clock, self._link)
        self._sinks = parts.build_sinks(request, config, plan)
        self._protection = parts.build_protection(request, config)
        self._reports = parts.build_reports(request, config, setup.screen, self._sinks)
        self._metrics = self._make_metrics(plan)
        self._observers = Observers(self._make_observers())
        self._final_since_seconds = math.inf  # pages that were rendered later have the final values
        self._server = parts.start_endpoint(
            request, config, self._metrics, self._protection, say, self._link, on_fetched=self._note_scrape
        )
        if self._link is not None:
            self._link.collect = self._collect_series
        self._order_socket = parts.open_order_socket(config, plan, self._control_state)

    def serve(self) -> int:
        """Run and serve until the end; return the exit code."""
        if self._feedback is not None:
            from paropt_exporter.autoscaling.bounds_controller import LaneReadings  # here: few lanes have feedback

            self._feedback.start_controller(
                self._control_state,
                lane=LaneReadings(pools=self._workers.statistics, size=self._get_run_size, cores=self._read_cores),
                emit=self._observers.emit,
            )
        for note in self._config.notes:
            self._screen.inform(note)
        if self._link is not None and parts.leaves_port(self._request, self._config):
            if self._url:
                self._screen.inform(f"metrics at {self._url}, by `paropt-exporter serve`")
        elif not self._request.once:
            self._screen.inform(f"metrics at {self._url}")
        if self._request.watch:
            return self._serve_watch()
        output = None if self._request.once else parts.open_redirected_output()
        while True:
            began = self._clock.monotonic()
            code = self._run_once()
            if self._signals.interrupted_run:
                return self._wait_for_readers(code)
            if self._request.once:
                self._wait_for_scrape()
                return self._wait_for_readers(code)
            if self._wait_for_start(began):
                return self._wait_for_readers(code)
            if output is not None:
                output.follow()
            self._file.reload_if_changed(self._apply_config, self._screen.say)

    def _serve_watch(self) -> int:
        """Run the lane, and stages of it again when their inputs change, until a signal or the key q."""
        from paropt_exporter.app.watching import FileEvents, Keys, LaneWatch, has_keys  # here: only --watch needs them

        watch = LaneWatch(
            self._config,
            self._lane,
            self._request.options.selection,
            interrupt=self._wind_down,
            wake=self._signals.wake,
            say=self._screen.say,
            own_files=parts.find_own_files(self._request),
        )
        with ExitStack() as stack:
            folder, say = str(self._config.root), self._screen.say
            stack.enter_context(FileEvents(folder, watch.is_quiet, watch.look, say, is_pending=watch.waits_for_git))
            keys = has_keys()
            if keys:
                stack.enter_context(Keys(watch.press))
            return self._repeat_on_changes(watch, " · r runs all, f what failed, q quits" if keys else "")

    def _repeat_on_changes(self, watch: LaneWatch, keys: str) -> int:
        code, plan = 0, self._next_plan
        while True:
            if plan is not None:
                self._next_plan = plan
                watch.begin_run(stage.name for stage in plan.stages)
                code = self._run_once()
                if self._last_record is not None:
                    watch.end_run(self._last_record)
                if self._signals.interrupted_run:
                    return self._wait_for_readers(code)
            chosen = () if watch.quits else watch.choose_next()
            if not chosen:
                if plan is not None:
                    self._screen.say(watch.describe() + keys)
                if watch.quits or self._signals.wait(None):
                    return self._wait_for_readers(code or (EXIT_FAILED if watch.has_failures else 0))
                plan = None
                continue
            plan = self._plan_next(watch, chosen)

    def _plan_next(self, watch: LaneWatch, chosen: tuple[str, ...]) -> Plan | None:
        """Return the plan of the chosen stages, of a changed config if there is one; None if nothing can run."""
        if watch.reloads:
            watch.reloads, before = False, self._config
            self._file.reload_if_changed(self._apply_config, self._screen.say)
            if self._config is before:  # refused
                watch.ignore_config_change()
            else:
                watch.reconfigure(self._config)
            chosen = watch.choose_next()
            if not chosen:
                return None
        return self._planner.plan(chosen)

    def _wind_down(self, stale: frozenset[str], reason: str) -> None:
        run = self._run
        if run is not None:
            run.wind_down(stale, reason)

    def _wait_for_start(self, began: float) -> bool:
        """Wait for the next start, and reload the config on SIGHUP. Return whether a signal ends the exporter."""
        while True:
            if self._signals.wait(self._compute_pause(began)):
                return True
            if not self._signals.take_reload():
                return False
            self._file.reload_if_changed(self._apply_config, self._screen.say, asked=True)

    def _apply_config(self, read: configs.Config) -> None:
        """Continue with the lanes and stages of a changed config. Raises UsageError if the lane can't run with it."""
        # The parts of this process were built from the other sections.
        config = replace(self._config, lanes=read.lanes, stages=read.stages, places=read.places, notes=read.notes)
        options = self._request.options
        plans.choose_stages(config, self._lane, options.selection, options.arguments)
        shape = plans.build_plan(_drop_items(config), self._lane, options)
        _import_before_calls(shape, reloads=True)
        before, self._config_as_read = self._config_as_read, read
        if changed := [name for name in _FIXED_SECTIONS if getattr(read, name) != getattr(before, name)]:
            self._screen.say(f"{', '.join(changed)}: changed too, but takes effect only when the exporter is restarted")
        self._config, self._planner, self._next_plan = config, self._make_planner(config), None
        self._control_state.reconfigure(shape.workers, get_pool_names(shape))
        if self._order_socket is not None:
            self._order_socket.close()
        self._order_socket = parts.open_order_socket(config, shape, self._control_state)
        self._metrics.reconfigure(
            lanes=(parts.build_lane_labels(self._request, config, shape),),
            bounds=parts.get_bounds(shape),
            totals=self._history.load_totals(),
            last=self._history.load_last_values(),
        )
        if self._link is not None:
            self._link.reconfigure((parts.build_lane_labels(self._request, config, shape),), parts.get_bounds(shape))

    def _make_planner(self, config: configs.Config) -> Planner:
        return Planner(self._request, config, self._lane, self._history, self._load_past_runs, self._screen.say)

    def _load_past_runs(self) -> PastRuns | None:
        return self._feedback.load_past_runs(self._lane) if self._feedback is not None else None

    def _wait_for_scrape(self) -> None:
        """Serve until a scrape has the final values, a signal arrives, or the time is over."""
        if self._request.linger_seconds:
            self._final_since_seconds = self._clock.monotonic()
            self._signals.wait(self._request.linger_seconds)

    def _note_scrape(self, rendered_seconds: float) -> None:
        if rendered_seconds >= self._final_since_seconds:
            self._signals.wake()

    def _wait_for_readers(self, code: int) -> int:
        """Wait for the readers of the summary. Return the exit code, which a lost summary changes.

        Without a signal there is no time limit. After a signal they must make progress every READER_SECONDS.
        """
        self._screen.notify_when_shown(self._signals.wake)
        timeout_seconds, written = (None if self._signals.number is None else READER_SECONDS), self._screen.write_count
        while not self._screen.is_shown:
            signalled = self._signals.wait(timeout_seconds)
            stalled = written == self._screen.write_count
            if timeout_seconds is not None and (signalled or stalled):
                break
            if signalled:
                timeout_seconds = READER_SECONDS
            written = self._screen.write_count
        if self._screen.fault and not self._signals.interrupted_run and code != EXIT_INTERNAL:
            self._screen.say(f"exit code {EXIT_INTERNAL}: the summary could not be written")
            return EXIT_INTERNAL
        return code

    def close(self) -> None:
        """Close the endpoint and the pools."""
        if self._link is not None:
            self._link.close()
        if self._order_socket is not None:
            self._order_socket.close()
        if self._feedback is not None:
            self._feedback.close()
        self._server.close()
        self._workers.close()
        if self._jobserver is not None:
            self._jobserver.close()
        if self._cache is not None:
            self._cache.close()

    def _run_once(self) -> int:
        planned, self._next_plan = self._next_plan or self._planner.plan(), None
        self._register_late(planned)
        plan = share_jobserver(self._planner.set_start_size(planned, self._control_state), self._jobserver)
        plan = plan if self._reports is None else self._reports.begin(plan)
        cache = self._begin_cache(plan)
        run = self._make_run(plan, cache)
        self._workers.prepare(plan, run.size)
        self._screen.begin_run(plan, run.snapshot_stages)
        self._run = run
        self._signals.send_to(run)
        with ExitStack() as stack:
            if self._link is not None:
                self._link.begin_run(run)
                stack.callback(self._link.end_run)
            if self._jobserver is not None:
                stack.callback(self._jobserver.reset)
            if cache is not None:
                stack.callback(cache.end_run)
            if plan.strategy is not Strategy.SEQUENTIAL:
                stack.enter_context(self._make_controller(run, plan))
            record = self._last_record = run.execute()
        self._signals.send_to(None)
        self._run = None
        self._workers.release_workers(plan.workers.minimum)
        self._screen.end_run(
            record,
            metrics_url=self._url if self._keeps_serving else "",
            until=self._serves_until,
            keeps_output=self._logs is not None,
        )
        self._store_tree_state(plan, record)
        missed = self._sinks.deliver(self._metrics.render_final_page)
        return self._choose_exit_code(record, missed, self._write_reports(record))

    def _register_late(self, plan: Plan) -> None:
        """Register with a `serve` that was not there when this process started, as at a boot, and keep the port."""
        if self._link is not None or self._request.once:
            return
        self._link = parts.register_with_serve(
            self._request, self._config, plan, self._clock, self._screen.say, self._say_refusal
        )
        if self._link is not None:
            self._link.collect = self._collect_series
            if self._link.url:  # otherwise it has said that `serve` does not answer
                self._screen.say("registered with a `paropt-exporter serve` that has started since")

    def _say_refusal(self, refusal: str) -> None:
        if refusal != self._refusal:
            self._refusal = refusal
            self._screen.say(f"`paropt-exporter serve` refused this run, which goes on alone: {refusal}")

    def _store_tree_state(self, plan: Plan, record: RunRecord) -> None:
        """Store the files' state after a failure, unless one has changed since the run began.

        A later success in the same state proves the failure flaky. To look after failures only costs good runs nothing.
        """
        if plan.tree_state or not any(stage.result.bad for stage in record.stages):
            return
        from paropt_exporter import git

        began = record.started_timestamp_seconds
        state = git.identify_tree_state(self._config.root, unchanged_since_seconds=began)
        self._history.store_tree_state(record.run_id, state)

    def _write_reports(self, record: RunRecord) -> tuple[str, ...]:
        """Write the reports. Return the files that could not be written, each with the reason."""
        if self._reports is None:
            return ()
        path = self._logs.path(record.run_id) if self._logs is not None else None
        return self._reports.write(record, log_path=path)

    def _get_run_size(self) -> int | None:
        run = self._run
        return None if run is None else run.size

    def _read_cores(self) -> float:
        """Return the cores for the present or the last plan, which may change between two runs."""
        return self._readings.cores()

    def _begin_cache(self, plan: Plan) -> StageCache | None:
        """Return the cache of a run, or None if no stage asks for one."""
        if not any(stage.cached for stage in plan.stages):
            return None
        if self._cache is None:
            self._cache = parts.build_cache(self._request, self._config, self._host, self._clock, self._screen.say)
        self._cache.begin_run()
        return self._cache

    def _make_run(self, plan: Plan, cache: StageCache | None) -> Run:
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock.wall()))
        return Run(
            plan,
            run_id=f"{began}-{os.urandom(3).hex()}",
            workers=self._workers,
            emit=self._observers.hold,
            flush=self._observers.flush,
            inbox=QueueInbox(self._clock),
            clock=self._clock,
            memory_bytes=host.read_available_memory_bytes(),
            cores=float(plan.workers.maximum) if parts.runs_elsewhere(self._config, plan) else None,
            sums_work=self._config.feedback.objective == DEADLINE,
            on_stopping=self._screen.show_stopping,
            cache=cache,
            link=self._link,
        )

    def _make_controller(self, run: Run, plan: Plan) -> Controller:
        self._readings = parts.build_host_readings(self._config, plan, self._clock, self._link)
        return Controller(
            run,
            self._workers,
            control_state=self._control_state,
            host=self._readings,
            emit=self._observers.emit,
            clock=self._clock,
            known=KnownStages(
                cpu_demands=self._history.load_cpu_demands(plan.lane),
                peak_bytes=collect_memory_peaks(plan, self._history.load_memory_peaks(plan.lane)),
            ),
            objective=self._config.feedback.objective,
            offer=self._jobserver.offer if self._jobserver is not None else None,
        )

    def _make_observers(self) -> dict[str, Observer]:
        """Return the observers in the order in which they receive events."""
        observers: dict[str, Observer] = {_HISTORY: self._history, "metrics": self._metrics}
        if self._logs is not None:
            observers["logs"] = self._logs
        if self._reports is not None:
            observers["reports"] = self._reports
        return {**observers, "screen": self._screen}

    def _make_metrics(self, plan: Plan) -> Metrics:
        return Metrics(
            project=plan.project,
            lanes=(parts.build_lane_labels(self._request, self._config, plan),),
            read_snapshot=self._read_snapshot,
            on_cpu_shown=self._save_shown_totals if self._link is None else None,
            bounds=parts.get_bounds(plan),
            totals=self._history.load_totals(),
            last=self._history.load_last_values(),
            process_metrics=parts.exports_process_metrics(self._request, self._config),
            serves_on=not self._request.once,
        )

    @property
    def _keeps_serving(self) -> bool:
        """Whether the endpoint serves after this run."""
        lingers = not self._request.once or bool(self._request.linger_seconds)
        return lingers and not self._signals.interrupted_run

    @property
    def _serves_until(self) -> str:
        """What ends the endpoint, for the summary."""
        linger = self._request.linger_seconds if self._request.once else None
        return f"a scrape, at most {linger:g} s" if linger else "Ctrl-C"

    @property
    def _url(self) -> str:
        return self._server.url

    def _read_snapshot(self) -> Snapshot:
        run = self._run
        return Snapshot(
            pools=self._workers.statistics(),
            live=run.snapshot_stages() if run is not None else (),
            backlogs=run.measure_backlog() if run is not None else {},
            control=self._control_state.snapshot(),
            dropped=self._count_dropped(),
            deliveries=self._sinks.count_deliveries(),
            failing_deliveries=self._sinks.find_failing(),
            web_config_reloads=self._protection.count_reloads(),
            web_config_successful=self._protection.was_reload_successful(),
            config_reloads=self._file.reloads(),
            last_reload=self._file.last_reload,
        )

    def _save_shown_totals(self, cpu_totals: Mapping[str, float]) -> None:
        run = self._run
        if run is not None:
            self._history.store_shown_cpu(run.run_id, cpu_totals)

    def _collect_series(self) -> Mapping[tuple[str, tuple[str, ...]], float | HistogramTotal]:
        """Return the series of this process for `serve`, which reads totals in the history.

        The CPU time of running tasks is stored there. The totals are read first: a task that ends in between is missing
        from this report instead of counted twice.
        """
        run = self._run
        if run is not None:
            totals = self._history.load_stage_cpu_totals()
            live = run.snapshot_stages()
            shown = {stage.stage: totals.get((stage.lane, stage.stage), 0.0) + stage.cpu_seconds for stage in live}
            self._history.store_shown_cpu(run.run_id, shown)
        return self._metrics.collect_live()

    def _count_dropped(self) -> Mapping[str, int]:
        dropped = self._observers.dropped()
        return {**dropped, _HISTORY: dropped[_HISTORY] + self._history.dropped}

    def _compute_pause(self, began: float) -> float | None:
        """Return the seconds until the next start, or None to serve until a signal."""
        every = self._request.every_seconds
        return None if every is None else max(0.0, began + every - self._clock.monotonic())

    def _choose_exit_code(self, record: RunRecord, missed: frozenset[str], unreported: tuple[str, ...]) -> int:
        """Return the run's exit code, and print its reason if the summary did not have it."""
        if self._signals.interrupted_run:
            return EXIT_SIGNAL_BASE + (self._signals.number or 0)
        missing = self._count_dropped()[_HISTORY]
        lost, self._missing_before = missing - self._missing_before, missing
        if unwritten := [*filter(None, [self._describe_unwritten(missed, lost)]), *unreported]:
            self._screen.say(f"exit code {EXIT_INTERNAL}: {'; '.join(unwritten)}")
            return EXIT_INTERNAL
        if record.critical_sla:
            return EXIT_CRITICAL_SLA
        if record.result is Result.CANCELLATION and self._request.deadline_seconds is not None:
            return EXIT_PARTIAL
        return 0 if record.result is Result.SUCCESS else EXIT_FAILED

    def _describe_unwritten(self, missed: frozenset[str], lost: int) -> str:
        """Return the reason why data of the run was not written or pushed, or "". `lost` counts its lost records."""
        if self._history.broken:
            return self._history.broken
        if lost:
            return "the history lacks records; the log has the reason"
        if deliveries.PUSHGATEWAY in missed and (self._request.push_fail or self._config.push.fail):
            return "the final values were not pushed (--push.fail)"
        return ""
