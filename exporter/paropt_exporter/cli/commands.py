"""Run the command that the parsed flags name."""

from __future__ import annotations

import gc
import os
import shlex
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter.cli.build_requests import (
    build_plan_options,
    build_request,
    build_selection,
    build_serve_request,
    format_again,
    list_config_flags,
    parse_duration_flag,
    resolve_path,
)
from paropt_exporter.cli.project import find_config, is_found_above, load_config, open_history
from paropt_exporter.cli.streams import print_message
from paropt_exporter.config.lanes import AUTO
from paropt_exporter.errors import HistoryError, UsageError
from paropt_exporter.events import Strategy
from paropt_exporter.lazy_patterns import compile_later

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paropt_exporter.cache.preview import Preview
    from paropt_exporter.changes import ChangeFinder
    from paropt_exporter.cli.plain_flags import Flags
    from paropt_exporter.config import Config, Stage
    from paropt_exporter.plan import EarlierRuns, Plan

_COMPLETED_RUNS = 20  # as many as `history` lists
# Words that no shell expands. Bash expands words that it completes, and would run a `$(...)` in them.
_PLAIN_WORD = compile_later(r"[\w@%+=:,./-]+")


def run(flags: Flags) -> int:
    """Run the flags' command, or a lane without one, and return the exit code."""
    if flags.command is not None or flags.list or flags.dry_run:
        gc.enable()  # before a lane, more modules load first
    match flags.command:
        case "init":
            from paropt_exporter.cli import init

            path = Path(flags.config_file or init.FILE)
            return init.run(path, force=flags.force, stdout=sys.stdout, stderr=sys.stderr)
        case "check":
            return _run_check(flags)
        case "plan":
            return _run_plan(flags)
        case "cache":
            return _run_cache(flags)
        case "completion" if flags.words:
            return _print_words(flags)
        case "completion":
            from paropt_exporter.cli import completion
            from paropt_exporter.cli.flags import build_parser

            return completion.run(flags.shell, build_parser(), stdout=sys.stdout)
        case "generate":
            return _run_generate(flags)
        case "history":
            return _run_history(flags)
        case "log":
            return _run_log(flags)
        case "explain" | "replay":
            return _run_decisions(flags)
        case "profile":
            return _run_profile(flags)
        case "sla":
            return _run_sla(flags)
        case "pin" | "pause" | "resume":
            return _send_order(flags)
        case "serve":
            return _run_serve(flags)
        case _ if flags.list:
            return _run_list(flags)
        case _ if flags.dry_run:
            return _run_plan(flags)
        case _:
            return _run_lane(flags)


def _run_check(flags: Flags) -> int:
    from paropt_exporter.cli import check

    path = find_config(flags)
    return check.run(path, Path.cwd(), lane=flags.lane, stdout=sys.stdout, stderr=sys.stderr)


def _run_plan(flags: Flags) -> int:
    from paropt_exporter.cli import plan

    loaded = load_config(flags)
    planned = _build_plan(flags, loaded)
    if planned.choice:
        print_message(planned.choice)
    previews = _preview_cache(planned) if getattr(flags, "why", False) else None
    return plan.run(planned, output=flags.output, stdout=sys.stdout, previews=previews)


def _preview_cache(planned: Plan) -> list[Preview]:
    from paropt_exporter.cache.preview import preview_plan
    from paropt_exporter.cache.result_store import open_store

    return [*preview_plan(planned, open_store(os.environ), os.environ)]


def _run_cache(flags: Flags) -> int:
    from paropt_exporter import files
    from paropt_exporter.cache.result_store import open_store
    from paropt_exporter.cli import cache
    from paropt_exporter.config.units import parse_size

    store = open_store(os.environ)
    if denied := files.find_denied_listing(store.folder):  # made by root, in the user's home
        raise UsageError(f"cannot read the cache {store.folder}: {denied}")
    if flags.action != "prune" and (flags.size is not None or flags.all):
        raise UsageError(f"cache {flags.action}: --size and --all are for prune")
    if flags.action == "info":
        return cache.run_info(store, output=flags.output, stdout=sys.stdout)
    if flags.action == "verify":
        return cache.run_verify(store, output=flags.output, stdout=sys.stdout)
    try:
        limit_bytes = 0 if flags.all else None if flags.size is None else parse_size(flags.size)
    except ValueError as error:
        raise UsageError(f"--size: {error}") from None
    return cache.run_prune(store, limit_bytes=limit_bytes, output=flags.output, stdout=sys.stdout)


