"""`plan` shows a lane's stages before a run."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest

from paropt_exporter import plan as plans
from paropt_exporter.cli import main, plan
from paropt_exporter.events import Strategy
from paropt_exporter.plan import Bounds, Plan, PlannedStage
from support import configs, golden, lanes
from support.terminals import Terminal

FILE = """\
project: demo
lanes: {mine: {strategy: hybrid, workers: {min: 1, max: 8, start: 2}, sla: {max: 90s, critical: true}, total: 10m}}
stages:
- {number: 2, name: lint, run: ruff check .}
- {number: 3, name: types, run: [mypy, "a b"], sla: 5s}
- {number: 4, name: tests, run: "pytest {item}", items: {list: [one.py, two.py]}, needs: [lint]}
- {number: 5, name: fetch, call: "pkg.jobs:fetch", needs: [lint, types]}
- {number: 6, name: shell, run: "a | b", shell: true}
- {number: 7, name: empty, run: "x {item}", items: {glob: "*.none", allow_empty: true}}
- {number: 8, name: broken, run: "x {item}", items: {command: no-such-program}}
"""
EXPECTED = {"lint": 2.0, "types": 3.0, "tests": 200.0, "fetch": 1.0}


def _plan(folder: Path, **expected: float) -> plans.Plan:
    return plans.build_plan(configs.read(folder, FILE), "mine", earlier=plans.EarlierRuns(seconds=expected))


def test_history_that_is_removed_meanwhile_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`plan` ended with 2: "no history yet: run a lane first"."""
    (tmp_path / "paropt.yml").write_text("stages:\n- {name: lint, run: 'true'}\n")
    history = tmp_path / ".paropt" / "history.db"
    history.parent.mkdir()
    history.touch()
    lstat = Path.lstat

    def find_and_remove(path: Path) -> os.stat_result:
        found = lstat(path)
        if path == history:
            path.unlink()
        return found

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "lstat", find_and_remove)
    assert main.main(["plan"]) == 0
    assert "lint" in capsys.readouterr().out


def test_text_equals_the_golden_file(tmp_path: Path) -> None:
    out = io.StringIO()
    assert plan.run(_plan(tmp_path, **EXPECTED), output="text", stdout=out) == 2
    golden.assert_is_golden(out.getvalue().replace(f"{tmp_path}/", ""), "plan.txt")


def test_dominant_start_up_is_noted(tmp_path: Path) -> None:
    stage = configs.stage(run="'pytest -q {item}'", items="{list: [a, b, c, d]}")
    built = plans.build_plan(
        configs.read(tmp_path, stage),
        "standard",
        earlier=plans.EarlierRuns(task_seconds={"one": 0.5}, fastest_task_seconds={"one": 0.45}),
    )
    told = "note       one: up to 90% of its time is pytest starting: use {items}, so that one runs several"
    assert told in plan.to_text(built)


@pytest.mark.parametrize("run", ["uv run -p {item} pytest -q", "pytest --browser={item}"])
def test_item_that_is_no_file_of_the_program_gets_no_advice(tmp_path: Path, run: str) -> None:
    """Versions of a matrix can't be given to one pytest, which {items} would do."""
    read = configs.read(tmp_path, configs.stage(run=f"'{run}'", items="{list: [3.11, 3.12, 3.13, 3.14]}"))
    built = plans.build_plan(
        read, "standard", earlier=plans.EarlierRuns(task_seconds={"one": 0.5}, fastest_task_seconds={"one": 0.45})
    )
    assert "{items}" not in plan.to_text(built)


def test_json_has_the_whole_plan(tmp_path: Path) -> None:
    out = io.StringIO()
    plan.run(_plan(tmp_path, **EXPECTED), output="json", stdout=out)
    read = json.loads(out.getvalue())
    assert (read["lane"], read["strategy"], read["workers"]) == ("mine", "hybrid", {"min": 1, "max": 8, "start": 2})
    stages = {stage["name"]: stage for stage in read["stages"]}
    assert stages["tests"]["tasks"][1] == {"index": 1, "item": "two.py", "steps": [["pytest", "two.py"]]}
    assert stages["fetch"]["tasks"][0]["call"] == "pkg.jobs:fetch"
    assert stages["types"]["sla"] == {"max_seconds": 5, "warn_seconds": 4, "critical": False}
    assert stages["empty"]["skip"] == "no items: nothing matches *.none"
    assert "can't be run" in stages["broken"]["fault"]
    assert read["unknown_durations"] == ["shell"]


