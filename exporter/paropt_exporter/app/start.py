"""Start a lane: read its config, start the supervisor of its commands, and load the rest while that starts too."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from paropt_exporter import config as configs
from paropt_exporter import descriptors
from paropt_exporter import plan as plans
from paropt_exporter.app.config_file import ConfigFile
from paropt_exporter.clock import SystemClock
from paropt_exporter.config.host_config import load_host_config
from paropt_exporter.config.lanes import AUTO, choose_lane
from paropt_exporter.config.server_access import apply_host_config
from paropt_exporter.executors.commands import supervisor_client
from paropt_exporter.plan import COMMANDS, choose_pool, is_cached
from paropt_exporter.signals import Signals, has_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from paropt_exporter.app.request import Request, Screen
    from paropt_exporter.config import Config, Stage
    from paropt_exporter.events import Strategy

_PATH_VARIABLES = ("PAROPT_CACHE_DIR", "PAROPT_CACHE_TOKEN_FILE")  # the host config is read earlier


def run_lane(request: Request, screen: Screen) -> int:
    """Run the lane, serve its metrics, and return the exit code. Blocks until the end or a signal.

    Raises `ConfigError` and `UsageError` before anything runs.
    """
    descriptors.raise_limit()
    clock = SystemClock()
    repeats = request.every_seconds is not None or request.watch
    file = ConfigFile(request.config_path if repeats else None, clock)
    as_read = configs.load_config(request.config_path, root=request.root, environ=os.environ)
    host = load_host_config(os.environ)
    config = apply_host_config(as_read, host, push_url=request.push_url)
    if request.enter_root:
        _resolve_path_variables()
        os.chdir(config.root)
    lane = _choose_lane(request, config, screen)
    # Here already, so that a misspelled stage leaves no history.
    stages, _ = plans.choose_stages(config, lane, request.options.selection, request.options.arguments)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(reloads=request.every_seconds is not None and not has_terminal()))
        stack.enter_context(supervisor_client.set_run_mark(config.root, os.environ))
        if is_sure_to_run_commands(request, config.lanes[lane].strategy, stages):
            stack.enter_context(supervisor_client.SUPERVISOR.keep_running())
        # Only now: the supervisor's process starts meanwhile, on another core.
        from paropt_exporter.app.exporter import run_exporter
        from paropt_exporter.app.lane_runner import LaneSetup

        gc.freeze()  # no collection looks at the modules
        gc.enable()
        setup = LaneSetup(
            request=request,
            lane=lane,
            config=config,
            config_as_read=as_read,
            host=host,
            file=file,
            screen=screen,
            signals=signals,
            clock=clock,
        )
        return run_exporter(setup)


def _resolve_path_variables() -> None:
    """Let relative paths in our variables mean the same as before the change of the current folder."""
    for name in _PATH_VARIABLES:
        if value := os.environ.get(name):
            os.environ[name] = os.path.abspath(value)  # noqa: PTH100 -- keeps links


def is_sure_to_run_commands(request: Request, strategy: Strategy, stages: Iterable[Stage]) -> bool:
    """Whether the run will start a command on this host, whatever the history and the cache say."""
    if request.failed_only or request.affected or request.deadline_seconds is not None:
        return False
    chosen = request.options.strategy or strategy
    return any(choose_pool(each, chosen) == COMMANDS and (request.no_cache or not is_cached(each)) for each in stages)


def _choose_lane(request: Request, config: Config, screen: Screen) -> str:
    if request.lane is None:
        return plans.find_lane(config, request.options.selection)
    if request.lane != AUTO:
        return request.lane
    lane, why = choose_lane(config.root, request.affected_ref)
    screen.inform(f"lane {lane}: {why}")
    return lane