def _build_plan(flags: Flags, loaded: Config) -> Plan:
    """Build the plan that the flags select, from the config and the history."""
    from paropt_exporter.app import planning

    lane = _choose_lane(flags, loaded)
    options = replace(build_plan_options(flags), affected_by=_build_change_finder(flags, loaded))
    failed = None
    if flags.failed:
        with closing(open_history(loaded)) as history:
            failed = planning.find_failures(history, loaded, lane, options.selection)
    planned = planning.plan_lane(loaded, lane, options, _load_earlier_runs(loaded, lane), failed)
    deadline_seconds = parse_duration_flag("--deadline", flags.deadline)
    if deadline_seconds is None:
        return planned
    with closing(open_history(loaded)) as history:
        return planning.narrow_to_deadline(planned, deadline_seconds, history, reads_cache=not flags.no_cache)


def _run_list(flags: Flags) -> int:
    from paropt_exporter.cli import listing

    loaded = load_config(flags)
    lane, items = None, None
    # only a plan knows the stages that these select
    if flags.shard is not None or flags.failed or flags.deadline is not None:
        from paropt_exporter.plan.sharding import list_items

        plan = _build_plan(flags, loaded)
        if plan.choice:
            print_message(plan.choice)
        lane, items = plan.lane, {stage.name: len(list_items(stage)) for stage in plan.stages}
    else:
        lane, stages = _choose_listed(flags, loaded)
        if (changes := _build_change_finder(flags, loaded)) is not None:
            stages = _keep_affected(loaded, stages, changes)
        loaded = replace(loaded, stages=tuple(stages))
    return listing.run(
        loaded,
        lane=lane,
        items=items,
        output=flags.output,
        names_only=flags.quiet,
        stdout=sys.stdout,
    )


def _choose_listed(flags: Flags, loaded: Config) -> tuple[str | None, Sequence[Stage]]:
    """Return the lane to list, or None for all, and the selected stages."""
    selection = build_selection(flags)
    selects = bool(selection) or flags.only or bool(flags.arguments)
    if flags.lane is None and not selects:
        return None, loaded.stages
    from paropt_exporter import plan as plans

    lane = _choose_lane(flags, loaded)
    plans.require_lane(loaded, lane)
    if not selects:
        return lane, loaded.stages
    return lane, plans.choose_stages(loaded, lane, selection, flags.arguments or ())[0]


def _print_words(flags: Flags) -> int:
    """Print names of the project for a completion script, one per line, without those that a shell would expand.

    Raises UsageError if there is no history with runs to name.
    """
    loaded = load_config(flags)
    for kind in flags.words:
        if kind == "runs":
            with closing(open_history(loaded)) as history:
                words = [each.run_id for each in reversed(history.load_runs(limit=_COMPLETED_RUNS))]
        else:
            words = [*loaded.lanes] if kind == "lanes" else [stage.name for stage in loaded.stages]
        print(*filter(_PLAIN_WORD.fullmatch, words), sep="\n")
    return 0


def _build_change_finder(flags: Flags, loaded: Config) -> ChangeFinder | None:
    if flags.affected is None:
        return None
    from paropt_exporter.changes import ChangeFinder

    return ChangeFinder(loaded.root, flags.affected or None)


def _keep_affected(loaded: Config, stages: Sequence[Stage], changes: ChangeFinder) -> Sequence[Stage]:
    """Return those of the stages that are affected, and print them with the reasons."""
    from paropt_exporter.plan.affected import find_affected

    affected = find_affected(loaded, stages, changes)
    print_message(affected.describe())
    return [stage for stage in stages if stage.name in affected.reasons]


def _choose_lane(flags: Flags, loaded: Config) -> str:
    if flags.lane is None:
        from paropt_exporter import plan as plans

        return plans.find_lane(loaded, build_selection(flags))
    lane = str(flags.lane)
    if lane == AUTO:
        from paropt_exporter.config.lanes import choose_lane

        lane, why = choose_lane(loaded.root, flags.affected or None)
        print_message(f"lane {lane}: {why}")
    return lane


