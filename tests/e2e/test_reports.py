"""Real runs report to other programs, and say so where a report could not be written."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support import processes, projects
from support.otlp_collector import collecting
from support.real_servers import HANG_SECONDS, eventually, run, serving

STAGES = """
    name: lint, run: "echo 'src/a.py:3:5: F401 unused'; exit 1", shell: true
    name: flaky, run: "test -e seen || { touch seen; exit 7; }", shell: true, retries: {count: 1, backoff: 0.01}
    name: unit, run: [./check, "{item}"], items: {list: [a, b]}
    name: call, call: "calls:work"
    name: deploy, run: "true", needs: [lint]
"""
KINDS = ("junit", "gitlab", "json", "trace")


def project(folder: Path) -> Path:
    (folder / "check").write_text("#!/bin/sh\necho $TRACEPARENT > context-$1\n")
    (folder / "check").chmod(0o755)
    return projects.write(folder, STAGES, calls="def work():\n    print('called')\n")


def once(folder: Path, *reports: str, **env: str) -> tuple[int, str, str]:
    flags = [flag for report in reports for flag in ("--report", report)]
    done = run(folder, "--once", projects.ANY_PORT, *flags, **env)
    return done.returncode, done.stdout, done.stderr


def test_one_run_writes_every_report(tmp_path: Path) -> None:
    folder = project(tmp_path)
    code, _, stderr = once(folder, *(f"{kind}=reports/{kind}" for kind in KINDS))
    assert (code, "::" in stderr) == (1, False)
    assert sorted(path.name for path in (folder / "reports").iterdir()) == sorted(KINDS)
    report = json.loads((folder / "reports" / "json").read_text())
    results = {stage["stage"]: stage["result"] for stage in report["stages"]}
    assert results == {"lint": "failure", "flaky": "success", "unit": "success", "call": "success", "deploy": "skip"}
    assert "F401 unused" in Path(report["log"]).read_text()
    flaky = next(stage for stage in report["stages"] if stage["stage"] == "flaky")
    assert [attempt["exit_code"] for attempt in flaky["tasks"][0]["attempts"]] == [7, 0]
    assert all(
        attempt["worker"] for stage in report["stages"] for task in stage["tasks"] for attempt in task["attempts"]
    )
    junit = ElementTree.parse(folder / "reports" / "junit").getroot()
    assert {case.get("name") for case in junit.iter("testcase")} == {"lint", "flaky", "a", "b", "call", "deploy"}
    assert len(list(junit.iter("flakyFailure"))) == 1
    (entry,) = json.loads((folder / "reports" / "gitlab").read_text())
    assert entry["location"] == {"path": "src/a.py", "lines": {"begin": 3}}
    bars = [
        event for event in json.loads((folder / "reports" / "trace").read_text())["traceEvents"] if event["ph"] == "X"
    ]
    assert {bar["name"] for bar in bars} >= {"lint", "unit a", "unit b", "call"}


def test_on_github_annotations_groups_and_a_summary_come_by_themselves(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "sub").mkdir()
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "summary"), "GITHUB_WORKSPACE": str(tmp_path)}
    _, _, stderr = once(folder, **env)
    lines = stderr.splitlines()
    assert "::error file=src/a.py,line=3,col=5,title=lint%3A F401::unused" in lines
    assert lines.index("::group::lint: exit 1") < lines.index("::endgroup::")
    assert sum("src/a.py:3:5" in line for line in lines) == 1
    assert not any(line.endswith("--- lint") for line in lines)
    assert "| ❌ | lint | failure |" in (folder / "summary").read_text(encoding="utf-8")
    assert "::" not in once(folder, "none", **env)[2]


def test_summary_of_github_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: good, run: "true"')
    missing = folder / "missing" / "summary"
    code, _, stderr = once(folder, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(missing))
    assert (code, stderr.count("a report was not made")) == (0, 1)
    assert f"path={missing}" in stderr


@pytest.mark.parametrize("color", ["", "1"])
def test_output_of_a_task_gives_githubs_runner_no_command(tmp_path: Path, color: str) -> None:
    script = "printf '::add-mask::e\\n  ::warning::w\\nx ##[error]e\\n::stop-commands::s\\n'; exit 1"
    folder = projects.write(tmp_path, f"name: one, shell: true, run: {json.dumps(script)}")
    _, stdout, stderr = once(folder, GITHUB_ACTIONS="true", FORCE_COLOR=color)
    assert list(iter_obeyed(stdout)) == []
    assert list(iter_obeyed(stderr)) == ["group", "stop-commands", "endgroup", "error"]
    assert "\\u003a:add-mask::e" in stdout
    assert "x \\u0023#[error]e" in stdout


def iter_obeyed(printed: str) -> Iterator[str]:
    """Yield the names of the commands that GitHub's runner obeys."""
    token = ""
    for line in printed.splitlines():
        found = re.match(r"\s*::([\w-]+).*?::(.*)|.*##\[(\w+)", line)
        if token or found is None:
            token = "" if line == f"::{token}::" else token
            continue
        yield found[1] or found[3]
        token = found[2] if found[1] == "stop-commands" else ""


