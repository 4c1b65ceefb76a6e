"""The exit code of a run, and the wait for the readers of its summary, which may change it."""

from __future__ import annotations

from paropt_exporter.app.live_data import HISTORY, LiveData
from paropt_exporter.app.request import READER_SECONDS, Request, Screen
from paropt_exporter.config import Config
from paropt_exporter.errors import (
    EXIT_CRITICAL_SLA,
    EXIT_FAILED,
    EXIT_INTERNAL,
    EXIT_PARTIAL,
    EXIT_SIGNAL_BASE,
)
from paropt_exporter.events import Result, RunRecord
from paropt_exporter.exposition import deliveries
from paropt_exporter.history import History
from paropt_exporter.signals import Signals


class ExitCodes:
    """Chooses the exit code of each run. It knows how many records the history lacked after the previous run."""

    def __init__(
        self, request: Request, config: Config, *, history: History, live: LiveData, signals: Signals, screen: Screen
    ) -> None:
        self._request = request
        self._fails_without_push = request.push_fail or config.push.fail
        self._history = history
        self._live = live
        self._signals = signals
        self._screen = screen
        self._missing_before = 0

    def choose(self, record: RunRecord, missed: frozenset[str], unreported: tuple[str, ...]) -> int:
        """Return the run's exit code, and print its reason if the summary did not have it.

        `missed`: the sinks that did not get the final values; `unreported`: the reports that could not be written, each
        with the reason.
        """
        if self._signals.interrupted_run:
            return EXIT_SIGNAL_BASE + (self._signals.number or 0)
        missing = self._live.count_dropped()[HISTORY]
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
        if deliveries.PUSHGATEWAY in missed and self._fails_without_push:
            return "the final values were not pushed (--push.fail)"
        return ""


def wait_for_readers(code: int, screen: Screen, signals: Signals) -> int:
    """Wait for the readers of the summary. Return the exit code, which a lost summary changes.

    Without a signal there is no time limit. After a signal they must make progress every READER_SECONDS.
    """
    screen.notify_when_shown(signals.wake)
    timeout_seconds, written = (None if signals.number is None else READER_SECONDS), screen.write_count
    while not screen.is_shown:
        signalled = signals.wait(timeout_seconds)
        stalled = written == screen.write_count
        if timeout_seconds is not None and (signalled or stalled):
            break
        if signalled:
            timeout_seconds = READER_SECONDS
        written = screen.write_count
    if screen.fault and not signals.interrupted_run and code != EXIT_INTERNAL:
        screen.say(f"exit code {EXIT_INTERNAL}: the summary could not be written")
        return EXIT_INTERNAL
    return code
