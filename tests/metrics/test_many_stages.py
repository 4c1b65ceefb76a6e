"""The page of more stages than most projects have."""

from __future__ import annotations

import time

from paropt_exporter.metrics import LaneLabels, Metrics, StageLabels

FEW, MANY = 400, 4000


def render(stages: int) -> tuple[bytes, float]:
    """Return a page with so many stages, and the CPU seconds that each of them took."""
    labels = tuple(StageLabels(name=f"stage_{n}", number=n, pool="commands", sla=None) for n in range(stages))
    lane = LaneLabels(lane="standard", stages=labels, total=None, interval_seconds=None)
    metrics = Metrics(project="shop", lanes=(lane,))
    began = time.thread_time()
    page = metrics.render_final_page()
    return page, (time.thread_time() - began) / stages


def test_each_of_many_stages_costs_as_much_as_each_of_a_few() -> None:
    """Work that grows with the square of the number would cost ten times as much for each."""
    page, of_many = render(MANY)
    assert page.count(f'stage="stage_{MANY - 1}"'.encode()) > 10
    assert of_many < 5 * min(render(FEW)[1] for _ in range(5))
