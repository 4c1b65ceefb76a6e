"""Feedback from Prometheus: build the bounds controller, query the signals of each interval, validate the answers."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from msgspec import Struct

from paropt_exporter import families
from paropt_exporter.autoscaling.bounds_controller import BoundsController, LaneReadings, Timing
from paropt_exporter.autoscaling.policy.query_size import PoolMeasurement, PoolReading
from paropt_exporter.autoscaling.policy.query_validity import (
    SETTLED_SCRAPES,
    QueryResult,
    Reading,
    SeriesValue,
    compare_with_local,
    reject_reading,
    validate_answer,
    validate_value,
)
from paropt_exporter.autoscaling.policy.size_bounds import Signal
from paropt_exporter.autoscaling.signals.client import Client, ClientSettings, QueryFailed
from paropt_exporter.autoscaling.signals.local_counters import Rates
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.config import values
from paropt_exporter.config.credentials import build_headers
from paropt_exporter.config.units import format_duration
from paropt_exporter.events import Event, PoolStatistics, QueryCounts
from paropt_exporter.families import Family
from paropt_exporter.promql import build_selector, select

log = logging.getLogger(__name__)


PAST_SECONDS = 2.0  # how long the start of a lane may wait for the queries about past runs
_PAST_VALID_SECONDS = 3600.0  # an exporter that repeats its lane queries again, at most once an hour
# A plain selector, whose samples have an age. Other expressions may combine samples of any age.
_SELECTOR = re.compile(r"^\s*[a-zA-Z_:][\w:]*\s*(\{[^{}]*\})?\s*$")
_LOG_PAUSE_SECONDS = 600.0  # between two log lines about the same reason to reject a signal
_LEAST_WORKERS = 0.5  # smaller differences from our own counters are ignored
_LEAST_TASKS = 1.0
_LARGEST_VALUE = 1e12  # of our own metrics; timestamps have 2e9
SIGNAL = "signal"  # the label that distinguishes the parts of one answer
PAST = "7d"
_PAST_STEP = "1h"
_SAME_SECONDS = "0.00002"
_SAME_POOL = "on (job, instance, pool)"
OWN_SIGNALS = ("matches", "sampled", "scrapes", "epochs", "size", "depth", "completions", "busy", "cpu", "delay")
LocalRates = Callable[[float, float], Rates | None]  # the rates between two moments by our own counters


class PastRuns(Struct, frozen=True, kw_only=True):
    """A lane's runs of the last seven days, from Prometheus: sizes by pool, durations in seconds by stage."""

    sizes: MappingProxyType[str, float]
    durations: MappingProxyType[str, float]


class Feedback:
    """Feedback from Prometheus to one lane.

    `load_past_runs` queries once an hour; `start_controller` starts the bounds controller; `close` ends both, even if
    the server hangs.
    """

    def __init__(
        self, feedback: values.Feedback, prometheus: values.Prometheus, *, project: str, root: Path, clock: Clock
    ) -> None:
        self._feedback = feedback
        self._project = project
        self._clock = clock
        self._stop = threading.Event()
        self._client = Client(_build_client_settings(prometheus, root), clock=clock, stop=self._stop)
        self._controller: BoundsController | None = None
        self._past: tuple[float, PastRuns] | None = None  # with the moment of the queries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def get_counts(self) -> QueryCounts:
        """Return the counts of queries and their errors."""
        return self._client.get_counts()

    def load_past_runs(self, lane: str) -> PastRuns:
        """Return sizes and durations of the lane's last seven days; blocks for up to PAST_SECONDS, once an hour."""
        now = self._clock.monotonic()
        if self._past is None or now >= self._past[0] + _PAST_VALID_SECONDS:
            self._past = now, self._fetch_past_runs(lane)
        return self._past[1]

    def _fetch_past_runs(self, lane: str) -> PastRuns:
        found: dict[str, MappingProxyType[str, float]] = {}
        thread = threading.Thread(target=self._query_past_runs, args=(lane, found), name="paropt-past", daemon=True)
        with suppress(RuntimeError):  # the system has no thread left
            thread.start()
            thread.join(PAST_SECONDS)
        nothing: MappingProxyType[str, float] = MappingProxyType({})
        return PastRuns(sizes=found.get("pool", nothing), durations=found.get("stage", nothing))

    def _query_past_runs(self, lane: str, found: dict[str, MappingProxyType[str, float]]) -> None:
        collector = self._build_collector()
        for label, query in (
            ("pool", build_past_size_query(self._project, lane)),
            ("stage", build_past_durations_query(self._project, lane)),
        ):
            found[label] = MappingProxyType(dict(collector.read_by_label(query, label)))

    def start_controller(
        self, control_state: ControlState, *, lane: LaneReadings, emit: Callable[[Event], None]
    ) -> None:
        """Start to query each interval and to set the lane's bounds."""
        interval = self._feedback.interval
        window = self._feedback.window or max(60.0, 4 * interval)
        controller = BoundsController(
            control_state,
            self._build_collector(),
            lane=lane,
            timing=Timing(
                interval_seconds=interval,
                window_seconds=window,
                stable_seconds=self._feedback.stabilization or max(60.0, 3 * window),
            ),
            emit=emit,
            clock=self._clock,
        )
        controller.start()
        self._controller = controller

    def close(self) -> None:
        """Cut the query in progress, and wait for the thread of the bounds controller."""
        if self._controller is not None:
            self._controller.stop()
        self._client.close()
        if self._controller is not None:
            self._controller.join()

    def _build_collector(self) -> SignalCollector:
        feedback = self._feedback
        specs = [
            QuerySpec(name=name, query=signal.query, use=signal.use, target=signal.target)
            for name, signal in feedback.signals.items()
        ]
        return SignalCollector(
            self._client,
            project=self._project,
            specs=specs,
            interval_seconds=feedback.interval,
            clock=self._clock,
        )


