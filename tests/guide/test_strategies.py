"""The starting number of workers from cores, memory, strategy and earlier runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter import ParallelizationStrategy, WorkerPoolOptimizer, host
from paropt_exporter.events import Bottleneck, Result, Strategy
from paropt_exporter.guide.strategies import choose_size
from paropt_exporter.history.summaries import RunSummary
from support import real_servers

GIB = 1024**3
S = ParallelizationStrategy


def earlier(
    *, running: float, busy: float, result: Result = Result.SUCCESS, held_up: tuple[str, ...] = ()
) -> RunSummary:
    """A run in which `running` tasks ran at once on average, on workers that were `busy`."""
    return RunSummary(
        run_id="r",
        lane="standard",
        strategy="thread",
        result=result,
        reason="",
        started_timestamp_seconds=0.0,
        duration_seconds=10.0,
        sequential_seconds=10.0 * running,
        busy_ratio=busy,
        total_tasks=1,
        completed_tasks=1,
        failed_tasks=0,
        warned=False,
        broken=False,
        interrupted=False,
        bottlenecks=tuple(Bottleneck(kind=kind, stage=None, sentence="") for kind in held_up),
        stages=(),
    )


@pytest.mark.parametrize(
    ("strategy", "cores", "memory", "expected"),
    [
        (S.SEQUENTIAL, 8, 16 * GIB, 1),
        (S.PROCESS_POOL, 8, 16 * GIB, 8),
        (S.PROCESS_POOL, 8, 256 * 1024**2, 2),
        (S.PROCESS_POOL, 8, 1024**2, 1),
        (S.PROCESS_POOL, 8, 0, 8),
        (S.THREAD_POOL, 8, 16 * GIB, 12),
        (S.THREAD_POOL, 64, 16 * GIB, 32),
        (S.HYBRID, 2, GIB, 6),
        (S.ADAPTIVE, 2, GIB, 2),
    ],
)
def test_size_follows_cores_memory_and_strategy(
    strategy: ParallelizationStrategy, cores: int, memory: int, expected: int
) -> None:
    assert choose_size(strategy, cores=cores, memory_bytes=memory) == expected


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([earlier(running=4, busy=0.4)], 5),  # ten workers, four of them busy: five are 80 % busy
        ([earlier(running=5.7, busy=0.95, held_up=("saturated",))], 7),  # six workers were too few: one more
        ([earlier(running=1.6, busy=0.4), earlier(running=1.6, busy=0.4), earlier(running=20, busy=0.8)], 2),
        ([earlier(running=100, busy=0.8)], 32),  # never more than a pool's most
        ([earlier(running=4, busy=0.4, result=Result.FAILURE)], 6),  # failed runs don't count
        ([earlier(running=0, busy=0.0)], 6),
    ],
)
def test_history_moves_the_size_to_where_workers_are_80_percent_busy(runs: list[RunSummary], expected: int) -> None:
    assert choose_size(S.THREAD_POOL, cores=2, memory_bytes=GIB, runs=runs) == expected


@pytest.mark.parametrize("strategy", list(ParallelizationStrategy))
def test_optimizer_answers_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: ParallelizationStrategy
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = WorkerPoolOptimizer.get_optimal_worker_count(strategy)
    cores, free = host.count_cpu_workers(), host.read_available_memory_bytes()
    assert asked == WorkerPoolOptimizer().get_optimal_worker_count(strategy.value)
    assert asked == choose_size(strategy, cores=cores, memory_bytes=free)


def test_optimizer_reads_the_history_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = "lanes: {standard: {strategy: thread, workers: 8}}\n"
    (tmp_path / "paropt.yml").write_text(lane + "stages:\n  - {number: 2, name: wait, run: sleep 0.5}\n")
    ended = real_servers.run(tmp_path, "--once", "--web.listen-address", "127.0.0.1:0")
    assert ended.returncode == 0, ended.stderr
    monkeypatch.chdir(tmp_path)
    # One task at a time is 80 % of two workers, or of one where the run's start took long beside it.
    assert WorkerPoolOptimizer.get_optimal_worker_count(S.THREAD_POOL) < choose_size(
        S.THREAD_POOL, cores=host.count_cpu_workers(), memory_bytes=host.read_available_memory_bytes()
    )


@pytest.mark.parametrize("config", ["stages: nonsense", "\t:", "project: x\nhistory: {path: /dev/null/x}"])
def test_faulty_config_does_not_stop_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    (tmp_path / "paropt.yml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert WorkerPoolOptimizer.get_optimal_worker_count(S.SEQUENTIAL) == 1


def test_each_strategy_of_this_host_has_a_counterpart_in_the_pools() -> None:
    assert {strategy.pool_strategy for strategy in ParallelizationStrategy} == set(Strategy) - {Strategy.DASK}
