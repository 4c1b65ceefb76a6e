"""Bars count each event once, however long the time shown is."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.options import Options
from support.deployed import check_queries
from support.panel_queries import ask

_PLACE = 'job="paropt",instance="a",project="demo",lane="standard"'
_FAILED = f'instance_stage:paropt_stage_runs:increase5m{{{_PLACE},stage="lint",result="failure"}}'
_BROKEN = f'instance_stage:paropt_sla_violations:increase5m{{{_PLACE},stage="lint",severity="normal"}}'
_RUNS = f'paropt_runs_total{{{_PLACE},result="failure"}}'


@pytest.mark.parametrize(
    ("title", "series", "labels"),
    [
        ("Which stages fail?", _FAILED, '{result="failure",stage="lint"}'),
        ("When do limits break?", _BROKEN, '{severity="normal"}'),
    ],
)
@pytest.mark.parametrize("minutes", [5, 30])
def test_recorded_fault_is_in_one_bar(tmp_path: Path, title: str, series: str, labels: str, minutes: int) -> None:
    """One at minute 7, recorded at minutes 7 to 11; bars of a day are longer than the recorded window."""
    expression, shortest = ask(title, Options(), f"{minutes}m")
    assert shortest == "5m"
    ends = range(minutes, 61, minutes)
    (holder,) = [end for end in ends if end - minutes < 10 <= end]  # the window that ends at minute 10 has it
    check_queries(
        tmp_path,
        {series: "_x6 1x4 stale"},
        [(f"({expression}) > 0", f"{end}m", {labels: 1} if end == holder else {}) for end in ends],
    )


@pytest.mark.parametrize("event", [290, 300, 310])
def test_fault_between_two_windows_is_in_one_bar(tmp_path: Path, event: int) -> None:
    """Scrapes at 4:30 and 5:30, a failure between them: no window that ends at a multiple of 5 minutes has both."""
    expression, _ = ask("Which stages fail?", Options(), "5m")
    counter = f'paropt_stage_runs_total{{{_PLACE},stage="lint",result="failure"}}'
    samples = (str(int(second > event)) if second % 60 == 30 else "_" for second in range(0, 1200, 10))
    rules = tmp_path / "rules.yml"
    rules.write_text(rule_files.render_rules(Options())["alerts/paropt-recording.yml"])
    check_queries(
        tmp_path,
        {counter: " ".join(samples)},
        [
            (f"sgn({expression})", f"{end}m", {'{result="failure",stage="lint"}': 1} if end == 10 else {})
            for end in range(5, 21, 5)
        ],
        interval="10s",
        rules=[rules.name],
    )


def test_faults_in_and_between_windows_share_a_bar(tmp_path: Path) -> None:
    """The query failed: the series of the two kinds differed only in the metric's name, which the sum drops."""
    expression, _ = ask("Which stages fail?", Options(), "30m")
    counter = f'paropt_stage_runs_total{{{_PLACE},stage="lint",result="failure"}}'
    samples = (str((second > 420) + (second > 1200)) if second % 60 == 30 else "_" for second in range(0, 1800, 10))
    (tmp_path / "rules.yml").write_text(rule_files.render_rules(Options())["alerts/paropt-recording.yml"])
    check_queries(
        tmp_path,
        {counter: " ".join(samples)},
        [(f"round({expression})", "30m", {'{result="failure",stage="lint"}': 2})],
        interval="10s",
        rules=["rules.yml"],
    )


def test_fixed_rate_window_leaves_no_gap_between_bars(tmp_path: Path) -> None:
    expression, shortest = ask("How many runs end, and how?", Options(rate_window="10m"), "30m")
    assert shortest == "10m"
    check_queries(
        tmp_path,
        {_RUNS: "0x6 1x60"},
        [(expression, "30m", {'{result="failure"}': 1})],
    )


def test_run_is_in_one_bar_with_scrapes_of_a_minute(tmp_path: Path) -> None:
    """Grafana's rate window is then four minutes at least: a run was counted in four bars of a minute."""
    shortest = int(ask("How many runs end, and how?", Options(), "1m")[1].removesuffix("m"))
    expression, _ = ask("How many runs end, and how?", Options(), f"{max(4, shortest + 1)}m")
    samples = (str(int(second > 420)) if second % 60 == 30 else "_" for second in range(0, 1200, 10))
    holder = -(-450 // (60 * shortest)) * shortest  # the end of the bar with the first sample after the run
    check_queries(
        tmp_path,
        {_RUNS: " ".join(samples)},
        [
            (f"sgn({expression}) > 0", f"{end}m", {'{result="failure"}': 1} if end == holder else {})
            for end in range(shortest, 20, shortest)
        ],
        interval="10s",
    )


def test_share_of_kept_limits_is_never_negative(tmp_path: Path) -> None:
    """A limit breaks while its stage runs, and is checked at the stage's end: a chart of few runs showed -6 %."""
    given = {
        f"instance_lane:paropt_sla_violations:increase5m{{{_PLACE}}}": "2x9",
        f"instance_lane:paropt_sla_checks:increase5m{{{_PLACE}}}": "1x9",
    }
    lane = '{project="demo",lane="standard"}'
    titles = {"Which share of limits is kept?": "{}", "Which lanes keep their stages' limits?": lane}
    check_queries(
        tmp_path, given, [(ask(title, Options(), "1m")[0], "5m", {labels: 0}) for title, labels in titles.items()]
    )
