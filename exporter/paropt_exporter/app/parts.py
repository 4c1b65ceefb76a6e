"""Build the parts of an exporter, each from the config and the request."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.app.request import Request, Screen
from paropt_exporter.autoscaling.control_socket import ControlSocket, open_control_socket
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.state import ControlState, Override
from paropt_exporter.clock import Clock
from paropt_exporter.config import Config
from paropt_exporter.config.host_config import HostConfig
from paropt_exporter.engine.pool_sizes import get_pool_names
from paropt_exporter.errors import Interrupted, UsageError
from paropt_exporter.events import QueryCounts, Strategy
from paropt_exporter.executors import procfs
from paropt_exporter.executors.base import PROFILES_NAME
from paropt_exporter.exposition import deliveries, listeners
from paropt_exporter.exposition.deliveries import Sinks
from paropt_exporter.exposition.endpoint import Endpoint, NoEndpoint
from paropt_exporter.exposition.protection import NoProtection, ProtectionFile, ProtectionSource
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels, StageLabels
from paropt_exporter.plan import Plan, Selection, choose_pool, choose_stages, is_cached
from paropt_exporter.serve.runtime_folder import SOCKET_NAME, find_folder
from paropt_exporter.signal_numbers import name_signal
from paropt_exporter.task_logs import LogFolder, LogLimits, TaskLogs, find_log_folder
from paropt_exporter.terminal import to_unicode

if TYPE_CHECKING:
    from pathlib import Path

    from paropt_exporter.app.redirected_output import RedirectedOutput
    from paropt_exporter.autoscaling.feedback import Feedback
    from paropt_exporter.autoscaling.jobserver import Jobserver
    from paropt_exporter.cache.remote import RemoteCache
    from paropt_exporter.cache.stage_cache import StageCache
    from paropt_exporter.executors.base import RemotePool
    from paropt_exporter.executors.cluster.settings import ClusterSettings
    from paropt_exporter.exposition.renderer import PageSource
    from paropt_exporter.reports import Reports
    from paropt_exporter.reports.reporting import RunReport
    from paropt_exporter.serve.link import Link

log = logging.getLogger(__name__)

# The modules that a run loads only when it needs them.
_LATE_MODULES = (
    "paropt_exporter.autoscaling.controller",
    "paropt_exporter.engine.temporary_folder",
    "paropt_exporter.engine.what_if",
    "paropt_exporter.executors.adaptive.routing",
    "paropt_exporter.executors.calls",
    "paropt_exporter.exposition.server",
    "paropt_exporter.metrics.client",
    "paropt_exporter.plan.batches",
    "paropt_exporter.plan.pytest_support",
)
_LATE_STANDARD_MODULES = (
    "ast", "base64", "ctypes", "dataclasses", "datetime", "difflib", "glob", "hmac", "json", "queue",
    "selectors", "signal", "socket",
    "statistics", "struct", "subprocess", "tempfile", "traceback", "typing", "unicodedata",
)  # fmt: skip
_LATE_RELOAD_MODULES = ("paropt_exporter.config.detect", "paropt_exporter.config.validation")


def open_history(config: Config, clock: Clock, *, instance: str = "") -> History:
    """Open the history of a config's project. `instance`: as in `History`."""
    keep = config.history.keep
    return History(
        config.history_path,
        project=config.project,
        clock=clock,
        instance=instance,
        keep_runs=keep.runs,
        keep_seconds=keep.age,
        keep_bytes=keep.size,
    )


def find_profiles(config: Config) -> Path:
    """Return the file with the profiles of functions."""
    return files.find_beside(config.history_path, PROFILES_NAME)


def open_redirected_output() -> RedirectedOutput:
    """Return the log files of a service's output. Once is enough: a lane that runs once needs none."""
    from paropt_exporter.app.redirected_output import RedirectedOutput

    return RedirectedOutput()


def find_own_files(request: Request, config: Config, lane: str) -> list[Path]:
    """Return the files in which this process writes its output, its reports and its textfile.

    They are no inputs of stages.
    """
    from paropt_exporter.app.redirected_output import find_redirected_files

    found = [*find_redirected_files(), *(option.path for option in request.reports if option.path is not None)]
    if request.textfile is not None:
        from paropt_exporter.exposition import sinks  # here: as in `build_sinks`

        found.append(sinks.build_textfile_path(request.textfile, project=config.project, lane=lane))
    return found