def _build_client_settings(prometheus: values.Prometheus, root: Path) -> ClientSettings:
    def resolve(path: str | None) -> Path | None:
        return None if path is None else root / path

    tls = prometheus.tls or values.Tls()
    return ClientSettings(
        url=prometheus.url or "",  # never empty: `apply_host_config` reports a missing one
        timeout_seconds=prometheus.timeout,
        read_headers=partial(build_headers, prometheus, root),
        secret_headers=tuple(prometheus.header_files),
        ca_file=resolve(tls.ca_file),
        cert_file=resolve(tls.cert_file),
        key_file=resolve(tls.key_file),
    )


class QuerySpec(Struct, frozen=True, kw_only=True):
    """A signal of the config."""

    name: str
    query: str
    use: str
    target: float


class QueryClient(Protocol):
    """A client that runs queries: `client.Client`, or a fake."""

    def query(self, expression: str) -> QueryResult: ...


class SignalCollector:
    """Reads one interval's signals from Prometheus. Each query has its own deadline; a failure rejects its reading."""

    def __init__(
        self, client: QueryClient, *, project: str, specs: Sequence[QuerySpec], interval_seconds: float, clock: Clock
    ):
        self._client = client
        self._project = project
        self._specs = tuple(specs)
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._logged: dict[str, str] = {}  # the reason that was logged last, by signal; "": valid
        self._logged_seconds: dict[tuple[str, str], float] = {}  # when a reason was logged, by (signal, reason)

    def read_signals(self) -> tuple[Signal, ...]:
        """Query the user's own signals. Blocks for each up to its timeout."""
        return tuple(
            Signal(name=spec.name, use=spec.use, target=spec.target, reading=self._read_signal(spec))
            for spec in self._specs
        )

    def read_pool(self, statistics: PoolStatistics, local_rates: LocalRates, window_seconds: float) -> PoolReading:
        """Query Prometheus' values for a pool of this process, and compare them with our own counters."""
        query = build_pool_query(self._project, statistics.name, statistics.epoch_timestamp_seconds, window_seconds)
        reading, parts = self._query_parts(query)
        measurement = None
        if reading.is_valid:
            reading, measurement = self._validate_parts(parts, window_seconds)
        if measurement is not None:
            reading = self._compare_with_counters(reading, measurement, parts, local_rates, window_seconds)
        self._log_change(f"pool {statistics.name}", reading)
        return PoolReading(
            pool=statistics.name,
            target=statistics.target,
            reading=reading,
            measurement=measurement if reading.is_valid else None,
        )

    def read_by_label(self, query: str, label: str) -> Mapping[str, float]:
        """Return the number for each value of a label, if it is plausible; nothing if the answer is invalid."""
        answer, reading = self._run_query(query)
        if reading.rejection_reason != "no_data":  # a first run has no past, and needs no warning
            self._log_change(f"past by {label}", reading)
        if not reading.is_valid:
            return {}
        found = {element.get_label(label): element.value for element in answer.elements if _is_plausible(element.value)}
        return {name: value for name, value in found.items() if name}

    def _read_signal(self, spec: QuerySpec) -> Reading:
        answer, reading = self._run_query(spec.query)
        if reading.is_valid:
            reading = validate_value(answer.elements)
        if reading.is_valid and _SELECTOR.match(spec.query):
            reading = self._check_age(spec.query, answer.elements)
        self._log_change(f"signal {spec.name}", reading)
        return reading

    def _check_age(self, selector: str, elements: Sequence[SeriesValue]) -> Reading:
        answer, reading = self._run_query(f"timestamp({selector.strip()})")
        if not reading.is_valid:
            return reading
        stamp = validate_value(answer.elements)
        if not stamp.is_valid:
            return stamp
        age = answer.evaluated_timestamp_seconds - stamp.value
        return validate_value(elements, age_seconds=age, interval_seconds=self._interval_seconds)

    def _run_query(self, query: str) -> tuple[QueryResult, Reading]:
        """Return the answer, and a rejected reading if the answer as a whole is invalid."""
        try:
            answer = self._client.query(query)
        except QueryFailed as failed:
            return QueryResult(kind="vector"), reject_reading("query_failed", f"{failed.kind}: {failed}")
        whole = validate_answer(answer, now_timestamp_seconds=self._clock.wall())
        return answer, whole or Reading()

    def _query_parts(self, query: str) -> tuple[Reading, Mapping[str, float]]:
        """Return the parts of one answer by name; each must occur exactly once."""
        answer, reading = self._run_query(query)
        if not reading.is_valid:
            return reading, {}
        named = [(element.get_label(SIGNAL), element.value) for element in answer.elements]
        parts = dict(named)
        if len(parts) != len(named):
            return reject_reading("several_sources", "a part of the answer came twice"), {}
        if not all(map(_is_plausible, parts.values())):
            return reject_reading("not_finite", f"a part of the answer is no number from 0 to {_LARGEST_VALUE:g}"), {}
        return Reading(), {**parts, "evaluated": answer.evaluated_timestamp_seconds}

    def _validate_parts(
        self, parts: Mapping[str, float], window_seconds: float
    ) -> tuple[Reading, PoolMeasurement | None]:
        if "matches" not in parts:
            why = "no series of this process: it has not been scraped, or its labels project and pool have changed"
            return reject_reading("epoch", why), None
        if parts["matches"] != 1:
            return reject_reading("several_sources", f"{parts['matches']:.0f} series claim to be this process"), None
        missing = [name for name in OWN_SIGNALS if name not in parts]
        scrapes = parts.get("scrapes", 0.0)
        if missing or scrapes < SETTLED_SCRAPES:
            why = f"{scrapes:.0f} scrapes in the window, fewer than {SETTLED_SCRAPES}"
            return reject_reading("no_data", f"no {missing[0]} yet" if missing else why), None
        if parts["epochs"] != 1:
            return reject_reading("epoch", "the window reaches back before this process began"), None
        scrape_seconds = window_seconds / scrapes
        age = parts["evaluated"] - parts["sampled"]
        whole = validate_value(
            (SeriesValue(labels=(), value=parts["size"]),), age_seconds=age, interval_seconds=max(scrape_seconds, 1.0)
        )
        measurement = PoolMeasurement(
            sampled=parts["sampled"],
            scrape_seconds=scrape_seconds,
            size=parts["size"],
            depth=parts["depth"],
            busy=parts["busy"],
            cpu=parts["cpu"],
            delay=parts["delay"],
        )
        return whole, measurement if whole.is_valid else None

    def _compare_with_counters(
        self,
        reading: Reading,
        measurement: PoolMeasurement,
        parts: Mapping[str, float],
        local_rates: LocalRates,
        window_seconds: float,
    ) -> Reading:
        """Reject a reading that our own counters contradict over the same time span."""
        # The sample's time on our own clock, from its age, which is the same on every clock.
        sampled = self._clock.monotonic() - (parts["evaluated"] - measurement.sampled)
        own = local_rates(sampled - window_seconds, sampled)
        if own is None:
            return reading
        pairs = (
            (measurement.busy, own.busy, _LEAST_WORKERS),
            (parts["completions"], own.completions, _LEAST_TASKS / window_seconds * SETTLED_SCRAPES),
        )
        for value, ours, least in pairs:
            validated = compare_with_local(Reading(value=value), ours, least=least)
            if not validated.is_valid:
                return validated
        return reading

    def _log_change(self, signal: str, reading: Reading) -> None:
        """Log when readings become invalid or valid again, but not each reading.

        With a slow server, readings may change between valid and invalid many times an hour, so each reason is logged
        at most every _LOG_PAUSE_SECONDS.
        """
        reason, now = reading.rejection_reason, self._clock.monotonic()
        if self._logged.get(signal, "") == reason:
            return
        if not reason:
            log.info("signal valid again", extra={"signal": signal})
        elif now < self._logged_seconds.get((signal, reason), -math.inf) + _LOG_PAUSE_SECONDS:
            return
        else:
            self._logged_seconds[signal, reason] = now
            log.warning("signal rejected", extra={"signal": signal, "reason": reason, "err": reading.detail})
        self._logged[signal] = reason


