"""Compute how flaky a stage is, from first attempts that failed and later passed with the same files."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

CONFIDENCE = 0.95
FLAKY_RUNS = 300  # an attempt that fails once in 100 is seen in 299 runs with a probability of 95 %
MOST_FAILED_STAGES = 3  # so many fail together for a common reason, which a retry does not remove
_HALVINGS = 60  # of the interval from 0 to 1: more than a float's precision
_TERMS = 300  # of the continued fraction, which converges in O(sqrt(max(a, b)))
_TINY = 1e-300


class Flakiness(Struct, frozen=True, kw_only=True):
    """The first attempts of a stage's tasks in its last runs, and how many of them were flaky.

    A flaky attempt failed, and its task later passed with the same files: in a retry, or in another run of the same
    tree state. `items`: the items that were flaky. `last_timestamp_seconds`: when the last flaky attempt was detected.
    """

    first_attempts: int
    flaky_attempts: int
    items: frozenset[str] = frozenset()
    last_timestamp_seconds: float | None = None

    @property
    def ratio(self) -> float:
        return self.flaky_attempts / self.first_attempts if self.first_attempts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The Jeffreys interval of the ratio, with CONFIDENCE."""
        return compute_jeffreys_interval(self.flaky_attempts, self.first_attempts)


class OpenFailures(Struct, frozen=True, kw_only=True):
    """The failed first attempts of a stage with the present files, after which it has not yet passed."""

    attempts: int
    items: frozenset[str] = frozenset()


def compute_jeffreys_interval(count: int, total: int) -> tuple[float, float]:
    """Return the bounds of the ratio `count / total`: quantiles of Beta(count + 1/2, total - count + 1/2).

    The lower bound is 0 if nothing was counted, the upper one 1 if everything was (Brown, Cai, DasGupta: Interval
    Estimation for a Binomial Proportion, Statistical Science 2001).
    """
    count = min(count, total)
    a, b = count + 0.5, total - count + 0.5
    tail = (1.0 - CONFIDENCE) / 2.0
    lower = 0.0 if count == 0 else _find_root(lambda x: _compute_beta_cdf(x, a, b) - tail)
    upper = 1.0 if count == total else _find_root(lambda x: _compute_beta_cdf(x, a, b) - (1.0 - tail))
    return lower, upper


def _find_root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0


def _compute_beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b) (https://dlmf.nist.gov/8.17.E22)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # the fraction would converge slowly: use I_x(a, b) = 1 - I_(1-x)(b, a)
        return 1.0 - _compute_beta_cdf(1.0 - x, b, a)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * _compute_fraction(x, a, b))


def _compute_fraction(x: float, a: float, b: float) -> float:
    """Return 1 + d1/(1 + d2/(1 + …)) of DLMF 8.17.22, by Lentz's method."""
    value = numerator = 1.0
    denominator = 0.0
    for term in range(1, _TERMS):
        half = term // 2
        if term % 2:
            factor = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            factor = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        denominator = 1.0 / ((1.0 + factor * denominator) or _TINY)
        numerator = (1.0 + factor / numerator) or _TINY
        value *= numerator * denominator
        if abs(numerator * denominator - 1.0) < 1e-14:
            break
    return value
