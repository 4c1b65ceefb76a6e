"""Panels of durations show a run that takes longer than the last one, before it has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.monitoring.options import Options
from support.deployed import check_queries
from support.panel_queries import ask

_LANE = 'job="paropt",instance="a",project="demo",lane="standard"'
_STAGE = f'{_LANE},stage="lint"'
_LASTS = {
    f"paropt_stage_last_duration_seconds{{{_STAGE}}}": "90x9",
    f"paropt_sla_limit_seconds{{{_STAGE}}}": "100x9",
    f"paropt_run_last_duration_seconds{{{_LANE}}}": "90x9",
    f"paropt_lane_sla_limit_seconds{{{_LANE}}}": "100x9",
}
_STARTS = {
    f"paropt_stage_started_timestamp_seconds{{{_STAGE}}}": "0x4 stale",
    f"paropt_run_started_timestamp_seconds{{{_LANE}}}": "0x4 stale",
}
_NEAREST = "Which stages are closest to their limit?"
_SLOWEST = "Which stages are the slowest?"
_USED = "How much of its limit is used?"


@pytest.mark.parametrize(
    ("title", "labels", "limit"),
    [
        (_NEAREST, '{project="demo",lane="standard",stage="lint"}', 100),
        (_SLOWEST, '{stage="lint"}', 1),
        (_USED, "{}", 100),
    ],
)
def test_present_run_counts_once_it_takes_a_minute_longer_than_the_last(
    tmp_path: Path, title: str, labels: str, limit: float
) -> None:
    """It starts at 0, is last scraped after four minutes, and has ended by the scrape after five."""
    query, _ = ask(title, Options(), "1m")
    durations = [("2m", 90), ("3m", 180), ("4m30s", 270), ("5m", 90)]
    check_queries(
        tmp_path, {**_LASTS, **_STARTS}, [(query, moment, {labels: took / limit}) for moment, took in durations]
    )


def test_limit_that_a_running_stage_has_broken_shows_how_long_it_runs(tmp_path: Path) -> None:
    query, _ = ask("Which limits are broken?", Options(), "1m", target=1)
    breach = {f'paropt_sla_breached{{{_STAGE},severity="normal"}}': "0 0 1 1 1"}
    labels = '{project="demo",lane="standard",stage="lint",instance="a"}'
    check_queries(tmp_path, {**_LASTS, **_STARTS, **breach}, [(query, "1m", {}), (query, "4m", {labels: 240})])


@pytest.mark.parametrize(
    ("title", "labels", "limit"),
    [
        (_NEAREST, '{project="demo",lane="standard",stage="lint"}', 100),
        (_SLOWEST, '{stage="lint"}', 1),
        (_USED, "{}", 100),
        ("How long does each stage take, against its limit?", '{stage="lint"}', 1),
        ("How long does a run take, against its limit?", '{project="demo",lane="standard"}', 1),
    ],
)
def test_first_run_counts_while_it_goes_on(tmp_path: Path, title: str, labels: str, limit: float) -> None:
    """A stage that hung in its first run was in no panel of durations, even after it had broken its limit."""
    query, _ = ask(title, Options(), "1m")
    limits = {series: values for series, values in _LASTS.items() if "limit" in series}
    check_queries(tmp_path, {**limits, **_STARTS}, [(query, "3m", {labels: 180 / limit}), (query, "5m", {})])


def test_first_run_is_among_the_ten_lines_of_a_chart(tmp_path: Path) -> None:
    """Other stages don't hide it, although ten of them have durations."""
    query, _ = ask("How long does each stage take, against its limit?", Options(), "1m")
    ended = {f'paropt_stage_last_duration_seconds{{{_LANE},stage="s{number}"}}': "9x9" for number in range(10)}
    hangs = {f"paropt_stage_started_timestamp_seconds{{{_STAGE}}}": "_ 60x9"}
    check_queries(tmp_path, {**ended, **hangs}, [(f"({query}) > 9", "3m", {'{stage="lint"}': 120})])