def test_report_that_can_not_be_written_makes_exit_code_3_with_one_line(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: good, run: "true"')
    (folder / "file").write_text("")
    code, stdout, stderr = once(folder, "junit=file/report.xml", "json=report.json")
    assert code == 3
    assert [line.partition(" ")[2] for line in stderr.splitlines() if "report" in line] == [
        f"exit code 3: the report junit={folder}/file/report.xml could not be written: Not a directory"
    ]
    assert "standard succeeded" in stdout
    assert (folder / "report.json").exists()


def test_report_that_can_not_be_written_is_named_beside_a_fault_of_the_history(tmp_path: Path) -> None:
    projects.write(tmp_path, 'name: lint, run: "true"')
    (tmp_path / ".paropt").write_text("in the way of the history")
    ended = run(tmp_path, "--once", projects.ANY_PORT, "--report", "junit=.paropt/report.xml")
    assert ended.returncode == 3
    assert re.search(
        r"exit code 3: history .*; the report junit=.* could not be written: Not a directory", ended.stderr
    )


@pytest.mark.parametrize("report", ["xml=a", "junit"])
def test_faulty_report_option_is_rejected_before_anything_runs(tmp_path: Path, report: str) -> None:
    folder = projects.write(tmp_path, 'name: good, run: "touch ran"')
    code, stdout, stderr = once(folder, report)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert not (folder / "ran").exists()


def test_killed_exporter_leaves_the_report_of_the_run_before_whole(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: slow, run: "test -e go || exec sleep 60", shell: true')
    (folder / "go").touch()
    assert once(folder, "json=report.json")[0] == 0
    before = (folder / "report.json").read_bytes()
    (folder / "go").unlink()
    with serving(folder, projects.ANY_PORT, "--report", "json=report.json") as command:
        eventually("the stage runs", lambda: any(processes.in_folder(folder)))
        command.process.send_signal(signal.SIGKILL)
        command.process.wait(HANG_SECONDS)
    assert (folder / "report.json").read_bytes() == before
    assert [path.name for path in folder.iterdir() if path.name.startswith(".report")] == []


def test_interrupted_run_is_reported(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: slow, run: "touch begun; exec sleep 60", shell: true')
    with serving(folder, projects.ANY_PORT, "--report", "json=report.json") as command:
        eventually("the stage runs", lambda: (folder / "begun").exists())
        os.kill(command.process.pid, signal.SIGTERM)
        assert command.process.wait(HANG_SECONDS) == 143
    assert json.loads((folder / "report.json").read_text())["result"] == "cancellation"


def test_collector_gets_the_trace_that_commands_got_in_their_environment(tmp_path: Path) -> None:
    folder = project(tmp_path)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with collecting() as collector:
        code, _, _ = once(folder, "otlp", OTEL_EXPORTER_OTLP_ENDPOINT=collector.address, TRACEPARENT=parent)
    assert code == 1
    unit = collector.span("unit")
    assert unit.trace_id.hex() == parent.split("-")[1]
    assert (folder / "context-a").read_text() == f"00-{unit.trace_id.hex()}-{unit.span_id.hex()}-01\n"
    assert "cicd.pipeline.run.duration" in collector.metrics


def test_collector_that_is_not_there_costs_one_line(tmp_path: Path) -> None:
    folder = projects.write(tmp_path, 'name: good, run: "true"')
    with collecting() as collector:
        gone = collector.address
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": gone, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    code, stdout, stderr = once(folder, "otlp", **env)
    assert (code, stderr.count("a report was not made")) == (0, 1)
    assert "Traceback" not in stderr
    assert "standard succeeded" in stdout
