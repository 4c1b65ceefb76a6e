"""The completion script, asked by bash as a person's Tab key asks it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.cli import completion
from paropt_exporter.cli.flags import build_parser
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
from support import projects
from support.event_samples import run_started

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
    write_project(tmp_path)
    (tmp_path / "results").mkdir()
    return tmp_path


def write_project(folder: Path) -> None:
    """Write a project with two stages, the lanes `quick` and `nightly`, and a history of two runs."""
    projects.write(folder, 'name: lint, run: "true"\nname: unit, run: "true"', lanes="lanes: {quick: {}, nightly: {}}")
    with closing(History(folder / ".paropt/history.db", project="demo", clock=SystemClock())) as history:
        for run_id in ("2026a", "2026b"):
            history.observe(run_started(run_id))


def complete_in_bash(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the completion of the last word; stdout has the words that bash offers."""
    return subprocess.run(
        ["bash", "-c", ASK, "bash", *words],
        cwd=folder,
        env={**os.environ, **WITH_COMMAND},
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--push"], {"--push.url", "--push.fail", "--push.instance"}),
        (["--strategy", ""], {"thread", "process", "hybrid", "adaptive", "sequential"}),
        (["--config.file", "mi"], {"mine.yml"}),
        (["--textfile", ""], {"results", ".paropt"}),
        (["hist"], {"history"}),
        (["completion", ""], {*completion.SHELLS}),
        (["history", "--output", ""], {"text", "json"}),
        (["--skip", ""], {"lint", "unit"}),
        (["un"], {"unit"}),
        (["lint", "un"], {"unit"}),
        (["--lane", ""], {"docs", "standard", "heavy", "quick", "nightly"}),
        (["sla", "--lane", "ni"], {"nightly"}),
        (["--report", ""], {"junit=", "gitlab=", "json=", "trace=", "github", "otlp", "none"}),
        (["history", "--compare", "2026a", ""], {"2026a", "2026b"}),
        (["log", ""], {"2026a", "2026b", "lint", "unit"}),
    ],
    ids=[
        "flag",
        "choice",
        "file",
        "folder",
        "command",
        "argument",
        "command's choice",
        "stage",
        "word",
        "second word",
        "lane",
        "command's lane",
        "report",
        "run",
        "run or stage",
    ],
)
def test_bash_completes_flags_values_files_and_commands(folder: Path, words: list[str], expected: set[str]) -> None:
    assert set(complete_in_bash(folder, words).stdout.split()) == expected


ASK_LINE = """
source ./script
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_LINE="paropt-exporter $1" COMP_POINT=$((16 + ${#1}))
shift
COMP_WORDS=(paropt-exporter "$@")
COMP_CWORD=$#
_shtab_paropt_exporter_whole_words
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "split", "expected"),
    [
        ("test:u", ["test", ":", "u"], ["unit"]),
        ("lint test:", ["lint", "test", ":"], ["unit", "e2e"]),
        ("te", ["te"], ["test:unit", "test:e2e"]),
        ("--lane=q", ["--lane", "=", "q"], ["quick", "q:night"]),
        ("--lane=q:n", ["--lane", "=", "q", ":", "n"], ["night"]),
        ("--web.listen-address :1 --skip li", ["--web.listen-address", ":", "1", "--skip", "li"], ["lint"]),
    ],
)
def test_bash_completes_words_that_it_splits_at_colons_and_equals_signs(
    folder: Path, line: str, split: list[str], expected: list[str]
) -> None:
    """It replaces only the part behind the last of them."""
    stages = "\n".join(f'name: "{name}", run: "true"' for name in ("test:unit", "test:e2e", "lint"))
    projects.write(folder, stages, lanes='lanes: {quick: {}, "q:night": {}}')
    asked = subprocess.run(
        ["bash", "-c", ASK_LINE, "bash", line, *split],
        cwd=folder,
        env={**os.environ, **WITH_COMMAND},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.split() == expected
    assert asked.stderr == ""


@pytest.mark.parametrize("words", [["--lane", ""], ["history", "--run", ""], ["log", ""], ["--skip", ""]])
def test_config_that_can_not_be_read_completes_nothing(folder: Path, words: list[str]) -> None:
    (folder / "paropt.yml").write_text("lanes: [")
    asked = complete_in_bash(folder, words)
    assert asked.stdout.split() == []
    assert asked.stderr.splitlines() == [
        "complete -o bashdefault -F _shtab_paropt_exporter_whole_words paropt-exporter"
    ]


@pytest.mark.parametrize("words", [["--skip", ""], ["t"], ["--lane", ""], ["history", "--run", ""], ["log", ""]])
def test_name_that_a_shell_would_expand_is_not_completed(folder: Path, words: list[str]) -> None:
    """Names of a checkout and of its history may be those of a stranger: the Tab key must run nothing."""
    name = "t$(touch ran)"
    projects.write(folder, f'name: "{name}", run: "true"\nname: tests, run: "true"', lanes=f'lanes: {{"{name}": {{}}}}')
    with closing(History(folder / ".paropt/history.db", project="demo", clock=SystemClock())) as history:
        history.observe(run_started(name))
    asked = complete_in_bash(folder, words)
    assert asked.stdout.split()  # the other names
    assert "touch" not in asked.stdout
    assert not (folder / "ran").exists()


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
        ("--lane q", {"quick"}),
        ("--report ", {"junit=", "gitlab=", "json=", "trace=", "github", "otlp", "none"}),
        ("history --run ", {"2026a", "2026b"}),
    ],
    ids=["flag", "choice", "command", "command's choice", "stage", "word", "lane", "report", "run"],
)
def test_fish_completes_flags_values_commands_and_stages(tmp_path: Path, line: str, expected: set[str]) -> None:
    write_project(tmp_path)
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


def test_zsh_asks_for_names_when_it_completes_them() -> None:
    """A command in the options would run when the script is sourced, in another folder."""
    script = render("zsh")
    (lane, *_) = (line for line in script.splitlines() if line.startswith('  "--lane['))
    assert lane.endswith(':lane:_shtab_paropt_exporter_lanes"')
    assert "_shtab_paropt_exporter_lanes() {\n" in script
    assert "\n  _found=(${_found//:/\\\\:})" in script  # `_describe` would take `unit` of `test:unit` for a description
    assert "paropt-exporter" not in script.partition("_shtab_paropt_exporter_options=(")[2].partition("\n)\n")[0]


def test_tcsh_proposes_stages_as_first_and_as_further_words() -> None:
    lines = [line.strip().removesuffix(" \\") for line in render("tcsh").splitlines()]
    (first,) = (line for line in lines if line.startswith("'p/1/"))
    assert first.startswith("'p/1/`sh -c \"echo init check ")
    assert lines[-1] == "'p/*/`sh -c \"paropt-exporter completion bash --words stages 2>&-\"`/'"
    assert all(line.count("/") == 3 for line in (first, lines[-1]))  # tcsh ends the proposals at the next one
