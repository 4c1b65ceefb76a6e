"""The screen's lines while a lane runs, without a terminal."""

from __future__ import annotations

import errno
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.cli.screen import ConsoleScreen
from paropt_exporter.cli.streams import LineStream
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.events import Decision, Event, Result
from paropt_exporter.executors.commands.output import Capture
from support import event_samples as samples
from support.lanes import plan, stage

HANG_SECONDS = 30.0


class Watched:
    """A screen on two buffers."""

    def __init__(
        self,
        *,
        verbose: bool = False,
        json_output: bool = False,
        json_logs: bool = False,
        quiet: bool = False,
        color: bool = False,
    ) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.screen = ConsoleScreen(
            out=self.out,
            err=self.err,
            verbose=verbose,
            json_output=json_output,
            json_logs=json_logs,
            quiet=quiet,
            color=lambda _: color,
        )

    def lines(self, *events: Event) -> list[str]:
        """The screen's lines for the events, without the times of day."""
        for event in events:
            self.screen.observe(event)
        assert self.screen.close(HANG_SECONDS)
        return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in self.err.getvalue().splitlines()]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def failed(**fields: Any) -> Event:
    return replace(samples.task(), result=Result.FAILURE, message="exit 1", final=True, **fields)


def test_run_begins_with_a_line_and_ends_with_the_summary_on_stdout(watched: Watched) -> None:
    watched.screen.begin_run(plan(stage("lint"), stage("types", skip="not here")), tuple)
    record = samples.run_ended()
    watched.screen.observe(record)
    watched.screen.end_run(record, metrics_url="http://here/metrics")
    assert watched.lines() == ["lane standard: 1 stage, adaptive"]
    assert watched.out.getvalue().splitlines()[0].startswith("standard ")
    assert "http://here/metrics" in watched.out.getvalue()


