"""docs/coming-from.md keeps its word: each of our commands is valid, and runs the stages that its row names."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
from paropt_exporter.history.summaries import RunSummary
from support import projects
from support.in_process import call_command
from support.real_servers import installed_command, run
from support.repositories import Repository

PAGE = (Path(__file__).parent.parent / "docs" / "coming-from.md").read_text()
TOOLS = {
    *(
        "tox",
        "nox",
        "just",
        "go-task",
        "pre-commit",
        "make",
        "doit",
        "moon",
        "Turborepo and Nx",
        "Bazel",
        "pytest-xdist",
    ),
    "GNU parallel and xargs",
}
OTHER_SECTIONS = {"What differs from all of them", "In a git hook", "Jobs of CI"}
STAGES = ("lint", "build", "unit_tests", "e2e_tests")
START_NO_LANE = {"check", "--list", "--dry-run"}
# Flags whose effect is that of a run. The others select stages, and their selection is in the plan.
ACT_ON_RUNS = {"-q", "-v", "--keep-going", "--fail-fast", "--failed"}


def _rows() -> Iterator[tuple[str, str, str]]:
    """Yield the cells of each row: their command, ours, and the stages that run."""
    for line in PAGE.splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            theirs, ours, stages = cells
            yield theirs, ours, stages


ROWS = [*_rows()]


class Project:
    """The project of the page, in which each of our commands is run, or its plan is shown, once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stages: dict[str, str] = {}
        (self._good,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        Repository(folder)  # with a change since its main branch: all files are new
        self._write(self._good)

    def stages(self, command: str) -> str:
        """Return the stages that run with a command as the page writes them."""
        if command not in self._stages:
            words = {*shlex.split(command)[1:]}
            if not words or words & ACT_ON_RUNS:
                if "--failed" in words:
                    self._let_unit_tests_fail()
                names = self._watch(lambda: self._start(command))
            elif words & START_NO_LANE:
                names = self._watch(lambda: self.call(command))
            else:
                planned = self.call(command, "--dry-run", "--output", "json")
                assert planned.returncode == 0, planned.stderr
                names = {stage["name"] for stage in json.loads(planned.stdout)["stages"]}
            self._stages[command] = ", ".join(name for name in STAGES if name in names) or "none"
        return self._stages[command]

    def call(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Call a command that starts no lane."""
        return call_command(self._folder, *more, *_split(command))

    def _watch(self, start: Callable[[], subprocess.CompletedProcess[str]]) -> set[str]:
        """Start a command, and return the stages that ran."""
        known = len(self._runs())
        assert start().returncode == 0
        return {stage.stage for one in self._runs()[known:] for stage in one.stages}

    def _start(self, command: str) -> subprocess.CompletedProcess[str]:
        return run(self._folder, projects.ANY_PORT, "--once", *_split(command))

    def _let_unit_tests_fail(self) -> None:
        """Let them fail in a run, and be good again, so that --failed has something to do."""
        self._write(self._good.replace("echo pytest {args} {items}", "false {items}"))
        assert self._start("paropt-exporter unit_tests").returncode == 1
        self._write(self._good)

    def _runs(self) -> tuple[RunSummary, ...]:
        path = self._folder / ".paropt" / "history.db"
        if not path.exists():
            return ()
        with closing(History(path, project=self._folder.name, clock=SystemClock(), for_reading=True)) as history:
            return history.load_runs(limit=1000)

    def _write(self, config: str) -> None:
        (self._folder / "paropt.yml").write_text(config)


def _split(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program == "paropt-exporter"
    return words


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(("theirs", "ours", "stages"), ROWS, ids=[theirs for theirs, _, _ in ROWS])
def test_a_command_runs_the_stages_that_its_row_names(project: Project, theirs: str, ours: str, stages: str) -> None:
    assert project.stages(ours) == stages, theirs


def test_arguments_reach_the_commands_of_the_page(project: Project) -> None:
    ours = {command for _, command, _ in ROWS if " -- " in command}
    assert ours
    for command in ours:
        assert "-k login" in project.call(command, "--dry-run").stdout, command


def test_every_tool_has_its_daily_commands() -> None:
    sections = {section.partition("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
    assert sections.keys() == TOOLS | OTHER_SECTIONS
    assert all(sections[tool].count("\n| `") >= 6 for tool in TOOLS)


def test_hook_of_the_page_keeps_gits_variables_from_the_stages(tmp_path: Path) -> None:
    """Otherwise this stage changes the repository itself, as the tests of many projects do in their hooks."""
    other = tmp_path / "other"
    other.mkdir()
    stage = "name: tests, shell: true, run: cd ../other && git init --quiet && git config paropt.test 1"
    main = Repository(tmp_path / "main")
    projects.write(main.root, stage)
    (hook,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    path = main.root / ".git" / "hooks" / "pre-commit"
    path.write_text(hook.replace("paropt-exporter", f"{installed_command()} {projects.ANY_PORT}"))
    path.chmod(0o755)
    main.git("-c", f"core.hooksPath={os.devnull}", "commit", "--quiet", "--allow-empty", "--message", "first")
    main.git("worktree", "add", "--quiet", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    projects.write(linked, stage)
    main.git("-C", str(linked), "add", "--all")
    main.git("-C", str(linked), "commit", "--quiet", "--message", "second")
    assert main.git("config", "--default", "0", "paropt.test") == "0"
    assert "[paropt]" in (other / ".git" / "config").read_text()
