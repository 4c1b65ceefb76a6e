"""End attempts: at their timeout, or when the run stops them."""

from __future__ import annotations

import weakref

from paropt_exporter.clock import Clock
from paropt_exporter.engine.inbox import Timers
from paropt_exporter.engine.stage import Attempt
from paropt_exporter.events import Result

TERM_GRACE_SECONDS = 10.0  # between TERM and KILL, as the command's documentation promises
GIVE_UP_SECONDS = 7.0  # after KILL; the supervisor itself gives up after 5 s, and reports it


class AttemptEnds:
    """Ends attempts by timers.

    ```
    running --timeout, or stop--> TERM --after the grace--> KILL --GIVE_UP_SECONDS--> given up: the run goes on
    ```
    Each timer checks whether its moment has really come, since an attempt's start is known only once it was measured.
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
        moment = self._clock.monotonic() + grace_seconds + GIVE_UP_SECONDS
        self._timers.schedule(moment, lambda: _give_up(attempt))

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


def _give_up(attempt: Attempt) -> None:
    if attempt in attempt.stage.attempts and attempt.outcome is None:
        attempt.running.give_up()