@pytest.mark.parametrize(
    ("columns", "headers"),
    [
        (200, ["order", "number", "stage", "tasks", "pool", "expected", "limit", "needs", "work"]),
        (80, ["number", "stage", "tasks", "expected", "limit", "needs", "work"]),
        (62, ["stage", "tasks", "expected", "limit", "work"]),
        (40, ["stage", "tasks", "expected"]),
        (20, ["stage", "expected"]),
    ],
)
def test_terminal_shows_the_columns_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int, headers: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = Terminal()
    plan.run(_plan(tmp_path, tests=200.0), output="text", stdout=out)
    table = out.getvalue().split("\n\n")[1].splitlines()
    assert table[0].split() == headers
    assert max(map(len, table)) <= columns
    assert all(name in out.getvalue() for name in ("lint", "types", "tests", "fetch", "shell", "empty", "broken"))


def test_estimate_follows_needs_workers_and_order(tmp_path: Path) -> None:
    assert plan.estimate_seconds(_plan(tmp_path, **EXPECTED)) == 202
    assert plan.estimate_seconds(_plan(tmp_path, lint=2.0, types=3.0, tests=1.0, fetch=1.0, shell=5.0)) == 6


def _lane(*stages: PlannedStage, cores: float | None = 2.0) -> Plan:
    workers = Bounds(minimum=1, maximum=32, start=2)
    return lanes.plan(*stages, workers=workers, cores=cores)


def test_estimate_lets_tasks_that_wait_run_beside_those_that_compute() -> None:
    """The lane starts with two workers, and adds others for the tasks that want no core."""
    waiting = [lanes.stage(f"w{n}", n, expected_seconds=1.0, expected_cpu_demand=0.02) for n in range(10)]
    computing = [lanes.stage(f"c{n}", 10 + n, expected_seconds=1.0, expected_cpu_demand=1.0) for n in range(4)]
    assert plan.estimate_seconds(_lane(*waiting)) == 1.0
    assert plan.estimate_seconds(_lane(*waiting, *computing)) == 2.0
    assert plan.estimate_seconds(_lane(*waiting, *computing, cores=None)) == 7.0


def test_estimate_counts_the_cores_of_all_tasks_of_a_stage() -> None:
    """Each stage alone keeps both cores busy with two of its tasks at once."""
    stages = [
        lanes.stage(n, tasks=8, expected_seconds=4.0, expected_task_seconds=1.0, expected_cpu_demand=1.0) for n in "ab"
    ]
    assert plan.estimate_seconds(_lane(*stages)) == 8.0
    assert plan.estimate_seconds(_lane(*stages, cores=None)) == 8.0
    assert plan.to_json(_lane(*stages))["sequential_seconds"] == 16.0


def test_estimate_for_fewer_workers_than_before_is_longer() -> None:
    """Eight tasks of a second that had eight workers were to take a second with two."""
    stage = lanes.stage("a", tasks=8, expected_seconds=1.0, expected_task_seconds=1.0, expected_cpu_demand=0.0)
    assert plan.estimate_seconds(lanes.plan(stage, workers=2)) == 4.0
    assert plan.estimate_seconds(lanes.plan(stage, workers=8)) == 1.0


def test_stage_of_many_tasks_shares_the_lane_with_a_long_one() -> None:
    """It was to wait for three idle workers: 5 s, where a run took 3 s."""
    long = lanes.stage("long", 1, expected_seconds=3.0)
    many = lanes.stage("many", 2, tasks=12, expected_seconds=2.0, expected_task_seconds=0.5)
    assert plan.estimate_seconds(lanes.plan(long, many, workers=3)) == 3.0


