"""The largest page that a config allows."""

from __future__ import annotations

import time

from paropt_exporter.config.model import MOST_STAGES
from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels


def test_page_of_ten_thousand_stages_takes_under_a_second_of_cpu_time() -> None:
    labels = tuple(StageLabels(name=f"stage_{n}", number=n, pool="commands", sla=None) for n in range(MOST_STAGES))
    lane = LaneLabels(lane="standard", stages=labels, total=None, interval_seconds=None)
    metrics = Metrics(project="shop", lanes=(lane,))
    began = time.thread_time()
    page = metrics.render_final_page()
    assert time.thread_time() - began < 1.0
    assert page.count(f'stage="stage_{MOST_STAGES - 1}"'.encode()) > 10
