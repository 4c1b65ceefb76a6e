"""The command `log` finds the run, the stage and the item that are meant, and goes on while the run does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.cli import log
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Result
from paropt_exporter.executors.base import find_stage
from paropt_exporter.task_logs import LogFolder, LogLimits, TaskLogs
from support.event_samples import StillClock, run_ended, run_started, task

OLD, NEW = "20261127T101112-0a1b2c", "20261128T101112-0a1b2c"


class Kept:
    """A folder of logs, written as a run writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        limits = LogLimits(run_bytes=1_000_000, total_bytes=4_000_000, age_seconds=1e9)
        self.logs = TaskLogs(LogFolder(folder, limits, clock=StillClock(), lives=lambda run_id: False))

    def begin(self, run_id: str = NEW, lane: str = "standard") -> None:
        self.logs.observe(run_started(run_id, lane=lane))

    def attempt(
        self,
        label: str,
        output: bytes,
        *,
        item: str | None = None,
        number: int = 0,
        attempt: int = 1,
        result: Result | None = Result.SUCCESS,
        stage: str = "",
    ) -> None:
        stage = stage or find_stage(label)
        sink = self.logs.open_sink(stage, number, label, item, attempt)
        assert sink is not None
        if output:
            sink.write(output)
        sink.close(lambda: output)
        if result is not None:
            self.logs.observe(task(stage, number=number, attempt=attempt, result=result))

    def end(self, run_id: str = NEW) -> None:
        self.logs.observe(run_ended(run_id))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path / ".paropt" / "logs")
    made.begin(OLD, lane="docs")
    made.attempt("lint", b"old\n")
    made.end(OLD)
    made.begin()
    made.attempt("lint", b"fine\n")
    made.attempt("unit[0]", b"passes\n", item="tests/test_a.py")
    made.attempt("unit[1]", b"fails", item="tests/test_b.py", number=1, result=Result.FAILURE)
    made.attempt("unit[1]", b"fails again\n", item="tests/test_b.py", number=1, attempt=2, result=Result.FAILURE)
    made.end()
    return made


def printed(
    folder: Path,
    *words: str,
    wait: Callable[[float], object] | None = None,
    lives: bool = False,
    begun: Sequence[str] = (),
    **wanted: object,
) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = log.run(
        folder,
        log.LogRequest(words=words, **wanted),  # type: ignore[arg-type]
        lives=lambda run_id: lives,
        stdout=out,
        stderr=err,
        wait=wait,
        load_sequences=lambda runs: {run_id: begun.index(run_id) for run_id in runs if run_id in begun},
    )
    assert code == 0
    return out.getvalue(), err.getvalue()


def test_output_of_a_single_task_is_printed_as_it_is(kept: Kept) -> None:
    assert printed(kept.folder, "lint") == ("fine\n", "")


def test_without_a_stage_each_attempt_has_a_line_above_it(kept: Kept) -> None:
    assert printed(kept.folder)[0] == (
        "--- lint, success after 2.0 s\nfine\n"
        "--- unit[0] tests/test_a.py, success after 2.0 s\npasses\n"
        "--- unit[1] tests/test_b.py, failure after 2.0 s\nfails\n"
        "--- unit[1] tests/test_b.py, attempt 2, failure after 2.0 s\nfails again\n"
    )


@pytest.mark.parametrize(("item", "output"), [("1", "first\n"), ("2", "third\n"), ("p", "first\nsecond\nthird\n")])
def test_exact_name_or_number_means_one_item(tmp_path: Path, item: str, output: str) -> None:
    made = Kept(tmp_path / "logs")
    made.begin()
    made.attempt("unit[0]", b"first\n", item="1 p" if item == "p" else "1", number=0)
    made.attempt("unit[1]", b"second\n", item="p12", number=1)
    made.attempt("unit[2]", b"third\n", item="p13", number=2)
    shown = printed(made.folder, f"unit[{item}]")[0].splitlines(keepends=True)
    assert "".join(line for line in shown if not line.startswith("---")) == output


@pytest.mark.parametrize("follow", [False, True])
def test_name_of_a_stage_may_have_brackets(tmp_path: Path, *, follow: bool) -> None:
    made = Kept(tmp_path / "logs")
    made.begin()
    made.attempt("unit[0]", b"item\n", item="a")
    made.attempt("unit[py311]", b"stage\n", stage="unit[py311]")
    made.end()
    shown, _ = printed(made.folder, "unit[py311]", follow=follow)
    assert shown.removeprefix("unit[py311] | ") == "stage\n"
    assert printed(made.folder, "unit[py311]", failed=True)[1].endswith(": nothing failed\n")


def test_follow_prints_a_stage_with_a_number_in_brackets(tmp_path: Path) -> None:
    made = Kept(tmp_path / "logs")
    made.begin()
    made.attempt("unit[3]", b"stage\n", stage="unit[3]")
    made.end()
    assert printed(made.folder, "unit[3]", follow=True)[0] == "unit[3] | stage\n"