def _load_earlier_runs(loaded: Config, lane: str) -> EarlierRuns:
    """Return the measurements of earlier runs that `plan` shows; none if the history can't be read."""
    from paropt_exporter.plan import EarlierRuns

    try:
        with closing(open_history(loaded)) as history:
            return replace(
                history.load_earlier_runs(lane),
                fastest_task_seconds=history.load_fastest_task_seconds(lane),
                never_succeeded=history.find_never_succeeded(lane),
            )
    except UsageError:  # there is none
        return EarlierRuns()
    except HistoryError as error:
        print_message(str(error))
        return EarlierRuns()


def _run_history(flags: Flags) -> int:
    from paropt_exporter import host
    from paropt_exporter import plan as plans
    from paropt_exporter.cli import history as command

    if flags.history_action == "merge":
        return _merge_histories(flags)
    if flags.run is not None and (flags.flaky or flags.compare):
        raise UsageError("--run shows one run, or goes with --what-if; to compare two runs, use --compare RUN RUN")
    loaded = load_config(flags)
    with closing(open_history(loaded)) as history:
        # The history may have runs of a lane that the config no longer has, or only runs of another project.
        elsewhere = not history.load_runs(limit=1) and history.load_projects()
        if flags.lane is not None and not elsewhere and not history.load_runs(flags.lane, limit=1):
            plans.require_lane(loaded, flags.lane)
        if flags.what_if is not None:
            return command.run_what_if(
                history,
                loaded,
                lane=flags.lane,
                run_id=flags.run,
                workers=flags.what_if,
                cores=host.count_cpus(),
                memory_bytes=host.read_available_memory_bytes(),
                output=flags.output,
                stdout=sys.stdout,
            )
        if flags.flaky:
            return command.run_flaky(history, loaded, lane=flags.lane, output=flags.output, stdout=sys.stdout)
        return command.run(
            history,
            lane=flags.lane,
            limit=flags.limit,
            run_id=flags.run,
            compare=tuple(flags.compare) if flags.compare else None,
            output=flags.output,
            stdout=sys.stdout,
        )


def _merge_histories(flags: Flags) -> int:
    from paropt_exporter.app.parts import open_history
    from paropt_exporter.cli import history as command
    from paropt_exporter.clock import SystemClock

    loaded = load_config(flags)
    with closing(open_history(loaded, SystemClock())) as history:
        paths = [Path(name) for name in flags.files]
        return command.run_merge(history, loaded.project, paths, stdout=sys.stdout, stderr=sys.stderr)


def _run_log(flags: Flags) -> int:
    from paropt_exporter.cli import log
    from paropt_exporter.history.run_lock import RunLocks, find_lock_folder
    from paropt_exporter.task_logs import find_log_folder

    loaded = load_config(flags)
    return log.run(
        find_log_folder(loaded.history_path),
        log.LogRequest(words=tuple(flags.which), lane=flags.lane, failed=flags.failed, follow=flags.follow),
        lives=RunLocks(find_lock_folder(loaded.history_path)).is_alive,
        stdout=sys.stdout,
        stderr=sys.stderr,
        load_sequences=lambda runs: _load_sequences(loaded, runs),
    )


def _load_sequences(loaded: Config, runs: list[str]) -> Mapping[str, int]:
    """Return each run's place in the order of starts; nothing if the history can't be read."""
    with suppress(HistoryError, UsageError), closing(open_history(loaded)) as history:
        return history.load_sequences(runs)
    return {}


def _run_decisions(flags: Flags) -> int:
    from paropt_exporter.cli import explain
    from paropt_exporter.clock import SystemClock

    loaded = load_config(flags)
    with closing(open_history(loaded)) as history:
        if flags.command == "explain":
            return explain.run_explain(history, pool=flags.pool, output=flags.output, stdout=sys.stdout)
        since = SystemClock().wall() - (parse_duration_flag("--since", flags.since) or 0.0)
        return explain.run_replay(history, pool=flags.pool, since_seconds=since, output=flags.output, stdout=sys.stdout)


