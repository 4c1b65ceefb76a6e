"""The JSON report has each attempt, its worker and where its output is, and matches the published schema."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from msgspec.structs import replace

from paropt_exporter.events import Bottleneck, CacheReason, ItemRecord, Result, Shard, SlaRecord
from paropt_exporter.monitoring import schema
from paropt_exporter.reports import run_document, run_json
from paropt_exporter.reports.model import FinishedRun
from support.event_samples import START
from support.finished_runs import LIMIT, attempt, finished, stage

SCHEMA = json.loads(schema.render_document_schema(run_document.Run, run_document.TITLE))


def read(run: FinishedRun) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run_json.render(run))
    Draft202012Validator(SCHEMA).validate(report)
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


def test_task_that_was_skipped_since_nothing_changed_has_no_attempt() -> None:
    """The record of the earlier result has no worker, no exit code and no duration of its own."""
    cached = attempt("unit", item="a", cache=CacheReason.UNCHANGED, seconds=0.0)
    report = read(finished(stage("unit", 1, cached), sequential_seconds=0.0))
    (task,) = report["stages"][0]["tasks"]
    assert (task["item"], task["result"], task["cached"], task["attempts"]) == ("a", "success", True, [])
    assert report["speedup"] is None


def test_limits_and_pools_are_in_the_report() -> None:
    reached = SlaRecord(
        run_id="r1", lane="standard", stage="unit", limit=LIMIT, broken=False, elapsed_seconds=2.0,
        at_timestamp_seconds=START + 3,
    )  # fmt: skip
    report = read(finished(stage("unit", 1, attempt("unit"), sla=LIMIT, warned=True), slas=(reached,)))
    assert report["slas"][0]["limit"]["max_seconds"] == 3.0
    assert report["stages"][0]["sla_warned"] is True
    assert report["pools"][0]["peak_size"] == 4


def test_summary_is_the_report_without_its_details() -> None:
    bottleneck = Bottleneck(kind="uneven", stage=None, sentence="stages are uneven", advice="split b")
    run = finished(
        stage("unit", 2, attempt("unit")),
        stage("lint", 1),
        total=LIMIT,
        bottlenecks=(bottleneck,),
        shard=Shard(index=2, count=5, split="s1"),
    )
    report, summary = read(run), json.loads(run_json.render_summary(run.record))
    Draft202012Validator(SCHEMA).validate(summary)
    assert {*report} - {*summary} == {"project", "log", "slas", "decisions"}
    assert all(stage.pop("tasks") is not None for stage in report["stages"])
    assert {key: report[key] for key in summary} == summary
    assert (summary["shard"], summary["split"]) == ("2/5", "s1")
    assert [stage["stage"] for stage in summary["stages"]] == ["lint", "unit"]
    assert summary["total"] == {"max_seconds": 3.0, "warn_seconds": 2.0, "critical": False}


def test_schema_is_valid_and_describes_every_key() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    objects = [each for each in SCHEMA["$defs"].values() if "properties" in each]
    missing = [key for each in objects for key, value in each["properties"].items() if not value.get("description")]
    assert missing == []
    assert {"Run", "Stage", "Task", "Attempt", "Finding"} <= {each["title"] for each in objects}
