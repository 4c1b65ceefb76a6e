"""Every code block of the user's tuning guide runs, as it is written there, with only its imports changed.

`original_blocks/` holds the blocks word by word. What the guide leaves open (its own functions, the tools that it
calls, a `# ...`) is filled in around them; each runs as a script of its own without a `__main__` guard.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from support import real_servers

BLOCKS = Path(__file__).parent / "original_blocks"
IMPORTS = re.compile(r"from scripts\.(parallelization_optimizer|lane_selection_enhancements) import")
ASSUMED = """\
import asyncio, json, os, subprocess, sys, time
from paropt_exporter import *
class logger:
    error = staticmethod(lambda message: print("ERROR", message))
    warning = staticmethod(lambda message: print("WARNING", message))
"""
WORK = """\
def run_linting(): time.sleep(0.02)
def run_type_check(): time.sleep(0.02)
def run_tests(): time.sleep(0.1)
"""
A_POOL_AND_AN_SLA = """\
pool = AdaptiveWorkerPool(strategy=ParallelizationStrategy.THREAD_POOL, initial_size=2)
sla_manager = ParallelizationSLAManager(slas={2: SLATarget(2, 0.001), 3: SLATarget(3, 0.001, critical=True)})
pool.submit_stage(2, "linting", time.sleep, 0.02)
pool.submit_stage(3, "type_check", time.sleep, 0.02)
pool.wait_all()
sla_manager.check_all_stages(pool.metrics)
"""


def block(name: str, **filled: str) -> str:
    """Return a block with its imports changed and its gaps filled."""
    text = IMPORTS.sub("from paropt_exporter import", (BLOCKS / f"{name}.txt").read_text())
    for open_place, line in filled.items():
        mark = f"# ... {open_place.replace('_', ' ')} ..."
        assert mark in text
        text = text.replace(mark, line)
    return text


def run(folder: Path, *parts: str, **env: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text("\n".join([ASSUMED, *parts]))
    return subprocess.run(
        [sys.executable, "-W", "error", script.name],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=real_servers.HANG_SECONDS,
        check=False,
    )


def output(folder: Path, *parts: str) -> str:
    """Run a script that must succeed without output on stderr. Return its output."""
    process = run(folder, *parts)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def tools(folder: Path, **exit_codes: int) -> str:
    """Put stand-ins for the guide's tools into a folder; return the PATH with them in front."""
    place = folder / "bin"
    place.mkdir()
    for name in ("ruff", "mypy", "pytest", "bandit"):
        tool = place / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/calls"\nexit {exit_codes.get(name, 0)}\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return f"{place}{os.pathsep}{os.environ['PATH']}"


def test_every_block_of_the_guide_is_here_and_used_by_a_test() -> None:
    names = sorted(path.stem for path in BLOCKS.iterdir())
    own_text = Path(__file__).read_text()
    assert len(names) == 18
    assert [name for name in names if f'"{name}"' not in own_text] == []


def test_basic_setup_makes_a_pool_that_chose_its_size_and_the_default_slas(tmp_path: Path) -> None:
    shown = output(tmp_path, block("01_basic_setup"), "print(pool.size >= 1, sorted(sla_manager.slas))")
    assert shown == "True [2, 3, 4, 5, 6]\n"


def test_custom_configuration_has_its_limits_and_its_size(tmp_path: Path) -> None:
    told = "slas = sla_manager.slas\nprint(pool.size, [slas[n].max_duration_seconds for n in slas], slas[4].critical)"
    assert output(tmp_path, block("02_custom_configuration"), told) == "6 [45, 45, 60, 60, 60] True\n"


def test_lane_s_pool_has_the_strategy_and_workers_of_the_lane(tmp_path: Path) -> None:
    told = """
for lane in LaneType:
    with get_pool_for_lane(lane) as pool:
        pool.submit_stage(2, "a", time.sleep, 0)
        print(lane.value, pool.strategy.value, pool.wait_all(), pool.size if lane is not LaneType.STANDARD else "auto")
"""
    setup = "from paropt_exporter import ParallelizationStrategy, AdaptiveWorkerPool"
    assert output(tmp_path, setup, block("03_lane_specific"), told).splitlines() == [
        "docs thread_pool (True, []) 2",
        "standard adaptive (True, []) auto",
        "heavy process_pool (True, []) 8",
    ]


