"""Watch the time of a run: timeouts and stops of attempts, and limits of stages and of the lane."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from paropt_exporter.clock import Clock
from paropt_exporter.engine.attempt import Attempt
from paropt_exporter.engine.inbox import Timers
from paropt_exporter.engine.stage import StageState
from paropt_exporter.events import Result, SlaRecord
from paropt_exporter.sla import Watch

TERM_GRACE_SECONDS = 10.0  # between TERM and KILL, as the command's documentation promises
GIVE_UP_SECONDS = 7.0  # after KILL; the supervisor itself gives up after 5 s, and reports it
_LATE_SECONDS = 1.0  # by so much a timer fires late only if this process did not run


class AttemptEnds:
    """Ends attempts by timers.

    ```
    running --timeout, or stop--> TERM --after the grace--> KILL --GIVE_UP_SECONDS--> given up: the run goes on
    ```
    After a pause of this process, an attempt has GIVE_UP_SECONDS once more to end. Each timer checks whether its moment
    has really come, since an attempt's start is known only once it was measured.
    """

    def __init__(self, clock: Clock, timers: Timers) -> None:
        self._clock = clock
        self._timers = timers

    def begin(self, attempt: Attempt) -> None:
        """Stop an attempt at the timeout of its stage, if that has one."""
        if (limit := attempt.stage.plan.timeout_seconds) is not None:
            self._schedule_timeout(attempt, attempt.submitted_seconds + limit)

    def stop(self, attempt: Attempt, grace_seconds: float) -> None:
        """Send TERM now and KILL after the grace, unless the attempt has ended."""
        if attempt.outcome is not None:
            return
        attempt.running.stop(grace_seconds)
        self._schedule_giving_up(attempt, self._clock.monotonic() + grace_seconds + GIVE_UP_SECONDS)

    def _schedule_giving_up(self, attempt: Attempt, moment: float) -> None:
        self._timers.schedule(moment, lambda: self._give_up(attempt, moment))

    def _give_up(self, attempt: Attempt, moment: float) -> None:
        if attempt.outcome is not None:
            return
        now = self._clock.monotonic()
        if now > moment + _LATE_SECONDS:  # perhaps the whole container was frozen, and the supervisor with it
            self._schedule_giving_up(attempt, now + GIVE_UP_SECONDS)
        else:
            attempt.running.give_up()

    def _schedule_timeout(self, attempt: Attempt, moment: float) -> None:
        reference = weakref.ref(attempt)  # the timer may outlive the attempt by an hour, and must not keep its output
        self._timers.schedule(moment, lambda: self._check_timeout(reference()))

    def _check_timeout(self, attempt: Attempt | None) -> None:
        if attempt is None or attempt not in attempt.stage.attempts or attempt.verdict is not None:
            return
        limit, now = attempt.stage.plan.timeout_seconds, self._clock.monotonic()
        assert limit is not None
        waits = attempt.stage.plan.remote is not None and attempt.running.started_seconds is None
        started = now if waits else attempt.started_seconds  # a wait for a worker has the cluster's `start_timeout`
        if started + limit > now:
            self._schedule_timeout(attempt, started + limit)
            return
        attempt.set_verdict(Result.TIMEOUT, f"timed out after {limit:g} s")
        self.stop(attempt, TERM_GRACE_SECONDS)


class SlaWatches:
    """Watches the limits of a run by timers, and emits a record for each warning and each broken limit.

    `on_critical` is called with the stage, or None for the lane, whose critical limit is broken; it may be called
    several times for one limit.
    """

    def __init__(
        self,
        run_id: str,
        lane: str,
        *,
        clock: Clock,
        timers: Timers,
        emit: Callable[[SlaRecord], None],
        on_critical: Callable[[StageState | None, Watch], None],
    ) -> None:
        self.total: Watch | None = None  # of the lane
        self._run_id = run_id
        self._lane = lane
        self._clock = clock
        self._timers = timers
        self._emit = emit
        self._on_critical = on_critical

    @property
    def ends_seconds(self) -> float | None:
        """When the lane breaks its limit; None: it has none."""
        return None if self.total is None else self.total.started_seconds + self.total.limit.max_seconds

    def watch_lane(self, total: Watch) -> None:
        self.total = total
        self._timers.schedule(total.next_deadline, self._check_lane_again)

    def watch_stage(self, state: StageState, now: float) -> None:
        """Watch a stage that starts now, if it has a limit."""
        if state.plan.sla is not None:
            state.watch = Watch(state.plan.sla, now)
            self._timers.schedule(state.watch.next_deadline, lambda: self._check_stage(state))

    def check_end(self, state: StageState) -> None:
        """Check the whole duration of a stage whose tasks have ended."""
        if state.watch is not None:
            self._check(state.watch, state.name, state.last_ended_seconds, rebase=state.started_seconds)

    def check_lane(self, now: float) -> None:
        """Check the duration of the lane so far."""
        if self.total is not None:
            self._check(self.total, None, now)
            self.report_if_critical(None)

    def report_if_critical(self, state: StageState | None) -> None:
        """Call `on_critical` if the stage, or the lane (None), has broken a critical limit."""
        watch = self.total if state is None else state.watch
        if watch is not None and watch.broken and watch.limit.critical:
            self._on_critical(state, watch)

    def _check_stage(self, state: StageState) -> None:
        if state.ended or state.watch is None or state.awaits_keeping:  # `check_end` comes
            return
        first = min((attempt.started_seconds for attempt in state.attempts), default=None)
        rebase = first if first is not None and not state.attempts_ended else state.started_seconds
        self._check(state.watch, state.name, self._clock.monotonic(), rebase=rebase)
        self.report_if_critical(state)
        self._timers.schedule(state.watch.next_deadline, lambda: self._check_stage(state))

    def _check_lane_again(self) -> None:
        if self.total is not None:
            self.check_lane(self._clock.monotonic())
            self._timers.schedule(self.total.next_deadline, self._check_lane_again)

    def _check(self, watch: Watch, stage: str | None, now: float, *, rebase: float | None = None) -> None:
        """Emit the steps that are new. `rebase`: the stage's start, which is known only once a task was measured."""
        if rebase is not None:
            watch.started_seconds = rebase
        for broken in watch.check(now):
            self._emit(
                SlaRecord(
                    run_id=self._run_id,
                    lane=self._lane,
                    stage=stage,
                    limit=watch.limit,
                    broken=broken,
                    elapsed_seconds=now - watch.started_seconds,
                    at_timestamp_seconds=self._clock.wall(),
                )
            )
