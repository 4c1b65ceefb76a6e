"""Estimate a pool's traffic, CPU demand and service times from its own counters."""

from __future__ import annotations

import math
from bisect import bisect_left

from msgspec import Struct

from paropt_exporter.autoscaling.policy.queueing import Traffic
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample
from paropt_exporter.events import PoolStatistics

LONGEST_WINDOW_SECONDS = 90.0
_SERVICES = 5.0  # a window spans several tasks, however long they are
_RECENT_SECONDS = 2.0
_RECENT_SPANS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_YOUNG_SECONDS = 10.0  # in a shorter window the rate is lowered by one sigma, so that the size does not overshoot
_CHANGE_SIGMAS = 5.0  # of a Poisson count: rarely reached by chance, although seven spans are checked each second
_KEPT_SECONDS = 600.0  # for comparison with the longest window of queries
SATURATION_RATIO = 0.85  # above it, work that waits for cores seems to sleep, so demands measured then may only rise
STEADY_COMPLETIONS = 30
_SERVICE_CHANGE_RATIO = 0.33  # four sigmas of 30 tasks whose durations vary by half of their mean


class CounterSample(Struct, frozen=True, kw_only=True):
    """A pool's counters at one moment; `queued` and `running` are values of that moment, all others only grow."""

    moment: float
    submitted: float
    finished: float
    busy: float
    cpu: float
    delay: float
    queued: int = 0
    running: int = 0


class Rates(Struct, frozen=True, kw_only=True):
    """Means over a window: tasks that end per second, and busy workers."""

    completions: float
    busy: float


def sample_counters(pool: PoolStatistics, moment: float) -> CounterSample:
    """Return a sample of a pool's counters."""
    return CounterSample(
        moment=moment,
        submitted=pool.submitted,
        finished=sum(pool.finished.values()),
        busy=pool.busy_seconds,
        cpu=pool.cpu_seconds,
        delay=pool.run_delay_seconds,
        queued=pool.queued,
        running=pool.busy,
    )