def open_task_logs(config: Config, past: History, clock: Clock) -> TaskLogs | None:
    """Return the writer of task logs, or None if the config turns them off."""
    keep = config.history.logs
    if not keep.enabled:
        return None
    limits = LogLimits(run_bytes=keep.run, total_bytes=keep.total, age_seconds=keep.age)
    return TaskLogs(LogFolder(find_log_folder(config.history_path), limits, clock=clock, lives=past.is_alive))


def build_reports(request: Request, config: Config, screen: Screen, sinks: Sinks) -> Reports | None:
    """Return the requested reports, of which OTLP is counted in `sinks`.

    Raises UsageError if one needs an extra that is not installed.
    """
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
    return Reports(
        request.reports,
        config=config.path,
        top=top,
        others=others,
        count_delivery=lambda failed: sinks.count(deliveries.OTLP, failed=failed),
    )


def _github(screen: Screen) -> RunReport:
    from paropt_exporter.reports import github

    screen.fold_outputs(github.format_group)
    return github.GitHubReport(screen.show_commands, os.environ)


def _otlp() -> RunReport:
    try:
        from paropt_exporter.reports import otlp
    except ImportError as error:
        fault = "missing" if isinstance(error, ModuleNotFoundError) else "too old"
        raise UsageError(
            f"--report otlp: the module {error.name} is {fault}: "
            "pip install --upgrade opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        ) from None
    return otlp.OtlpReport(os.environ)


def build_feedback(config: Config, clock: Clock) -> Feedback | None:
    """Return the Prometheus feedback, or None if it is off."""
    settings = config.feedback
    if settings.prometheus is None or settings.source == "local":
        return None
    from paropt_exporter.autoscaling.feedback import Feedback  # here: only these lanes need `requests`

    return Feedback(settings, settings.prometheus, project=config.project, root=config.root, clock=clock)


def build_jobserver(config: Config) -> Jobserver | None:
    if not config.feedback.jobserver:
        return None
    from paropt_exporter.autoscaling.jobserver import Jobserver, require_make  # here: few lanes need it

    require_make(os.environ)
    if not procfs.has_own_proc():  # its clients open the pipe below /proc, where its path may be another process's
        log.warning("no jobserver: /proc is missing or belongs to another pid namespace")
        return None
    return Jobserver()


def build_cache(
    request: Request, config: Config, lane: str, host: HostConfig, clock: Clock, say: Callable[[str], None]
) -> StageCache:
    """Return the cache of stages. Raises UsageError for an invalid size, or URL of a remote cache."""
    from paropt_exporter.cache.open_cache import CacheSetup  # here: a lane without cached stages never loads it
    from paropt_exporter.cache.result_store import open_store
    from paropt_exporter.cache.stage_cache import StageCache

    return StageCache(
        CacheSetup(
            root=config.root,
            store=open_store(os.environ),
            project=config.project,
            environ=os.environ,
            clock=clock,
            say=say,
            reads=not request.no_cache,
            remote=_open_remote_cache(host),
            own_files=find_own_files(request, config, lane),
        )
    )


def _open_remote_cache(host: HostConfig) -> RemoteCache | None:
    if not os.environ.get("PAROPT_CACHE_URL") and host.file.cache is None:
        return None
    from paropt_exporter.cache.remote import open_remote

    return open_remote(os.environ, host)


def build_cluster_opener(config: Config, get_signal: Callable[[], int | None]) -> Callable[[int], RemotePool]:
    """Return a function that connects to the config's cluster and returns its pool.

    It raises ClusterError, and Interrupted after a signal; `get_signal` returns the one that has come before, if any.
    """

    def open_cluster(size: int) -> RemotePool:
        from paropt_exporter.executors.cluster.dask_client import require_distributed  # here: few lanes need it

        require_distributed()
        from paropt_exporter.executors.cluster.cluster_pool import ClusterPool

        if (number := get_signal()) is not None:
            raise Interrupted(number, f"interrupted by {name_signal(number)} before a run")
        return ClusterPool(build_cluster_settings(config), size)

    return open_cluster


def build_cluster_settings(config: Config) -> ClusterSettings:
    """Return where the config's cluster is, and what reaches its workers."""
    from paropt_exporter.executors.cluster import settings  # here: few lanes need it

    dask, root = config.dask, config.root
    tls = None
    if dask.tls is not None:
        tls = settings.TlsFiles(ca=root / dask.tls.ca, cert=root / dask.tls.cert, key=root / dask.tls.key)
    return settings.ClusterSettings(
        root=root,
        scheduler=dask.scheduler or "",
        scheduler_file=root / dask.file if dask.file else None,
        factory=dask.cluster or "",
        tls=tls,
        insecure=dask.insecure,
        shared_root=dask.shared,
        include=dask.upload.include,
        upload_max_bytes=dask.upload.max,
        partition_grace_seconds=dask.partition_grace,
        start_timeout_seconds=dask.start_timeout,
    )


def register_with_serve(
    request: Request,
    config: Config,
    plan: Plan,
    clock: Clock,
    say: Callable[[str], None],
    on_refusal: Callable[[str], None],
) -> Link | None:
    """Register this process with the `serve` of this user; return None if there is none, or if it refuses."""
    folder = find_folder(os.environ)
    if folder is None or not os.path.exists(folder / SOCKET_NAME):  # noqa: PTH110 -- on the path of each start
        return None
    from paropt_exporter.serve import link  # here: without `serve` no run needs it

    registration = link.find_registration(
        config.project,
        config.root,
        config.history_path,
        (build_lane_labels(request, config, plan),),
        get_bounds(plan),
    )
    hello = link.build_hello(registration, lane=plan.lane, limited=not runs_elsewhere(config, plan))
    try:
        return link.Link(folder, hello, clock=clock, say=say)
    except link.Refused as refusal:
        on_refusal(str(refusal))
    except OSError:
        pass  # the socket of a dead one, or no thread is left
    return None


def leaves_port(request: Request, config: Config) -> bool:
    """Return whether this process leaves the port to `serve`: not if it was given an address of its own."""
    return not (request.addresses or config.web.listen_address or request.systemd_socket)


def build_host_readings(config: Config, plan: Plan, clock: Clock, link: Link | None) -> HostReadings:
    """Return the cores and the memory that the controller shares out: with `serve`, this run's share of the cores.

    A cluster of other hosts grows with the lane, so that each slot brings a core. Its memory counts on each host, where
    tasks are placed.
    """
    if not runs_elsewhere(config, plan):
        readings = HostReadings.cached(clock)
        if link is None:
            return readings
        return replace(readings, cores=lambda: link.limit_cores(readings.cores()))
    return HostReadings(cores=lambda: float(plan.workers.maximum), memory_available_bytes=lambda: 0)


def runs_elsewhere(config: Config, plan: Plan) -> bool:
    """Return whether the plan's workers are on other hosts."""
    dask = config.dask
    return plan.strategy is Strategy.DASK and bool(dask.scheduler or dask.file or dask.cluster)


def build_control_state(config: Config, plan: Plan, feedback: Feedback | None) -> ControlState:
    """Return the state of the plan's pools before any decision about their size."""
    settings = config.feedback
    return ControlState(
        plan.workers,
        get_pool_names(plan),
        source=settings.source or ("both" if settings.prometheus is not None else "local"),
        override=Override(mode=settings.mode),
        queries=feedback.get_counts if feedback is not None else QueryCounts,
    )


def open_order_socket(config: Config, plan: Plan, state: ControlState) -> ControlSocket | None:
    """Open the socket for the commands `pin`, `pause` and `resume`."""
    sequential = plan.strategy is Strategy.SEQUENTIAL
    unsteerable = f"lane {plan.lane} runs one task after another: strategy sequential has no size"
    return open_control_socket(config.root, state, lane=plan.lane, refusal_reason=unsteerable if sequential else "")


def build_lane_labels(request: Request, config: Config, plan: Plan) -> LaneLabels:
    """Return the labels of the lane and of all its stages, of which a plan may have only some."""
    lane = config.lanes[plan.lane]
    members, _ = choose_stages(config, plan.lane, Selection())
    stages = tuple(
        StageLabels(
            name=stage.name,
            number=stage.number,
            pool=choose_pool(stage, plan.strategy),
            sla=limit.to_limit() if (limit := lane.get_limit(stage)) else None,
            cached=is_cached(stage),
        )
        for stage in members
    )
    total = lane.total.to_limit() if lane.total else None
    # Runs of some stages, or with arguments, are no successes of the lane: with an interval it would count as overdue.
    narrowed = request.options.selection or request.options.arguments
    interval_seconds = None if narrowed else request.every_seconds
    return LaneLabels(lane=plan.lane, stages=stages, total=total, interval_seconds=interval_seconds)


def get_bounds(plan: Plan) -> dict[str, tuple[int, int]]:
    """Return the smallest and the largest size of each pool."""
    return dict.fromkeys(get_pool_names(plan), (plan.workers.minimum, plan.workers.maximum))


def exports_process_metrics(request: Request, config: Config) -> bool:
    """Return whether the page has metrics of the exporter's own process."""
    asked = request.exporter_metrics
    return not config.web.disable_exporter_metrics if asked is None else asked


def find_pushed_instance(request: Request, config: Config) -> str:
    """Return the instance that the user has given for pushed values; "" if there is none."""
    return to_unicode(request.push_instance or config.push.instance or "")


def build_sinks(request: Request, config: Config, plan: Plan) -> Sinks:
    """Return the sinks of each run's final values. Raises UsageError for --push.fail without a URL."""
    settings = config.push
    targets: dict[str, deliveries.Deliver] = {}
    url = request.push_url or settings.url
    if request.textfile is not None or url is not None:
        from paropt_exporter.exposition import sinks  # here: most runs are scraped, or seen by a person only
    if request.textfile is not None:
        sinks.check_textfile_folder(request.textfile)
        path = sinks.build_textfile_path(request.textfile, project=plan.project, lane=plan.lane)
        targets[deliveries.TEXTFILE] = partial(sinks.write_textfile, path)
    if url is not None:
        targets[deliveries.PUSHGATEWAY] = sinks.build_pushgateway_sink(
            settings,
            url=url,
            instance=find_pushed_instance(request, config),
            project=plan.project,
            lane=plan.lane,
            root=config.root,
        )
    elif request.push_fail:
        raise UsageError("--push.fail needs a Pushgateway: give --push.url too")
    return Sinks(targets)


def build_protection(request: Request, config: Config) -> ProtectionSource:
    """Return the endpoint's protection. Raises ConfigError or UsageError for a faulty web config."""
    named = config.web.config_file
    path = request.web_config or (config.root / named if named is not None else None)
    return ProtectionFile(path) if path is not None else NoProtection()


def start_endpoint(
    request: Request,
    config: Config,
    page: PageSource,
    protects: ProtectionSource,
    say: Callable[[str], None],
    link: Link | None = None,
    *,
    on_fetched: Callable[[float], None] = lambda _: None,
) -> Endpoint | NoEndpoint:
    """Start the endpoint. Raises UsageError for an address that is not available.

    A process that ends with its lane, and that was given no address, runs without an endpoint then: on a host with many
    such runs, or in a sandbox without a network, they would fail for a page that hardly any scrape finds.
    """
    if link is not None and leaves_port(request, config):
        return NoEndpoint(link.url)
    web = config.web
    inherited = listeners.inherit_listeners(os.environ) if request.systemd_socket else None
    try:
        opened = inherited or listeners.open_listeners(request.addresses or web.listen_address, on_fallback=say)
    except UsageError as error:
        if not leaves_port(request, config) or not request.once or request.linger_seconds:
            raise
        say(f"this run has no metrics endpoint: {error}")
        return NoEndpoint("")
    return Endpoint(
        opened,
        page,
        protects,
        telemetry_path=request.telemetry_path or web.telemetry_path,
        max_requests=(web.max_requests if request.max_requests is None else request.max_requests) or sys.maxsize,
        on_fetched=on_fetched,
    )


def import_late_modules(*, reloads: bool) -> None:
    """Import now, before a call, the modules that a run loads late. `reloads`: also those that read a changed config.

    A call puts the project's folder first on the import path, and a module of the project may have the name of another
    one: a `http.py` there would hide the standard library's from the endpoint.
    """
    for name in (*_LATE_STANDARD_MODULES, *_LATE_MODULES, *(_LATE_RELOAD_MODULES if reloads else ())):
        with suppress(ModuleNotFoundError):  # an interpreter without a module that few need
            import_module(name)
