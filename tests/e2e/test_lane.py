"""One lane of five real commands and two Python stages, seen through the queries of a real Prometheus."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paropt_exporter import families
from support.command_scripts import BURNER
from support.real_servers import Prometheus, free_port, prometheus, serving, started_together

MIB = 1 << 20

# Starts a burner, waits for the end of its pipe, reports the CPU time of both and exits without reaping the burner.
FORGET = """
import os, resource, subprocess, sys
child = subprocess.Popen([sys.executable, "burn.py", "0.6"], stdout=subprocess.PIPE)
used = float(child.stdout.read()) + sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
with open("forgotten", "w") as report:
    report.write(str(used))
os._exit(0)
"""

ALLOCATE = """
import sys, time
block = b"x" * (int(sys.argv[1]) << 20)
time.sleep(0.3)
"""

CHECKS = """
import time
HELD = []
def hold():
    HELD.append(b"x" * (400 << 20))
def nap(seconds):
    began = time.monotonic()
    time.sleep(float(seconds))
    open("napped", "w").write(str(time.monotonic() - began))
"""

CONFIG = f"""
project: demo
lanes:
  standard: {{strategy: adaptive, workers: {{min: 1, max: 16, start: 4}}, sla: 30s, total: 5m}}
stages:
  - {{number: 1, name: hold_400_mb, call: "checks:hold"}}
  - {{number: 2, name: burner, run: ["{sys.executable}", burn.py, "0.8", burned], needs: [hold_400_mb]}}
  - {{number: 3, name: forgetful, run: ["{sys.executable}", forget.py], needs: [hold_400_mb]}}
  - {{number: 4, name: small, run: ["{sys.executable}", allocate.py, "40"], needs: [hold_400_mb], locks: [memory]}}
  - {{number: 5, name: large, run: ["{sys.executable}", allocate.py, "160"], needs: [hold_400_mb], locks: [memory]}}
  - {{number: 6, name: slow, run: sh slow.sh, sla: 1, needs: [burner, forgetful]}}
  - {{number: 7, name: naps, call: checks:nap, items: {{list: ['.9']}}, sla: {{max: 9, warn_at: .05}}, needs: [burner]}}
  - {{number: 8, name: waits, run: "sleep {{item}}", items: {{list: ["0.2", "1.2"]}}, needs: [hold_400_mb]}}
  - {{number: 9, name: unchanged, run: "true", inputs: [burn.py], needs: [hold_400_mb]}}
"""


@dataclass
class Seen:
    """The project, and the Prometheus that has scraped its first run."""

    folder: Path
    prometheus: Prometheus
    port: int


def write_project(folder: Path) -> None:
    for name, text in {
        "burn.py": BURNER,
        "forget.py": FORGET,
        "allocate.py": ALLOCATE,
        "checks.py": CHECKS,
        "paropt.yml": CONFIG,
        "nap": "1.5",
        "slow.sh": "cut -d' ' -f22 /proc/$$/stat > times; sleep $(cat nap); cut -d' ' -f1 /proc/uptime >> times",
    }.items():
        (folder / name).write_text(textwrap.dedent(text))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[int, Prometheus]]]:
    """A Prometheus and its target's port for `seen` and for each of the last two tests."""
    folder, ports = tmp_path_factory.mktemp("prometheus"), [free_port() for _ in range(3)]
    with started_together([prometheus(folder / str(port), [f"127.0.0.1:{port}"]) for port in ports]) as started:
        yield list(zip(ports, started, strict=True))