def build_pool_query(project: str, pool: str, epoch_timestamp_seconds: float, window_seconds: float) -> str:
    """Return one query for all of Prometheus' values for a pool of this process.

    The answer has a value for each name of `OWN_SIGNALS` in the label `signal`. The exporter does not know its job and
    instance: its series are those with an epoch equal to the pool's own, which microseconds make unique.
    """
    labels, window = {"project": project, "pool": pool}, format_duration(window_seconds)
    epoch = build_selector(families.POOL_EPOCH, labels)
    epochs = build_selector(families.POOL_EPOCH, labels, over=window)
    # Not ==: VictoriaMetrics keeps 15 digits, and the last of the microseconds is the 16th.
    is_mine = f"abs({epoch} - {epoch_timestamp_seconds!r}) < {_SAME_SECONDS}"
    mine = f"and {_SAME_POOL} ({is_mine})"

    def last(family: Family) -> str:
        return f"sum({build_selector(family, labels)} {mine})"

    def flow(family: Family) -> str:
        return f"sum(rate({build_selector(family, labels, over=window)}) {mine})"

    parts = {
        "matches": f"count({is_mine})",
        "sampled": f"max(timestamp({epoch}) {mine})",
        "scrapes": f"max(count_over_time({epochs}) {mine})",
        "epochs": f"max(changes({epochs}) {mine}) + 1",
        "size": last(families.POOL_SIZE),
        "depth": last(families.POOL_QUEUE_DEPTH),
        "completions": flow(families.POOL_FINISHED),
        "busy": flow(families.POOL_BUSY),
        "cpu": flow(families.POOL_CPU),
        "delay": flow(families.POOL_RUN_DELAY),
    }
    return _join_parts(parts)


