"""Batches of items: the result of each item, the items of a retry, and the stored durations."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.item_results import add_item_results, read_report
from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.events import ItemRecord, Measurement, Result, Scope, TaskRecord
from paropt_exporter.plan import Commands, PlannedTask
from paropt_exporter.plan.batches import build_task
from paropt_exporter.testing import Script
from support import projects
from support.in_process import call_command
from support.lanes import Bench, plan, stage
from support.real_servers import run

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" time="5.375">
  <testcase classname="tests.test_a" name="test_one" time="0.5"/>
  <testcase classname="tests.test_a.TestX" name="test_two[a.b-c]" time="0.25"><failure message="no"/></testcase>
  <testcase classname="tests.test_ab" name="test_one" time="2"/>
  <testcase classname="pkg.tests.test_c" name="test_one" time="1"><skipped/></testcase>
  <testcase classname="" name="tests.sub.test_d" time="0.125"><error message="collection failure"/></testcase>
</testsuite></testsuites>
"""
MEASURED = Measurement(worker="commands-1", pid=1, started_seconds=10.0, ended_seconds=16.0)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    return path


def _failed(**fields: object) -> Outcome:
    keys: dict[str, object] = {"result": Result.FAILURE, "message": "exit 1", "exit_code": 1, "measurement": MEASURED}
    return Outcome(**(keys | fields))  # type: ignore[arg-type]  # test shorthand


def test_test_case_belongs_to_the_file_of_its_name(report: Path) -> None:
    items = ["tests/test_a.py", "./tests/test_ab.py", "tests/test_c.py", "tests/sub", "tests/test_none.py"]
    found = read_report(report, items)
    assert found is not None
    assert found.seconds == 5.375
    assert {item: (each.cases, each.failed) for item, each in found.items.items()} == {
        "tests/test_a.py": (2, 1),
        "./tests/test_ab.py": (1, 0),
        "tests/test_c.py": (1, 0),
        "tests/sub": (1, 1),
        "tests/test_none.py": (0, 0),
    }


def test_time_between_cases_is_divided_by_their_number(report: Path) -> None:
    found = read_report(report, ["tests/test_a.py", "tests/test_ab.py", "tests/test_c.py", "tests/sub"])
    assert found is not None
    assert [each.seconds for each in found.items.values()] == pytest.approx([1.35, 2.3, 1.3, 0.425])


def test_test_case_belongs_to_the_longest_matching_id(report: Path) -> None:
    items = ["tests/test_a.py", "tests/test_a.py::TestX::test_two", "tests/test_ab.py", "tests/test_c.py", "tests/sub"]
    found = read_report(report, items)
    assert found is not None
    assert (found.items["tests/test_a.py"].cases, found.items["tests/test_a.py"].failed) == (1, 0)
    inner = found.items["tests/test_a.py::TestX::test_two"]
    assert (inner.cases, inner.failed) == (1, 1)


def test_names_relative_to_the_items_folder_are_matched(report: Path) -> None:
    found = read_report(report, ["/srv/pkg/tests/test_a.py", "sub/pkg/tests/test_c.py", "x/tests/sub/test_d.py"])
    assert found is not None
    assert [each.cases for each in found.items.values()] == [2, 1, 1]


def test_report_whose_names_take_minutes_to_look_up_is_unusable(tmp_path: Path) -> None:
    name = ".".join("x" * 39)
    cases = f"<testcase classname='{name}'/><testcase name='{name}'/>"
    path = tmp_path / "report.xml"
    path.write_text(f"<testsuite><testcase classname='test_a' name='test_one'/>{cases * 7500}</testsuite>")
    assert read_report(path, ["test_a.py"]) is None
    path.write_text(f"<testsuite><testcase classname='test_a' name='test_one'/>{cases * 10}</testsuite>")
    assert read_report(path, ["test_a.py"]) is not None


