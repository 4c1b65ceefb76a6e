"""Turn the flags into requests: those of a lane and of `serve`, and the options of a plan."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.cli.project import is_found_above
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Strategy

if TYPE_CHECKING:
    from paropt_exporter.app import Request
    from paropt_exporter.app.serving import ServeRequest
    from paropt_exporter.cli.plain_flags import Flags
    from paropt_exporter.events import Shard
    from paropt_exporter.plan import PlanOptions, Selection
    from paropt_exporter.reports import ReportOption


def build_request(flags: Flags, *, once: bool) -> Request:
    """Return the request of a lane. Raises UsageError for flags that contradict each other, or have faulty values."""
    from paropt_exporter import config
    from paropt_exporter.app import Request

    _reject_conflicting_flags(flags, once=once)
    path = config.discover(flags.config_file, os.environ)
    enter_root = is_found_above(flags, path)
    return Request(
        config_path=path,
        root=Path.cwd(),
        enter_root=enter_root,
        lane=flags.lane,
        once=once,
        watch=flags.watch,
        every_seconds=parse_duration_flag("--every", flags.every),
        linger_seconds=parse_duration_flag("--web.linger", flags.web_linger),
        options=build_plan_options(flags),
        failed_only=flags.failed,
        deadline_seconds=parse_duration_flag("--deadline", flags.deadline),
        affected=flags.affected is not None,
        affected_ref=flags.affected or None,
        no_cache=flags.no_cache,
        addresses=tuple(flags.web_listen_address or ()),
        telemetry_path=_reject_empty("--web.telemetry-path", "path", flags.web_telemetry_path),
        max_requests=_parse_max_requests(flags.web_max_requests),
        exporter_metrics=False if flags.web_disable_exporter_metrics else None,
        web_config=resolve_path("--web.config.file", flags.web_config_file, absolute=enter_root),
        systemd_socket=flags.web_systemd_socket,
        push_url=_reject_empty("--push.url", "URL", flags.push_url),
        push_fail=flags.push_fail,
        push_instance=_reject_empty("--push.instance", "name", flags.push_instance),
        textfile=resolve_path("--textfile", flags.textfile, absolute=True),
        reports=_parse_reports(flags),
    )


def build_serve_request(flags: Flags) -> ServeRequest:
    """Return the request of `serve`. Raises UsageError as `build_request` does."""
    from paropt_exporter.app.serving import ServeRequest

    _check_socket_flags(flags)
    return ServeRequest(
        addresses=tuple(flags.web_listen_address or ()),
        web_config=resolve_path("--web.config.file", flags.web_config_file, absolute=False),
        systemd_socket=flags.web_systemd_socket,
        telemetry_path=_reject_empty("--web.telemetry-path", "path", flags.web_telemetry_path),
        max_requests=_parse_max_requests(flags.web_max_requests),
        process_metrics=not flags.web_disable_exporter_metrics,
    )


def _reject_conflicting_flags(flags: Flags, *, once: bool) -> None:
    if flags.affected is not None and flags.every is not None:
        raise UsageError(
            "--affected can't be combined with --every, which repeats the lane whether or not files changed"
        )
    if flags.watch:
        others = {
            "--once": once,
            "--every": flags.every is not None,
            "--failed": flags.failed,
            "--affected": flags.affected is not None,
            "--deadline": flags.deadline is not None,
            "--shard": flags.shard is not None,
            "--": bool(flags.arguments),
        }
        if refused := [name for name, given in others.items() if given]:
            raise UsageError(
                f"--watch can't be combined with {refused[0]}: it runs all selected stages, then those whose inputs "
                "change"
            )
    if once and flags.every is not None:
        raise UsageError("--every repeats the lane, and --once ends with the first run: give one of them")
    if flags.shard is not None and flags.every is not None:
        raise UsageError(
            "--shard splits by the history, which each run changes: with --every the shards would drift apart; "
            "give one of them"
        )
    if flags.web_linger is not None and not once:
        raise UsageError("--web.linger needs --once: without it the metrics are served until Ctrl-C anyway")
    _check_socket_flags(flags)


def _check_socket_flags(flags: Flags) -> None:
    if flags.web_systemd_socket and flags.web_listen_address:
        raise UsageError("--web.systemd-socket takes the place of --web.listen-address: give one of them")


def build_plan_options(flags: Flags) -> PlanOptions:
    """Return the options that don't depend on the project's state: all but --failed and --affected."""
    from paropt_exporter.plan import PlanOptions, parse_bounds

    return PlanOptions(
        selection=build_selection(flags),
        arguments=flags.arguments or (),
        shard=_parse_shard(flags),
        strategy=Strategy(flags.strategy) if flags.strategy else None,
        workers=parse_bounds(flags.workers) if flags.workers is not None else None,
        fail_fast=True if flags.fail_fast else False if flags.keep_going else None,
    )


def build_selection(flags: Flags) -> Selection:
    from paropt_exporter.cli.plain_flags import COMMANDS
    from paropt_exporter.plan import Selection

    return Selection(
        patterns=tuple(flags.stages),
        skipped=tuple(flags.skip),
        with_needs=not flags.only,
        commands=COMMANDS if flags.stages else (),
    )


def _parse_shard(flags: Flags) -> Shard | None:
    if flags.shard is None:
        return None
    from paropt_exporter.plan.sharding import parse_shard

    return parse_shard(flags.shard)


def format_again(flags: Flags) -> str:
    """Return the flags that repeat the failed part of a run. One with arguments or items is repeated as it was."""
    from paropt_exporter.plan.selection import is_of_item

    words = [*(["--once"] if flags.once else []), *list_config_flags(flags)]
    words += [word for pattern in flags.stages for word in ("--stage", pattern)]
    words += ["--only"] if flags.only else []
    words += [word for pattern in flags.skip for word in ("--skip", pattern)]
    words += ["--shard", flags.shard] if flags.shard is not None else []
    words += [f"--affected={flags.affected}" if flags.affected else "--affected"] if flags.affected is not None else []
    words += ["--", *flags.arguments] if flags.arguments else [] if any(map(is_of_item, flags.stages)) else ["--failed"]
    return shlex.join(words)


def list_config_flags(flags: Flags) -> list[str]:
    """Return the words that name the config again, for a command in a hint."""
    return ["--config.file", flags.config_file] if flags.config_file else []


def _parse_reports(flags: Flags) -> tuple[ReportOption, ...]:
    if not flags.report and "GITHUB_ACTIONS" not in os.environ:
        return ()
    from paropt_exporter import reports

    return reports.parse(flags.report or (), os.environ)


def resolve_path(flag: str, path: str | None, *, absolute: bool) -> Path | None:
    """Return a flag's path, as it was given, for messages, or absolute, in case the current folder changes.

    Raises UsageError for an empty path, which an unset variable gives, and which would mean the current folder.
    """
    _reject_empty(flag, "path", path)
    if path is None:
        return None
    return Path(os.path.abspath(path) if absolute else path)  # noqa: PTH100 -- keeps links


def _reject_empty(flag: str, what: str, text: str | None) -> str | None:
    """Return a flag's text. Raises UsageError for an empty one, which an unset variable gives.

    It would silently mean the value of the config, or the default.
    """
    if text == "":
        raise UsageError(f"{flag}: the {what} is empty: correct it, or leave the flag out")
    return text


def parse_duration_flag(flag: str, text: str | None) -> float | None:
    """Return the seconds of a flag's duration. Raises UsageError that names the flag."""
    if text is None:
        return None
    from paropt_exporter.config.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def _parse_max_requests(text: str | None) -> int | None:
    if text is None:
        return None
    from paropt_exporter.config.units import MOST_REQUESTS

    if not text.isdecimal() or len(text) > len(str(MOST_REQUESTS)) or int(text) > MOST_REQUESTS:
        raise UsageError(f"--web.max-requests: {text!r} is not a whole number from 0 to {MOST_REQUESTS}")
    return int(text)
