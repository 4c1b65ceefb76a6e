"""Rates of a pool's own counters, with which answers of Prometheus are compared."""

from __future__ import annotations

from paropt_exporter.autoscaling.signals.local_counters import CounterHistory, CounterSample, Rates


def test_rates_are_interpolated_between_samples() -> None:
    history = CounterHistory()
    for moment, finished, busy in ((0.0, 0, 0.0), (10.0, 20, 10.0), (20.0, 20, 40.0)):
        sample = CounterSample(moment=moment, submitted=20, finished=finished, busy=busy, cpu=0.0, delay=0.0)
        history.add_sample(sample)
    assert history.compute_rates(5.0, 15.0) == Rates(completions=1.0, busy=2.0)
    assert history.compute_rates(-1.0, 15.0) is None
    assert history.compute_rates(5.0, 21.0) is None
