"""The two clocks of the package, so that tests can replace them."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells time in seconds.

    `monotonic` is for durations and deadlines; on Linux it is the same in every process of the machine. `wall` is for
    timestamps that people and Prometheus read.
    """

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