def _measure(run_seconds: list[float], wait_seconds: list[float]) -> Measurement:
    """A command of 16 s, 10 of which its report has: with its core time after each further 4 s."""
    times = zip(itertools.accumulate(run_seconds), itertools.accumulate(wait_seconds), strict=True)
    samples = tuple((14.0 + 4.0 * number, CoreTime(run, wait)) for number, (run, wait) in enumerate(times))
    return replace(
        MEASURED,
        ended_seconds=26.0,
        cpu_seconds=sum(run_seconds),
        run_delay_seconds=sum(wait_seconds),
        samples=samples,
    )


_HALVES = """<testsuites><testsuite time="10">
  <testcase classname="test_a" name="test_x" time="4"/><testcase classname="test_b" name="test_x" time="6"/>
</testsuite></testsuites>"""


def test_wait_for_a_core_counts_where_it_was(tmp_path: Path) -> None:
    """From the 16th second on test_a runs, and from the 20th on test_b."""
    (tmp_path / "report.xml").write_text(_HALVES)
    measured = _measure([4.0, 4.0, 2.0, 4.0], [0.0, 0.0, 2.0, 0.0])  # until 14, 18, 22 and 26
    outcome = Outcome(result=Result.SUCCESS, measurement=measured)
    found = add_item_results(outcome, ["test_a.py", "test_b.py"], tmp_path / "report.xml", alone=True)
    seconds = {each.item: (each.seconds or 0.0) + sum(took for _, took in each.long_tests) for each in found.items}
    assert seconds == pytest.approx({"test_a.py": 2.0 + 1.0, "test_b.py": 1.0 + 4.0})
    assert found.start_up_seconds == pytest.approx(6.0)


def test_wait_is_spread_evenly_without_samples_and_between_tests_that_overlap(tmp_path: Path) -> None:
    measured = _measure([4.0, 4.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0])
    for text, samples, seconds in (
        (_HALVES, (), {"test_a.py": 3.0, "test_b.py": 4.5}),
        (_HALVES.replace('"10"', '"8"'), measured.samples, {"test_a.py": 2.0, "test_b.py": 3.0}),
    ):
        (tmp_path / "report.xml").write_text(text)
        outcome = Outcome(result=Result.SUCCESS, measurement=replace(measured, samples=samples))
        found = add_item_results(outcome, ["test_a.py", "test_b.py"], tmp_path / "report.xml", alone=True)
        sums = {each.item: (each.seconds or 0.0) + sum(took for _, took in each.long_tests) for each in found.items}
        assert sums == pytest.approx(seconds)


@pytest.mark.parametrize("place", [0, 29])
def test_fixtures_of_the_session_belong_to_the_start_of_the_command(tmp_path: Path, place: int) -> None:
    """Each shard and batch makes them, but only the file of the first test seemed long."""
    seconds = [4.1 if number == place else 0.1 for number in range(30)]
    found = _read_cases(tmp_path, seconds, suite_seconds=7.3)
    assert [_sum_seconds(each) for each in found.items] == pytest.approx([0.11] * 30, rel=0.1)
    assert found.start_up_seconds == pytest.approx(16.0 - 3.3, abs=0.02)


@pytest.mark.parametrize(
    "seconds",
    [
        [4.1, *[0.1] * 18],  # too few others
        [4.1, *[0.1] * 20, 4.1, 4.1, 4.1, 4.1],  # not the only long one
        [0.9, *[0.01] * 29],  # too short to matter
        [4.1, *[0.5] * 29],
    ],
)
def test_first_test_that_is_just_long_counts_for_its_file(tmp_path: Path, seconds: list[float]) -> None:
    found = _read_cases(tmp_path, seconds, suite_seconds=sum(seconds))
    assert _sum_seconds(found.items[0]) == pytest.approx(seconds[0])


def _sum_seconds(item: ItemRecord) -> float:
    return (item.seconds or 0.0) + sum(took for _, took in item.long_tests)


