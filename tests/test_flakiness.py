"""The ratio of flaky attempts, with its interval."""

from __future__ import annotations

import math

import pytest

from paropt_exporter.plan.flakiness import CONFIDENCE, compute_jeffreys_interval


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # R: qbeta(c(0.025, 0.975), count + 0.5, total - count + 0.5)
    [(1, 10, 0.01101167, 0.3813148), (5, 10, 0.2235287, 0.7764713), (0, 10, 0.0, 0.2171963), (10, 10, 0.7828037, 1.0)],
)
def test_interval_equals_published_values(count: int, total: int, low: float, high: float) -> None:
    assert compute_jeffreys_interval(count, total) == pytest.approx((low, high), rel=1e-5)


def test_without_attempts_any_ratio_is_possible() -> None:
    assert compute_jeffreys_interval(0, 0) == (0.0, 1.0)


def test_quantiles_of_one_attempt_are_exact() -> None:
    """Beta(1/2, 1/2) is the arcsine distribution, so Beta(3/2, 1/2) has a closed form too."""
    low, _ = compute_jeffreys_interval(1, 1)
    angle = math.asin(math.sqrt(low))
    assert (2 * angle - math.sin(2 * angle)) / math.pi == pytest.approx((1 - CONFIDENCE) / 2)


def test_interval_narrows_around_the_ratio() -> None:
    widths = []
    for total in (20, 200, 2000, 20_000):
        low, high = compute_jeffreys_interval(total // 20, total)
        assert low < 0.05 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.007


def test_failures_proven_by_later_runs_may_exceed_the_attempts_in_the_window() -> None:
    assert compute_jeffreys_interval(3, 2)[1] == 1.0
