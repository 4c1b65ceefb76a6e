"""Run the plans of a lane one after another, each with a controller, observers and the cache."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec import Struct

from paropt_exporter import host
from paropt_exporter.app import parts
from paropt_exporter.app.config_file import ConfigFile
from paropt_exporter.app.live_data import LiveData
from paropt_exporter.app.planning import collect_memory_peaks
from paropt_exporter.app.request import Request, Screen
from paropt_exporter.app.serve_link import ServeLink
from paropt_exporter.autoscaling.control_thread import ControlThread
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.state import DEADLINE, PROMETHEUS, ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.config import Config
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.observers import Observers
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.events import RunRecord, Strategy
from paropt_exporter.history import History
from paropt_exporter.plan import Plan
from paropt_exporter.signals import Signals

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.controller import Controller
    from paropt_exporter.autoscaling.jobserver import Jobserver
    from paropt_exporter.cache.stage_cache import StageCache


class LaneSetup(Struct, frozen=True, kw_only=True):
    """What the exporter of a lane starts with.

    `config` has the host's settings applied, `config_as_read` has not. `file` tells when the config was changed.
    """

    request: Request
    lane: str
    config: Config
    config_as_read: Config
    host: HostConfig
    file: ConfigFile
    screen: Screen
    signals: Signals
    clock: Clock


class LaneRunner:
    """Runs plans; runs never overlap. It owns the cache, and the cores that the current plan may use."""

    def __init__(
        self,
        setup: LaneSetup,
        first: Plan,
        *,
        history: History,
        workers: PoolWorkers,
        control_state: ControlState,
        observers: Observers,
        live: LiveData,
        serve_link: ServeLink,
        jobserver: Jobserver | None,
    ) -> None:
        """`first`: the plan of the first run. `live` gets each run while it goes on."""
        self._setup = setup
        self._config = setup.config  # a reload changes nothing that is read here
        self._history = history
        self._workers = workers
        self._control_state = control_state
        self._observers = observers
        self._live = live
        self._serve_link = serve_link
        self._jobserver = jobserver
        self._cache: StageCache | None = None
        self._readings = self._build_readings(first)

    def run(self, plan: Plan) -> RunRecord:
        """Run a plan to its end, or until a signal ends it. A ParoptError means that the run has not begun."""
        cache = self._open_cache(plan)
        run = self._make_run(plan, cache)
        control = None if plan.strategy is Strategy.SEQUENTIAL else self._make_control_thread(run, plan)
        self._workers.prepare(plan, run.size, allocates_cores=self._control_state.allocates_cores)
        if cache is not None:
            cache.begin_run()
        self._setup.screen.begin_run(plan, run.snapshot_stages)
        self._live.run = run
        self._setup.signals.send_to(run)
        with ExitStack() as stack:
            if self._serve_link.link is not None:
                self._serve_link.link.begin_run(run)
                stack.callback(self._serve_link.link.end_run)
            if self._jobserver is not None:
                stack.callback(self._jobserver.reset)
            if cache is not None:
                stack.callback(cache.end_run)
            if control is not None:
                stack.enter_context(control)
            record = run.execute()
        self._setup.signals.send_to(None)
        self._live.run = None
        self._workers.release_workers(plan.workers.minimum)
        return record

    def store_tree_state(self, plan: Plan, record: RunRecord) -> None:
        """Store the files' state after a failure, unless one has changed since the run began.

        A later success in the same state proves the failure flaky. Good runs cost nothing, since it looks after
        failures only.
        """
        if plan.tree_state or not any(stage.result.bad for stage in record.stages):
            return
        from paropt_exporter import git

        began = record.started_timestamp_seconds
        state = git.identify_tree_state(self._config.root, unchanged_since_seconds=began)
        self._history.store_tree_state(record.run_id, state)

    def read_cores(self) -> float:
        """Return the cores for the present or the last plan, which may change between two runs."""
        return self._readings.cores()

    def close(self) -> None:
        """Close the cache."""
        if self._cache is not None:
            self._cache.close()

    def _open_cache(self, plan: Plan) -> StageCache | None:
        """Return the cache, or None if no stage asks for one. Raises UsageError for a wrong setting of it."""
        if not any(stage.cached for stage in plan.stages):
            return None
        if self._cache is None:
            setup = self._setup
            self._cache = parts.build_cache(
                setup.request, self._config, setup.lane, setup.host, setup.clock, setup.screen.say
            )
        return self._cache

    def _make_run(self, plan: Plan, cache: StageCache | None) -> Run:
        clock = self._setup.clock
        feedback = self._config.feedback
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(clock.wall()))
        return Run(
            plan,
            run_id=f"{began}-{os.urandom(3).hex()}",
            workers=self._workers,
            emit=self._observers.hold,
            flush=self._observers.flush,
            inbox=QueueInbox(clock),
            clock=clock,
            memory_bytes=host.read_available_memory_bytes(),
            cores=float(plan.workers.maximum) if parts.runs_elsewhere(self._config, plan) else None,
            sums_work=feedback.objective == DEADLINE or feedback.source == PROMETHEUS,
            on_stopping=self._setup.screen.show_stopping,
            cache=cache,
            link=self._serve_link.link,
        )

    def _make_control_thread(self, run: Run, plan: Plan) -> ControlThread:
        self._readings = self._build_readings(plan)
        cpu_demands = self._history.load_cpu_demands(plan.lane)
        peak_bytes = collect_memory_peaks(plan, self._history.load_memory_peaks(plan.lane))

        def make_controller() -> Controller:
            from paropt_exporter.autoscaling.controller import Controller  # here: the first tasks don't wait for it
            from paropt_exporter.autoscaling.lane_observer import KnownStages

            return Controller(
                run,
                self._workers,
                control_state=self._control_state,
                host=self._readings,
                emit=self._observers.emit,
                clock=self._setup.clock,
                known=KnownStages(cpu_demands=cpu_demands, peak_bytes=peak_bytes),
                objective=self._config.feedback.objective,
                offer=self._jobserver.offer if self._jobserver is not None else None,
            )

        return ControlThread(
            run,
            self._workers,
            make_controller,
            control_state=self._control_state,
            host=self._readings,
            cpu_demands=cpu_demands,
            peak_bytes=peak_bytes,
        )

    def _build_readings(self, plan: Plan) -> HostReadings:
        return parts.build_host_readings(self._config, plan, self._setup.clock, self._serve_link.link)