def _read_cases(tmp_path: Path, seconds: list[float], *, suite_seconds: float) -> Outcome:
    """Return the outcome of a command of 16 s with these test cases, each in a file of its own."""
    cases = "".join(f'<testcase classname="t{number}" name="x" time="{took}"/>' for number, took in enumerate(seconds))
    (tmp_path / "report.xml").write_text(f'<testsuite time="{suite_seconds}">{cases}</testsuite>')
    outcome = Outcome(result=Result.SUCCESS, measurement=_measure([16.0], [0.0]))
    items = [f"t{number}.py" for number in range(len(seconds))]
    return add_item_results(outcome, items, tmp_path / "report.xml", alone=True)


def test_long_tests_are_reported_beside_their_file(tmp_path: Path) -> None:
    times = {"test_long[1]": 2.0, "test_long[2]": 2.0, "test_brief": 0.09, "test_pre": 1.4, "test_pre_x": 1.4}
    cases = "".join(f'<testcase classname="test_a" name="{name}" time="{took}"/>' for name, took in times.items())
    inner = '<testcase classname="test_a.T" name="test_also" time="3"/>'
    (tmp_path / "r.xml").write_text(f'<testsuites><testsuite time="9.89">{cases}{inner}</testsuite></testsuites>')
    outcome = add_item_results(
        Outcome(result=Result.SUCCESS, measurement=MEASURED), ["test_a.py"], tmp_path / "r.xml", alone=True
    )
    (record,) = outcome.items
    assert dict(record.long_tests) == pytest.approx(
        {"test_a.py::test_long": 4.0, "test_a.py::T::test_also": 3.0, "test_a.py::test_pre_x": 1.4}
    )
    assert record.seconds == pytest.approx(1.49)  # test_pre can't be deselected without test_pre_x


def test_report_with_a_failure_of_no_item_is_ignored(report: Path) -> None:
    assert read_report(report, ["tests/test_ab.py"]) is None


def test_name_of_endless_parts_belongs_to_no_item(tmp_path: Path) -> None:
    """Tests may write anything into their report, and the lane starts nothing while it is read: this took hours."""
    names = ("tests.test_a", "a." * 20_000)
    good, endless = (f'<testcase classname="{name}" name="test_x" time="1"/>' for name in names)
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{good}{endless}</testsuite></testsuites>")
    found = read_report(tmp_path / "report.xml", ["tests/test_a.py"])
    assert found is not None
    assert found.items["tests/test_a.py"].cases == 1


def test_report_of_many_long_tests_costs_no_time(tmp_path: Path) -> None:
    """The lane starts nothing meanwhile: this took many minutes."""
    cases = "".join(f'<testcase classname="test_a" name="test_{n}" time="9"/>' for n in range(100_000))
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    began = time.process_time()
    found = read_report(tmp_path / "report.xml", ["test_a.py", *(f"test_b{n}.py" for n in range(1000))])
    assert found is not None
    assert len(found.long_tests("test_a.py")) == 100_000 - 9_999  # test_1 is the beginning of test_10
    assert time.process_time() - began < 10


@pytest.mark.parametrize("text", ["", "<testsuites><testsuite>", "no xml"])
def test_truncated_report_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "cut.xml").write_text(text)
    assert read_report(tmp_path / "cut.xml", ["a"]) is None
    assert read_report(tmp_path / "missing.xml", ["a"]) is None


def test_failed_batch_names_its_failed_items_and_removes_its_report(report: Path) -> None:
    outcome = add_item_results(
        _failed(), ["tests/test_a.py", "tests/test_ab.py", "tests/test_c.py", "tests/sub"], report, alone=False
    )
    assert [(each.item, each.result) for each in outcome.items if each.result.bad] == [
        ("tests/test_a.py", Result.FAILURE),
        ("tests/sub", Result.FAILURE),
    ]
    assert outcome.message == "tests/test_a.py, tests/sub: exit 1"
    assert outcome.start_up_seconds == pytest.approx(6.0 - 5.375)
    assert not report.exists()


def test_killed_batch_fails_as_a_whole(report: Path) -> None:
    killed = _failed(result=Result.ERROR, exit_code=None, signal=9, message="killed")
    outcome = add_item_results(killed, ["tests/test_a.py", "tests/sub"], report, alone=False)
    assert [each.result for each in outcome.items] == [Result.ERROR, Result.ERROR]


