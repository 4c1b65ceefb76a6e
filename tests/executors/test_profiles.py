"""Function profiles of adaptive pools are saved to a file."""

from __future__ import annotations

import json
import logging
import os
import threading
from concurrent.futures import wait
from pathlib import Path

import pytest

from paropt_exporter.executors import AdaptivePool, ProcessPool, lifetime
from paropt_exporter.executors.adaptive.profiles import FunctionProfile, load_profiles, save_profiles
from support.pool_tasks import HANG_SECONDS, nothing, spin


def test_known_cpu_bound_function_starts_in_processes(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    save_profiles(memory, [FunctionProfile(function=f"{spin.__module__}.spin", cpu_demand=1.0, seconds=0.05)])
    with AdaptivePool(memory=memory) as pool:
        assert pool.submit(spin, 0.01).result(HANG_SECONDS) != os.getpid()


@pytest.mark.parametrize("warm", [False, True])
def test_thread_computes_meanwhile_only_if_processes_start_slowly(tmp_path: Path, *, warm: bool) -> None:
    memory = tmp_path / "functions.json"
    save_profiles(memory, [FunctionProfile(function=f"{spin.__module__}.spin", cpu_demand=1.0, seconds=0.05)])
    lifetime.FORK_SERVERS.close()
    if warm:
        with ProcessPool(1) as pool:
            pool.submit(nothing).result(HANG_SECONDS)
    with AdaptivePool(memory=memory) as adaptive:
        futures = [adaptive.submit(spin, 0.02) for _ in range(12)]
        here = sum(future.result(HANG_SECONDS) == os.getpid() for future in futures)
    assert here == 0 if warm else here > 0


def test_pool_saves_its_profiles(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    with AdaptivePool(memory=memory) as pool:
        wait([pool.submit_named("spin", spin, 0.02) for _ in range(4)], HANG_SECONDS)
    (profile,) = load_profiles(memory)
    assert profile.function == f"{spin.__module__}.spin"
    assert profile.cpu_demand > 0.1  # a waiting function has almost none


def test_known_waiting_function_gets_threads_before_the_first_sample(tmp_path: Path) -> None:
    memory = tmp_path / "functions.json"
    name = f"{threading.Barrier.wait.__module__}.{threading.Barrier.wait.__qualname__}"
    save_profiles(memory, [FunctionProfile(function=name, cpu_demand=0.0, seconds=1.0)])
    barrier = threading.Barrier(12)  # opens only when all tasks run at once
    with AdaptivePool(memory=memory) as pool:
        futures = [pool.submit(barrier.wait, HANG_SECONDS) for _ in range(12)]
        assert pool.target >= 12
        assert wait(futures, HANG_SECONDS).not_done == set()


def test_newest_profile_replaces_the_old_one_of_its_function(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "functions.json"
    old, other = (FunctionProfile(function=name, cpu_demand=0.5, seconds=1.0) for name in ("old", "other"))
    save_profiles(path, [old, other])
    newer = FunctionProfile(function="old", cpu_demand=1.0, seconds=2.0)
    save_profiles(path, [newer])
    assert load_profiles(path) == (other, newer)
    assert [entry.name for entry in path.parent.iterdir()] == ["functions.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"functions": 3}',
        '{"functions": {"a": {"share": 7, "seconds": 1}}}',
        '{"functions": {"a": {"share": NaN, "seconds": 1}}}',
        '{"functions": {"a": {"share": "x", "seconds": 1}}}',
        "\0",
    ],
)
def test_invalid_profiles_are_logged_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    path = tmp_path / "functions.json"
    path.write_text(content)
    with caplog.at_level(logging.WARNING), AdaptivePool(memory=path) as pool:
        assert pool.submit(nothing).result(HANG_SECONDS) is None
    assert "can't be read" in caplog.text
    assert "functions" in json.loads(path.read_text())


def test_unwritable_profiles_are_logged_without_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), AdaptivePool(memory=tmp_path) as pool:
        assert pool.submit(nothing).result(HANG_SECONDS) is None
    assert "can't be saved" in caplog.text
