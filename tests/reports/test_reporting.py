"""The reports that a run asks for; each is written whole or not at all, and a failed one hinders no other."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from paropt_exporter.cli.flags import build_parser
from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.errors import DeliveryError, UsageError
from paropt_exporter.events import Decision, ItemRecord, Result, Strategy
from paropt_exporter.plan import Bounds, Commands, Plan, PlannedStage
from paropt_exporter.plan.batches import build_task
from paropt_exporter.reports import Reports, parse, reporting
from paropt_exporter.reports.model import FinishedRun, find_top_folder
from paropt_exporter.reports.reporting import RunReport
from support.event_samples import START, run_ended, run_started, stage_ended, task
from support.finished_runs import attempt, finished, stage


class Broken:
    """A report whose receiver is gone."""

    def prepare(self, plan: Plan) -> Plan:
        return plan

    def report(self, run: FinishedRun) -> None:
        raise DeliveryError("no answer")


class Working(Broken):
    """A report that arrives."""

    def report(self, run: FinishedRun) -> None:
        pass


def written(
    folder: Path,
    *texts: str,
    others: dict[str, RunReport] | None = None,
    count_delivery: Callable[[bool], None] = lambda _: None,
) -> tuple[str, ...]:
    reports = Reports(parse(texts, {}), config=None, top=folder, others=others, count_delivery=count_delivery)
    reports.begin(build_plan(folder))
    for event in (run_started(), task()):
        reports.observe(event)
    return reports.write(run_ended(), log_path=None)


class Text(str):
    """A text that tells when it is no longer held."""


def test_decisions_between_two_runs_are_not_kept(tmp_path: Path) -> None:
    """A service decides about its bounds at each interval, whether or not a run is in progress."""
    reports = Reports(parse([f"json={tmp_path}/run.json"], {}), config=None, top=tmp_path)
    held = [decide(reports)]
    reports.begin(build_plan(tmp_path))
    reports.observe(run_started())
    in_run = decide(reports)
    assert in_run() is not None
    reports.write(run_ended(), log_path=None)
    held.append(decide(reports))
    assert [each() for each in held] == [None, None]


@pytest.mark.parametrize("cached", [True, False])
def test_unchanged_items_of_a_batch_are_in_the_reports(tmp_path: Path, cached: bool) -> None:
    """The cache left only b to run."""
    batch = build_task(Commands(steps=(("x", ITEMS),)), 0, ["a", "b"])
    planned = PlannedStage(number=1, name="unit", tasks=(batch,), cached=cached)
    reports = Reports(parse([f"junit={tmp_path}/unit.xml", f"json={tmp_path}/run.json"], {}), config=None, top=tmp_path)
    reports.begin(replace(build_plan(tmp_path), stages=(planned,)))
    for event in (run_started(), attempt("unit", items=(ItemRecord(item="b", result=Result.SUCCESS, seconds=0.5),))):
        reports.observe(event)
    reports.write(run_ended(stages=(stage_ended("unit"),)), log_path=None)
    expected = ["b", "a"] if cached else ["b"]
    assert [case.get("name") for case in ElementTree.parse(tmp_path / "unit.xml").iter("testcase")] == expected
    (task,) = json.loads((tmp_path / "run.json").read_text())["stages"][0]["tasks"]
    assert [item["item"] for item in task["items"]] == expected


def decide(reports: Reports) -> weakref.ref[Text]:
    text = Text("situation")
    reports.observe(
        Decision(
            pool="commands", action="hold", reason="bounds", old_size=2, new_size=2, at_timestamp_seconds=START,
            situation=text,
        )
    )  # fmt: skip
    return weakref.ref(text)


def build_plan(folder: Path) -> Plan:
    bounds = Bounds(minimum=1, maximum=2, start=1)
    return Plan(project="shop", lane="standard", strategy=Strategy.ADAPTIVE, workers=bounds, stages=(), root=folder)


def test_each_report_is_in_its_file_and_nothing_else_is_left(tmp_path: Path) -> None:
    kinds = ("junit", "gitlab", "json", "trace")
    assert written(tmp_path, *(f"{kind}={tmp_path}/out/{kind}" for kind in kinds)) == ()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(kinds)


def test_a_file_that_cannot_be_written_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (fault,) = written(tmp_path, f"junit={tmp_path}/file/a.xml", f"json={tmp_path}/b.json")
    assert fault.startswith(f"the report junit={tmp_path}/file/a.xml could not be written: ")
    assert (tmp_path / "b.json").exists()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        (fault,) = written(tmp_path, f"json={tmp_path}/{name}")
        assert fault.endswith("it is there and is not a file")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to("real.json")
    assert written(tmp_path, f"json={tmp_path}/link.json") == ()
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text().startswith("{")


def test_a_report_that_goes_to_no_file_costs_a_line_of_the_log_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert written(tmp_path, "otlp", f"json={tmp_path}/a.json", others={"otlp": Broken()}) == ()
    assert [record.getMessage() for record in caplog.records] == ["a report was not made"]
    assert (tmp_path / "a.json").exists()


def test_deliveries_by_otlp_are_counted_and_other_reports_are_not(tmp_path: Path) -> None:
    failed = list[bool]()
    for report in (Broken(), Working()):
        others: dict[str, RunReport] = {"otlp": report, "github": report}
        written(tmp_path, "otlp", "github", f"json={tmp_path}/a.json", others=others, count_delivery=failed.append)
    assert failed == [True, False]


ON_GITHUB = {"GITHUB_ACTIONS": "true"}


def kinds(*texts: str, **environment: str) -> list[str]:
    return [option.kind for option in parse(texts, environment)]


def test_a_file_is_one_of_the_folder_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (option,) = parse(["junit=out/report.xml"], {})
    assert option.path == tmp_path / "out" / "report.xml"
    assert str(option) == f"junit={tmp_path}/out/report.xml"


def test_several_reports_may_be_asked_for() -> None:
    assert kinds("junit=a", "json=b", "github", "otlp", "junit=c") == ["junit", "json", "github", "otlp", "junit"]


@pytest.mark.parametrize("kind", reporting.KINDS_WITH_FILE)
def test_each_kind_with_a_file_is_written(kind: str, tmp_path: Path) -> None:
    assert written(tmp_path, f"{kind}={tmp_path}/report") == ()
    assert (tmp_path / "report").stat().st_size


def test_file_that_can_not_be_looked_at_is_left_to_the_write() -> None:
    """A folder of another user was an internal error; so was a name that is too long, as here."""
    (option,) = parse([f"junit={'x' * 300}"], {})
    assert option.path == Path("x" * 300).absolute()


@pytest.mark.parametrize("kind", reporting.KINDS)
def test_each_kind_is_in_the_help_and_on_its_page(kind: str) -> None:
    wanted = f"{kind}=FILE" if kind in reporting.KINDS_WITH_FILE else kind
    page = (Path(__file__).parents[2] / "docs/reports.md").read_text()
    assert re.search(rf"\b{wanted}\b", build_parser().format_help())
    assert f"--report {wanted}" in page


def test_on_github_the_report_is_on_by_itself_and_can_be_turned_off() -> None:
    assert kinds("junit=a", **ON_GITHUB) == ["junit", "github"]
    assert kinds("github", **ON_GITHUB) == ["github"]
    assert kinds("none", "junit=a", **ON_GITHUB) == ["junit"]
    assert kinds() == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["xml=a"], f"there is no kind 'xml': choose from {', '.join(reporting.KINDS)}"),
        (["junit"], "junit needs a file: --report junit=FILE"),
        (["junit="], "junit needs a file"),
        (["github=a"], "github goes to no file"),
        (["junit=a", "json=a"], "two reports would go to"),
        (["junit=/"], "/ is a folder"),
        (["json=-"], "- is no file: name one"),
        (["json=/dev/stdout"], "/dev/stdout is no file"),
    ],
)
def test_what_cannot_be_meant_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(texts, {})


@pytest.mark.parametrize(
    ("environment", "top"),
    [
        ({}, "/repo/web"),
        ({"GITHUB_WORKSPACE": "/repo"}, "/repo"),
        ({"GITHUB_WORKSPACE": "", "CI_PROJECT_DIR": "/repo"}, "/repo"),
        ({"GITHUB_WORKSPACE": "/elsewhere"}, "/repo/web"),
    ],
)
def test_paths_are_relative_to_the_checkout_of_the_ci(environment: dict[str, str], top: str) -> None:
    assert find_top_folder(Path("/repo/web"), environment) == Path(top)


def test_outputs_of_failures_are_kept_up_to_a_size_and_those_of_successes_not() -> None:
    output = "x" * 20_000
    tasks = [attempt("unit", task=task, result=Result.FAILURE, output=output) for task in range(1, 520)]
    good = attempt("unit", output=output)
    sizes = [len(each.output) for each in finished(stage("unit", 1, good, *tasks)).attempts()]
    assert sizes[0] == 0
    assert (max(sizes), sum(sizes)) == (16 << 10, 8 << 20)