def test_items_share_a_batchs_time_without_a_report() -> None:
    good = Outcome(result=Result.SUCCESS, measurement=MEASURED)
    outcome = add_item_results(good, ["a", "b", "c"], None, alone=True)
    assert [each.seconds for each in outcome.items] == [2.0, 2.0, 2.0]
    assert [each.seconds for each in add_item_results(_failed(), ["a", "b"], None, alone=True).items] == [None, None]


def test_batch_without_tests_fails_only_as_the_whole_stage(tmp_path: Path) -> None:
    path = tmp_path / "empty.xml"
    path.write_text("<testsuites><testsuite/></testsuites>")
    assert add_item_results(_failed(exit_code=5), ["a"], path, alone=False).result is Result.SUCCESS
    path.write_text("<testsuites><testsuite/></testsuites>")
    assert add_item_results(_failed(exit_code=5), ["a"], path, alone=True).result is Result.FAILURE


def test_batch_without_tests_but_with_a_failure_fails(report: Path) -> None:
    items = ["tests/test_a.py", "tests/test_ab.py", "tests/test_c.py", "tests/sub"]
    assert add_item_results(_failed(exit_code=5), items, report, alone=False).result is Result.FAILURE


def test_item_without_a_case_in_a_failed_batch_is_skipped(report: Path) -> None:
    items = ["tests/test_a.py", "tests/test_ab.py", "tests/test_c.py", "tests/sub", "tests/test_none.py"]
    outcome = add_item_results(_failed(), items, report, alone=False)
    assert outcome.items[-1].result is Result.SKIP
    assert outcome.message == "tests/test_a.py, tests/sub: exit 1"


def test_report_of_a_runner_that_ended_early_is_ignored(report: Path) -> None:
    items = ["tests/test_a.py", "tests/test_ab.py", "tests/test_c.py", "tests/sub"]
    early = _failed(output="FAILED tests/test_a.py\n!!!!!!!! stopping after 1 failures !!!!!!!!!\n1 failed in 1 s\n")
    assert {each.result for each in add_item_results(early, items, report, alone=False).items} == {Result.FAILURE}


def _put_pipe(path: Path) -> None:
    os.mkfifo(path)


def _put_folder(path: Path) -> None:
    path.mkdir()


def _put_hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _put_hostile_text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


_ENTITIES = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
_DOCUMENT_TYPE = f'<!DOCTYPE t [<!ENTITY e0 "x">{_ENTITIES}]><testsuites>&e9;</testsuites>'


@pytest.mark.parametrize(
    "put",
    [
        _put_pipe,
        _put_folder,
        lambda path: path.symlink_to("/dev/zero"),
        _put_hostile_text(_DOCUMENT_TYPE),
        _put_hostile_text('<?xml version="1.0" encoding="shift_jis"?><testsuites/>'),
        _put_hostile_text('<?xml version="1.0" encoding="no-such-one"?><testsuites/>'),
        _put_hostile_text("<testcase>" * 100_000),
        _put_hole,
    ],
    ids=["pipe", "folder", "device", "entities", "multi-byte", "no encoding", "deep", "1 GB"],
)
def test_file_put_in_the_reports_place_is_ignored(tmp_path: Path, put: Callable[[Path], object]) -> None:
    path = tmp_path / "report.xml"
    put(path)
    outcome = add_item_results(_failed(), ["a", "b"], path, alone=False)
    assert [each.result for each in outcome.items] == [Result.FAILURE, Result.FAILURE]


@pytest.mark.parametrize("time", ["inf", "-1", "nan", "1e308", "1_0", "x" * 1_000_000])
def test_invalid_times_in_a_report_count_as_zero(tmp_path: Path, time: str) -> None:
    case = f'<testcase classname="a" name="test_x" time="{time}"/>'
    (tmp_path / "report.xml").write_text(f'<testsuite time="{time}">{case}</testsuite>')
    found = read_report(tmp_path / "report.xml", ["a.py"])
    assert found is not None
    assert 0 <= found.items["a.py"].seconds <= 10
    assert 0 <= found.seconds <= 10