@pytest.mark.parametrize("item", ["0", "tests/test_a.py", "test_a"])
def test_item_is_named_by_its_number_its_name_or_a_part_of_it(kept: Kept, item: str) -> None:
    assert printed(kept.folder, f"unit[{item}]")[0] == "passes\n"


@pytest.mark.parametrize(("word", "output"), [("lint[api]", "api\n"), ("a[0]", "whole\n"), ("a[1]", "second\n")])
def test_stage_is_named_though_its_name_has_brackets(tmp_path: Path, word: str, output: str) -> None:
    made = Kept(tmp_path)
    made.begin()
    made.attempt("lint[api]", b"api\n")
    made.attempt("a[0]", b"first\n", item="x")
    made.attempt("a[1]", b"second\n", item="y", number=1)
    made.attempt("a[0][0]", b"whole\n")
    made.end()
    assert printed(made.folder, word)[0] == output
    assert printed(made.folder, word, failed=True) == ("", f"run {NEW}: nothing failed\n")


@pytest.mark.parametrize("words", [(OLD,), (OLD[:8],), (OLD, "lint"), (OLD[:13], "lint")])
def test_run_is_named_by_its_id_or_the_beginning_of_it(kept: Kept, words: tuple[str, ...]) -> None:
    assert printed(kept.folder, *words)[0] == "old\n"


def test_latest_run_of_a_lane_is_chosen(kept: Kept) -> None:
    assert printed(kept.folder, lane="docs")[0] == "old\n"


def test_latest_run_is_the_one_that_began_last_whatever_the_clock_says(kept: Kept) -> None:
    assert printed(kept.folder, begun=(NEW, OLD))[0] == "old\n"
    assert printed(kept.folder, "lint", begun=(NEW, OLD))[0] == "old\n"
    assert printed(kept.folder, "latest", "lint", begun=(OLD, NEW))[0] == "fine\n"


def test_latest_run_is_the_one_that_a_full_disk_kept_out_of_the_history(kept: Kept) -> None:
    assert printed(kept.folder, "lint", begun=(OLD,))[0] == "fine\n"


def test_failed_leaves_out_successful_attempts(kept: Kept) -> None:
    out = printed(kept.folder, failed=True)[0]
    assert out.count("---") == 2
    assert "passes" not in out


def test_failed_attempt_without_output_is_named(kept: Kept) -> None:
    kept.begin("20261129T101112-0a1b2c")
    kept.attempt("lint", b"", result=Result.FAILURE)
    kept.end("20261129T101112-0a1b2c")
    out, err = printed(kept.folder, failed=True)
    assert out == ""
    assert err.startswith("run 20261129T101112-0a1b2c: no output of lint, failure after ")


def test_failed_reports_that_nothing_failed(kept: Kept) -> None:
    assert printed(kept.folder, OLD, failed=True) == ("", f"run {OLD}: nothing failed\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nope",), "has no output of a stage 'nope': choose from lint, unit"),
        (("unit[test_c]",), "no output of an item 'test_c' of unit: choose from tests/test_a.py, tests/test_b.py"),
        (("2026", "lint"), f"no log, or more than one, matches run '2026'; the latest are {OLD}, {NEW}"),
        (
            ("unit", "a.py"),
            f"no log, or more than one, matches run 'unit'; the latest are {OLD}, {NEW}; an item stands in brackets: "
            "log 'unit[a.py]'",
        ),
        (("202611",), f"no log, or more than one, matches run '202611'; the latest are {OLD}, {NEW}"),
        (("a", "b", "c"), "log takes a run and a stage, found 3 words"),
    ],
)
def test_name_without_a_match_is_rejected(kept: Kept, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        printed(kept.folder, *words)


def test_stage_that_the_latest_run_lacks_is_named_with_its_last_run(kept: Kept) -> None:
    latest = "20261129T101112-0a1b2c"
    kept.begin(latest)
    kept.attempt("lint", b"fine\n")
    kept.end(latest)
    with pytest.raises(UsageError, match=f"run {latest} has no output of a stage 'unit'; .* log {NEW} unit"):
        printed(kept.folder, "unit")


def test_name_with_spaces_is_quoted_in_the_command_that_shows_its_last_run(kept: Kept) -> None:
    middle, latest = "20261129T101112-0a1b2c", "20261130T101112-0a1b2c"
    for run_id, stage in ((middle, "unit tests"), (latest, "lint")):
        kept.begin(run_id)
        kept.attempt(stage, b"fine\n")
        kept.end(run_id)
    with pytest.raises(UsageError, match=f"; the last one with it: log {middle} 'unit tests'$"):
        printed(kept.folder, "unit tests")


def test_empty_word_means_all_stages_of_the_only_run(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "logs")
    kept.begin()
    kept.attempt("lint", b"fine\n")
    kept.end()
    assert printed(kept.folder, "") == ("fine\n", "")


def test_project_without_logs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no logs yet in .*: run a lane first"):
        printed(tmp_path / "logs")


def test_log_that_holds_something_else_is_one_error(kept: Kept) -> None:
    (kept.folder / f"{NEW}.log").write_text('{"begin": [], "task": "x"}\n')
    with pytest.raises(UsageError, match=f"the log of run {NEW} is damaged"):
        printed(kept.folder)
    assert printed(kept.folder, lane="docs")[0] == "old\n"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=4,
)
_KEYS = ("begin", "of", "end", "over", "bytes", "missing", "stage", "task", "label", "item", "attempt", "result",
         "message", "seconds", "lane")  # fmt: skip