@pytest.fixture(scope="module")
def seen(servers: list[tuple[int, Prometheus]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("lane")
    write_project(folder)
    port, real = servers[0]
    address = f"--web.listen-address=127.0.0.1:{port}"
    with serving(folder, "--lane", "standard", "--every", "1h", address) as command:
        assert "standard succeeded" in command.summary(), (folder / "stderr.log").read_text()
        real.wait_for_scrape_after(time.time())
        yield Seen(folder, real, port)


# These are tested with sinks, a web config, `--deadline` and `serve`.
ELSEWHERE = (
    families.DELIVERY_FAILING,
    families.WEB_CONFIG_RELOAD_SUCCESSFUL,
    families.RUN_DEADLINE,
    families.RUN_PREDICTED_END,
    *families.SERVE_FAMILIES,
)


def test_every_family_of_the_catalogue_is_there(seen: Seen) -> None:
    for family in (each for each in families.FAMILIES if each not in ELSEWHERE):
        suffixes = "(_bucket|_sum|_count)" if family.kind is families.Kind.HISTOGRAM else ""
        selector = f'{{__name__=~"{family.name}{suffixes}", job="paropt"}}'
        series = seen.prometheus.query(f"last_over_time({selector}[5m])")
        if family is families.POOL_DEATHS:
            assert all(one["value"][1] == "0" for one in series)
        assert series, family.name
        assert all(one["metric"]["project"] == "demo" for one in series), family.name
        assert all(set(family.labels) <= set(one["metric"]) for one in series), family.name


def test_durations_are_those_that_the_stages_took(seen: Seen) -> None:
    took = seen.prometheus.by("stage", "paropt_stage_last_duration_seconds")
    began, ended = (seen.folder / "times").read_text().split()  # the kernel's ticks at its start; seconds at its end
    near = 0.05 + 5 * spawn_seconds()
    assert took["slow"] == pytest.approx(float(ended) - int(began) / os.sysconf("SC_CLK_TCK"), abs=near)
    assert took["naps"] == pytest.approx(float((seen.folder / "napped").read_text()), abs=near)
    sums = seen.prometheus.by("stage", "paropt_stage_duration_seconds_sum")
    assert sums["slow"] == pytest.approx(took["slow"])


def spawn_seconds() -> float:
    """Return the seconds to start a program and to see its end, under the machine's current load."""
    began = time.monotonic()
    for _ in range(10):
        subprocess.run(["true"], check=True)
    return (time.monotonic() - began) / 10


def test_cpu_seconds_are_those_that_a_burner_burned(seen: Seen) -> None:
    cpu = seen.prometheus.by("stage", "paropt_stage_cpu_seconds_total")
    assert cpu["burner"] == pytest.approx(float((seen.folder / "burned").read_text()), rel=0.1)


def test_cpu_seconds_of_an_unreaped_child_are_counted(seen: Seen) -> None:
    cpu = seen.prometheus.by("stage", "paropt_stage_cpu_seconds_total")
    assert cpu["forgetful"] == pytest.approx(float((seen.folder / "forgotten").read_text()), rel=0.1)


def test_peak_memory_distinguishes_two_allocations_beside_an_exporter_of_400_mb(seen: Seen) -> None:
    peak = seen.prometheus.by("stage", "paropt_stage_memory_peak_bytes")
    assert peak["large"] - peak["small"] == pytest.approx(120 * MIB, abs=20 * MIB)
    assert peak["small"] < 100 * MIB
    assert peak["hold_400_mb"] > 400 * MIB


def test_one_warning_and_one_violation_are_counted_once_each(seen: Seen) -> None:
    assert seen.prometheus.by("stage", "paropt_sla_warnings_total > 0") == {"slow": 1, "naps": 1}
    assert seen.prometheus.by("stage", 'paropt_sla_violations_total{severity="normal"} > 0') == {"slow": 1}
    assert seen.prometheus.by("stage", "paropt_sla_breached == 1") == {"slow": 1}
    assert set(seen.prometheus.by("stage", "paropt_sla_checks_total").values()) == {1}


def test_results_pools_and_progress_add_up(seen: Seen) -> None:
    query = seen.prometheus
    assert query.value('paropt_runs_total{result="success"}') == 1
    assert query.by("stage", "paropt_stage_last_result == 1").keys() == {
        "hold_400_mb", "burner", "forgetful", "small", "large", "slow", "naps", "waits", "unchanged",
    }  # fmt: skip
    assert query.by("result", "paropt_stage_last_result == 1") == {"success": 1}
    assert query.value("sum(paropt_pool_tasks_finished_total)") == 10
    assert query.value("sum(paropt_pool_tasks_submitted_total)") == 10
    assert query.value("sum(paropt_pool_busy_seconds_total)") <= query.value("sum(paropt_pool_slot_seconds_total)")
    assert set(query.by("stage", "paropt_stage_progress_ratio").values()) == {1}
    assert query.value("paropt_run_interval_seconds") == 3600
    assert query.value("time() - paropt_run_last_success_timestamp_seconds") < 60
    assert query.value("sum(paropt_observations_dropped_total)") == 0


def test_deadline_was_exported_while_the_stage_ran_and_only_then(seen: Seen) -> None:
    deadline = 'paropt_sla_deadline_timestamp_seconds{stage="slow"}'
    assert seen.prometheus.query(f"last_over_time({deadline}[5m])")
    assert seen.prometheus.query(f"{deadline}") == [] or seen.prometheus.value(f"time() - timestamp({deadline})") > 1


def test_after_the_next_good_run_nothing_is_breached_and_totals_go_on(
    tmp_path: Path, servers: list[tuple[int, Prometheus]]
) -> None:
    project = tmp_path
    write_project(project)
    config = re.sub(r", needs: \[[a-z0-9_, ]+\]", "", CONFIG)
    stages = [line for line in config.splitlines() if "name:" not in line or "name: slow" in line]
    (project / "paropt.yml").write_text("\n".join(stages))
    port, real = servers[1]
    address = f"--web.listen-address=127.0.0.1:{port}"
    for nap, breached, runs in (("1.3", 1, 1), ("0.1", 0, 2)):
        (project / "nap").write_text(nap)
        with serving(project, "--lane", "standard", address) as command:
            assert "standard succeeded" in command.summary()
            real.wait_for_scrape_after(time.time())
            assert real.value('paropt_sla_breached{severity="normal"}') == breached
            assert real.value('paropt_runs_total{result="success"}') == runs
            assert real.value('paropt_sla_violations_total{severity="normal"}') == 1
            assert command.stop() == 0


def test_three_runs_that_end_at_once_give_totals_of_three_and_an_increase_that_sees_them(
    tmp_path: Path, servers: list[tuple[int, Prometheus]]
) -> None:
    (tmp_path / "paropt.yml").write_text("stages:\n  - {number: 2, name: quick, run: 'sleep 0.6'}\n")
    port, real = servers[2]
    address = f"--web.listen-address=127.0.0.1:{port}"
    for _ in range(3):
        with serving(tmp_path, "--lane", "standard", "--once", "--web.linger", "20s", address) as command:
            assert "standard succeeded" in command.summary()
            assert command.process.wait(60) == 0
    total = 'last_over_time(paropt_runs_total{result="success"}[5m])'
    assert real.value(total) == 3
    # The first run's sample goes from absent to 1, which no increase() can see; the two after it are seen.
    assert real.value('increase(paropt_runs_total{result="success"}[5m])') >= 1.9