def test_stage_without_any_test_fails() -> None:
    template = Commands(steps=(("x", ITEMS),))
    batches = tuple(build_task(template, index, [item]) for index, item in enumerate("ab"))
    planned = replace(stage("one", template=template), tasks=batches)
    empty = Script(exit_code=5, items=(ItemRecord(item="a", result=Result.SUCCESS, seconds=1.0),))
    record = Bench(plan(planned), {"one": [empty]}).run()
    assert record.result is Result.FAILURE
    assert record.stages[0].message == "none of its 2 batches had a test"
    assert Bench(plan(planned), {"one": [empty, Script()]}).run().result is Result.SUCCESS
    shard = replace(planned, scope=Scope.ARGUMENTS, is_split=True)
    assert Bench(plan(shard), {"one": [empty]}).run().result is Result.SUCCESS


def test_retried_items_without_a_test_beside_others_fail_no_stage() -> None:
    """As of a file whose import failed once, and whose tests are all skipped."""
    template = Commands(steps=(("x", ITEMS),))
    results = {"a": Result.SUCCESS, "b": Result.FAILURE}
    items = tuple(ItemRecord(item=item, result=result, seconds=1.0) for item, result in results.items())
    failing = Script(result=Result.FAILURE, message="b: exit 1", items=items)
    empty = Script(exit_code=5, items=(ItemRecord(item="b", result=Result.SUCCESS, seconds=1.0),))
    batch = build_task(template, 0, ["a", "b"])
    planned = replace(stage("one", retries=1, template=template), tasks=(batch,))
    assert Bench(plan(planned), {"one": [failing, empty]}).run().result is Result.SUCCESS


def test_retry_runs_only_the_failed_items() -> None:
    template = Commands(steps=(("x", ITEMS),))
    results = {"a": Result.SUCCESS, "b": Result.FAILURE, "c": Result.FAILURE}
    failing = Script(
        result=Result.FAILURE,
        message="b, c: exit 1",
        items=tuple(ItemRecord(item=item, result=result, seconds=1.0) for item, result in results.items()),
    )
    batch = build_task(template, 0, ["a", "b", "c"])
    planned = replace(stage("one", retries=1, template=template), tasks=(batch,))
    bench = Bench(plan(planned), {"one": [failing, Script()]})
    record = bench.run()
    assert [attempt.items for attempt in bench.workers.attempts] == [("a", "b", "c"), ("b", "c")]
    assert record.result is Result.SUCCESS
    assert [each.item for each in bench.recorder.of(TaskRecord)] == ["a +2", "b +1"]


def test_items_of_a_stopped_batch_are_errors_in_every_report(tmp_path: Path) -> None:
    lanes = "lanes: {standard: {workers: 1}}"
    stages = """name: tests, run: "sh -c 'exec sleep 60' {items}", items: {list: [a, b]}, timeout: 200ms"""
    projects.write(tmp_path, stages, lanes=lanes)
    reports = ("--report", "junit=junit.xml", "--report", "json=run.json")
    assert run(tmp_path, "--once", projects.ANY_PORT, *reports).returncode == 1
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (suites.get("errors"), suites.get("skipped")) == ("2", "0")
    assert [error.get("message") for error in suites.iter("error")] == ["timed out after 0.2 s"] * 2
    (task,) = json.loads((tmp_path / "run.json").read_text())["stages"][0]["tasks"]
    assert [item["result"] for item in task["items"]] == ["timeout", "timeout"]


def test_batch_that_cannot_be_started_has_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = build_task(Commands(steps=(("x", ITEMS),)), 0, ["a", "b"])
    bench = Bench(plan(replace(stage("one"), tasks=(batch,))))
    monkeypatch.setattr(bench.workers, "start", _refuse)
    bench.run()
    (record,) = bench.recorder.of(TaskRecord)
    assert [(each.item, each.result) for each in record.items] == [("a", Result.ERROR), ("b", Result.ERROR)]


def _refuse(*_: object) -> RunningAttempt:
    raise RuntimeError("can't start new thread")


