"""`profile` on small real stages: its output and the written config."""

from __future__ import annotations

import io
import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.autoscaling.stage_profiler import ProfilingFailed
from paropt_exporter.cli import profile
from paropt_exporter.clock import SystemClock
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Strategy
from support.configs import read

WAITS = """\
# the command of a stage
lanes:
  standard: {workers: 2, sla: 30s}  # the usual
stages:
  - {number: 1, name: waits, run: "sleep {item}", items: {list: [0.3, 0.30]}, needs: [fails]}
  - {number: 2, name: fails, run: "false"}
  - {number: 3, name: empty, run: "true {item}", items: {list: [], allow_empty: true}}
"""


def profiled(folder: Path, content: str, stage: str = "waits", **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one run of each size, unless `options` say otherwise."""
    stdout, stderr = io.StringIO(), io.StringIO()
    keys: dict[str, Any] = {"lane": "standard", "runs": 1} | {
        key: options.pop(key) for key in ("lane", "runs", "sizes", "strategies") if key in options
    }
    chosen: dict[str, Any] = {"write": False, "output": "text"} | options
    code = profile.run(
        read(folder, content),
        profile.ProfileRequest(stage=stage, **keys),
        clock=SystemClock(),
        stdout=stdout,
        stderr=stderr,
        **chosen,
    )
    return code, stdout.getvalue(), stderr.getvalue()


def test_curve_and_the_settings_are_printed_and_the_config_stays(tmp_path: Path) -> None:
    code, stdout, stderr = profiled(tmp_path, WAITS)
    assert code == 0
    assert re.search(r"lanes: \{standard: \{workers: [12]\}\}", stdout)  # a crowded machine may find no gain in two
    assert "round 1 of 1: adaptive, 2 workers" in stderr
    assert (tmp_path / "paropt.yml").read_text() == WAITS
    assert not (tmp_path / ".paropt").exists(), "a measurement is no run of the lane"


def test_curve_keeps_within_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "find_columns_of_terminal", lambda _: 80)
    _, stdout, _ = profiled(tmp_path, WAITS)
    assert max(map(len, stdout.splitlines())) <= 80
    assert "##" in stdout


def test_recommendation_is_written_and_comments_stay(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").touch(mode=0o640)
    _, _, stderr = profiled(tmp_path, WAITS.replace("workers: 2", "workers: {max: 4}"), sizes=(2,), write=True)
    after = WAITS.replace("workers: 2", "workers: {max: 4, min: 1, start: 2}")
    assert (tmp_path / "paropt.yml").read_text() == after
    assert stat.S_IMODE((tmp_path / "paropt.yml").stat().st_mode) == 0o640
    assert "lane standard has these settings now" in stderr


def test_default_lane_is_written_down_with_its_workers_alone(tmp_path: Path) -> None:
    text = 'stages:\n  - {number: 1, name: waits, run: "true {item}", items: {list: [a, b]}}\n'
    profiled(tmp_path, text, lane="docs", sizes=(1,), write=True)
    after = text + "lanes:\n  docs: {workers: 1}\n"
    assert (tmp_path / "paropt.yml").read_text() == after


def test_link_to_the_config_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.yml").touch()
    (tmp_path / "paropt.yml").symlink_to("real.yml")
    profiled(tmp_path, WAITS, sizes=(2,), write=True)
    assert (tmp_path / "paropt.yml").is_symlink()
    assert "workers: 2" in (tmp_path / "real.yml").read_text()


def test_file_that_can_not_be_edited_is_rejected_before_anything_runs(tmp_path: Path) -> None:
    text = WAITS.replace("standard: {", "heavy: *lane\n  standard: &lane {")
    text = text.replace("  heavy: *lane\n", "").replace("stages:", "  heavy: *lane\nstages:", 1)
    with pytest.raises(UsageError, match=r"--write: .*paropt.yml: .*alias.*: set workers and strategy of standard"):
        profiled(tmp_path, text, write=True)


def test_stage_of_one_task_teaches_nothing_about_the_size_of_its_lane(tmp_path: Path) -> None:
    _, stdout, _ = profiled(tmp_path, WAITS.replace('"false"', '"true"'), "fails")
    assert stdout.splitlines()[-1].startswith("recommended  nothing: a stage of one task says nothing about its lane")
    _, stdout, _ = profiled(tmp_path, WAITS.replace('"false"', '"true"'), "fails", sizes=(1, 2))
    assert stdout.splitlines()[-1].startswith("recommended  nothing")
    _, stdout, _ = profiled(tmp_path, WAITS.replace('"false"', '"true"'), "fails", output="json")
    assert json.loads(stdout)["recommended"] is None
    with pytest.raises(UsageError, match="--write: a stage of one task"):
        profiled(tmp_path, WAITS, "fails", write=True)


def test_json_has_every_run(tmp_path: Path) -> None:
    _, stdout, _ = profiled(tmp_path, WAITS, runs=2, sizes=(2,), output="json")
    printed = json.loads(stdout)
    assert (printed["lane"], printed["stage"], printed["recommended"]) == (
        "standard",
        "waits",
        {"strategy": "adaptive", "workers": 2},
    )
    (point,) = printed["points"]
    assert (point["strategy"], point["workers"], len(point["run_seconds"])) == ("adaptive", 2, 2)


def test_call_is_measured_in_threads_and_in_processes_too(tmp_path: Path) -> None:
    (tmp_path / "quick.py").write_text("def it():\n    pass\n")
    text = 'stages:\n  - {number: 1, name: waits, call: "quick:it"}\n'
    _, stdout, _ = profiled(tmp_path, text, output="json")
    assert [point["strategy"] for point in json.loads(stdout)["points"]] == ["adaptive", "thread", "process"]
    _, stdout, _ = profiled(tmp_path, text, output="json", strategies=(Strategy.THREAD,))
    assert [point["strategy"] for point in json.loads(stdout)["points"]] == ["thread"]


def test_sequential_lane_is_profiled_only_on_a_strategy_that_is_named(tmp_path: Path) -> None:
    text = WAITS.replace("workers: 2", "strategy: sequential")
    with pytest.raises(UsageError, match="lane standard is sequential, so it has only one size: name another strategy"):
        profiled(tmp_path, text)
    _, stdout, _ = profiled(tmp_path, text, strategies=(Strategy.THREAD,))
    assert re.search(r"lanes: \{standard: \{strategy: thread, workers: \{min: 1, max: \d+, start: 2\}\}\}", stdout)


def test_dask_lane_is_profiled_only_on_a_strategy_that_is_named(tmp_path: Path) -> None:
    text = WAITS.replace("workers: 2", "strategy: dask")
    with pytest.raises(
        UsageError, match="lane standard runs on a Dask cluster, and profile measures this machine: name"
    ):
        profiled(tmp_path, text)


def test_stage_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ProfilingFailed, match=r"stage fails can't be profiled: with 1 worker, .* failure: exit 1"):
        profiled(tmp_path, WAITS, "fails")


@pytest.mark.parametrize(
    ("stage", "options", "error"),
    [
        ("wait", {}, r"no stage 'wait' in lane standard: choose from waits, fails, empty"),
        ("waits", {"lane": "nightly"}, r"unknown lane 'nightly': choose from docs, standard, heavy"),
        ("empty", {}, r"stage empty can't be profiled: no items"),
    ],
)
def test_unknown_lane_stage_and_empty_stage_are_rejected(
    tmp_path: Path, stage: str, options: dict[str, Any], error: str
) -> None:
    with pytest.raises(UsageError, match=error):
        profiled(tmp_path, WAITS, stage, **options)
