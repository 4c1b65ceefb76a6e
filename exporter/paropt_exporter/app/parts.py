"""Make the parts of an exporter, each from the config and from what is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from paropt_exporter.app.request import Request, Screen
from paropt_exporter.autoscaling import ControlState, Override
from paropt_exporter.autoscaling.control_socket import ControlSocket, open_control_socket
from paropt_exporter.clock import Clock
from paropt_exporter.config import Config
from paropt_exporter.engine import get_pool_names
from paropt_exporter.errors import UsageError
from paropt_exporter.events import QueryCounts, Strategy
from paropt_exporter.exposition import listeners, sinks
from paropt_exporter.exposition.protection import NoProtection, ProtectionFile, ProtectionSource
from paropt_exporter.exposition.renderer import PageSource
from paropt_exporter.exposition.server import Server, start_server
from paropt_exporter.exposition.sinks import Sinks
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels, StageLabels
from paropt_exporter.plan import Plan, Selection, choose_pool, choose_stages
from paropt_exporter.task_logs import LogFolder, LogLimits, TaskLogs, find_log_folder

if TYPE_CHECKING:
    from paropt_exporter.autoscaling import Feedback
    from paropt_exporter.autoscaling.jobserver import Jobserver
    from paropt_exporter.reports import Reports
    from paropt_exporter.reports.reporting import RunReport


def open_history(config: Config, clock: Clock) -> History:
    keep = config.history.keep
    return History(
        config.history_path,
        project=config.project,
        clock=clock,
        keep_runs=keep.runs,
        keep_seconds=keep.age,
    )


def open_task_logs(config: Config, past: History, clock: Clock) -> TaskLogs | None:
    """Return what keeps the output of tasks; None where the config wants none kept."""
    keep = config.history.logs
    if not keep.enabled:
        return None
    limits = LogLimits(run_bytes=keep.run, total_bytes=keep.total, age_seconds=keep.age)
    return TaskLogs(LogFolder(find_log_folder(config.history_path), limits, clock=clock, lives=past.is_alive))


def reports(request: Request, config: Config, screen: Screen) -> Reports | None:
    """Return what makes the reports that are asked for. UsageError for one that needs an extra which is not there."""
    if not request.reports:
        return None
    from paropt_exporter.reports import Reports, model, reporting

    kinds = {option.kind for option in request.reports}
    others: dict[str, RunReport] = {}
    if reporting.GITHUB in kinds:
        others[reporting.GITHUB] = _github(screen)
    if reporting.OTLP in kinds:
        others[reporting.OTLP] = _otlp()
    top = model.find_top_folder(config.root, os.environ)
    return Reports(request.reports, config=config.path, top=top, others=others)


def _github(screen: Screen) -> RunReport:
    from paropt_exporter.reports import github

    return github.GitHubReport(screen.show, os.environ)


def _otlp() -> RunReport:
    try:
        from paropt_exporter.reports import otlp
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--report otlp: there is no module {error.name}: "
            "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None
    return otlp.OtlpReport(os.environ)


def build_feedback(config: Config, clock: Clock) -> Feedback | None:
    """Return what asks Prometheus; None where nobody is to be asked."""
    settings = config.feedback
    if settings.prometheus is None or settings.source == "local":
        return None
    from paropt_exporter.autoscaling import Feedback  # here: a lane without Prometheus must not wait for `requests`

    return Feedback(settings, settings.prometheus, project=config.project, root=config.root, clock=clock)


def build_jobserver(config: Config) -> Jobserver | None:
    if not config.feedback.jobserver:
        return None
    from paropt_exporter.autoscaling.jobserver import Jobserver, require_make  # here: hardly a lane needs it

    require_make(os.environ)
    return Jobserver()


def build_control_state(config: Config, plan: Plan, asks: Feedback | None) -> ControlState:
    """Return where the sizes of the plan's pools stand, by nobody's decision yet."""
    settings = config.feedback
    return ControlState(
        plan.workers,
        get_pool_names(plan),
        source=settings.source or ("both" if settings.prometheus is not None else "local"),
        override=Override(mode=settings.mode),
        queries=asks.get_counts if asks is not None else QueryCounts,
    )


def open_order_socket(config: Config, plan: Plan, stands: ControlState) -> ControlSocket | None:
    """Open the socket through which a person pins or pauses the lane."""
    sequential = plan.strategy is Strategy.SEQUENTIAL
    unsteerable = f"lane {plan.lane} runs one task after another: strategy sequential has no size"
    return open_control_socket(config.root, stands, lane=plan.lane, refusal_reason=unsteerable if sequential else "")


def asked(request: Request) -> dict[str, Any]:
    """Return what a request asks of each plan, whatever failed before."""
    return {
        "selection": request.selection,
        "arguments": request.arguments,
        "strategy": request.strategy,
        "workers": request.workers,
        "fail_fast": request.fail_fast,
    }


def build_lane_labels(request: Request, config: Config, plan: Plan) -> LaneLabels:
    """Return the lane as its metrics are labelled: all of its stages, of which a plan may have only some."""
    lane = config.lanes[plan.lane]
    members, _ = choose_stages(config, plan.lane, Selection())
    stages = tuple(
        StageLabels(
            name=stage.name,
            number=stage.number,
            pool=choose_pool(stage, plan.strategy),
            sla=limit.to_limit() if (limit := lane.get_limit(stage)) else None,
        )
        for stage in members
    )
    total = lane.total.to_limit() if lane.total else None
    return LaneLabels(lane=plan.lane, stages=stages, total=total, interval_seconds=request.every_seconds)


def exports_process_metrics(request: Request, config: Config) -> bool:
    """Say whether the exporter's own process is on its page."""
    asked = request.exporter_metrics
    return not config.web.disable_exporter_metrics if asked is None else asked


def build_sinks(request: Request, config: Config, plan: Plan) -> Sinks:
    """Return who is handed the final values of each run. UsageError for a push that is nobody's."""
    settings = config.push
    targets: dict[str, sinks.Deliver] = {}
    if request.textfile is not None:
        from paropt_exporter.exposition import textfile

        path = textfile.build_path(request.textfile, project=plan.project, lane=plan.lane)
        targets[sinks.TEXTFILE] = partial(textfile.write_page, path)
    if (url := request.push_url or settings.url) is not None:
        from paropt_exporter.exposition import pushgateway  # here: few lanes push

        targets[sinks.PUSHGATEWAY] = pushgateway.build_sink(
            settings,
            url=url,
            instance=request.push_instance,
            project=plan.project,
            lane=plan.lane,
            root=config.root,
        )
    elif request.push_fail:
        raise UsageError("--push.fail: nothing is pushed: give --push.url too")
    return Sinks(targets)


def build_protection(request: Request, config: Config) -> ProtectionSource:
    """Return what protects the endpoint. Raises ConfigError or UsageError for a web config that can't be honoured."""
    named = config.web.config_file
    path = request.web_config or (config.root / named if named is not None else None)
    return ProtectionFile(path) if path is not None else NoProtection()


def start_endpoint(
    request: Request, config: Config, page: PageSource, protects: ProtectionSource, say: Callable[[str], None]
) -> Server:
    web = config.web
    return start_server(
        request.addresses or web.listen_address,
        page,
        telemetry_path=request.telemetry_path or web.telemetry_path,
        max_requests=request.max_requests or web.max_requests or sys.maxsize,
        on_fallback=say,
        protection_source=protects,
        listeners=listeners.inherit_listeners(os.environ) if request.systemd_socket else None,
    )