def test_simple_pattern_runs_the_five_tools_and_prints_a_report(tmp_path: Path) -> None:
    process = run(tmp_path, block("04_simple_parallel"), PATH=tools(tmp_path))
    assert (process.returncode, process.stderr) == (0, "")
    assert "5 succeeded, 0 failed" in process.stdout
    assert sorted((tmp_path / "calls").read_text().splitlines()) == [
        "bandit -r agent/", "mypy agent/", "pytest tests/backend/", "pytest tests/integration/", "ruff check agent/",
    ]  # fmt: skip


def test_simple_pattern_logs_each_failure_and_exits_with_1(tmp_path: Path) -> None:
    process = run(tmp_path, block("04_simple_parallel"), PATH=tools(tmp_path, mypy=3, bandit=1))
    assert process.returncode == 1
    types, security = CalledProcessError(3, ["mypy", "agent/"]), CalledProcessError(1, ["bandit", "-r", "agent/"])
    assert process.stdout.splitlines() == [
        f"ERROR stage 3 (type_checking): CalledProcessError: {types}",
        f"ERROR stage 6 (security_scan): CalledProcessError: {security}",
    ]


def test_sla_pattern_is_silent_while_the_limits_hold(tmp_path: Path) -> None:
    assert output(tmp_path, WORK, block("05_sla_enforcement")) == ""


def test_sla_pattern_names_what_was_broken_and_exits_with_1_for_a_critical_limit(tmp_path: Path) -> None:
    tight = """
from functools import partial
tight = {2: SLATarget(2, 0.01), 4: SLATarget(4, 0.05, critical=True)}
ParallelizationSLAManager = partial(ParallelizationSLAManager, slas=tight)
"""
    process = run(tmp_path, WORK, tight, block("05_sla_enforcement"))
    assert process.returncode == 1
    assert "SLA VIOLATIONS DETECTED" in process.stdout
    assert re.search(r"^  stage 4 \(tests\) took [\d.]+ s: over its critical limit of 0.05 s$", process.stdout, re.M)
    assert re.search(r"^  stage 2 \(linting\) took [\d.]+ s: over its limit of 0.01 s$", process.stdout, re.M)


def test_profiling_pattern_prints_a_profile_for_each_stage(tmp_path: Path) -> None:
    shown = output(tmp_path, WORK, block("06_profiling"))
    assert re.findall(r"Stage (\d): (\w+)", shown) == [("2", "quality_gates"), ("3", "type_check"), ("4", "tests")]
    assert shown.count("Recommended Strategy: thread_pool") == 3
    assert shown.count("Parallelizable: True") == 3
    durations = [float(seconds) for seconds in re.findall(r"Avg Duration: (\d+\.\d\d)s", shown)]
    assert len(durations) == 3
    assert durations[2] >= 0.1


def test_export_pattern_writes_metrics_that_any_json_parser_reads(tmp_path: Path) -> None:
    stages = 'pool.submit_stage(2, "a", time.sleep, 0.1); pool.submit_stage(3, "b", time.sleep, 0.1)'
    shown = output(tmp_path, block("07_metrics_export", execute_stages=stages))
    written = (tmp_path / ".workflow_stats/parallelization_metrics.json").read_text()
    metrics = json.loads(written, parse_constant=pytest.fail)
    assert (metrics["total_tasks"], metrics["completed_tasks"], metrics["strategy"]) == (2, 2, "adaptive")
    assert "Success Rate: 100.0%" in shown


@pytest.mark.parametrize(
    ("name", "constant", "strategy", "workers", "seconds"),
    [
        ("08_docs_lane", "LANE_DOCS_CONFIG", "thread_pool", 2, 10),
        ("09_standard_lane", "LANE_STANDARD_CONFIG", "adaptive", None, 30),
        ("10_heavy_lane", "LANE_HEAVY_CONFIG", "process_pool", 8, 60),
    ],
)
def test_lane_config_makes_a_pool_and_its_slas(
    tmp_path: Path, name: str, constant: str, strategy: str, workers: int | None, seconds: int
) -> None:
    used = f"""
config = {constant}
pool = AdaptiveWorkerPool(config["strategy"], config["workers"])
slas = ParallelizationSLAManager({{n: SLATarget(n, limit) for n, limit in config["sla_targets"].items()}})
print(json.dumps([pool.strategy, config["workers"], slas.slas[6].max_duration_seconds]))
"""
    assert json.loads(output(tmp_path, block(name), used)) == [strategy, workers, seconds]


