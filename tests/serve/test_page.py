"""The page of several checkouts of one project."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.clock import SystemClock
from paropt_exporter.events import Result, SlaLimit
from paropt_exporter.exposition.protection import ProtectionFile, ProtectionSource
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels
from paropt_exporter.metrics.event_state import StageLabels
from paropt_exporter.serve.merging import LiveSeries
from paropt_exporter.serve.messages import Registration
from paropt_exporter.serve.page import ProjectView, ServePage
from paropt_exporter.serve.registry import RegisteredProject, Registry
from support.event_samples import START, run_ended, run_started, stage_ended
from support.secured import web_config
from support.serve_process import check_page, render_text, sum_series


def record_checkout(root: Path, *stages: str, interval_seconds: float | None = None) -> RegisteredProject:
    """Record a run of these stages."""
    path = root / ".paropt" / "history.db"
    with closing(History(path, project="shop", clock=SystemClock())) as history:
        run_id = f"run-{root.name}"
        ended = [stage_ended(stage, run_id) for stage in stages]
        history.observe_all((run_started(run_id, stages=stages), *ended, run_ended(run_id)))
    labels = tuple(StageLabels(name=stage, number=1, pool="commands") for stage in stages)
    lane = LaneLabels(lane="standard", stages=labels, interval_seconds=interval_seconds)
    return RegisteredProject(Registration(project="shop", root=str(root), history=str(path), lanes=(lane,)))


def render(
    *checkouts: RegisteredProject, protection: ProtectionSource | None = None, live: tuple[LiveSeries, ...] = ()
) -> str:
    view = ProjectView(name="shop", checkouts=checkouts, live=live, shares={})
    page = ServePage(lambda: (view,), protection=protection, process_metrics=False)
    text = render_text(page)
    check_page(text)
    return text


def test_checkouts_of_two_branches_show_the_stages_of_both(tmp_path: Path) -> None:
    page = render(record_checkout(tmp_path / "a", "lint", "unit"), record_checkout(tmp_path / "b", "lint", "docs"))
    runs = {stage: sum_series(page, "paropt_stage_runs_total", stage=stage) for stage in ("lint", "unit", "docs")}
    assert runs == {"lint": 2, "unit": 1, "docs": 1}


def test_last_success_is_that_of_any_checkout(tmp_path: Path) -> None:
    """An old checkout whose lane fails now must not hide the success of another one from an hour ago."""
    old, other = record_checkout(tmp_path / "old", "lint"), record_checkout(tmp_path / "other", "lint")
    for checkout, result, at in ((other, Result.SUCCESS, START + 1000), (old, Result.FAILURE, START + 4600)):
        with closing(History(Path(checkout.registration.history), project="shop", clock=SystemClock())) as history:
            history.observe(run_started("next", at=at))
            history.observe(run_ended("next", at=at, result=result))
    for order in ((old, other), (other, old)):
        page = render(*order)
        assert sum_series(page, "paropt_run_last_success_timestamp_seconds") == pytest.approx(START + 1000, abs=100)
        assert sum_series(page, "paropt_run_last_completion_timestamp_seconds") >= START + 4600


def test_page_has_the_stages_of_a_changed_config(tmp_path: Path) -> None:
    checkout = record_checkout(tmp_path / "a", "lint", "unit")
    view = ProjectView(name="shop", checkouts=(checkout,), live=(), shares={})
    page = ServePage(lambda: (view,), process_metrics=False)
    assert sum_series(render_text(page), "paropt_stage_runs_total", stage="unit") == 1
    lane = checkout.registration.lanes[0]
    changed = tuple(replace(stage, name={"unit": "docs"}.get(stage.name, stage.name)) for stage in lane.stages)
    checkout.registration = replace(checkout.registration, lanes=(replace(lane, stages=changed),))
    checkout.revision += 1
    text = render_text(page)
    assert sum_series(text, "paropt_stage_runs_total", stage="lint") == 1
    assert 'paropt_stage_runs_total{lane="standard",project="shop",result="success",stage="docs"} 0.0\n' in text
    assert 'stage="unit"' not in text


def test_series_of_limits_exist_before_a_run_comes_near_one(tmp_path: Path) -> None:
    checkout = record_checkout(tmp_path / "a", "lint", "unit")
    lane = checkout.registration.lanes[0]
    limit = SlaLimit(max_seconds=10.0, warn_seconds=8.0)
    stages = tuple(replace(stage, sla=limit if stage.name == "unit" else None) for stage in lane.stages)
    checkout.registration = replace(checkout.registration, lanes=(replace(lane, stages=stages),))
    page = render(checkout)
    for family in ("paropt_sla_near", "paropt_sla_predicted_breach"):
        assert f'\n{family}{{lane="standard",project="shop",stage="unit"}} 0.0\n' in page
        assert f'{family}{{lane="standard",project="shop",stage="lint"}}' not in page


def test_interval_and_limit_of_one_checkout_stay_beside_another(tmp_path: Path) -> None:
    repeating = record_checkout(tmp_path / "a", "lint", interval_seconds=60.0)
    (lane,) = repeating.registration.lanes
    limited = replace(lane, total=SlaLimit(max_seconds=10.0, warn_seconds=8.0))
    repeating.registration = replace(repeating.registration, lanes=(limited,))
    page = render(repeating, record_checkout(tmp_path / "b", "lint"))
    assert sum_series(page, "paropt_run_interval_seconds") == 60.0
    assert sum_series(page, "paropt_lane_sla_limit_seconds") == 10.0


def test_progress_of_a_stage_goes_with_the_stage(tmp_path: Path) -> None:
    ended: LiveSeries = {("paropt_stage_progress_ratio", ("standard", stage)): 1.0 for stage in ("lint", "gone")}
    page = render(record_checkout(tmp_path / "a", "lint"), live=(ended,))
    assert sum_series(page, "paropt_stage_progress_ratio", stage="lint") == 1.0
    assert 'stage="gone"' not in page


def test_memory_peak_is_the_highest_of_the_last_run_and_the_one_in_progress(tmp_path: Path) -> None:
    checkout = record_checkout(tmp_path / "a", "lint")
    stored = sum_series(render(checkout), "paropt_stage_memory_peak_bytes", stage="lint")
    for peak in (stored / 2, stored * 2):
        live: LiveSeries = {("paropt_stage_memory_peak_bytes", ("standard", "lint")): peak}
        page = render(checkout, live=(live,))
        assert sum_series(page, "paropt_stage_memory_peak_bytes", stage="lint") == max(stored, peak) > 0


def test_refused_web_config_is_on_the_page(tmp_path: Path) -> None:
    checkout = record_checkout(tmp_path / "a", "lint")
    assert "paropt_web_config_last_reload_successful" not in render(checkout)
    file = ProtectionFile(web_config(tmp_path, "http_server_config: {headers: {X-Frame-Options: deny}}"))
    assert '\nparopt_web_config_last_reload_successful{project="shop"} 1.0\n' in render(checkout, protection=file)
    web_config(tmp_path, "")
    file.get_protection()
    assert '\nparopt_web_config_last_reload_successful{project="shop"} 0.0\n' in render(checkout, protection=file)


def test_history_that_can_not_be_read_at_the_start_has_no_totals(tmp_path: Path) -> None:
    """They were 0, so that the whole history counted as new once it could be read."""
    folder = tmp_path / "projects"
    folder.mkdir()
    checkout = record_checkout(tmp_path / "a", "lint")
    Registry(folder).register(checkout.registration)
    history = Path(checkout.registration.history)
    content = history.read_bytes()
    history.write_text("no database")
    page = build_page(Registry(folder))
    text = render_text(page)
    assert sum_series(text, "paropt_serve_history_readable") == 0
    assert "paropt_runs_total{" not in text
    history.write_bytes(content)
    text = render_text(page)
    assert sum_series(text, "paropt_serve_history_readable") == 1
    assert sum_series(text, "paropt_runs_total") == 1


def test_project_that_was_missing_at_the_start_is_on_the_page_once_it_is_back(tmp_path: Path) -> None:
    folder, root = tmp_path / "projects", tmp_path / "a"
    folder.mkdir()
    Registry(folder).register(record_checkout(root, "lint").registration)
    root.rename(tmp_path / "unmounted")
    page = build_page(Registry(folder))
    assert 'project="shop"' not in render_text(page)
    (tmp_path / "unmounted").rename(root)
    assert sum_series(render_text(page), "paropt_runs_total") == 1


def build_page(registry: Registry) -> ServePage:
    checkouts = tuple(registry.projects.values())
    view = ProjectView(name="shop", checkouts=checkouts, live=(), shares={})
    return ServePage(lambda: (view,), process_metrics=False)