_FRAMES = st.dictionaries(st.sampled_from(_KEYS), _VALUES | st.just(1) | st.just("failure"), max_size=6)


@given(st.lists(st.binary(max_size=20) | _FRAMES.map(lambda frame: json.dumps(frame).encode()), max_size=8))
def test_any_log_is_printed_or_one_error(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("logs")
    (folder / f"{NEW}.log").write_bytes(b'{"begin":1,"stage":"a"}\n' + b"\n".join(lines) + b"\n")
    for follow in (False, True):
        with suppress(UsageError):
            printed(folder, follow=follow)


@pytest.mark.parametrize(
    "line",
    ['{"end": 1, "result": "failure", "seconds": 1e999}', '{"of": 1, "missing": 1' + "0" * 5000 + "}", "[" * 100_000],
    ids=["endless", "huge", "deep"],
)
def test_impossible_values_are_no_internal_error(kept: Kept, line: str) -> None:
    (kept.folder / f"{NEW}.log").write_text('{"begin":1,"stage":"a"}\n{"begin":2,"stage":"a"}\n' + f"{line}\n")
    with suppress(UsageError):
        printed(kept.folder)


def test_no_escape_of_a_task_reaches_the_terminal(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "logs")
    kept.begin()
    kept.attempt("lint", b"\x1b]0;title\x07\x1b[31mred\x1b[0m\rdone\n\xe2\x80\xaeback\n")
    kept.end()
    for follow in (False, True):
        assert printed(kept.folder, "lint", follow=follow)[0] == "done\nback\n"


def test_follow_prints_lines_as_they_come_until_the_run_ends(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "logs")
    kept.begin()
    sink = kept.logs.open_sink("unit", 3, "unit[3]", "c", 1)
    assert sink is not None
    sink.write(b"one\ntw")
    seen: list[str] = []
    out = io.StringIO()
    steps: Iterator[Callable[[], object]] = iter([lambda: sink.write(b"o\nthree"), kept.end])

    def wait(seconds: float) -> None:
        seen.append(out.getvalue())
        next(steps)()

    log.run(kept.folder, log.LogRequest(follow=True), lives=lambda run_id: True, stdout=out, stderr=out, wait=wait)
    assert seen == ["unit[3] | one\n", "unit[3] | one\nunit[3] | two\n"]
    assert out.getvalue().endswith("unit[3] | three\n")


def test_follow_ends_with_a_run_whose_process_was_killed(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "logs")
    kept.begin()
    kept.attempt("lint", b"half", result=None)
    assert printed(kept.folder, "lint", follow=True, lives=False)[0] == "half\n"


def test_follow_with_failed_prints_failures_at_the_end(kept: Kept) -> None:
    out = printed(kept.folder, failed=True, follow=True)[0]
    assert out == "unit[1] | fails\nunit[1] | fails again\n"


@pytest.mark.parametrize(("item", "label"), [("1", "unit[0]"), ("2", "unit[2]")])
def test_follow_with_failed_prints_the_same_item_as_without_follow(tmp_path: Path, item: str, label: str) -> None:
    made = Kept(tmp_path / "logs")
    made.begin()
    for number, name in enumerate(("1", "p12", "p13")):
        made.attempt(f"unit[{number}]", b"fails\n", item=name, number=number, result=Result.FAILURE)
    assert printed(made.folder, f"unit[{item}]", failed=True, follow=True)[0] == f"{label} | fails\n"


def test_follow_prints_only_the_item_with_a_number(tmp_path: Path) -> None:
    """It printed all items whose names contain the digit as well."""
    made = Kept(tmp_path / "logs")
    made.begin()
    for number, name in enumerate(("test_2.py", "test_a.py", "test_b.py")):
        made.attempt(f"unit[{number}]", f"{name}\n".encode(), item=name, number=number)
    assert printed(made.folder, "unit[2]", follow=True)[0] == "unit[2] | test_b.py\n"
    assert printed(made.folder, "unit[test_2]", follow=True)[0] == "unit[0] | test_2.py\n"
