"""The profiler measures a function, recommends a strategy, and reports failures."""

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from statistics import mean
from time import thread_time

import pytest

from paropt_exporter import ParallelizationProfiler, ParallelizationStrategy
from paropt_exporter.events import Measurement
from paropt_exporter.executors import TaskFuture, thread_only

# Uses CPU, and writes the kernel's figure for it, its start included, as its last act.
BURNER = """
import os, resource, sys
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
while used() < 0.15:
    pass
with open(sys.argv[1], "a") as report:
    print(used(), file=report)
os._exit(0)
"""


def compute() -> None:
    until = thread_time() + 0.1
    while thread_time() < until:
        pass


def test_function_that_computes_belongs_in_processes() -> None:
    profile = ParallelizationProfiler().profile_stage(4, "compute", compute)
    assert profile["recommended_strategy"] == ParallelizationStrategy.PROCESS_POOL.value
    assert profile["parallelizable"] is True
    assert profile["avg_cpu_percent"] * profile["avg_duration_seconds"] == pytest.approx(10, abs=2)
    assert profile["avg_duration_seconds"] >= 0.1
    assert profile["iterations"] == 3


def test_function_that_waits_belongs_in_threads() -> None:
    profile = ParallelizationProfiler().profile_stage(2, "wait", threading.Event().wait, 0.05)
    assert profile["recommended_strategy"] == "thread_pool"
    assert profile["avg_cpu_percent"] < 20
    assert profile["parallelizable"] is True


def test_function_whose_child_processes_compute_belongs_in_threads_and_their_cpu_counts(tmp_path: Path) -> None:
    report = tmp_path / "report"
    profile = ParallelizationProfiler(2).profile_stage(
        3, "child", subprocess.run, [sys.executable, "-c", BURNER, str(report)], check=True
    )
    used_seconds = mean(map(float, report.read_text().split()))
    assert profile["recommended_strategy"] == "thread_pool"
    assert profile["avg_cpu_percent"] * profile["avg_duration_seconds"] == pytest.approx(100 * used_seconds, abs=4)


def test_computing_function_that_can_not_be_pickled_is_not_parallelizable() -> None:
    lock = threading.Lock()

    def guarded() -> None:
        with lock:
            compute()

    profiler = ParallelizationProfiler(1)
    for number, function in ((2, guarded), (3, thread_only(lambda: compute()))):
        profile = profiler.profile_stage(number, "stays", function)
        assert profile["recommended_strategy"] == "sequential"
        assert profile["parallelizable"] is False
    assert "can't travel between processes" in profiler.profile_results[2]["reason"]
    assert "thread_only" in profiler.profile_results[3]["reason"]


def test_failing_function_is_reported() -> None:
    profile = ParallelizationProfiler().profile_stage(5, "broken", int, "no number")
    assert profile["error_message"].startswith("ValueError: invalid literal")
    assert (profile["failed_iterations"], profile["parallelizable"]) == (3, False)
    assert profile["avg_duration_seconds"] > 0


def test_function_that_sometimes_fails_is_measured_by_its_successes() -> None:
    calls = count()

    def flaky() -> None:
        if next(calls) == 1:
            raise OSError("busy")
        threading.Event().wait(0.05)

    profile = ParallelizationProfiler(3).profile_stage(5, "flaky", flaky)
    assert (profile["failed_iterations"], profile["error_message"]) == (1, "OSError: busy")
    assert profile["avg_duration_seconds"] >= 0.05


def test_variability_is_the_standard_deviation_of_the_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = (
        Measurement(worker="profile", pid=1, started_seconds=start, ended_seconds=start + seconds)
        for start, seconds in ((10.0, 1.0), (20.0, 3.0))
    )
    monkeypatch.setattr(TaskFuture, "measurement", property(lambda _: next(measured)))
    profile = ParallelizationProfiler(2).profile_stage(2, "varies", int)
    assert profile["variability_seconds"] == pytest.approx(1.0)
    assert profile["avg_duration_seconds"] == pytest.approx(2.0)


def test_profiler_keeps_each_stage_s_latest_profile() -> None:
    profiler = ParallelizationProfiler(1)
    profiler.profile_stage(2, "old", int)
    latest = profiler.profile_stage(2, "new", int)
    profiler.profile_stage(3, "other", int)
    assert sorted(profiler.profile_results) == [2, 3]
    assert profiler.profile_results[2] is latest


def test_no_iterations_are_rejected() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        ParallelizationProfiler(0)
