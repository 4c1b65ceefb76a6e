"""The README's Python runs, its paropt.yml has no faults, and its links and commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.cli.flags import parse_command_line

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_runs_as_a_script(tmp_path: Path, block: str) -> None:
    script = tmp_path / "block.py"
    script.write_text(block)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_config_is_read_without_a_fault(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("yaml") if "stages:" in block)
    (tmp_path / "paropt.yml").write_text(block)
    assert [stage.number for stage in config.read_config(tmp_path / "paropt.yml", root=tmp_path).stages] == [
        2,
        3,
        4,
        5,
        6,
    ]


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


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
