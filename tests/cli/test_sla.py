"""`sla` proposes limits from history, and writes them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter import config as configs
from paropt_exporter.cli.sla import Rule, run_sla
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Result
from paropt_exporter.history import History
from paropt_exporter.plan.structure import compute_quantile
from support import event_samples as samples
from support.terminals import Terminal

RULE = Rule(quantile=0.95, margin=0.5)
FILE = """\
lanes:
  standard: {sla: 30s, total: 15m}  # ours
stages:
  - {number: 1, name: lint, run: "true"}
  - {number: 2, name: unit, run: "true", sla: {max: 20s, critical: true}}
"""


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with closing(History(tmp_path / "history.db", project="demo", clock=samples.StillClock())) as history:
        yield history


def keep_runs(history: History, durations: Mapping[str, Sequence[float]], **run: Any) -> None:
    """Keep a run for each place in the durations of stages, which are alike in number; it takes as long as all."""
    for number, took in enumerate(zip(*durations.values(), strict=True)):
        run_id, at = f"r{number}", samples.START + number
        stages = tuple(
            replace(samples.stage_ended(name, run_id), duration_seconds=each)
            for name, each in zip(durations, took, strict=True)
        )
        history.observe(samples.run_started(run_id, at=at, stages=tuple(durations)))
        for stage in stages:
            history.observe(stage)
        ended = samples.run_ended(run_id, at=at, stages=stages)
        history.observe(replace(ended, duration_seconds=sum(took), **run))


def proposed(folder: Path, history: History, text: str = FILE, **options: Any) -> tuple[str, str]:
    """Return the output, and the file afterwards."""
    path = folder / "paropt.yml"
    path.write_text(f"project: demo\n{text}")
    stdout, stderr = io.StringIO(), io.StringIO()
    chosen: dict[str, Any] = {"lane": None, "rule": RULE, "write": False, "output": "text"} | options
    run_sla(configs.read_config(path, root=folder), history, stdout=stdout, stderr=stderr, **chosen)
    return stdout.getvalue(), path.read_text().removeprefix("project: demo\n")


@pytest.mark.parametrize(
    ("durations", "quantile", "expected"),
    [([1, 2, 3, 4, 5], 0.5, 3), ([3, 1], 0.9, 3), ([5, 1, 4, 2, 3], 1.0, 5), (range(1, 101), 0.95, 95), ([7], 0.01, 7)],
)
def test_quantile_is_by_nearest_rank(durations: Sequence[float], quantile: float, expected: float) -> None:
    assert compute_quantile([*durations], quantile) == expected


@pytest.mark.parametrize(
    ("seconds", "limit"), [(0.01, 1), (6.0, 9), (6.5, 10), (10.0, 15), (80.0, 120), (81.0, 135), (601.0, 960)]
)
def test_limit_is_rounded_up_to_a_round_number(seconds: float, limit: float) -> None:
    assert RULE.compute_limit([seconds] * 5) == limit


def test_too_few_runs_propose_nothing() -> None:
    assert RULE.compute_limit([1.0] * 4) is None


def test_stages_and_totals_are_proposed_with_the_number_of_runs(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 6, "unit": [10.0, 11.0, 12.0, 10.0, 11.0, 40.0]})
    shown, after = proposed(tmp_path, history)
    assert [line.split() for line in shown.splitlines()[1:4]] == [
        ["standard", "lint", "6", "1.0", "s", "1.0", "s", "30s", "2s"],
        ["standard", "unit", "6", "11.0", "s", "40.0", "s", "20s", "1m"],
        ["standard", "(total)", "6", "12.0", "s", "41.0", "s", "15m", "1m5s"],
    ]
    assert "the 95% quantile (nearest rank)" in shown
    assert shown.endswith("--write sets them in paropt.yml\n")
    assert after == FILE


@pytest.mark.parametrize(("name", "last"), [("ci.yml", "--write sets them in ci.yml"), (None, "proposed:")])
def test_write_is_offered_for_the_file_in_use(name: str | None, last: str, tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 6, "unit": [2.0] * 6})
    (tmp_path / "ci.yml").write_text(FILE)
    config = replace(configs.read_config(tmp_path / "ci.yml", root=tmp_path), path=name and tmp_path / name)
    stdout, stderr = io.StringIO(), io.StringIO()
    run_sla(config, history, lane=None, rule=RULE, write=False, output="text", stdout=stdout, stderr=stderr)
    assert stdout.getvalue().splitlines()[-1].startswith(last)


def test_quantile_and_margin_are_shown_as_given(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 6})
    shown, _ = proposed(tmp_path, history, rule=Rule(quantile=0.995, margin=0.125))
    assert "the 99.5% quantile (nearest rank)" in shown
    assert "plus 12.5%, rounded up" in shown


def test_proposals_are_written_and_the_rest_of_the_file_stays(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 5, "unit": [10.0] * 5})
    _, after = proposed(tmp_path, history, write=True)
    new = 'standard: {sla: {"*": 30s, lint: 2s, unit: {max: 15s, critical: true}}, total: 20s}  # ours'
    assert after == FILE.replace("standard: {sla: 30s, total: 15m}  # ours", new)
    lane = configs.read_config(tmp_path / "paropt.yml", root=tmp_path).lanes["standard"]
    assert lane.total and lane.total.max == 20


def test_limits_by_stage_are_added_to_existing_ones(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 5, "unit": [10.0] * 5})
    text = FILE.replace("sla: 30s", "sla: {unit: 15s, lint: 9s}")
    _, after = proposed(tmp_path, history, text, write=True)
    assert after == text.replace("{unit: 15s, lint: 9s}, total: 15m", "{unit: 15s, lint: 2s}, total: 20s")


def test_lane_that_is_not_written_down_gets_its_limits(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 5})
    text = FILE.partition("stages:")[1] + FILE.partition("stages:")[2]
    _, after = proposed(tmp_path, history, text, write=True)
    assert after == text + 'lanes:\n  standard: {sla: {"*": 30s, lint: 2s}, total: 2s}\n'


def test_nothing_is_written_without_a_change(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 4})
    with pytest.raises(UsageError, match="--write: there is nothing to change"):
        proposed(tmp_path, history, write=True)


def test_failures_and_partial_runs_do_not_count(tmp_path: Path, history: History) -> None:
    keep_runs(history, {"lint": [1.0] * 5}, partial=True)
    shown, _ = proposed(tmp_path, history, output="json")
    assert [(each["stage"], each["proposed_seconds"]) for each in json.loads(shown)] == [("lint", 2.0)]


def test_without_a_successful_run_there_is_one_clear_error(tmp_path: Path, history: History) -> None:
    bad = samples.stage_ended("lint", result=Result.FAILURE)
    for event in (samples.run_started(), bad, samples.run_ended(result=Result.FAILURE, stages=(bad,))):
        history.observe(event)
    with pytest.raises(UsageError, match="no successful run of lane heavy is known"):
        proposed(tmp_path, history, lane="heavy")


@pytest.mark.parametrize("columns", [60, 80])
def test_proposals_keep_within_the_terminal(
    tmp_path: Path, history: History, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    keep_runs(history, {"lint": [1.0] * 5, "integration_tests": [1000.0] * 5})
    (tmp_path / "paropt.yml").write_text(f"project: demo\n{FILE.replace('unit', 'integration_tests')}")
    loaded, terminal = configs.read_config(tmp_path / "paropt.yml", root=tmp_path), Terminal()
    run_sla(loaded, history, lane=None, rule=RULE, write=False, output="text", stdout=terminal, stderr=io.StringIO())
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    assert ("median" in lines[0]) is (columns == 80)
    assert lines[0].endswith("limit now  proposed")
