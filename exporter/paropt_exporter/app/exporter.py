"""Run a lane: plan -> engine -> pools, observed by history, metrics and screen."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter import config as configs
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.app import parts
from paropt_exporter.app.exit_codes import ExitCodes, wait_for_readers
from paropt_exporter.app.lane_runner import LaneRunner, LaneSetup
from paropt_exporter.app.live_data import HISTORY, LiveData
from paropt_exporter.app.planning import Planner, share_jobserver
from paropt_exporter.app.serve_link import ServeLink
from paropt_exporter.engine.observers import Observer, Observers
from paropt_exporter.engine.pool_sizes import get_pool_names
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.errors import EXIT_FAILED, HistoryError, Interrupted, NothingFailed, ParoptError, join_names
from paropt_exporter.events import RunRecord
from paropt_exporter.executors.commands import supervisor_client
from paropt_exporter.history import History
from paropt_exporter.metrics import Metrics
from paropt_exporter.plan import CALL_POOLS, Plan

if TYPE_CHECKING:
    from paropt_exporter.app.request import Request
    from paropt_exporter.app.watching import LaneWatch
    from paropt_exporter.autoscaling.feedback import PastRuns
    from paropt_exporter.history.recovery import InterruptedRun


# Sections of the config that a process can't change.
_FIXED_SECTIONS = ("project", "web", "push", "feedback", "dask", "history")


def run_exporter(setup: LaneSetup) -> int:
    """Open the history, end what a killed exporter left behind, run the lane and return the exit code."""
    say = setup.screen.say
    with ExitStack() as stack:
        instance = parts.find_pushed_instance(setup.request, setup.config)
        history = stack.enter_context(closing(parts.open_history(setup.config, setup.clock, instance=instance)))
        for interrupted in history.mark_interrupted_runs():
            say(_format_interrupted(interrupted))
        if orphans := supervisor_client.end_orphans(setup.config.root):
            say(f"ended processes that a killed exporter left behind: {join_names(orphans)}")
        stack.callback(supervisor_client.SUPERVISOR.end_early)  # while the history is closed
        exporter = Exporter(setup, history)
        stack.callback(exporter.close)
        return exporter.serve()


def _format_interrupted(interrupted: InterruptedRun) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(interrupted.started_timestamp_seconds))
    stages = ", ".join(interrupted.running) or "no stage"
    return f"the run of {interrupted.lane} that began {began} was interrupted: {stages} running (again: --failed)"


def _import_before_calls(plan: Plan, *, reloads: bool) -> None:
    """Import all modules before the project's folder, which may hide them, joins the import path with a call."""
    if not CALL_POOLS.isdisjoint(get_pool_names(plan)):
        parts.import_late_modules(reloads=reloads)