def test_no_more_tasks_run_at_once_than_there_are() -> None:
    """The mean task of earlier runs may be longer than the stage."""
    stage = lanes.stage("a", tasks=2, expected_seconds=1.0, expected_task_seconds=5.0)
    assert plan.to_json(_lane(stage))["sequential_seconds"] == 2.0


def test_stage_that_takes_no_time_waits_for_no_core() -> None:
    """A cached stage between two others: that which needs it began after all that compute."""
    computing = [lanes.stage(f"c{n}", n, expected_seconds=5.0, expected_cpu_demand=1.0) for n in range(2)]
    first = lanes.stage("first", 3, expected_seconds=1.0, expected_cpu_demand=0.0)
    cached = lanes.stage("cached", 4, needs=("first",), expected_seconds=0.0, expected_cpu_demand=1.0)
    after = lanes.stage("after", 5, needs=("cached",), expected_seconds=5.0, expected_cpu_demand=0.0)
    assert plan.estimate_seconds(_lane(*computing, first, cached, after)) == 6.0


@pytest.mark.parametrize(
    ("feedback", "workers", "follows"),
    [
        ("{}", "auto", True),
        ("{}", "4", False),
        ("{mode: advise}", "auto", False),
        ("{objective: deadline}", "auto", False),
    ],
)
def test_plan_has_cores_if_they_decide_the_size(tmp_path: Path, feedback: str, workers: str, follows: bool) -> None:
    text = f"{configs.stage()}lanes: {{standard: {{workers: {workers}}}}}\nfeedback: {feedback}\n"
    built = plans.build_plan(configs.read(tmp_path, text), "standard")
    assert (built.cores is not None) is follows


def test_estimate_is_unknown_before_the_first_run(tmp_path: Path) -> None:
    assert plan.estimate_seconds(_plan(tmp_path)) is None
    assert "estimated  unknown: no stage has run yet" in plan.to_text(_plan(tmp_path))


def test_runnable_plan_exits_0(tmp_path: Path) -> None:
    built = plans.build_plan(configs.read(tmp_path, configs.stage()), "standard")
    assert plan.run(built, output="text", stdout=io.StringIO()) == 0


def test_stage_that_only_ever_failed_has_never_succeeded(tmp_path: Path) -> None:
    config = configs.read(tmp_path, FILE)
    text = plan.to_text(
        plans.build_plan(
            config, "mine", earlier=plans.EarlierRuns(seconds={"lint": 2.0}, never_succeeded={"types", "broken"})
        )
    )
    row = next(line for line in text.splitlines() if line.split()[2:3] == ["types"])
    assert "never succeeded" in row
    assert re.search(r", without [^:]*: not run yet, without types: never succeeded", text)


def test_the_estimate_names_a_few_of_many_unknown_stages(tmp_path: Path) -> None:
    config = configs.read(
        tmp_path, "stages:\n" + "".join(f"- {{name: s{number}, run: 'true'}}\n" for number in range(30))
    )
    text = plan.to_text(plans.build_plan(config, "standard", earlier=plans.EarlierRuns(seconds={"s0": 2.0})))
    assert text.splitlines()[-1].endswith(", without s1, s2, s3, s4, s5, s6 and 23 more: not run yet")


def test_estimate_of_a_lane_that_only_ever_failed_says_so(tmp_path: Path) -> None:
    built = plans.build_plan(configs.read(tmp_path, FILE), "mine", earlier=plans.EarlierRuns(never_succeeded={"types"}))
    assert "estimated  unknown: no stage has succeeded yet" in plan.to_text(built)


def test_estimate_keeps_stages_that_share_a_lock_apart() -> None:
    stages = [
        PlannedStage(number=n, name=f"s{n}", tasks=(), expected_seconds=3.0, locks=frozenset({"database"}))
        for n in (1, 2)
    ]
    built = Plan(
        project="demo",
        lane="mine",
        strategy=Strategy.THREAD,
        workers=Bounds(minimum=2, maximum=2, start=2),
        stages=tuple(stages),
        root=Path(),
    )
    assert plan.estimate_seconds(built) == 6.0
