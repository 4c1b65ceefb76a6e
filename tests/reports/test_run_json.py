"""The JSON report tells each attempt, its worker and where its output is."""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from paropt_exporter.events import ItemRecord, Result, SlaRecord
from paropt_exporter.reports import run_json
from paropt_exporter.reports.model import FinishedRun
from support.event_samples import START
from support.finished_runs import LIMIT, attempt, finished, stage


def read(run: FinishedRun) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run_json.render(run))
    return report


def test_each_attempt_has_its_worker_times_and_findings() -> None:
    bad = attempt(
        "unit", item="a", result=Result.FAILURE, message="exit 1", exit_code=1, output="a.py:3:5: F401 unused\n"
    )
    report = read(finished(stage("unit", 1, bad, attempt("unit", item="a", number=2, output_path="/repo/out.txt"))))
    (task,) = report["stages"][0]["tasks"]
    assert (task["item"], task["result"]) == ("a", "success")
    first, second = task["attempts"]
    assert (first["worker"], first["exit_code"], first["queue_wait_seconds"]) == ("commands-1", 1, 0.5)
    assert (first["started_timestamp_seconds"], first["duration_seconds"]) == (START + 1, 2.0)
    assert first["findings"] == [
        {"message": "unused", "path": "a.py", "line": 3, "column": 5, "rule": "F401", "test": None, "level": "error"}
    ]
    assert (second["output_file"], second["findings"]) == ("/repo/out.txt", [])
    assert report["log"] == "/repo/.paropt/logs/r1.log"


def test_items_of_a_batch_have_results_of_their_own() -> None:
    items = (ItemRecord(item="a.py", result=Result.SUCCESS, seconds=0.5),)
    (task,) = read(finished(stage("unit", 1, attempt("unit", item="1 file", items=items))))["stages"][0]["tasks"]
    assert task["items"] == [{"item": "a.py", "result": "success", "duration_seconds": 0.5}]


def test_items_that_were_not_retried_keep_their_results() -> None:
    passed, failed = (ItemRecord(item=f"{name}.py", result=Result.SUCCESS, seconds=0.5) for name in "ab")
    failed = replace(failed, result=Result.FAILURE)
    first = attempt("unit", item="a.py +1", result=Result.FAILURE, items=(passed, failed))
    second = attempt("unit", item="b.py", number=2, items=(replace(failed, result=Result.SUCCESS),))
    (task,) = read(finished(stage("unit", 1, first, second)))["stages"][0]["tasks"]
    assert [(item["item"], item["result"]) for item in task["items"]] == [("a.py", "success"), ("b.py", "success")]


def test_limits_and_pools_are_in_the_report() -> None:
    reached = SlaRecord(
        run_id="r1", lane="standard", stage="unit", limit=LIMIT, broken=False, elapsed_seconds=2.0,
        at_timestamp_seconds=START + 3,
    )  # fmt: skip
    report = read(finished(stage("unit", 1, attempt("unit"), sla=LIMIT, warned=True), slas=(reached,)))
    assert report["slas"][0]["limit"]["max_seconds"] == 3.0
    assert report["stages"][0]["sla_warned"] is True
    assert report["pools"][0]["peak_size"] == 4
