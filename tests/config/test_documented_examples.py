"""The examples of all pages: each paropt.yml has no fault, and each command line is understood."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.cli.flags import parse_command_line

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = ("stages:", "x-", "lanes:", "feedback:", "history:", "dask:", "  - {number:")
STAGES = "stages:\n  - {number: 99, name: other, run: echo}\n"
PROGRAM = "paropt-exporter"


def list_configs() -> Iterator[tuple[str, str]]:
    """Yield each block that is a paropt.yml, or a part of one, with its page and line."""
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            example = re.sub(r"\A# paropt.yml\n", "", block[1])
            if example.startswith(SECTIONS):
                yield f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}", example


def list_commands() -> Iterator[tuple[str, str]]:
    """Yield each command line of ours in a block of a shell, or between backquotes, with its page."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = re.findall(r"^ *```(?:sh|console)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
        lines += re.findall(rf"`({PROGRAM} [^`]*)`", text)
        for line in lines:
            for command in re.split(r" && |; |<\(|\| ", line):
                if re.match(rf"\(?{PROGRAM}( (?!--version)|$)", command.strip()):
                    yield page.name, command.strip()


@pytest.mark.parametrize(("place", "example"), [*list_configs()])
def test_config_has_no_fault(tmp_path: Path, place: str, example: str) -> None:
    if example.startswith("  - "):
        example = f"{STAGES}{example}"
    elif "stages:" not in example:
        example = f"{example}{STAGES}"
    (tmp_path / "paropt.yml").write_text(example)
    assert config.read_config(tmp_path / "paropt.yml", root=tmp_path).stages, place


@pytest.mark.parametrize(("page", "command"), [*dict.fromkeys(list_commands())])
def test_command_line_is_understood(page: str, command: str) -> None:
    words = shlex.split(re.sub(r" (&(?= |$)|>> .*)", " ", command), comments=True)
    parse_command_line([word.rstrip(")") for word in words[1:]])