def test_real_time_monitoring_prints_the_report_and_logs_the_slas_results(tmp_path: Path) -> None:
    shown = output(tmp_path, A_POOL_AND_AN_SLA, block("11_real_time_monitoring"))
    assert "thread_pool pool of 2 · 2 tasks" in shown
    took = r"took [\d.]+ s: over its"
    assert re.search(rf"ERROR SLA VIOLATION: stage 3 \(type_check\) {took} critical limit of 0.001 s", shown)
    assert re.search(rf"WARNING SLA WARNING: stage 2 \(linting\) {took} limit of 0.001 s", shown)


def test_historical_analysis_reads_the_history_that_the_command_prints(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text("stages:\n  - {number: 2, name: quick, run: 'true'}\n")
    for _ in range(2):
        ended = real_servers.run(tmp_path, "--once", "--web.listen-address", "127.0.0.1:0")
        assert ended.returncode == 0, ended.stderr
    (tmp_path / ".workflow_stats").mkdir()
    printed = real_servers.run(tmp_path, "history", "--output", "json").stdout
    (tmp_path / ".workflow_stats/parallelization_metrics.json").write_text(printed)
    shown = output(tmp_path, block("12_historical_analysis"), "print(len(historical))")
    assert re.match(r"Average throughput: \d+\.\d\d tasks/sec\n", shown)
    assert shown.endswith("\n2\n")


def test_historical_analysis_sees_a_degradation(tmp_path: Path) -> None:
    runs = [{"throughput_tasks_per_second": value} for value in (4.0, 4.0, 1.0)]
    (tmp_path / ".workflow_stats").mkdir()
    (tmp_path / ".workflow_stats/parallelization_metrics.json").write_text(json.dumps(runs))
    assert "PERFORMANCE DEGRADATION DETECTED" in output(tmp_path, block("12_historical_analysis"))


def test_resource_cleanup_ends_the_pool(tmp_path: Path) -> None:
    made = "pool = AdaptiveWorkerPool()"
    refused = """
try:
    pool.submit_stage(2, "late", time.sleep, 0)
except RuntimeError as error:
    print(error)
"""
    cleanup = block("13_resource_cleanup", execute_tasks='pool.submit_stage(2, "a", time.sleep, 0)')
    shown = output(tmp_path, made, cleanup, refused, "print(pool.metrics.completed_tasks, pool.metrics.total_tasks)")
    assert shown == "cannot schedule new futures after shutdown\n1 1\n"


@pytest.mark.parametrize(
    ("name", "strategy", "size"),
    [("14_uses_all_cpu", "process_pool", None), ("16_under_utilized", "thread_pool", 2),
     ("17_memory_spikes", "thread_pool", 4)],
)  # fmt: skip
def test_remedy_makes_the_pool_that_it_names(tmp_path: Path, name: str, strategy: str, size: int | None) -> None:
    used = 'pool.submit_stage(2, "a", time.sleep, 0); print(json.dumps([pool.wait_all(), pool.strategy, pool.size]))'
    done, made, workers = json.loads(output(tmp_path, block(name), used))
    assert (done, made) == ([True, []], strategy)
    assert workers == size if size is not None else workers >= 1


def test_remedy_for_sla_violations_raises_the_limit(tmp_path: Path) -> None:
    asked = "print(sla_manager.check_stage_sla(6, 89), sla_manager.check_stage_sla(6, 91))"
    assert output(tmp_path, block("15_sla_violations"), asked) == "True False\n"


def test_integration_with_a_workflow_runs_its_bound_methods_in_every_lane(tmp_path: Path) -> None:
    used = """
class Workflow(WorkflowOrchestrator):
    def run_stage_2(self): pass
    def run_stage_3(self): pass
    def run_stage_4(self): pass
    def run_stage_5(self): raise OSError("no database")
    def run_stage_6(self): pass

for lane in LaneType:
    workflow = Workflow(lane)
    workflow.run_stage_5 = workflow.run_stage_4 if lane is LaneType.DOCS else workflow.run_stage_5
    print(lane.value, asyncio.run(workflow.execute_parallel_stages()))
    workflow.pool.shutdown()
"""
    process = run(tmp_path, block("18_workflow_integration"), used)
    assert process.returncode == 0
    # The workflow holds its pool, so its methods can't be pickled: PROCESS_POOL says so once for each.
    warned = [line.split(" can't be sent to a process")[0] for line in process.stderr.splitlines()]
    assert [name.split(":")[0].rpartition(".")[2] for name in sorted(warned)] == [
        f"run_stage_{number}" for number in range(2, 7)
    ]
    assert process.stdout.splitlines() == [
        "docs (True, [])",
        "standard (False, ['stage 5 (integration_tests): OSError: no database'])",
        "heavy (False, ['stage 5 (integration_tests): OSError: no database'])",
    ]