class Exporter:
    """Runs one lane, once or repeatedly, and exports it.

    ```
    serve: bind -> run -> (once: end) | wait for the next start or a signal -> run ...
    ```
    Guarantees: the endpoint serves from before the first task until the end; runs never overlap; history stores an
    event before the endpoint shows it.
    """

    def __init__(self, setup: LaneSetup, history: History) -> None:
        request, config, clock, say = setup.request, setup.config, setup.clock, setup.screen.say
        self._lane = setup.lane
        self._file = setup.file
        self._history = history
        self._screen = setup.screen
        self._signals = setup.signals
        self._clock = clock
        self._logs = parts.open_task_logs(config, history, clock)
        self._workers = PoolWorkers(
            parts.find_profiles(config),
            logs=setup.screen.add_live_output(self._logs),
            open_cluster=parts.build_cluster_opener(config, lambda: setup.signals.number),
        )
        self._jobserver = parts.build_jobserver(config)
        self._feedback = parts.build_feedback(config, clock)
        self._config_at_start = self._config_as_read = setup.config_as_read
        self._planner = Planner(request, config, setup.lane, history, self._load_past_runs, say)
        self._watch = self._start_to_watch(request) if request.watch else None
        plan = self._planner.prepare()
        _import_before_calls(plan, reloads=request.every_seconds is not None)
        self._serve_link = ServeLink(request, config, clock, say)
        self._serve_link.register(plan)
        if self._serve_link.serves_page:
            # Without a port this process has nothing to serve after its lane.
            once = request.every_seconds is None and not request.watch
            request = replace(request, once=once, linger_seconds=None)
        self._request = request
        self._control_state = parts.build_control_state(config, plan, self._feedback)
        self._sinks = parts.build_sinks(request, config, plan)
        protection = parts.build_protection(request, config)
        self._reports = parts.build_reports(request, config, setup.screen, self._sinks)
        self._live = LiveData(
            workers=self._workers,
            control_state=self._control_state,
            history=history,
            sinks=self._sinks,
            protection=protection,
            file=setup.file,
        )
        self._metrics = self._make_metrics(plan)
        self._observers = self._live.observers = Observers(self._list_observers())
        self._runner = LaneRunner(
            setup,
            plan,
            history=history,
            workers=self._workers,
            control_state=self._control_state,
            observers=self._observers,
            live=self._live,
            serve_link=self._serve_link,
            jobserver=self._jobserver,
        )
        self._exit_codes = ExitCodes(
            request, config, history=history, live=self._live, signals=setup.signals, screen=setup.screen
        )
        self._final_since_seconds = math.inf  # pages that were rendered later have the final values
        self._server = parts.start_endpoint(
            request, config, self._metrics, protection, say, self._serve_link.link, on_fetched=self._note_scrape
        )
        if self._serve_link.link is not None:
            self._serve_link.link.collect = self._collect_series
        self._order_socket = parts.open_order_socket(config, plan, self._control_state)

    def serve(self) -> int:
        """Run and serve until the end; return the exit code."""
        self._start_feedback()
        for note in self._planner.config.notes:
            self._screen.inform(note)
        if self._serve_link.serves_page:
            if self._server.url:
                self._screen.inform(f"metrics at {self._server.url}, by `paropt-exporter serve`")
        elif not self._request.once:
            self._screen.inform(f"metrics at {self._server.url}")
        code = self._repeat() if self._watch is None else self._serve_watch(self._watch)
        return wait_for_readers(code, self._screen, self._signals)

    def close(self) -> None:
        """Close the endpoint and the pools."""
        self._serve_link.close()
        if self._order_socket is not None:
            self._order_socket.close()
        if self._feedback is not None:
            self._feedback.close()
        self._server.close()
        self._workers.close()
        if self._jobserver is not None:
            self._jobserver.close()
        self._runner.close()

    def _start_feedback(self) -> None:
        if self._feedback is None:
            return
        from paropt_exporter.autoscaling.bounds_controller import LaneReadings  # here: few lanes have feedback

        self._feedback.start_controller(
            self._control_state,
            lane=LaneReadings(
                pools=self._workers.statistics, size=self._live.get_run_size, cores=self._runner.read_cores
            ),
            emit=self._observers.emit,
        )

    # When the lane runs

    def _repeat(self) -> int:
        """Run the lane once, or at its interval until a signal. Return the last run's exit code."""
        output = None if self._request.once else parts.open_redirected_output()
        began = self._clock.monotonic()
        _, code = self._run_once(self._planner.take())
        while True:
            if self._signals.interrupted_run:
                return code
            if self._request.once:
                self._wait_for_scrape()
                return code
            if self._wait_for_start(began):
                return code
            if output is not None:
                output.follow()
            self._file.reload_if_changed(self._apply_config, self._screen.say)
            began = self._clock.monotonic()
            code = self._run_again(code)

    def _run_again(self, code: int) -> int:
        """Run the lane once more. Return the exit code: that of the last run, `code`, if this one can't begin."""
        try:
            plan = self._planner.take()
            if plan.workers != self._control_state.config_bounds:  # this process may use other cores than before
                self._apply_config(self._config_as_read)
            return self._run_once(plan)[1]
        except ParoptError as error:
            if isinstance(error, NothingFailed | Interrupted):
                raise
            self._screen.say(f"this run is skipped: {error}")
            return code

    def _wait_for_scrape(self) -> None:
        """Serve until a scrape has the final values, a signal arrives, or the time is over."""
        if self._request.linger_seconds:
            self._final_since_seconds = self._clock.monotonic()
            self._signals.wait(self._request.linger_seconds)

    def _note_scrape(self, rendered_seconds: float) -> None:
        if rendered_seconds >= self._final_since_seconds:
            self._signals.wake()

    def _wait_for_start(self, began: float) -> bool:
        """Wait for the next start, and reload the config on SIGHUP. Return whether a signal ends the exporter."""
        while True:
            if self._signals.wait(self._compute_pause(began)):
                return True
            if not self._signals.take_reload():
                return False
            self._file.reload_if_changed(self._apply_config, self._screen.say, asked=True)

    def _compute_pause(self, began: float) -> float | None:
        """Return the seconds until the next start, or None to serve until a signal."""
        every = self._request.every_seconds
        return None if every is None else max(0.0, began + every - self._clock.monotonic())

    def _start_to_watch(self, request: Request) -> LaneWatch:
        """Note the inputs as they are now, before the plan: a file that appears later starts another run."""
        from paropt_exporter.app.watching import LaneWatch  # here: only --watch needs it

        return LaneWatch(
            self._planner.config,
            self._lane,
            request.options.selection,
            interrupt=self._wind_down,
            wake=self._signals.wake,
            say=self._screen.say,
            own_files=parts.find_own_files(request, self._planner.config, self._lane),
        )

    def _serve_watch(self, watch: LaneWatch) -> int:
        """Run the lane, and stages of it again when their inputs change, until a signal or the key q."""
        from paropt_exporter.app.file_events import FileEvents  # here: as above
        from paropt_exporter.app.keys import Keys, has_keys

        with ExitStack() as stack:
            folder, say = str(self._planner.config.root), self._screen.say
            stack.enter_context(FileEvents(folder, watch.is_quiet, watch.look, say, is_pending=watch.waits_for_git))
            keys = has_keys()
            if keys:
                stack.enter_context(Keys(watch.press))
            return self._repeat_on_changes(watch, " · r runs all, f what failed, q quits" if keys else "")

    def _repeat_on_changes(self, watch: LaneWatch, keys: str) -> int:
        code, plan, is_first = 0, self._planner.take(), True
        while True:
            watch.begin_run(stage.name for stage in plan.stages)
            record, code = self._run_once(plan, shows_url=is_first)
            is_first = False
            watch.end_run(record)
            if self._signals.interrupted_run:
                return code
            says_state = True
            while (pause := watch.compute_pause()) or (chosen := self._plan_next(watch)) is None:
                if says_state and not pause:
                    self._screen.say(watch.describe() + keys)
                    says_state = False
                if watch.quits or self._signals.wait(pause or None):
                    return code or (EXIT_FAILED if watch.has_failures else 0)
            if changes := watch.describe_changes():
                self._screen.inform(changes)
            plan = chosen

    def _plan_next(self, watch: LaneWatch) -> Plan | None:
        """Return the plan of the stages to run now, of a changed config if there is one; None if nothing is to run."""
        chosen = () if watch.quits else watch.choose_next()
        if chosen:
            reloads, watch.reloads, before = watch.reloads, False, self._planner.config
            self._file.reload_if_changed(self._apply_config, self._screen.say)  # or one that waits for the history
            if self._planner.config is not before:
                watch.reconfigure(self._planner.config)
            elif reloads:  # refused
                watch.ignore_config_change()
            chosen = watch.choose_next()
        try:
            return self._planner.plan(chosen) if chosen else None
        except HistoryError as error:
            self._screen.say(f"{error}: the next change starts another try")
            return None

    def _wind_down(self, stale: frozenset[str], reason: str) -> None:
        run = self._live.run
        if run is not None:
            run.wind_down(stale, reason)

    # A run

    def _run_once(self, planned: Plan, *, shows_url: bool = True) -> tuple[RunRecord, int]:
        """Run a plan, and export its end. Return its record and the exit code.

        `shows_url`: whether the summary has the address of the metrics, if they are served after the run.
        """
        if not self._request.once:
            self._serve_link.register_late(planned, self._collect_series)
        if self._order_socket is not None and not self._order_socket.is_in_place:
            self._open_order_socket(self._planner.config, planned)
        plan = share_jobserver(self._planner.set_start_size(planned, self._control_state), self._jobserver)
        plan = plan if self._reports is None else self._reports.begin(plan)
        record = self._runner.run(plan)
        self._screen.end_run(
            record,
            metrics_url=self._server.url if shows_url and self._keeps_serving else "",
            until=self._serves_until,
            keeps_output=self._logs is not None,
        )
        self._runner.store_tree_state(plan, record)
        missed = self._sinks.deliver(self._render_final_page, self._count_ended_runs)
        return record, self._exit_codes.choose(record, missed, self._write_reports(record))

    def _render_final_page(self) -> bytes:
        try:
            totals = self._history.load_totals()
            # If the file lacks events of this process, its last values may be those of the run before.
            last = None if self._history.dropped else self._history.load_last_values()
        except HistoryError as error:
            self._screen.say(str(error))
            return self._metrics.render_final_page()
        return self._metrics.render_final_page(totals, last)

    def _count_ended_runs(self) -> float:
        with suppress(HistoryError):
            return self._history.count_ended_runs()
        return 0.0

    def _write_reports(self, record: RunRecord) -> tuple[str, ...]:
        """Write the reports. Return the files that could not be written, each with the reason."""
        if self._reports is None:
            return ()
        path = self._logs.path(record.run_id) if self._logs is not None else None
        return self._reports.write(record, log_path=path)

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

    # The parts and the config

    def _apply_config(self, read: configs.Config) -> None:
        """Continue with the lanes and stages of a changed config.

        Raises UsageError if the lane can't run with it, or HistoryError, and then changes nothing.
        """
        totals, last = self._history.load_totals(), self._history.load_last_values()
        shape, config = self._planner.change(read), self._planner.config
        before, self._config_as_read = self._config_as_read, read
        if changed := [
            name
            for name in _FIXED_SECTIONS
            if getattr(read, name) not in (getattr(before, name), getattr(self._config_at_start, name))
        ]:
            self._screen.say(f"{', '.join(changed)}: changed too, but takes effect only when the exporter is restarted")
        _import_before_calls(shape, reloads=True)
        self._control_state.reconfigure(shape.workers, get_pool_names(shape))
        self._open_order_socket(config, shape)
        self._metrics.reconfigure(
            lanes=(parts.build_lane_labels(self._request, config, shape),),
            bounds=parts.get_bounds(shape),
            totals=totals,
            last=last,
        )
        self._serve_link.reconfigure(config, shape)

    def _open_order_socket(self, config: configs.Config, plan: Plan) -> None:
        if self._order_socket is not None:
            self._order_socket.close()
        self._order_socket = parts.open_order_socket(config, plan, self._control_state)

    def _load_past_runs(self) -> PastRuns | None:
        return self._feedback.load_past_runs(self._lane) if self._feedback is not None else None

    def _list_observers(self) -> dict[str, Observer]:
        """Return the observers in the order in which they receive events."""
        observers: dict[str, Observer] = {HISTORY: self._history, "metrics": self._metrics}
        if self._logs is not None:
            observers["logs"] = self._logs
        if self._reports is not None:
            observers["reports"] = self._reports
        return {**observers, "screen": self._screen}

    def _make_metrics(self, plan: Plan) -> Metrics:
        config = self._planner.config
        return Metrics(
            project=plan.project,
            lanes=(parts.build_lane_labels(self._request, config, plan),),
            read_snapshot=self._live.read_snapshot,
            on_cpu_shown=self._live.save_shown_cpu if self._serve_link.link is None else None,
            bounds=parts.get_bounds(plan),
            totals=self._history.load_totals(),
            last=self._history.load_last_values(),
            process_metrics=parts.exports_process_metrics(self._request, config),
            serves_on=not self._request.once,
        )

    def _collect_series(self) -> Mapping[tuple[str, tuple[str, ...]], float | HistogramTotal]:
        return self._live.collect_series(self._metrics)
