"""The completion script, asked by bash as a person's Tab key asks it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paropt_exporter.cli import completion
from paropt_exporter.cli.flags import build_parser
from support import projects

ASK = """
source ./script
complete -p paropt-exporter >&2
COMP_WORDS=(paropt-exporter "$@")
COMP_CWORD=$#
_shtab_paropt_exporter
printf '%s\\n' "${COMPREPLY[@]}"
"""

# The shells run the command itself to complete stages.
WITH_COMMAND = {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with (tmp_path / "script").open("w") as script:
        completion.run("bash", build_parser(), stdout=script)
    (tmp_path / "mine.yml").touch()
    projects.write(tmp_path, 'name: lint, run: "true"\nname: unit, run: "true"')
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
        (["--skip", ""], {"lint", "unit"}),
        (["un"], {"unit"}),
        (["lint", "un"], {"unit"}),
    ],
    ids=["flag", "choice", "file", "folder", "command", "argument", "command's choice", "stage", "word", "second word"],
)
def test_bash_completes_flags_values_files_and_commands(folder: Path, words: list[str], expected: set[str]) -> None:
    asked = subprocess.run(
        ["bash", "-c", ASK, "bash", *words],
        cwd=folder,
        env={**os.environ, **WITH_COMMAND},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(asked.stdout.split()) == expected


def fish(folder: Path, line: str) -> set[str]:
    """Return fish's proposals for a command line, with the command on PATH for names of stages."""
    program = shutil.which("fish")
    assert program is not None, "fish is missing: make tools"
    with (folder / "script.fish").open("w") as script:
        completion.run("fish", build_parser(), stdout=script)
    libraries = [str(path) for path in Path(program).parent.parent.glob("lib/*-linux-gnu")]  # of an unpacked package
    asked = subprocess.run(
        [program, "--no-config", "-c", f"source script.fish; complete -C'paropt-exporter {line}'"],
        cwd=folder,
        env={**os.environ, **WITH_COMMAND, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {proposed.partition("\t")[0] for proposed in asked.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--push", {"--push.url", "--push.fail", "--push.instance"}),
        ("--strategy ", {"thread", "process", "hybrid", "adaptive", "sequential"}),
        ("--lane docs hist", {"history"}),
        ("history --output ", {"text", "json"}),
        ("--stage ", {"lint", "unit"}),
        ("lint un", {"unit"}),
    ],
    ids=["flag", "choice", "command", "command's choice", "stage", "word"],
)
def test_fish_completes_flags_values_commands_and_stages(tmp_path: Path, line: str, expected: set[str]) -> None:
    projects.write(tmp_path, 'name: lint, run: "true"\nname: unit, run: "true"')
    assert fish(tmp_path, line) == expected


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_has_a_script(shell: str) -> None:
    script = io.StringIO()
    completion.run(shell, build_parser(), stdout=script)
    assert "web.listen-address" in script.getvalue()


def render(shell: str) -> str:
    script = io.StringIO()
    completion.run(shell, build_parser(), stdout=script)
    return script.getvalue()


def test_zsh_proposes_stages_as_words_and_registers_when_sourced() -> None:
    script = render("zsh")
    after_commands = script.partition("_describe 'paropt-exporter commands' _commands\n")[2]
    assert after_commands.startswith("  _shtab_paropt_exporter_stages\n}\n")
    assert "        *) _shtab_paropt_exporter_stages ;;\n      esac" in script  # behind a first stage
    assert "zsh_eval_context[-1] == (eval|file)" in script


def test_tcsh_proposes_stages_as_first_and_as_further_words() -> None:
    lines = [line.strip().removesuffix(" \\") for line in render("tcsh").splitlines()]
    (first,) = (line for line in lines if line.startswith("'p/1/"))
    assert first.startswith("'p/1/`sh -c \"echo init check ")
    assert lines[-1] == "'p/*/`sh -c \"paropt-exporter --list -q 2>&-\"`/'"
    assert all(line.count("/") == 3 for line in (first, lines[-1]))  # tcsh ends the proposals at the next one