def build_past_size_query(project: str, lane: str) -> str:
    """Return the query for the 90 % quantile of the sizes of each pool in past runs of a lane.

    A median would be too low: the gauge shows the usable size only some seconds after a run's start, and earlier
    samples count, too.
    """
    recommended = select(families.CONTROL_RECOMMENDED, project=project, over=PAST)
    of_lane = select(families.RUN_IN_PROGRESS, project=project, lane=lane, over=PAST)
    return f"max by (pool) (quantile_over_time(0.9, {recommended}) and on (job, instance) last_over_time({of_lane}))"


def build_past_durations_query(project: str, lane: str) -> str:
    """Return the query for the median duration in seconds of each stage of a lane over seven days.

    The last value of each hour stands for the hour: a median of all samples took Prometheus 3.6 times as long, since
    it sorts 40,000 of each stage and host. A subquery evaluates full hours; its offset adds the present one.
    """
    last = select(families.STAGE_LAST_DURATION, project=project, lane=lane, over=_PAST_STEP)
    hours = f"last_over_time({last})[{PAST}:{_PAST_STEP}] offset -{_PAST_STEP}"
    return f"quantile by (stage) (0.5, quantile_over_time(0.5, {hours}))"


def _is_plausible(value: float) -> bool:
    """Return whether a size, a count, a rate, a duration or a timestamp can have a value; not NaN."""
    return 0.0 <= value <= _LARGEST_VALUE


def _join_parts(parts: Mapping[str, str]) -> str:
    named = (f'label_replace({expression}, "{SIGNAL}", "{name}", "", "")' for name, expression in parts.items())
    return " or ".join(named)
