"""The completion script, asked by bash as a person's Tab key asks it."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from paropt_exporter.cli import completion
from paropt_exporter.cli.flags import parser

ASK = """
source ./script
complete -p paropt-exporter >&2
COMP_WORDS=(paropt-exporter "$@")
COMP_CWORD=$#
_shtab_paropt_exporter
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with (tmp_path / "script").open("w") as script:
        completion.run("bash", parser(), stdout=script)
    (tmp_path / "mine.yml").touch()
    (tmp_path / "results").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--push"], {"--push.url", "--push.fail", "--push.instance"}),
        (["--strategy", ""], {"thread", "process", "hybrid", "adaptive", "sequential"}),
        (["--config.file", "mi"], {"mine.yml"}),
        (["--textfile", ""], {"results"}),
        (["hist"], {"history"}),
        (["completion", ""], {*completion.SHELLS}),
        (["history", "--output", ""], {"text", "json"}),
    ],
    ids=["flag", "choice", "file", "folder", "command", "argument", "command's choice"],
)
def test_bash_completes_flags_values_files_and_commands(folder: Path, words: list[str], expected: set[str]) -> None:
    asked = subprocess.run(["bash", "-c", ASK, "bash", *words], cwd=folder, capture_output=True, text=True, check=True)
    assert set(asked.stdout.split()) == expected


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_script(shell: str) -> None:
    script = io.StringIO()
    completion.run(shell, parser(), stdout=script)
    assert "web.listen-address" in script.getvalue()