def test_stage_with_a_program_per_item_gets_advice() -> None:
    items = [(index, str(index)) for index in range(8)]
    tasks = tuple(PlannedTask(index=n, item=item, work=Commands(steps=(("pytest", "-q", item),))) for n, item in items)
    bench = Bench(plan(replace(stage("one"), tasks=tasks)), {"one": [Script(seconds=0.5)]})
    (record,) = bench.run().stages
    assert record.advice == "one: up to 100% of its time is pytest starting: use {items}, so that one runs several"


def test_real_pytest_reports_each_file_and_only_the_failed_one_is_retried(tmp_path: Path) -> None:
    for name, body in {
        "good": "open('runs', 'a').write('good\\n')",
        "flaky": "first = not __import__('os').path.exists('seen'); open('seen', 'w'); assert not first",
    }.items():
        (tmp_path / f"test_{name}.py").write_text(f"def test_it():\n    {body}\n")
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {{items}}"
    lanes = "lanes: {standard: {strategy: adaptive, workers: 1}}"
    projects.write(
        tmp_path,
        f'name: tests, run: "{command}", items: {{glob: "test_*.py"}}, retries: {{count: 1, backoff: 0}}',
        lanes=lanes,
    )
    done = run(tmp_path, "--lane", "standard", "--once", projects.ANY_PORT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs").read_text() == "good\n"
    planned = call_command(tmp_path, "plan", "--output", "json")
    assert '"item": "test_flaky.py +1"' in planned.stdout


def test_pytest_without_tests_exits_1(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text("def test_it(): pass\n")
    command = f"{sys.executable} -m pytest -q -k typo -p no:cacheprovider {{items}}"
    lanes = "lanes: {standard: {strategy: thread, workers: 2}}"
    projects.write(tmp_path, f'name: tests, run: "{command}", items: {{glob: "test_*.py"}}', lanes=lanes)
    done = run(tmp_path, "--lane", "standard", "--once", projects.ANY_PORT)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "none of its 2 batches had a test" in done.stdout


def test_retry_after_exitfirst_runs_the_rest(tmp_path: Path) -> None:
    """conftest.py sets the option, so only pytest's output shows that it ended early."""
    flaky = "first = not __import__('os').path.exists('seen'); open('seen', 'w'); assert not first"
    (tmp_path / "test_a.py").write_text(f"def test_it():\n    {flaky}\n")
    (tmp_path / "test_b.py").write_text("def test_it(): pass\ndef test_bad(): assert False\n")
    (tmp_path / "conftest.py").write_text("def pytest_configure(config): config.option.maxfail = 1\n")
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {{items}}"
    lanes = "lanes: {standard: {strategy: thread, workers: 1}}"
    retries = "retries: {count: 1, backoff: 0}"
    projects.write(tmp_path, f'name: tests, run: "{command}", items: {{glob: "test_*.py"}}, {retries}', lanes=lanes)
    done = run(tmp_path, "--lane", "standard", "--once", projects.ANY_PORT)
    assert done.returncode == 1, done.stdout + done.stderr


def test_failed_flag_runs_the_failed_items_again(tmp_path: Path) -> None:
    for name, failing in {"a": False, "b": True, "c": False}.items():
        body = f"open('ran', 'a').write('{name}\\n'); assert {not failing} or __import__('os').path.exists('fixed')"
        (tmp_path / f"test_{name}.py").write_text(f"def test_it():\n    {body}\n")
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider {{items}}"
    lanes = "lanes: {standard: {strategy: adaptive, workers: 1}}"
    projects.write(tmp_path, f'name: tests, run: "{command}", items: {{glob: "test_*.py"}}', lanes=lanes)
    first = run(tmp_path, "--lane", "standard", "--once", projects.ANY_PORT)
    assert first.returncode == 1
    assert "test_b.py: exit 1" in first.stdout
    (tmp_path / "fixed").touch()
    again = run(tmp_path, "--lane", "standard", "--failed", "--once", projects.ANY_PORT)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "c", "b"]
