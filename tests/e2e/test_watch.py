"""`--watch` with the installed command, in real folders."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import projects
from support.real_servers import HANG_SECONDS, environment, eventually, installed_command, run, serving
from support.repositories import Repository

# Each run of a stage adds a line to a file that is no input.
_TWO = """
name: lint, run: "echo run >> ../lint.runs", shell: true, inputs: ["src/*.py"], cache: never
name: docs, run: "echo run >> ../docs.runs", shell: true, inputs: [docs], cache: never
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project in a repository, beside which the stages leave their traces."""
    project = tmp_path / "project"
    repository = Repository(project)
    repository.commit(**{"src/a.py": "1", "docs/a.md": "1", ".gitignore": "*.log\n.paropt\n"})
    return project


@contextmanager
def watched(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command until its first run has ended and it waits for changes."""
    with serving(folder, projects.ANY_PORT, "--watch", *arguments) as command:
        wait_for_state(folder, 1)
        yield command.process
        command.process.send_signal(signal.SIGTERM)
        command.process.communicate(timeout=HANG_SECONDS)


def wait_for_state(folder: Path, count: int) -> str:
    """Wait until the command has told the state of its stages so often, and return the last one."""
    told = eventually(
        f"{count} runs have ended",
        lambda: (
            (found := [line for line in projects.messages(folder).splitlines() if "state: " in line])[count - 1 :]
            and found
        ),
    )
    return str(told[-1])


def count_runs(folder: Path, stage: str) -> int:
    path = folder.parent / f"{stage}.runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_only_affected_stages_run_again(folder: Path) -> None:
    projects.write(folder, _TWO)
    with watched(folder):
        (folder / "src/a.py").write_text("2")
        wait_for_state(folder, 2)
        assert (count_runs(folder, "lint"), count_runs(folder, "docs")) == (2, 1)
        (folder / "docs/new.md").write_text("1")
        assert "lint, docs passed" in wait_for_state(folder, 3)
        assert (count_runs(folder, "lint"), count_runs(folder, "docs")) == (2, 2)
        (folder / "docs/a.md").unlink()
        wait_for_state(folder, 4)
        assert (count_runs(folder, "lint"), count_runs(folder, "docs")) == (2, 3)


def test_later_runs_name_the_changed_file_and_repeat_no_hints(folder: Path) -> None:
    """Each run repeated the address of the metrics and a command that would start a second exporter."""
    projects.write(folder, 'name: lint, run: "grep -q 1 src/a.py", inputs: ["src/*.py"]')
    with watched(folder) as process:
        for count, text in enumerate(("2", "1"), start=2):
            (folder / "src/a.py").write_text(text)
            wait_for_state(folder, count)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=HANG_SECONDS)
    assert projects.messages(folder).count("src/a.py changed\n") == 2
    assert out.count("standard succeeded") == 2
    assert out.count("metrics  ") == 1
    assert "again" not in out


def test_turbo_10960_touched_file_and_other_files_run_nothing(folder: Path) -> None:
    projects.write(folder, _TWO)
    with watched(folder):
        (folder / "src/a.py").touch()
        (folder / "other.txt").write_text("1")
        (folder / "docs/a.md").write_text("2")  # the only change of an input, and the last event
        wait_for_state(folder, 2)
    assert (count_runs(folder, "lint"), count_runs(folder, "docs")) == (1, 2)


def test_stage_without_inputs_follows_all_files_that_git_does_not_ignore(folder: Path) -> None:
    projects.write(folder, 'name: all, run: "echo run >> ../all.runs; echo $$ > out.log", shell: true')
    with watched(folder):
        (folder / "new.txt").write_text("1")
        wait_for_state(folder, 2)
    assert count_runs(folder, "all") == 2


def test_outputs_of_a_stage_do_not_start_it(folder: Path) -> None:
    command = "date +%N > made; echo run >> ../build.runs"
    projects.write(folder, f'name: build, run: "{command}", shell: true, inputs: [docs, made], outputs: [made]')
    with watched(folder):
        (folder / "docs/a.md").write_text("2")
        wait_for_state(folder, 2)
    assert count_runs(folder, "build") == 2


