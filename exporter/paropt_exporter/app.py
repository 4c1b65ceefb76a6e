"""Put the parts together and run a lane: config -> plan -> engine -> pools, watched by history, metrics and screen."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paropt_exporter import config as configs
from paropt_exporter import host
from paropt_exporter import plan as plans
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.config.lanes import select
from paropt_exporter.control import InnerLoop, Order, Standing
from paropt_exporter.control.orders import OrderSocket, open_orders
from paropt_exporter.engine import Observer, Observers, PoolWorkers, QueueInbox, Run, pools_of
from paropt_exporter.errors import UsageError
from paropt_exporter.exposition import address, deliveries, textfile
from paropt_exporter.exposition.deliveries import Deliveries
from paropt_exporter.exposition.protection import Open, Protected, ProtectionFile
from paropt_exporter.exposition.server import Server, serve
from paropt_exporter.history import History, Interrupted
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels
from paropt_exporter.plan import Bounds, Plan
from paropt_exporter.pool.adaptive.memory import MEMORY_NAME
from paropt_exporter.records import LiveStage, QueryCounts, Result, RunRecord, Strategy
from paropt_exporter.signals import Signals

if TYPE_CHECKING:
    from paropt_exporter.control import Feedback
    from paropt_exporter.control.jobserver import Jobserver

log = logging.getLogger(__name__)

AUTO_LANE = "auto"
NOTHING_TO_RUN = "lane {lane} has no stage to run: write stages into paropt.yml (paropt-exporter init makes one)"
EXIT_FAILED, EXIT_UNWRITTEN, EXIT_CRITICAL, EXIT_SIGNAL_BASE = 1, 3, 4, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asks for; None: as the config says. `root` is where a project without a config lives."""

    config_path: Path | None
    root: Path
    lane: str
    once: bool
    every_seconds: float | None = None
    linger_seconds: float | None = None
    failed_only: bool = False
    fail_fast: bool | None = None
    strategy: Strategy | None = None
    workers: Bounds | None = None
    addresses: tuple[str, ...] = ()
    telemetry_path: str | None = None
    max_requests: int | None = None
    exporter_metrics: bool | None = None
    web_config: Path | None = None
    systemd_socket: bool = False
    push_url: str | None = None
    push_fail: bool = False
    push_instance: str | None = None
    textfile: Path | None = None


class Screen(Observer, Protocol):
    """Where a person watches: an observer that is also told what no record says."""

    @property
    def fault(self) -> str | None:
        """Why a summary could not be written, if one couldn't."""

    def say(self, sentence: str) -> None:
        """Show one line."""

    def begin(self, plan: Plan, live: Callable[[], tuple[LiveStage, ...]]) -> None:
        """A run is about to start; `live` tells how its stages stand."""

    def end(self, record: RunRecord, *, metrics_url: str) -> None:
        """Show the summary of a run that has ended."""


def run_lane(request: Request, screen: Screen, clock: Clock | None = None) -> int:
    """Run the lane, serve its metrics, and return the exit code; blocks until the end or a signal.

    Raises `ConfigError` and `UsageError` before anything runs.
    """
    clock = clock or SystemClock()
    config = configs.read(request.config_path, root=request.root)
    lane = _lane(request, config.root, screen)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        history = stack.enter_context(closing(_open_history(config, clock)))
        for interrupted in history.recover():
            screen.say(_told(interrupted))
        exporter = Exporter(request, config, lane, history=history, screen=screen, signals=signals, clock=clock)
        stack.callback(exporter.close)
        return exporter.serve()


def _open_history(config: configs.Config, clock: Clock) -> History:
    keep = config.history.keep
    return History(
        config.history_path,
        project=config.project,
        clock=clock,
        keep_runs=keep.runs,
        keep_seconds=keep.age,
    )


def _lane(request: Request, root: Path, screen: Screen) -> str:
    if request.lane != AUTO_LANE:
        return request.lane
    lane, why = select(root)
    screen.say(f"lane {lane}: {why}")
    return lane


