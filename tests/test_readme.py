"""The README's Python runs, its paropt.yml has no faults, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.cli.flags import parse_command_line
from support.deployed import check_queries, refusal
from support.real_servers import program
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_prints_what_its_comments_say(tmp_path: Path, block: str) -> None:
    script = tmp_path / "block.py"
    script.write_text(block)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == re.findall(r"^ *print\(.*\) +# (.*)$", block, re.MULTILINE)


def test_config_is_read_without_a_fault(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("yaml") if "stages:" in block)
    (tmp_path / "paropt.yml").write_text(block)
    assert [stage.number for stage in config.read_config(tmp_path / "paropt.yml", root=tmp_path).stages] == [
        1,
        2,
        3,
        4,
        5,
    ]


def test_scrape_config_finds_the_generated_rules(tmp_path: Path) -> None:
    """Prometheus' own default of a minute would delay an alert for a broken limit by up to two."""
    (block,) = (block for block in blocks("yaml") if "scrape_configs:" in block)
    (tmp_path / "prometheus.yml").write_text(block)
    exporter = Path(sys.executable).with_name("paropt-exporter")
    assert refusal(exporter, "generate", "alerts", "dashboards", "--out", tmp_path) == ""
    assert refusal(program("promtool"), "check", "config", "--lint-fatal", tmp_path / "prometheus.yml") == ""
    read = load_yaml(block)
    assert set(read["global"].values()) == {"15s"}
    assert all(any(tmp_path.glob(pattern)) for pattern in read["rule_files"])


def test_every_query_has_an_answer_for_two_hosts(tmp_path: Path) -> None:
    """Prometheus refuses a comparison by labels that several series have in common."""
    (block,) = blocks("promql")
    queries = [line.partition("#")[0].strip() for line in block.splitlines()]
    values = {
        'paropt_stage_last_duration_seconds{lane="l",stage="s"': "9x9",
        'paropt_sla_warning_seconds{lane="l",stage="s"': "8x9",
        'paropt_stage_runs_total{lane="l",stage="s",result="failure"': "0+1x9",
        'paropt_pool_busy_seconds_total{pool="commands"': "0+1x9",
        'paropt_pool_slot_seconds_total{pool="commands"': "0+2x9",
    }
    series = {f'{name},instance="{host}"}}': numbers for name, numbers in values.items() for host in "ab"}
    asked = [(f"count({query})", "9m", {"{}": count}) for query, count in zip(queries, (2, 1, 2), strict=True)]
    check_queries(tmp_path, series, asked)


def test_every_command_line_is_understood() -> None:
    lines = [line.partition("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    commands = [words[1:] for words in lines if words[:1] == ["paropt-exporter"]]
    assert commands
    for arguments in commands:
        parse_command_line(arguments)


def test_our_own_lane_names_files_and_folders_that_are_there() -> None:
    words = (ROOT / "paropt.yml").read_text().replace(",", " ").replace("]", " ").split()
    paths = [word for word in words if word.startswith("tests/")]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"[`\n]make ([a-z]+)", README)) <= targets