class CounterHistory:
    """The samples of one pool's counters over the last minutes.

    The window for the load begins at its last change: the arrivals of the last seconds are compared with the window's
    as a Poisson count, and a difference of five sigmas begins a new window. So noise is averaged over a minute, and a
    step shows within two seconds.
    """

    def __init__(self) -> None:
        self._counts: list[CounterSample] = []
        # The samples by column, since columns are searched each second.
        self._moments: list[float] = []
        self._submitted: list[float] = []
        self._finished: list[float] = []
        self._since = -math.inf
        self._cpu_demand: float | None = None
        self._services = ServiceTimes()

    def add_sample(self, count: CounterSample) -> None:
        """Add a sample; each must be later than the one before."""
        if self._counts:
            self._services.add(self._counts[-1], count)
        self._counts.append(count)
        self._moments.append(count.moment)
        self._submitted.append(count.submitted)
        self._finished.append(count.finished)
        if self._moments[0] < count.moment - 2 * _KEPT_SECONDS:
            gone = bisect_left(self._moments, count.moment - _KEPT_SECONDS)
            del self._counts[:gone], self._moments[:gone], self._submitted[:gone], self._finished[:gone]
        self._detect_change()

    def reset_service_times(self) -> None:
        """Drop the service times, since the pool was resized and later ones belong to the new size."""
        self._services = ServiceTimes()

    @property
    def sample(self) -> Sample:
        """The service times since the last resize."""
        return self._services.sample()

    def estimate_traffic(self) -> Traffic:
        """Return the current traffic."""
        last = self._counts[-1]
        first = self._find_window_start(last)
        seconds = last.moment - first.moment
        arrived = last.submitted - first.submitted
        if seconds < _YOUNG_SECONDS:
            arrived -= math.sqrt(arrived)
        return Traffic(
            arrivals=arrived / seconds if seconds > 0 else 0.0,
            service_seconds=self._estimate_service_seconds(last, first),
            queued=last.queued,
            spread=math.sqrt(2.0 / max(2.0, arrived)),
        )

    def compute_cores_used(self) -> float:
        """Return the cores that the pool kept busy over the last two seconds."""
        last = self._counts[-1]
        first = self._get_sample_at(last.moment - _RECENT_SECONDS)
        seconds = last.moment - first.moment
        return (last.cpu - first.cpu) / seconds if seconds > 0 else 0.0

    def estimate_cpu_demand(self, cores: float) -> float | None:
        """Return the CPU demand of a worker in cores, c = cpu / (busy - delay); None until a worker was busy.

        While the machine is saturated it may rise, never fall, since oversubscribed work seems to sleep.
        """
        last = self._counts[-1]
        first = self._get_sample_at(last.moment - _RECENT_SECONDS)
        cpu, alone = last.cpu - first.cpu, (last.busy - first.busy) - (last.delay - first.delay)
        if last.busy - first.busy > 0:
            seen = min(1.0, cpu / max(alone, cpu, 1e-9))
            rises = self._cpu_demand is None or seen >= self._cpu_demand
            if rises or self.compute_cores_used() < SATURATION_RATIO * cores:
                self._cpu_demand = seen
        return self._cpu_demand

    def compute_rates(self, begin: float, end: float) -> Rates | None:
        """Return the rates between two moments, interpolated; None if no samples span them."""
        if not self._counts or begin < self._moments[0] or end > self._moments[-1] or end <= begin:
            return None
        (ended, busy), (ended_before, busy_before) = self._interpolate(end), self._interpolate(begin)
        return Rates(completions=(ended - ended_before) / (end - begin), busy=(busy - busy_before) / (end - begin))

    def _detect_change(self) -> None:
        moments, submitted = self._moments, self._submitted
        now, arrived, since, longest = moments[-1], submitted[-1], self._since, self._longest
        for seconds in _RECENT_SPANS_SECONDS:
            recent = bisect_left(moments, now - seconds)
            begin = moments[recent]
            first = bisect_left(moments, since if since > begin - longest else begin - longest, 0, recent)
            before = begin - moments[first]
            if before < _RECENT_SECONDS:
                return
            expected = (submitted[recent] - submitted[first]) / before * (now - begin)
            variance = expected if expected > 1.0 else 1.0
            if (arrived - submitted[recent] - expected) ** 2 > _CHANGE_SIGMAS**2 * variance:
                self._since = begin
                return

    def _find_window_start(self, last: CounterSample) -> CounterSample:
        return self._get_sample_at(max(self._since, last.moment - self._longest))

    @property
    def _longest(self) -> float:
        return max(LONGEST_WINDOW_SECONDS, _SERVICES * self._services.mean)

    def _estimate_service_seconds(self, last: CounterSample, since: CounterSample) -> float:
        """Return S over the load's window, or over the last 30 tasks if these differ considerably."""
        lately = self._find_recent_start(last)
        recent = _compute_service_seconds(lately, last)
        if since.moment < lately.moment:
            whole = _compute_service_seconds(since, last)
            recent = whole if abs(recent - whole) <= _SERVICE_CHANGE_RATIO * whole else recent
        return recent

    def _find_recent_start(self, last: CounterSample) -> CounterSample:
        """Return the sample since which 30 tasks have ended, at least two seconds ago."""
        enough = bisect_left(self._finished, last.finished - STEADY_COMPLETIONS)
        young = bisect_left(self._moments, last.moment - _RECENT_SECONDS)
        old = bisect_left(self._moments, last.moment - self._longest)
        return self._counts[max(old, min(enough - 1, young), 0)]

    def _get_sample_at(self, moment: float) -> CounterSample:
        """Return the first sample at or after a moment."""
        return self._counts[min(bisect_left(self._moments, moment), len(self._counts) - 1)]

    def _interpolate(self, moment: float) -> tuple[float, float]:
        """Return the ended tasks and the busy seconds up to a moment."""
        place = bisect_left(self._moments, moment)
        after = self._counts[place]
        if place == 0 or after.moment == moment:
            return after.finished, after.busy
        before = self._counts[place - 1]
        part = (moment - before.moment) / (after.moment - before.moment)
        ended, busy = after.finished - before.finished, after.busy - before.busy
        return before.finished + part * ended, before.busy + part * busy


def _compute_service_seconds(first: CounterSample, last: CounterSample) -> float:
    """Return S = busy time / tasks done between two samples.

    Tasks that are running at either sample count half; otherwise S would seem to grow with each new worker.
    """
    done = last.finished - first.finished + (last.running - first.running) / 2
    return (last.busy - first.busy) / max(1.0, done)


class ServiceTimes:
    """Mean and variance of service times, from samples of busy time and completions only.

    The ratio of sums is the mean; its variance is that of a ratio estimator over the samples (Cochran, Sampling
    Techniques, 6.3): the mean of the squared residuals, busy - mean x completions.
    """

    def __init__(self) -> None:
        self._busy = self._ended = self._busy2 = self._ended2 = self._cross = 0.0

    def add(self, before: CounterSample, after: CounterSample) -> None:
        ended = after.finished - before.finished
        busy = max(0.0, (after.busy - before.busy) - (after.delay - before.delay))
        self._busy += busy
        self._ended += ended
        self._busy2 += busy * busy
        self._ended2 += ended * ended
        self._cross += busy * ended

    @property
    def mean(self) -> float:
        return self._busy / self._ended if self._ended else 0.0

    def sample(self) -> Sample:
        if not self._ended:
            return Sample(count=0, mean=0.0, variance=0.0)
        mean = self.mean
        residuals = max(0.0, self._busy2 - 2 * mean * self._cross + mean * mean * self._ended2)
        # The variance of one service time: divided by the count, it is the variance of the mean.
        return Sample(count=int(self._ended), mean=mean, variance=residuals / self._ended)