def test_file_that_appears_while_the_first_run_is_planned_becomes_an_item(folder: Path) -> None:
    items = "ls src; echo late > src/late.py"
    stage = 'name: lint, run: "echo {item} >> ../lint.runs", shell: true, inputs: ["src/*.py"], cache: never'
    projects.write(folder, f"{stage}, items: {{command: [sh, -c, {items!r}]}}")
    with watched(folder):
        wait_for_state(folder, 1)
    assert sorted((folder.parent / "lint.runs").read_text().split()) == ["a.py", "a.py", "late.py"]


def test_own_output_and_reports_in_the_project_start_nothing(folder: Path) -> None:
    projects.write(folder, 'name: all, run: "echo run >> ../all.runs", shell: true')
    command = [installed_command(), projects.ANY_PORT, "--watch", "--report", "junit=report.xml", "--textfile", "."]
    with (folder / "out.txt").open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
    assert process.stderr is not None
    try:
        states = (line for line in process.stderr if "state: " in line)
        assert "all passed" in next(states)
        (folder / "src/a.py").write_text("2")
        assert "all passed" in next(states)
        assert (count_runs(folder, "all"), (folder / "report.xml").exists()) == (2, True)
    finally:
        process.terminate()
        process.communicate(timeout=HANG_SECONDS)


def test_stage_that_writes_its_own_inputs_settles(folder: Path) -> None:
    projects.write(
        folder, 'name: bad, run: "date +%s%N > docs/made.md; echo run >> ../bad.runs", shell: true, inputs: [docs]'
    )
    with watched(folder):
        assert "docs/made.md changed during 4 runs of bad in a row" in projects.messages(folder)
        assert count_runs(folder, "bad") <= 4  # a stale run may end before it counts
        (folder / "docs/a.md").write_text("2")
        wait_for_state(folder, 2)


def test_formatter_that_changes_its_inputs_once_settles(folder: Path) -> None:
    fix = "grep -q fixed src/a.py || echo fixed >> src/a.py; echo run >> ../fix.runs"
    projects.write(folder, f'name: fix, run: "{fix}", shell: true, inputs: [src]')
    with watched(folder):
        assert "in a row" not in projects.messages(folder)
    assert count_runs(folder, "fix") == 2


def test_turbo_12505_change_ends_the_stale_stage_and_lets_others_go_on(folder: Path) -> None:
    other = "echo run >> ../other.runs; until test -e ../release; do sleep 0.05; done"
    wait = "echo run >> ../{0}.runs; grep -q go {1} || {{ touch ../{0}.started; sleep 300; }}"
    projects.write(
        folder,
        f"""
        name: stale, run: "{wait.format("stale", "src/a.py")}", shell: true, inputs: ["src/a.py"]
        name: other, run: "{other}", shell: true, inputs: [docs]
        """,
    )
    with serving(folder, projects.ANY_PORT, "--watch", "-j2") as command:
        eventually(
            "both stages run", lambda: (folder.parent / "stale.started").exists() and count_runs(folder, "other")
        )
        (folder / "src/a.py").write_text("go")
        eventually("the stale stage ends", lambda: "stale ended after" in projects.messages(folder))
        (folder.parent / "release").touch()
        assert "stale, other passed" in wait_for_state(folder, 1)
        assert (count_runs(folder, "stale"), count_runs(folder, "other")) == (2, 1)
        command.process.send_signal(signal.SIGTERM)
        command.process.communicate(timeout=HANG_SECONDS)


def test_stage_behind_a_failed_one_runs_when_it_passes(folder: Path) -> None:
    projects.write(
        folder,
        """
        name: lint, run: "grep -q good src/a.py", inputs: [src]
        name: tests, run: "true", inputs: [tests], needs: [lint]
        """,
    )
    with watched(folder):
        assert "lint failed; tests skipped" in wait_for_state(folder, 1)
        (folder / "src/a.py").write_text("good")
        assert "lint, tests passed" in wait_for_state(folder, 2)


def test_page_stays_up_between_the_runs(folder: Path) -> None:
    projects.write(folder, _TWO)
    with watched(folder):
        address = projects.url(folder)
        assert projects.scraped(address)["paropt_stage_runs_total", "standard", "success", "lint"] == 1
        (folder / "src/a.py").write_text("2")
        wait_for_state(folder, 2)
        assert projects.scraped(address)["paropt_stage_runs_total", "standard", "success", "lint"] == 2