def _told(interrupted: Interrupted) -> str:
    began = datetime.fromtimestamp(interrupted.started_timestamp_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    stages = ", ".join(interrupted.running) or "no stage"
    return f"the run of {interrupted.lane} begun {began} was interrupted: {stages} running (again: --failed)"


class WatchedPage:
    """The metrics page, which can tell when somebody has scraped it.

    The scrape that tells began after `wake_at_next_scrape` was set, so it has what was exposed before.
    """

    def __init__(self, metrics: Metrics, wake: Callable[[], None]) -> None:
        self.wake_at_next_scrape = False
        self._metrics = metrics
        self._wake = wake

    def render(self, accept: str) -> tuple[bytes, str]:
        final = self.wake_at_next_scrape
        page = self._metrics.render(accept)
        if final:
            self._wake()
        return page


class Exporter:
    """One process that runs one lane, once or again and again, and exports it.

    ```
    serve: bind -> run -> (once: end) | wait for the next start or a signal -> run ...
    ```
    Guarantees: the endpoint answers from before the first task until the end; runs never overlap; history has an event
    before the endpoint shows it.
    """

    def __init__(
        self,
        request: Request,
        config: configs.Config,
        lane: str,
        *,
        history: History,
        screen: Screen,
        signals: Signals,
        clock: Clock,
    ) -> None:
        self._request = request
        self._config = config
        self._lane = lane
        self._history = history
        self._screen = screen
        self._signals = signals
        self._clock = clock
        self._workers = PoolWorkers(config.history_path.with_name(MEMORY_NAME))
        self._jobserver = self._make_jobserver()
        self._run: Run | None = None
        self._feedback = self._make_feedback()
        self._past = self._feedback.past(lane) if self._feedback is not None else None
        plan = self._plan()
        self._standing = self._make_standing(plan)
        self._deliveries = self._make_deliveries(plan)
        self._metrics = self._make_metrics(plan)
        self._observers = Observers({"history": history, "metrics": self._metrics, "screen": screen})
        self._page = WatchedPage(self._metrics, signals.wake)
        self._server = self._bind()
        self._orders = self._take_orders(plan)

    def serve(self) -> int:
        """Run and serve until the end; return the exit code."""
        if self._feedback is not None:
            self._feedback.steer(
                self._standing,
                pools=self._workers.statistics,
                size=self._running_size,
                cores=host.cpus,
                emit=self._observers.emit,
            )
        if not self._request.once:
            self._screen.say(f"metrics at {self._url}")
        while True:
            began = self._clock.monotonic()
            code = self._run_once()
            if self._signals.interrupted_run:
                return self._interrupted_code()
            if self._request.once:
                self._linger()
                return code
            if self._signals.wait(self._pause(began)):
                return code

    def _linger(self) -> None:
        """Serve until a scrape has seen the final values, a signal, or the time given."""
        if self._request.linger_seconds:
            self._page.wake_at_next_scrape = True
            self._signals.wait(self._request.linger_seconds)

    def close(self) -> None:
        """End the endpoint and the pools."""
        if self._orders is not None:
            self._orders.close()
        if self._feedback is not None:
            self._feedback.close()
        self._server.close()
        self._workers.close()
        if self._jobserver is not None:
            self._jobserver.close()

    def _run_once(self) -> int:
        plan = self._sharing(self._started(self._plan()))
        for note in plan.notes:
            self._screen.say(note)
        run = self._make_run(plan)
        self._workers.prepare(plan, run.size)
        self._screen.begin(plan, run.live)
        self._run = run
        self._signals.during(run)
        with ExitStack() as stack:
            if self._jobserver is not None:
                stack.callback(self._jobserver.reset)
            if plan.strategy is not Strategy.SEQUENTIAL:
                stack.enter_context(self._control(run, plan))
            record = run.execute()
        self._signals.during(None)
        self._run = None
        self._workers.rest(plan.workers.minimum)
        self._screen.end(record, metrics_url=self._url if self._serves_on else "")
        missed = self._deliveries.deliver(self._metrics.outlasting)
        return self._code(record, missed)

    def _plan(self) -> Plan:
        request = self._request
        only = self._history.failed_stages(self._lane) if request.failed_only else None
        if request.failed_only and not only:
            known = "no run of it is known" if only is None else "every stage of its last run succeeded"
            raise UsageError(f"--failed: nothing to run again in lane {self._lane}: {known}")
        plan = plans.build(
            self._config,
            self._lane,
            expected=self._expected(),
            expected_tasks=self._history.task_seconds(self._lane),
            only=only,
            strategy=request.strategy,
            workers=request.workers,
            fail_fast=request.fail_fast,
        )
        if not plan.stages:
            raise UsageError("\n".join([*plan.notes, NOTHING_TO_RUN.format(lane=self._lane)]))
        return plan

    def _started(self, plan: Plan) -> Plan:
        """Let the lane begin with the size that query results, a person's order or its own past say."""
        if plan.strategy is Strategy.SEQUENTIAL:
            return plan
        configured = self._config.lanes[plan.lane].workers.start is not None or self._request.workers is not None
        past = None if configured else self._past_size(plan)
        start = self._standing.start_size(plan.workers.start if past is None else past)
        return replace(plan, workers=replace(plan.workers, start=start))

    def _sharing(self, plan: Plan) -> Plan:
        """Make the lane's commands clients of the jobserver, if there is one; what a stage's own `env` says stays."""
        if self._jobserver is None or plan.strategy is Strategy.SEQUENTIAL:
            return plan
        ours = self._jobserver.environment(os.environ, plan.workers.maximum)
        return replace(plan, stages=tuple(replace(stage, env={**ours, **stage.env}) for stage in plan.stages))

    def _make_jobserver(self) -> Jobserver | None:
        if not self._config.feedback.jobserver:
            return None
        from paropt_exporter.control.jobserver import Jobserver, require_make  # here: hardly a lane needs it

        require_make(os.environ)
        return Jobserver()

    def _past_size(self, plan: Plan) -> int | None:
        """Return the size that earlier runs of the lane could use; None: nothing is known."""
        known = self._past.sizes if self._past is not None else {}
        sizes = [known[pool] for pool in pools_of(plan) if pool in known]
        return round(max(sizes)) if sizes else self._history.usual_size(plan.lane)

    def _expected(self) -> Mapping[str, float]:
        """Return known durations of stages: what Prometheus knows of all hosts' week beats what this one remembers."""
        own = self._history.expected(self._lane)
        return {**own, **self._past.durations} if self._past is not None else own

    def _make_feedback(self) -> Feedback | None:
        feedback = self._config.feedback
        if feedback.prometheus is None or feedback.source == "local":
            return None
        from paropt_exporter.control import Feedback  # here: a lane without Prometheus must not wait for `requests`

        return Feedback(
            feedback, feedback.prometheus, project=self._config.project, root=self._config.root, clock=self._clock
        )

    def _running_size(self) -> int | None:
        run = self._run
        return None if run is None else run.size

    def _make_run(self, plan: Plan) -> Run:
        began = datetime.fromtimestamp(self._clock.wall(), UTC)
        return Run(
            plan,
            run_id=f"{began:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}",
            workers=self._workers,
            emit=self._observers.emit,
            inbox=QueueInbox(self._clock),
            clock=self._clock,
            memory_bytes=host.memory_available_bytes(),
        )

    def _control(self, run: Run, plan: Plan) -> InnerLoop:
        return InnerLoop(
            run,
            self._workers,
            standing=self._standing,
            cores=host.cpus,
            memory_available_bytes=host.memory_available_bytes,
            emit=self._observers.emit,
            clock=self._clock,
            run_id=run.run_id,
            known_shares=self._history.cpu_shares(plan.lane),
            objective=self._config.feedback.objective,
            offer=self._jobserver.offer if self._jobserver is not None else None,
        )

    def _make_standing(self, plan: Plan) -> Standing:
        feedback = self._config.feedback
        source = feedback.source or ("both" if feedback.prometheus is not None else "local")
        return Standing(
            plan.workers,
            pools_of(plan),
            source=source,
            order=Order(mode=feedback.mode),
            queries=self._feedback.counts if self._feedback is not None else QueryCounts,
        )

    def _take_orders(self, plan: Plan) -> OrderSocket | None:
        sequential = plan.strategy is Strategy.SEQUENTIAL
        unsteerable = f"lane {plan.lane} runs one task after another: strategy sequential has no size"
        return open_orders(
            self._config.root, self._standing, lane=plan.lane, unsteerable=unsteerable if sequential else ""
        )

    def _make_metrics(self, plan: Plan) -> Metrics:
        stages = tuple(
            StageLabels(name=stage.name, number=stage.number, pool=stage.pool, sla=stage.sla) for stage in plan.stages
        )
        lane = LaneLabels(lane=plan.lane, stages=stages, total=plan.total, interval_seconds=self._request.every_seconds)
        bounds = dict.fromkeys(pools_of(plan), (plan.workers.minimum, plan.workers.maximum))
        return Metrics(
            project=plan.project,
            lanes=(lane,),
            pools=self._workers.statistics,
            bounds=bounds,
            live=self._live,
            backlog=self._backlog,
            dropped=self._dropped,
            control=self._standing.view,
            deliveries=self._deliveries.counts,
            totals=self._history.totals(),
            last=self._history.last(),
            process_metrics=self._exporter_metrics,
            serves_on=not self._request.once,
        )

    def _make_deliveries(self, plan: Plan) -> Deliveries:
        request, settings = self._request, self._config.push
        targets: dict[str, deliveries.Deliver] = {}
        if request.textfile is not None:
            path = textfile.path_for(request.textfile, project=plan.project, lane=plan.lane)
            targets[deliveries.TEXTFILE] = partial(textfile.write, path)
        if (url := request.push_url or settings.url) is not None:
            targets[deliveries.PUSHGATEWAY] = deliveries.pusher(
                settings,
                url=url,
                instance=request.push_instance,
                project=plan.project,
                lane=plan.lane,
                root=self._config.root,
            )
        elif request.push_fail:
            raise UsageError("--push.fail: nothing is pushed: give --push.url too")
        return Deliveries(targets)

    @property
    def _exporter_metrics(self) -> bool:
        asked = self._request.exporter_metrics
        return not self._config.web.disable_exporter_metrics if asked is None else asked

    def _bind(self) -> Server:
        request, web = self._request, self._config.web
        return serve(
            request.addresses or web.listen_address,
            self._page,
            telemetry_path=request.telemetry_path or web.telemetry_path,
            max_requests=request.max_requests or web.max_requests or sys.maxsize,
            say=self._screen.say,
            protected=self._protected(),
            listeners=address.inherited(os.environ) if request.systemd_socket else None,
        )

    def _protected(self) -> Protected:
        named = self._config.web.config_file
        path = self._request.web_config or (self._config.root / named if named is not None else None)
        return ProtectionFile(path) if path is not None else Open()

    @property
    def _serves_on(self) -> bool:
        """Say whether the endpoint answers after this run: an address that is gone is no address."""
        lingers = not self._request.once or bool(self._request.linger_seconds)
        return lingers and not self._signals.interrupted_run

    @property
    def _url(self) -> str:
        return self._server.url

    def _live(self) -> tuple[LiveStage, ...]:
        run = self._run
        return run.live() if run is not None else ()

    def _backlog(self) -> Mapping[str, tuple[int, float]]:
        run = self._run
        return run.backlog() if run is not None else {}

    def _dropped(self) -> Mapping[str, int]:
        return self._observers.dropped()

    def _pause(self, began: float) -> float | None:
        """Return how long to wait for the next start; None: there is none, serve until a signal."""
        every = self._request.every_seconds
        return None if every is None else max(0.0, began + every - self._clock.monotonic())

    def _code(self, record: RunRecord, missed: frozenset[str]) -> int:
        if self._history.broken or self._observers.dropped()["history"] or self._screen.fault:
            return EXIT_UNWRITTEN
        if deliveries.PUSHGATEWAY in missed and (self._request.push_fail or self._config.push.fail):
            return EXIT_UNWRITTEN
        if record.critical_sla:
            return EXIT_CRITICAL
        return 0 if record.result is Result.SUCCESS else EXIT_FAILED

    def _interrupted_code(self) -> int:
        return EXIT_SIGNAL_BASE + (self._signals.number or 0)
