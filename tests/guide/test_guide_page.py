"""Every code block of docs/guide.md and docs/python.md runs: Python, YAML, shell, and queries on a real Prometheus."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter import config, families
from support import projects, real_servers

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE + (DOCS / "python.md").read_text(), re.MULTILINE | re.DOTALL)
TESTED = ("promql", "python", "sh", "yaml")
SAMPLE = """\
project: sample
lanes:
  standard: {strategy: adaptive, sla: 30s}
stages:
  - {number: 2, name: quality_gates, run: "false"}
  - {number: 3, name: unit_tests, run: "sleep {item}", items: {list: ["0.1", "0.5"]}, sla: {max: 300ms}}
"""
RUNS = 3  # enough for an increase() to see


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "paropt.yml").write_text(SAMPLE)
    projects.keep_config(tmp_path)
    return tmp_path


def test_every_block_is_of_a_tested_language() -> None:
    assert {name for name, _ in BLOCKS} == {*TESTED, "text"}
    assert all(len(blocks(language)) > 1 for language in TESTED)


@pytest.mark.parametrize("script", blocks("python"))
def test_python_block_runs_as_a_script(project: Path, script: str) -> None:
    if "history" in script:
        assert real_servers.run(project, "--once", "--web.listen-address", "127.0.0.1:0").returncode == 1
    (project / "script.py").write_text(script)
    command = str(Path(real_servers.installed_command()).parent)
    process = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=project,
        env={**os.environ, "PATH": f"{command}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=real_servers.HANG_SECONDS,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_block_is_a_config(tmp_path: Path, text: str) -> None:
    (tmp_path / "paropt.yml").write_text(text)
    read = config.read_config(tmp_path / "paropt.yml", root=tmp_path)
    assert read.stages


@pytest.mark.parametrize("lines", blocks("sh"))
def test_shell_block_s_commands_run(project: Path, lines: str) -> None:
    assert real_servers.run(project, "--once", "--web.listen-address", "127.0.0.1:0").returncode == 1
    for line in lines.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "paropt-exporter"
        process = real_servers.run(project, *arguments)
        # The sample has a stage that fails, so a run ends with 1.
        assert process.returncode == (1 if "--once" in arguments else 0), process.stderr
        assert process.stdout


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real_servers.Prometheus]:
    """A Prometheus that scrapes the sample project, whose lane runs again and again."""
    folder = tmp_path_factory.mktemp("scraped")
    (folder / "paropt.yml").write_text(SAMPLE.replace('"false"', '"true"'))  # a first run that succeeds
    assert real_servers.run(folder, "--once", "--web.listen-address", "127.0.0.1:0").returncode == 0
    (folder / "paropt.yml").write_text(SAMPLE)
    address = f"127.0.0.1:{real_servers.free_port()}"
    exporter = subprocess.Popen(
        [real_servers.installed_command(), "--every", "1s", "--web.listen-address", address],
        cwd=folder,
        env=real_servers.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with real_servers.prometheus(folder / "server", [address]) as server:
            enough = f"min(increase({families.RUNS.name}{{result='failure'}}[1h])) >= {RUNS}"
            real_servers.eventually("a few runs were scraped", lambda: server.query(enough))
            yield server
    finally:
        exporter.terminate()
        exporter.wait(real_servers.HANG_SECONDS)


@pytest.mark.parametrize("query", blocks("promql"))
def test_query_finds_something_in_a_prometheus_that_scraped_a_few_runs(
    prometheus: real_servers.Prometheus, query: str
) -> None:
    found = real_servers.eventually(f"an answer to {query}", lambda: prometheus.query(query))
    values = [float(series["value"][1]) for series in found]
    assert any(value == value and value >= 0 for value in values)
    assert all(series["metric"]["project"] == "sample" for series in found)


def test_queries_use_the_catalogue_s_names_only() -> None:
    names = {name for query in blocks("promql") for name in re.findall(r"paropt_\w+", query)}
    known = {family.name for family in families.FAMILIES}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} <= known


def test_figures_come_from_the_benchmark_that_the_page_names() -> None:
    assert "`python benchmarks/strategies.py`" in PAGE
    assert (Path(__file__).parents[2] / "benchmarks/strategies.py").exists()