def _run_profile(flags: Flags) -> int:
    from paropt_exporter import config
    from paropt_exporter import plan as plans
    from paropt_exporter.cli import profile
    from paropt_exporter.cli.exit_guard import ExitGuard
    from paropt_exporter.clock import SystemClock

    path = find_config(flags)
    loaded = config.load_config(path, root=Path.cwd(), environ=os.environ)
    if path is not None and is_found_above(flags, path):
        loaded = replace(loaded, path=loaded.root / path.name)
        os.chdir(loaded.root)
    wanted = profile.ProfileRequest(
        stage=flags.stage,
        lane=flags.lane or plans.find_lane(loaded, plans.Selection(patterns=(flags.stage,))),
        runs=flags.runs,
        sizes=flags.sizes,
        strategies=tuple(Strategy(name) for name in flags.strategies),
    )
    with ExitGuard():
        return profile.run(
            loaded,
            wanted,
            write=flags.write,
            output=flags.output,
            clock=SystemClock(),
            stdout=sys.stdout,
            stderr=sys.stderr,
        )


def _run_sla(flags: Flags) -> int:
    from paropt_exporter import plan as plans
    from paropt_exporter.cli import sla

    loaded = load_config(flags)
    if flags.lane is not None:
        plans.require_lane(loaded, flags.lane)
    with closing(open_history(loaded)) as history:
        return sla.run_sla(
            loaded,
            history,
            lane=flags.lane,
            rule=sla.Rule(quantile=flags.quantile, margin=flags.margin),
            write=flags.write,
            output=flags.output,
            stdout=sys.stdout,
            stderr=sys.stderr,
        )


def _send_order(flags: Flags) -> int:
    from paropt_exporter.autoscaling.control_socket import ControlRequest
    from paropt_exporter.cli import steering

    # The config is not read: a fault in it must not hide the running lane.
    path = find_config(flags)
    root = Path.cwd() if path is None else Path(os.path.abspath(path.parent))  # noqa: PTH100 -- keeps links
    request = ControlRequest(command=flags.command, size=getattr(flags, "size", None), pool=flags.pool)
    return steering.run(root, request, lane=flags.lane, pid=flags.pid, stdout=sys.stdout)


def _run_serve(flags: Flags) -> int:
    from paropt_exporter.cli import serve

    if flags.serve_action == "status":
        return serve.run_status(os.environ, output=flags.output, stdout=sys.stdout)
    return serve.run_serve(build_serve_request(flags), os.environ)


def _run_generate(flags: Flags) -> int:
    from paropt_exporter.cli import generate
    from paropt_exporter.monitoring.options import PARAMETERS, parse_options

    given = {name: value for name in PARAMETERS if (value := getattr(flags, name)) is not None}
    out = resolve_path("--out", flags.out, absolute=False)
    return generate.run(tuple(flags.what), out, parse_options(given), stdout=sys.stdout)


def _run_lane(flags: Flags) -> int:
    from paropt_exporter import logs
    from paropt_exporter.app import READER_SECONDS, run_lane
    from paropt_exporter.cli import screen
    from paropt_exporter.cli.exit_guard import ExitGuard

    watching = screen.open_screen(
        verbose=flags.verbose,
        quiet=flags.quiet,
        json_output=flags.output == "json",
        json_logs=flags.log_format == "json",
        again="" if flags.watch else format_again(flags),  # a change or a key repeats what failed
        log_flags=shlex.join([*list_config_flags(flags), "log", "--failed"]),
        color=flags.color,
    )
    once = flags.once
    if once is None:
        once = bool(os.environ.get("CI")) and flags.every is None and not flags.watch
        if once:
            watching.inform("CI is set: exiting after the lane (--no-once keeps serving)")
    with ExitGuard() as guard:
        try:
            request = build_request(flags, once=once)
            if request.enter_root:
                watching.inform(f"config {request.config_path}")
            code = guard.code = run_lane(request, watching)
        finally:
            shown = watching.close(READER_SECONDS)
            logs.set_writer(None)
    if not shown:  # a thread is blocked in a write, and the interpreter would wait for it
        os._exit(code)
    return code