def test_changed_config_is_in_force_and_a_faulty_one_is_refused(folder: Path) -> None:
    projects.write(folder, _TWO)
    with watched(folder):
        config = (folder / "paropt.yml").read_text()
        (folder / "paropt.yml").write_text("stages: 3\n")
        eventually("the config is refused", lambda: "can't be used" in projects.messages(folder))
        (folder / "docs/a.md").write_text("2")  # the only change that runs a stage
        wait_for_state(folder, 2)
        assert (count_runs(folder, "lint"), count_runs(folder, "docs")) == (1, 2)
        (folder / "paropt.yml").write_text(config + '  - {number: 9, name: more, run: "true", inputs: [docs]}\n')
        assert "lint, docs, more passed" in wait_for_state(folder, 3)


def test_signal_ends_it_with_the_state_of_the_stages(folder: Path) -> None:
    projects.write(folder, 'name: bad, run: "false", inputs: [src]\nname: good, run: "true", inputs: [docs]')
    with serving(folder, projects.ANY_PORT, "--watch") as command:
        wait_for_state(folder, 1)
        (folder / "docs/a.md").write_text("2")  # the last run succeeds
        assert "bad failed" in wait_for_state(folder, 2)
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(HANG_SECONDS) == 1


def test_keys_of_a_terminal_run_all_or_failed_stages_and_quit(folder: Path) -> None:
    projects.write(folder, _TWO + 'name: bad, run: "echo run >> ../bad.runs; false", shell: true, inputs: [src]')
    controller, terminal = pty.openpty()
    with (folder / "out.log").open("w") as out:
        process = subprocess.Popen(
            ["setsid", "--ctty", installed_command(), projects.ANY_PORT, "--watch"],
            cwd=folder, env=environment(), stdin=terminal, stdout=out, stderr=terminal,
        )  # fmt: skip
    os.close(terminal)
    shown = bytearray()
    try:
        read_until(controller, shown, b"q quits", 1)
        os.write(controller, b"f")
        read_until(controller, shown, b"q quits", 2)
        assert [count_runs(folder, name) for name in ("lint", "docs", "bad")] == [1, 1, 2]
        os.write(controller, b"xr")
        read_until(controller, shown, b"q quits", 3)
        assert [count_runs(folder, name) for name in ("lint", "docs", "bad")] == [2, 2, 3]
        os.write(controller, b"q")
        assert process.wait(HANG_SECONDS) == 1
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(HANG_SECONDS)
        os.close(controller)


def test_keys_are_the_shells_while_it_is_in_the_background(folder: Path) -> None:
    projects.write(folder, _TWO)
    controller, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"],
        cwd=folder, env=environment(PS1="$ "), stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = bytearray()

    def has_ended_after_q() -> bool:
        os.write(controller, b"q")
        while select.select([controller], [], [], 0)[0]:
            shown.extend(os.read(controller, 1 << 16))
        return b"ended with 0" in shown

    try:
        os.write(controller, f"{installed_command()} {projects.ANY_PORT} --watch > /dev/null\n".encode())
        read_until(controller, shown, b"q quits", 1)
        os.write(controller, b"\x1a")
        read_until(controller, shown, b"Stopped", 1)
        os.write(controller, b"bg\n")
        os.write(controller, b"echo $((40 + 2)) typed\n")
        read_until(controller, shown, b"42 typed", 1)
        os.write(controller, b"jobs\n")
        read_until(controller, shown, b"Running", 1)
        os.write(controller, b'fg; echo "ended with $?"\n')
        eventually("the key q is read", has_ended_after_q)
    finally:
        shell.kill()
        shell.wait(HANG_SECONDS)
        os.close(controller)


def read_until(controller: int, shown: bytearray, text: bytes, count: int) -> None:
    """Read what the terminal shows until a text has come so often."""
    while shown.count(text) < count:
        ready, _, _ = select.select([controller], [], [], HANG_SECONDS)
        assert ready, shown.decode(errors="replace")
        shown += os.read(controller, 1 << 16)


@pytest.mark.parametrize("flag", ["--once", "--every=1m", "--failed", "--affected", "--shard=1/2"])
def test_flags_that_contradict_it_are_one_clear_error(folder: Path, flag: str) -> None:
    projects.write(folder, _TWO)
    ran = run(folder, "--watch", flag)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "it runs all selected stages" in ran.stderr
