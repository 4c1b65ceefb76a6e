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
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
OTHER_FILES = (
    *(
        "# prometheus.yml",
        "scrape_configs:",
        "metric_relabel_configs:",
        "relabel_configs:",
        "tls_server_config:",
        "# ~/.config/paropt-exporter/config.yml",
    ),
    "apiVersion: kustomize",
)
STAGE = "stages:\n  - name: other\n    run: echo {item}\n    items: {list: [tests/e2e/test_pay.py]}\n"
PROGRAM = "paropt-exporter"


def list_configs() -> Iterator[tuple[str, str]]:
    """Yield each block that is a paropt.yml, or a part of one, with its page and line."""
    for page in PAGES:
        text = page.read_text()
        for block in re.finditer(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if not block[1].startswith(OTHER_FILES):
                yield f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}", block[1]


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
    if example.startswith(" "):  # more stages, or more keys of one
        example = f"{STAGE}{example}"
    elif not re.search("^stages:", example, re.MULTILINE):
        example = f"{example}{STAGE}"
    (tmp_path / "paropt.yml").write_text(example)
    assert config.read_config(tmp_path / "paropt.yml", root=tmp_path).stages, place


@pytest.mark.parametrize(("page", "command"), [*dict.fromkeys(list_commands())])
def test_command_line_is_understood(page: str, command: str) -> None:
    words = shlex.split(re.sub(r" (&(?= |$)|>> .*)", " ", command), comments=True)
    parse_command_line([word.rstrip(")") for word in words[1:]])
