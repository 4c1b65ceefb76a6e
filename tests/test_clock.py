"""The system clock and the fake clock."""

from __future__ import annotations

import time

from paropt_exporter.clock import SystemClock
from paropt_exporter.testing import FakeClock


def test_system_clock_reads_the_machines_clocks() -> None:
    clock = SystemClock()
    before = time.monotonic(), time.time()
    now = clock.monotonic(), clock.wall()
    assert before[0] <= now[0] <= time.monotonic()
    assert before[1] <= now[1] <= time.time()


def test_fake_clock_moves_only_on_advance() -> None:
    clock = FakeClock()
    wall, monotonic = clock.wall(), clock.monotonic()
    assert (clock.wall(), clock.monotonic()) == (wall, monotonic)
    clock.advance(2.5)
    assert (clock.wall() - wall, clock.monotonic() - monotonic) == (2.5, 2.5)
