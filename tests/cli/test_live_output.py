"""With -v, the output of a task that runs alone is shown line by line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.cli.live_output import LiveOutput, find_lone_stage
from paropt_exporter.cli.screen import ConsoleScreen
from paropt_exporter.events import Decision
from paropt_exporter.plan import PlannedStage
from support import event_samples as samples
from support import projects
from support.lanes import plan, stage
from support.processes import is_alive
from support.real_servers import eventually, serving

HANG_SECONDS = 30.0


@pytest.mark.parametrize(
    ("stages", "alone"),
    [
        ((stage("build"), stage("unit", needs=("build",))), "unit"),
        ((stage("build"), stage("lint", skip="no items"), stage("unit", needs=("build",))), "unit"),
        ((stage("build"), stage("lint"), stage("unit", needs=("build",))), ""),
        ((stage("build"), stage("unit", tasks=2, needs=("build",))), ""),
        ((), ""),
    ],
)
def test_stage_that_needs_all_others_runs_alone(stages: tuple[PlannedStage, ...], alone: str) -> None:
    assert find_lone_stage(plan(*stages)) == alone


def test_line_is_shown_when_it_is_complete() -> None:
    shown: list[str] = []
    live = LiveOutput(None, show=shown.append, begin=shown.append)
    live.begin_run(plan(stage("unit")))
    sink = live.open_sink("unit", 0, "unit", None, 1)
    assert sink is not None
    sink.write(b"one\ntw")
    assert shown == ["unit", "one"]
    sink.write(b"o\n\x1b[31mthree\x1b[0m\nfour")
    assert shown[2:] == ["two\nthree"]
    sink.close(lambda: b"")
    assert shown[3:] == ["four", "---"]


def test_line_without_an_end_is_shown_in_pieces() -> None:
    shown: list[str] = []
    live = LiveOutput(None, show=shown.append, begin=shown.append)
    live.begin_run(plan(stage("unit")))
    sink = live.open_sink("unit", 0, "unit", None, 1)
    assert sink is not None
    for _ in range(200):
        sink.write(b"x" * 1000)
    assert max(map(len, shown)) < 70_000
    sink.close(lambda: b"")
    assert sum(map(len, shown)) == 200_000 + len("unit" + "---")


def test_task_without_output_is_not_mentioned() -> None:
    shown: list[str] = []
    live = LiveOutput(None, show=shown.append, begin=shown.append)
    live.begin_run(plan(stage("unit")))
    sink = live.open_sink("unit", 0, "unit", None, 1)
    assert sink is not None
    sink.close(lambda: b"")
    assert shown == []


def _screen(err: io.StringIO, *, verbose: bool, json_logs: bool = False) -> ConsoleScreen:
    return ConsoleScreen(out=io.StringIO(), err=err, verbose=verbose, json_output=False, json_logs=json_logs)


def test_output_that_was_shown_is_not_shown_again() -> None:
    err = io.StringIO()
    screen = _screen(err, verbose=True)
    logs = screen.add_live_output(None)
    assert logs is not None
    task = replace(samples.task(), stage="lint", attempt=1, output="all is well\n", final=True)
    screen.begin_run(plan(stage("lint")), tuple)
    sink = logs.open_sink("lint", 0, "lint", None, 1)
    assert sink is not None
    sink.write(b"all is well\n")
    sink.close(lambda: b"")
    screen.observe(task)
    screen.observe(replace(task, attempt=2, output="a cached result\n"))
    assert screen.close(HANG_SECONDS)
    assert err.getvalue().count("all is well") == 1
    assert err.getvalue().count("a cached result") == 1


def test_decisions_do_not_stand_between_the_lines_of_the_last_task() -> None:
    err = io.StringIO()
    screen = _screen(err, verbose=True)
    logs = screen.add_live_output(None)
    assert logs is not None
    decision = Decision(
        pool="commands", action="up", reason="demand", old_size=2, new_size=4, at_timestamp_seconds=samples.START
    )
    screen.begin_run(plan(stage("lint")), tuple)
    screen.observe(decision)
    logs.open_sink("lint", 0, "lint", None, 1)
    screen.observe(decision)
    assert screen.close(HANG_SECONDS)
    assert err.getvalue().count(" pool commands ") == 1


def test_only_a_verbose_screen_for_people_shows_live_output() -> None:
    assert _screen(io.StringIO(), verbose=False).add_live_output(None) is None
    assert _screen(io.StringIO(), verbose=True, json_logs=True).add_live_output(None) is None


def test_folded_output_is_not_shown_live() -> None:
    screen = _screen(io.StringIO(), verbose=True)
    logs = screen.add_live_output(None)
    assert logs is not None
    screen.fold_outputs(lambda title, output: f"{title}{output}")
    screen.begin_run(plan(stage("lint")), tuple)
    assert logs.open_sink("lint", 0, "lint", None, 1) is None
    assert screen.close(HANG_SECONDS)


def test_output_is_on_the_screen_while_the_command_runs(tmp_path: Path) -> None:
    wait = "echo $$ > pid; echo begun; while ! test -e go; do sleep 0.05; done; echo over"
    folder = projects.write(tmp_path, f'name: slow, run: "{wait}", shell: true')
    with serving(folder, projects.ANY_PORT, "-v") as command:
        eventually("the first line is shown", lambda: "\nbegun\n" in projects.messages(folder))
        assert is_alive(int((folder / "pid").read_text()))
        (folder / "go").touch()
        assert "standard succeeded" in command.summary()
        assert command.stop() == 0
    assert projects.messages(folder).count("\nover\n---\n") == 1
