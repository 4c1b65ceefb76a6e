"""Run a lane: config -> plan -> engine -> pools, watched by history, metrics and screen."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from paropt_exporter import config as configs
from paropt_exporter import descriptors, host
from paropt_exporter import plan as plans
from paropt_exporter.app import parts
from paropt_exporter.app.planning import Planner, known_peaks, sharing
from paropt_exporter.app.request import Request, Screen
from paropt_exporter.autoscaling import Controller
from paropt_exporter.autoscaling.controller import DEADLINE
from paropt_exporter.autoscaling.recent import CORES_SECONDS, MEMORY_SECONDS, Recent
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.config.lanes import select
from paropt_exporter.engine import Observer, Observers, PoolWorkers, QueueInbox, Run, pools_of
from paropt_exporter.events import LiveStage, Result, RunRecord, Strategy
from paropt_exporter.executors import run_mark
from paropt_exporter.executors.adaptive.profiles import PROFILES_NAME
from paropt_exporter.executors.child_processes import format_names
from paropt_exporter.exposition import sinks
from paropt_exporter.history import History, Interrupted
from paropt_exporter.metrics import Metrics
from paropt_exporter.plan import PROCESSES, THREADS, Plan
from paropt_exporter.signals import Signals

AUTO_LANE = "auto"
_HISTORY = "history"  # the observer whose records must not be missing
READER_SECONDS = 2.0  # for the reader of a screen to go on, once the exporter has to end
EXIT_FAILED, EXIT_UNWRITTEN, EXIT_CRITICAL, EXIT_SIGNAL_BASE = 1, 3, 4, 128


def run_lane(request: Request, screen: Screen, clock: Clock | None = None) -> int:
    """Run the lane, serve its metrics, and return the exit code; blocks until the end or a signal.

    Raises `ConfigError` and `UsageError` before anything runs.
    """
    descriptors.raise_limit()
    clock = clock or SystemClock()
    config = configs.read(request.config_path, root=request.root)
    if request.enter_root:
        os.chdir(config.root)
    lane = _lane(request, config.root, screen)
    plans.choose(config, lane, request.selection, request.arguments)  # a misspelled stage must not leave a history
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        stack.enter_context(run_mark.set_run_mark(config.root, os.environ))
        history = stack.enter_context(closing(parts.history(config, clock)))
        for interrupted in history.recover():
            screen.say(_told(interrupted))
        if orphans := run_mark.end_orphans(config.root):
            screen.say(f"an exporter that was killed left processes behind: ended {format_names(orphans)}")
        exporter = Exporter(request, config, lane, history=history, screen=screen, signals=signals, clock=clock)
        stack.callback(exporter.close)
        return exporter.serve()


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

    def page(self, *, openmetrics: bool) -> bytes:
        final = self.wake_at_next_scrape
        page = self._metrics.page(openmetrics=openmetrics)
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
        self._logs = parts.task_logs(config, history, clock)
        self._workers = PoolWorkers(config.history_path.with_name(PROFILES_NAME), logs=self._logs)
        self._jobserver = parts.jobserver(config)
        self._run: Run | None = None
        self._missing_before = 0  # records that the history lacked when the last run had ended
        self._feedback = parts.feedback(config, clock)
        past = self._feedback.past(lane) if self._feedback is not None else None
        self._planner = Planner(request, config, lane, history, past, screen.say)
        plan = self._planner.plan()
        if {THREADS, PROCESSES} & set(pools_of(plan)):
            # Now, since the project's modules join the import path with its first call, and one may have the same name.
            import paropt_exporter.metrics.client  # noqa: F401
        self._next_plan: Plan | None = plan  # of the first run: an items command may take its work off a queue
        self._standing = parts.standing(config, plan, self._feedback)
        self._deliveries = parts.push_and_textfile(request, config, plan)
        self._protected = parts.protected(request, config)
        self._metrics = self._make_metrics(plan)
        self._observers = Observers(self._make_observers())
        self._page = WatchedPage(self._metrics, signals.wake)
        self._server = parts.endpoint(request, config, self._page, self._protected, screen.say)
        self._orders = parts.orders(config, plan, self._standing)

    def serve(self) -> int:
        """Run and serve until the end; return the exit code."""
        if self._feedback is not None:
            self._feedback.steer(
                self._standing,
                pools=self._workers.statistics,
                size=self._running_size,
                cores=host.count_cpus,
                emit=self._observers.emit,
            )
        for note in self._config.notes:
            self._screen.say(note)
        if not self._request.once:
            self._screen.say(f"metrics at {self._url}")
        while True:
            began = self._clock.monotonic()
            code = self._run_once()
            if self._signals.interrupted_run:
                return self._shown(code)
            if self._request.once:
                self._linger()
                return self._shown(code)
            if self._signals.wait(self._pause(began)):
                return self._shown(code)

    def _linger(self) -> None:
        """Serve until a scrape has seen the final values, a signal, or the time given."""
        if self._request.linger_seconds:
            self._page.wake_at_next_scrape = True
            self._signals.wait(self._request.linger_seconds)

    def _shown(self, code: int) -> int:
        """Wait for the readers of the summary, and return the exit code, which a lost summary changes.

        Without a signal they have all the time they want; after one as long as one of them goes on.
        """
        self._screen.when_shown(self._signals.wake)
        patience, written = (None if self._signals.number is None else READER_SECONDS), self._screen.written
        while not self._screen.is_shown:
            signalled = self._signals.wait(patience)
            stalled = written == self._screen.written
            if patience is not None and (signalled or stalled):
                break
            if signalled:
                patience = READER_SECONDS
            written = self._screen.written
        if self._screen.fault and not self._signals.interrupted_run and code != EXIT_UNWRITTEN:
            self._screen.say(f"exit code {EXIT_UNWRITTEN}: the summary could not be written")
            return EXIT_UNWRITTEN
        return code

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
        planned, self._next_plan = self._next_plan or self._planner.plan(), None
        plan = sharing(self._planner.started(planned, self._standing), self._jobserver)
        run = self._make_run(plan)
        self._workers.prepare(plan, run.size)
        self._screen.begin(plan, run.live)
        self._run = run
        self._signals.send_to(run)
        with ExitStack() as stack:
            if self._jobserver is not None:
                stack.callback(self._jobserver.reset)
            if plan.strategy is not Strategy.SEQUENTIAL:
                stack.enter_context(self._control(run, plan))
            record = run.execute()
        self._signals.send_to(None)
        self._run = None
        self._workers.rest(plan.workers.minimum)
        self._screen.end(record, metrics_url=self._url if self._serves_on else "")
        missed = self._deliveries.deliver(self._metrics.outlasting)
        return self._code(record, missed)

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
            memory_bytes=host.read_available_memory_bytes(),
            sums_work=self._config.feedback.objective == DEADLINE,
        )

    def _control(self, run: Run, plan: Plan) -> Controller:
        return Controller(
            run,
            self._workers,
            standing=self._standing,
            cores=Recent(host.count_cpus, CORES_SECONDS, self._clock),
            memory_available_bytes=Recent(host.read_available_memory_bytes, MEMORY_SECONDS, self._clock),
            emit=self._observers.emit,
            clock=self._clock,
            run_id=run.run_id,
            known_shares=self._history.cpu_shares(plan.lane),
            known_peaks=known_peaks(plan, self._history.memory_peaks(plan.lane)),
            objective=self._config.feedback.objective,
            offer=self._jobserver.offer if self._jobserver is not None else None,
        )

    def _make_observers(self) -> dict[str, Observer]:
        """Return the observers in the order in which they take an event."""
        observers: dict[str, Observer] = {_HISTORY: self._history, "metrics": self._metrics}
        if self._logs is not None:
            observers["logs"] = self._logs
        return {**observers, "screen": self._screen}

    def _make_metrics(self, plan: Plan) -> Metrics:
        return Metrics(
            project=plan.project,
            lanes=(parts.lane_labels(self._request, self._config, plan),),
            pools=self._workers.statistics,
            bounds=dict.fromkeys(pools_of(plan), (plan.workers.minimum, plan.workers.maximum)),
            live=self._live,
            backlog=self._backlog,
            dropped=self._dropped,
            control=self._standing.view,
            deliveries=self._deliveries.counts,
            reloads=self._protected.reloads,
            keep_shown=self._keep_shown,
            totals=self._history.totals(),
            last=self._history.last(),
            process_metrics=parts.exporter_metrics(self._request, self._config),
            serves_on=not self._request.once,
        )

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

    def _keep_shown(self, cpu_totals: Mapping[str, float]) -> None:
        run = self._run
        if run is not None:
            self._history.show(run.run_id, cpu_totals)

    def _backlog(self) -> Mapping[str, tuple[int, float]]:
        run = self._run
        return run.backlog() if run is not None else {}

    def _dropped(self) -> Mapping[str, int]:
        dropped = self._observers.dropped()
        return {**dropped, _HISTORY: dropped[_HISTORY] + self._history.dropped}

    def _pause(self, began: float) -> float | None:
        """Return how long to wait for the next start; None: there is none, serve until a signal."""
        every = self._request.every_seconds
        return None if every is None else max(0.0, began + every - self._clock.monotonic())

    def _code(self, record: RunRecord, missed: frozenset[str]) -> int:
        """Return the run's exit code, and say why where its summary could not know."""
        if self._signals.interrupted_run:
            return EXIT_SIGNAL_BASE + (self._signals.number or 0)
        missing = self._dropped()[_HISTORY]
        lost, self._missing_before = missing - self._missing_before, missing
        if unwritten := self._unwritten(missed, lost):
            self._screen.say(f"exit code {EXIT_UNWRITTEN}: {unwritten}")
            return EXIT_UNWRITTEN
        if record.critical_sla:
            return EXIT_CRITICAL
        return 0 if record.result is Result.SUCCESS else EXIT_FAILED

    def _unwritten(self, missed: frozenset[str], lost: int) -> str:
        """Say what of the run could not be written or handed on; "" if all was. `lost`: records of it."""
        if self._history.broken:
            return self._history.broken
        if lost:
            return "the history lacks records, and the log says why"
        if sinks.PUSHGATEWAY in missed and (self._request.push_fail or self._config.push.fail):
            return "the final values were not pushed, and --push.fail is given"
        return ""
