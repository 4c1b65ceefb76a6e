"""The page of more stages than most projects have."""

from __future__ import annotations

import time

from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels

STAGES = 4000


def test_page_takes_under_a_tenth_of_a_millisecond_of_cpu_time_a_stage() -> None:
    labels = tuple(StageLabels(name=f"stage_{n}", number=n, pool="commands", sla=None) for n in range(STAGES))
    lane = LaneLabels(lane="standard", stages=labels, total=None, interval_seconds=None)
    metrics = Metrics(project="shop", lanes=(lane,))
    began = time.thread_time()
    page = metrics.render_final_page()
    assert time.thread_time() - began < STAGES * 0.0001
    assert page.count(f'stage="stage_{STAGES - 1}"'.encode()) > 10
