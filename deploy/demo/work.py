"""The demo lane's work: small tasks that wait, compute, fail or crash by the number of the run."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from pathlib import Path

WAVE_SECONDS = 120.0
CRUNCH_SECONDS = 0.3
_COUNT = Path(__file__).with_name("run-count")


def run_number() -> int:
    """Return the number of the current run, which its first stage has written."""
    return int(_COUNT.read_text()) if _COUNT.exists() else 0


def count() -> None:
    """Count the next run."""
    _COUNT.write_text(str(run_number() + 1))
    _COUNT.with_name("chapter").write_text(f"Chapter {run_number() // 3}\n")  # a new one in every third run


def wait(seconds: str, *_: str) -> None:
    """Wait like a test that queries a server."""
    time.sleep(float(seconds))


def fail_each(period: str) -> None:
    """Fail in every run whose number is a multiple of the period."""
    wait("0.5")
    if run_number() % int(period) == 0:
        sys.exit("work.py:31: error: Incompatible return value type")


def slow_each(period: str) -> None:
    """Exceed the limit in every run whose number is a multiple of the period."""
    wait("1.5" if run_number() % int(period) == 0 else "0.2")


def wave(most: str) -> None:
    """Print a line for each current task: their number rises and falls in a wave, from a quarter of the maximum."""
    share = 0.625 + 0.375 * math.sin(2 * math.pi * time.time() / WAVE_SECONDS)
    for number in range(round(int(most) * share)):
        print(number)


def crunch(item: str) -> int:
    """Compute in Python for about a third of a second; the GIL prevents parallel threads."""
    end, rounds = time.thread_time() + CRUNCH_SECONDS, 0
    while time.thread_time() < end:
        rounds += sum(number * number for number in range(1000)) % 7
    return rounds + int(item)


def render() -> None:
    """Write a page of the current chapter."""
    wait("0.4")
    _COUNT.with_name("page").write_text(_COUNT.with_name("chapter").read_text().upper())


def crash_each(period: str) -> None:
    """Die by a signal, once in every run whose number is a multiple of the period: the retry succeeds."""
    wait("0.1")
    crashed = _COUNT.with_name(f"crashed-in-run-{run_number()}")
    if run_number() % int(period) == 0 and not crashed.exists():
        crashed.touch()
        os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