def test_summary_is_shown_although_the_project_was_deleted(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was an internal error."""
    monkeypatch.chdir(tmp_path)
    watched.screen.begin_run(plan(stage("lint")), tuple)
    tmp_path.rmdir()
    watched.screen.end_run(samples.run_ended(), metrics_url="")
    watched.lines()
    assert watched.out.getvalue().startswith("standard ")


def test_folded_output_is_shown_once_in_its_group(watched: Watched) -> None:
    watched.screen.fold_outputs(lambda title, output: f"<{title}>\n{output}\n</>")
    lines = watched.lines(failed(stage="unit", item="a", output="one\ntwo\n"))
    assert lines == ["<unit a: exit 1>", "one", "two", "</>"]


def test_long_folded_output_says_which_part_it_is(watched: Watched) -> None:
    watched.screen.fold_outputs(lambda title, output: f"{title}\n{output}")
    lines = watched.lines(failed(stage="unit", item=None, output="line\n" * 300))
    assert (lines[0], len(lines)) == ("unit: exit 1, last 200 of 300 lines", 201)


def test_output_in_json_logs_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(json_logs=True)
    watched.screen.fold_outputs(lambda title, output: f"<{title}>{output}")
    assert watched.lines(failed(output="one\n")) == []


def test_summary_says_until_when_the_endpoint_serves(watched: Watched) -> None:
    watched.screen.begin_run(plan(stage("lint")), tuple)
    watched.screen.end_run(samples.run_ended(), metrics_url="http://here/metrics", until="Ctrl-C")
    watched.lines()
    assert "  metrics  http://here/metrics until Ctrl-C\n" in watched.out.getvalue()


def test_summary_has_the_findings_of_several_tasks_of_a_stage_once(watched: Watched) -> None:
    """With two broken tests in two batches, it showed only the first one."""
    watched.screen.begin_run(plan(stage("unit")), tuple)
    outputs = ["a.py:1: error: x\n", "a.py:1: error: x\nb.py:2: error: y\n", "c.py:3: error: z\n", "d.py:4: error: w\n"]
    watched.lines(*(failed(stage="unit", output=output) for output in outputs))
    ended = replace(samples.stage_ended(), stage="unit", result=Result.FAILURE)
    watched.screen.end_run(replace(samples.run_ended(), result=Result.FAILURE, stages=(ended,)), metrics_url="")
    assert watched.screen.close(HANG_SECONDS)
    shown = [line.strip() for line in watched.out.getvalue().splitlines() if line.startswith("      ")]
    assert shown == ["a.py:1: x", "b.py:2: y", "c.py:3: z"]


def test_the_summary_says_where_the_whole_output_is_if_it_was_cut(watched: Watched) -> None:
    watched.screen.begin_run(plan(stage("lint")), tuple)
    watched.lines(failed(output="\n".join(f"line {number}" for number in range(100))))
    record = replace(samples.run_ended(), result=Result.FAILURE)
    watched.screen.end_run(record, metrics_url="", keeps_output=True)
    assert watched.screen.close(HANG_SECONDS)
    assert "  output   paropt-exporter log --failed\n" in watched.out.getvalue()


@pytest.mark.parametrize("output", ["x" * 2000, "[about 9 bytes before this are left out]\nlast"])
def test_the_summary_names_the_log_if_a_line_or_the_beginning_was_cut(watched: Watched, output: str) -> None:
    watched.screen.begin_run(plan(stage("lint")), tuple)
    watched.lines(failed(output=output))
    watched.screen.end_run(replace(samples.run_ended(), result=Result.FAILURE), metrics_url="", keeps_output=True)
    assert watched.screen.close(HANG_SECONDS)
    assert "  output   paropt-exporter log --failed\n" in watched.out.getvalue()


@pytest.mark.parametrize(("lines", "keeps_output"), [(3, True), (100, False)])
def test_the_summary_names_no_log_that_would_not_help(watched: Watched, lines: int, keeps_output: bool) -> None:
    watched.screen.begin_run(plan(stage("lint")), tuple)
    watched.lines(failed(output="\n".join(f"line {number}" for number in range(lines))))
    watched.screen.end_run(samples.run_ended(), metrics_url="", keeps_output=keeps_output)
    assert watched.screen.close(HANG_SECONDS)
    assert "  output" not in watched.out.getvalue()


def test_stage_that_took_much_longer_than_usual_is_marked(watched: Watched) -> None:
    watched.screen.begin_run(plan(replace(stage("lint"), expected_seconds=0.2)), tuple)
    assert watched.lines(samples.stage_ended("lint", seconds=3.0))[1] == "lint succeeded in 3.0 s, usually 0.2 s"


@pytest.mark.parametrize(
    ("stop", "stages", "line"),
    [
        (Stop("interrupted by SIGINT"), 3, "interrupted by SIGINT: stopping 3 stages, again to kill"),
        (Stop("interrupted by SIGINT", now=True), 1, "interrupted by SIGINT: killing 1 stage"),
        (Stop("fail-fast: lint failed", interrupted=False), 2, "fail-fast: lint failed: stopping 2 stages"),
        (Stop("fail-fast: lint failed", interrupted=False), 0, "fail-fast: lint failed: no stage is running"),
    ],
)
def test_run_that_stops_says_so_at_once(watched: Watched, stop: Stop, stages: int, line: str) -> None:
    watched.screen.show_stopping(stop, stages)
    assert watched.lines() == [line]


def test_json_logs_have_the_facts_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="paropt_exporter")
    watched = Watched(json_logs=True)
    watched.screen.begin_run(plan(stage("lint")), tuple)
    bad = replace(samples.task(), result=Result.FAILURE, item="a.py", output="boom\n", exit_code=1)
    ended = replace(samples.stage_ended("lint"), result=Result.FAILURE, message="exit 1")
    watched.lines(replace(bad, final=False), bad, samples.limit_reached(broken=True), ended)
    watched.screen.end_run(samples.run_ended(), metrics_url="")
    assert watched.screen.close(HANG_SECONDS)
    fields = [vars(record) for record in caplog.records]
    assert [each["event"] for each in fields] == [
        "run_started",
        "task_ended",
        "task_ended",
        "sla_broken",
        "stage_ended",
        "run_ended",
    ]
    about = ("stage", "item", "attempt", "result", "duration_seconds", "exit_code")
    assert [fields[1][name] for name in about] == ["lint", "a.py", 1, "failure", 2.0, 1]
    assert [fields[4][name] for name in ("stage", "result", "duration_seconds")] == ["lint", "failure", 2.0]
    assert [fields[5][name] for name in ("lane", "result", "duration_seconds")] == ["standard", "success", 4.0]


def test_json_output_is_one_document(watched: Watched) -> None:
    watched = Watched(json_output=True)
    watched.screen.end_run(samples.run_ended(), metrics_url="")
    assert watched.screen.close(HANG_SECONDS)
    assert json.loads(watched.out.getvalue())["lane"] == "standard"


def test_failed_tasks_output_is_shown_to_its_last_forty_lines(watched: Watched) -> None:
    output = "\n".join(f"line {number}" for number in range(100))
    lines = watched.lines(failed(output=output, output_path="lint.log"))
    assert lines[0] == "--- lint, last 40 of 100 lines, whole in lint.log"
    assert lines[1:] == [*(f"line {number}" for number in range(60, 100)), "---"]


def test_output_without_its_beginning_has_no_number_of_lines(watched: Watched) -> None:
    capture = Capture()
    capture.write(b"line\n" * 100_000)
    assert watched.lines(failed(output=capture.text()))[0] == "--- lint, last 40 lines"


def test_very_long_line_is_cut_to_a_thousand_characters(watched: Watched) -> None:
    assert watched.lines(failed(output="x" * 60_000))[1] == f"{'x' * 976} … 59024 more characters"


def test_good_tasks_output_is_shown_only_when_asked_for() -> None:
    task = replace(samples.task(), result=Result.SUCCESS, final=True, output="all is well\n")
    assert Watched().lines(task) == []
    assert Watched(verbose=True).lines(task) == ["--- lint", "all is well", "---"]


def test_escapes_in_output_items_and_messages_stay_visible_text(watched: Watched) -> None:
    record = replace(samples.stage_ended(), result=Result.FAILURE, message="\x1b[31mred\x07")
    lines = watched.lines(failed(output="\x1b]0;title\x07\n", item="\x1b[2J"), record)
    assert all(character.isprintable() for line in lines for character in line)
    assert any("red" in line for line in lines)


def test_retry_is_shown_with_its_cause(watched: Watched) -> None:
    record = replace(samples.task(), result=Result.FAILURE, message="exit 7", final=False, attempt=1, output="x")
    assert watched.lines(record) == ["lint: exit 7, attempt 2 follows"]


@pytest.mark.parametrize(
    ("message", "shown"), [("exit 7", "lint a.py: exit 7"), ("a.py: exit 7", "lint: a.py: exit 7")]
)
def test_retry_of_an_item_names_it_once(watched: Watched, message: str, shown: str) -> None:
    record = replace(samples.task(), result=Result.FAILURE, message=message, final=False, attempt=1, item="a.py")
    assert watched.lines(record) == [f"{shown}, attempt 2 follows"]


@pytest.mark.parametrize(
    ("result", "message", "line"),
    [
        (Result.SUCCESS, "", "lint succeeded in 2.0 s"),
        (Result.FAILURE, "exit 1", "lint failed after 2.0 s: exit 1"),
        (Result.TIMEOUT, "timed out after 2 s", "lint failed after 2.0 s: timed out after 2 s"),
        (Result.CANCELLATION, "stopped: SIGINT", "lint ended after 2.0 s: stopped: SIGINT"),
        (Result.SKIP, "needs unit", "lint skipped: needs unit"),
    ],
)
def test_each_end_of_a_stage_is_a_line(watched: Watched, result: Result, message: str, line: str) -> None:
    record = replace(samples.stage_ended(), result=result, message=message, duration_seconds=2.0)
    assert watched.lines(record) == [line]


def test_warnings_and_violations_are_shown_as_they_happen(watched: Watched) -> None:
    assert watched.lines(samples.limit_reached(broken=False), samples.limit_reached(None, broken=True)) == [
        "lint has run 24 s of the 30 s its SLA allows",
        "lane standard broke its SLA of 30 s",
    ]


def test_first_default_limit_that_is_reached_says_how_to_turn_it_off(watched: Watched) -> None:
    watched.screen.begin_run(plan(stage("lint"), default_limits=frozenset({"lint"})), tuple)
    own = samples.limit_reached("unit", broken=False)
    reached = [own, samples.limit_reached(broken=False), samples.limit_reached(broken=True)]
    assert watched.lines(*reached)[1:] == [
        "unit has run 24 s of the 30 s its SLA allows",
        "lint has run 24 s of the 30 s its SLA allows (the lane's default; `lanes: {standard: {sla: null}}` in "
        "paropt.yml turns it off)",
        "lint broke its SLA of 30 s",
    ]


def test_verbose_shows_decisions_and_starts() -> None:
    decision = Decision(
        pool="threads", action="up", reason="demand", old_size=2, new_size=4, at_timestamp_seconds=samples.START
    )
    held = replace(decision, action="hold", reason="stabilizing", old_size=4)
    assert Watched().lines(decision, held, samples.stage_started()) == []
    assert Watched(verbose=True).lines(decision, held, samples.stage_started()) == [
        "pool threads 2 -> 4 (demand)",
        "pool threads stays at 4 (stabilizing)",
        "lint started on commands",
    ]


def test_screen_whose_summary_was_lost_says_why() -> None:
    watched = Watched()
    watched.out.close()
    watched.screen.end_run(samples.run_ended(), metrics_url="")
    assert watched.screen.close(HANG_SECONDS)
    assert watched.screen.fault
    assert "the summary could not be written" in watched.lines()[0]


def test_screen_shows_the_next_run_after_a_full_disk() -> None:
    class FullOnce(io.StringIO):
        is_full = True

        def write(self, text: str) -> int:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    out, err = FullOnce(), FullOnce()
    screen = ConsoleScreen(out=out, err=err, verbose=False, json_output=False)
    for _ in range(2):
        screen.begin_run(plan(stage("lint")), tuple)
        screen.end_run(samples.run_ended(), metrics_url="")
        assert screen.close(HANG_SECONDS)
        out.is_full = err.is_full = False
    assert "lane standard: 1 stage" in err.getvalue()
    assert out.getvalue().startswith("standard ")
    assert screen.fault  # of the first summary


def test_quiet_shows_only_failures() -> None:
    watched = Watched(quiet=True)
    watched.screen.begin_run(plan(stage("lint")), tuple)
    bad = replace(samples.stage_ended("unit", result=Result.FAILURE), message="exit 1")
    assert watched.lines(samples.stage_ended("lint"), failed(output="why\n"), bad) == [
        "--- lint", "why", "---", "unit failed after 2.0 s: exit 1",
    ]  # fmt: skip


def test_sentence_breaks_between_words_on_a_terminal(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LineStream, "columns", 40)
    watched.screen.say("state: lint failed; unit_tests and integration_tests passed")
    assert watched.lines() == ["state: lint failed; unit_tests", "         and integration_tests passed"]


def test_quiet_leaves_out_news_and_keeps_warnings() -> None:
    watched = Watched(quiet=True)
    watched.screen.inform("metrics at http://here/metrics")
    watched.screen.say("the run before was interrupted")
    assert watched.lines() == ["the run before was interrupted"]


def test_failures_are_red_and_foreign_text_sets_no_colour() -> None:
    watched = Watched(color=True)
    lines = watched.lines(replace(samples.stage_ended("unit", result=Result.FAILURE), message="\x1b[32mfine"))
    assert [re.sub(r"\d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "\x1b[31munit failed after 2.0 s: \\x1b[32mfine\x1b[0m"
    ]


def test_json_has_no_colours() -> None:
    watched = Watched(json_output=True, color=True)
    watched.screen.end_run(samples.run_ended(), metrics_url="")
    assert watched.screen.close(HANG_SECONDS)
    assert "\x1b" not in watched.out.getvalue()
