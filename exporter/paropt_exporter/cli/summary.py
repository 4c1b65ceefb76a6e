"""Format the closing summary of a run, with the worst news first."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from paropt_exporter.cli import PROGRAM
from paropt_exporter.cli.formatting import (
    count_columns,
    format_line,
    format_seconds,
    pad_text,
    wrap_for_terminal,
)
from paropt_exporter.errors import format_count
from paropt_exporter.events import Bottleneck, Result, RunRecord, StageRecord, TaskRecord, format_lane
from paropt_exporter.plan import Flakiness

_ORDER = (Result.ERROR, Result.FAILURE, Result.TIMEOUT, Result.CANCELLATION)
_BAD, _LATE, _GOOD, _SKIPPED = range(4)  # in the order of the summary
_TOLD_PACE = 1.1  # a smaller speed-up is noise
_HINTS_FROM_SECONDS = 1.0  # shorter runs need no tuning
_NAMES_WIDTH = 40  # half the width of a terminal; longer names don't widen the column
MESSAGES_WIDTH = 160  # two lines of a terminal; a message may name a very long item
_FEW = 20  # up to so many stages have a line each; with more, the bad news might not fit on the screen
_MOST_OF_FEW = {_BAD: _FEW, _LATE: _FEW, _GOOD: _FEW, _SKIPPED: _FEW}
_MOST_OF_MANY = {_BAD: 10, _LATE: 5, _GOOD: 3, _SKIPPED: 2}
FEW_BAD = 3  # up to so many failed stages show several findings each; with more, one each
_FACTS_INDENT, _FOOTER_INDENT = 6, 11  # of continuation lines
_COPIED = frozenset({"metrics", "output", "again"})
_NAMED = 10  # how many stages without their own line are named
_SLOWER_RATIO, _SLOWER_SECONDS = 2.0, 1.0  # slower than usual by both; smaller differences are noise of the machine


def format_summary(
    run: RunRecord,
    failed: Mapping[str, Sequence[TaskRecord]],
    *,
    metrics_url: str = "",
    again: str = "--failed",
    log_flags: str = "",
    usual: Mapping[str, float] = MappingProxyType({}),
    flakiness: Mapping[str, Flakiness] = MappingProxyType({}),
    folder: str = "",
    columns: int | None = None,
) -> str:
    """Return the summary. `failed` has the first bad tasks of each stage, whose findings are shown.

    `again`: the flags that run the failed part again; "" for no such line. `log_flags`: the flags of `log` that print
    the whole output; "" if all of it was shown. `usual`: the seconds that stages took in their last runs. `flakiness`:
    that of stages that were flaky in those runs. `folder`: findings show paths in it without it. `columns`: the width
    of the terminal. Findings, commands and addresses are not wrapped, so that they can be copied.
    """
    most = _MOST_OF_FEW if len(run.stages) <= _FEW else _MOST_OF_MANY
    few_bad = sum(_classify_stage(stage) == _BAD for stage in run.stages) <= FEW_BAD
    widths = (count_columns(stage.stage) for stage in run.stages)
    width = max((width for width in widths if width <= _NAMES_WIDTH), default=0)
    lines = wrap_for_terminal(format_headline(run), columns, 2)
    reason = run.reason if run.critical_sla else ""
    for kind, group in groupby(sorted(run.stages, key=_sort_key), key=_classify_stage):
        stages = list(group)
        for stage in stages[: most[kind]]:
            facts = _format_facts(stage, usual, flakiness, reason)
            line = f"  {_choose_mark(stage)} {pad_text(stage.stage, width)}  {facts}"
            lines += wrap_for_terminal(line, columns, _FACTS_INDENT)
            if stage.stage in failed:
                telling = _choose_telling_lines(failed[stage.stage], stage, folder, brief=not few_bad)
                lines.extend(f"      {line}" for line in telling)
        if left := stages[most[kind] :]:
            remaining = _format_remaining(left, all_named=run.result is Result.SUCCESS)
            lines += wrap_for_terminal(f"    … {len(left)} more {remaining}", columns, _FACTS_INDENT)
    if run.total is not None and (run.warned or run.broken) and not run.reached_critical_total:
        word = "broke" if run.broken else "warned at"
        limit = run.total.max_seconds if run.broken else run.total.warn_seconds
        lines.append(f"  ! total {format_seconds(run.duration_seconds)}: {word} {format_seconds(limit)}")
    footer = _iter_footer(
        run,
        metrics_url,
        f"{PROGRAM} --lane {shlex.quote(run.lane)} {again}" if again else "",
        f"{PROGRAM} {log_flags}" if log_flags else "",
    )
    for name, fact in footer:
        line = f"  {name:<8} {fact}"
        lines += [line] if name in _COPIED else wrap_for_terminal(line, columns, _FOOTER_INDENT)
    return "\n".join(lines)


def find_usual_seconds(stage: StageRecord, usual: Mapping[str, float]) -> float | None:
    """Return the usual seconds of a stage that took much longer; None for any other."""
    before_seconds = usual.get(stage.stage)
    if before_seconds is None or stage.result is not Result.SUCCESS:
        return None
    least_seconds = max(before_seconds * _SLOWER_RATIO, before_seconds + _SLOWER_SECONDS)
    return before_seconds if stage.duration_seconds >= least_seconds else None


def _choose_telling_lines(
    tasks: Sequence[TaskRecord], stage: StageRecord, folder: str, *, brief: bool
) -> Iterator[str]:
    """Yield the lines that show why a stage failed; `brief`: at most one."""
    # here: its patterns take 20 ms to compile, and a successful run needs none
    from paropt_exporter.findings import choose_excerpt

    message = format_line(stage.message)
    for found in choose_excerpt(*(task.output for task in tasks), brief=brief):
        line = found.removeprefix(folder and f"{folder}/")  # eslint, pyright and others write whole paths
        shown = format_line(line if len(line) <= MESSAGES_WIDTH else f"{line[:MESSAGES_WIDTH]} …")
        if shown != message:
            yield shown


def format_headline(run: RunRecord) -> str:
    """Return the run in one line."""
    tasks = sum(stage.tasks for stage in run.stages if stage.result is not Result.SKIP)
    ran = sum(stage.result is not Result.SKIP for stage in run.stages)
    cut_short = "interrupted" if run.interrupted else "incomplete"
    word = {Result.SUCCESS: "succeeded", Result.CANCELLATION: cut_short}.get(run.result, "failed")
    pace = ""
    if ran > 1 and run.sequential_seconds >= _TOLD_PACE * run.duration_seconds > 0:
        ratio = run.sequential_seconds / run.duration_seconds
        pace = f" (one after another {format_seconds(run.sequential_seconds)}: {ratio:.1f}x)"
    if run.interrupted and run.reason.startswith(word):
        word = run.reason  # the name of the signal
    explained = run.critical_sla or run.result is Result.CANCELLATION
    why = f": {run.reason}" if explained and word != run.reason else ""
    skipped = f", {len(run.stages) - ran} skipped" if ran < len(run.stages) else ""
    cached = sum(stage.cached for stage in run.stages)
    skipped += f", {cached} cached (saved {format_seconds(run.saved_seconds)})" if cached else ""
    counts = f"{format_count(ran, 'stage')}{skipped}, {format_count(tasks, 'task')}"
    if run.shard is not None and not run.stages:
        counts = "nothing to run in this shard"
    return f"{format_lane(run.lane, run.shard)} {word}{why} · {counts} in {format_seconds(run.duration_seconds)}{pace}"


def _sort_key(stage: StageRecord) -> tuple[int, float]:
    kind = _classify_stage(stage)
    if kind == _BAD:
        return kind, _ORDER.index(stage.result)
    return kind, stage.number if kind == _SKIPPED else -stage.duration_seconds


def _classify_stage(stage: StageRecord) -> int:
    if stage.result in _ORDER:
        return _BAD
    if stage.broken or stage.warned:
        return _LATE
    return _SKIPPED if stage.result is Result.SKIP else _GOOD


def _format_remaining(stages: Sequence[StageRecord], *, all_named: bool) -> str:
    """Sum up stages of one kind that have no line of their own, the slowest first.

    `all_named`: name every stage that was not a plain success.
    """
    kind = _classify_stage(stages[0])
    if kind == _GOOD:
        return f"succeeded, in {format_seconds(stages[0].duration_seconds)} at most"
    named = [stage.stage for stage in (stages if all_named else stages[:_NAMED])]
    names = ", ".join([*named, *(["…"] if len(named) < len(stages) else [])])
    word = {_BAD: "failed", _LATE: "near or over their limits", _SKIPPED: "skipped"}[kind]
    return f"{word}: {names}"


def _choose_mark(stage: StageRecord) -> str:
    if stage.result is Result.CANCELLATION:
        return "-"
    if stage.result in _ORDER:
        return "x"
    return "!" if stage.warned or stage.broken else " "


def _format_facts(
    stage: StageRecord, usual: Mapping[str, float], flakiness: Mapping[str, Flakiness], reason: str
) -> str:
    """Return the facts after a stage's name. `reason`: why the lane was stopped, which the headline shows; or ""."""
    if stage.result is Result.SKIP:
        return "skipped" if reason and stage.message == reason else f"skipped: {_format_message(stage)}"
    if stage.cached:
        return f"{'cached':>8}  {format_saved(stage)}"
    facts = [f"{format_seconds(stage.duration_seconds):>8}"]
    if reason and stage.message == f"stopped: {reason}":
        facts.append("stopped")
    elif stage.message:
        facts.append(_format_message(stage))
    elif stage.retries:
        facts.append(f"after {stage.retries} retr{'y' if stage.retries == 1 else 'ies'}")
    if stage.cache_note and stage.result is Result.SUCCESS:
        facts.append(_format_cache_facts(stage))
    if flaky := _format_flakiness(stage, flakiness.get(stage.stage)):
        facts.append(flaky)
    if stage.quarantined:
        facts.append(format_quarantined(stage))
    if before := find_usual_seconds(stage, usual):
        facts.append(f"slower than usual ({format_seconds(before)})")
    broke_lane = reason and reason == f"{stage.stage} {stage.message}"  # its message names the limit
    if stage.sla is not None and (stage.warned or stage.broken) and not broke_lane:
        limit = f"SLA {stage.sla.max_seconds:g} s"
        facts.append(f"{limit}, broken" if stage.broken else f"{limit}, warned at {stage.sla.warn_seconds:g} s")
    return "  ".join(facts)


def format_saved(stage: StageRecord) -> str:
    """Return how long the skipped tasks of a stage took when they ran, which is longer than the stage in parallel."""
    tasks = f"{stage.tasks_cached:,} tasks " if stage.tasks_cached > 1 else ""
    return f"{tasks}took {format_seconds(stage.saved_seconds)}"


def format_quarantined(stage: StageRecord) -> str:
    """Return the quarantined items that failed in a stage; "" if there are none."""
    return (
        f"failed in quarantine: {format_line(', '.join(stage.quarantined)[:MESSAGES_WIDTH])}"
        if stage.quarantined
        else ""
    )


def format_cache(stage: StageRecord) -> str:
    """Return why a cached stage ran, after a colon; "" for any other stage."""
    return f" ({_format_cache_facts(stage)})" if stage.cache_note else ""


def _format_cache_facts(stage: StageRecord) -> str:
    return format_line(stage.cache_note[:MESSAGES_WIDTH])


def _format_flakiness(stage: StageRecord, known: Flakiness | None) -> str:
    """Return the flakiness of a stage that was flaky now, or that failed and was flaky before; "" for others."""
    if known is None:
        return "flaky: failed, then passed with the same files" if stage.flaky_attempts else ""
    if not stage.flaky_attempts and not stage.result.bad:
        return ""
    flaky, attempts = known.flaky_attempts + stage.flaky_attempts, known.first_attempts + stage.first_attempts
    return f"flaky: {flaky} of {attempts} first attempts failed, then passed"


def _format_message(stage: StageRecord) -> str:
    return format_line(stage.message[:MESSAGES_WIDTH])


def _iter_footer(run: RunRecord, metrics_url: str, again: str, log: str) -> Iterator[tuple[str, str]]:
    if run.pools and not all(stage.cached or stage.result is Result.SKIP for stage in run.stages):
        pools = " · ".join(_format_pool(pool.name, pool.start_size, pool.peak_size, pool.reason) for pool in run.pools)
        yield "pools", f"{pools} · {run.busy_ratio:.0%} busy"
    yield from _iter_hints(run)
    for label in run.abandoned:
        yield "left", f"{label} still runs in its thread: Python can't stop it"
    if metrics_url:
        yield "metrics", metrics_url
    if log:
        yield "output", log
    if again and run.result is not Result.SUCCESS:
        # After --deadline, --failed would leave out the same stages again.
        is_incomplete = run.result is Result.CANCELLATION and not run.interrupted
        yield "again", again.removesuffix(" --failed") if is_incomplete else again


def _iter_hints(run: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield hints on the slowest stage and one other bottleneck. The metrics have all bottlenecks."""
    if run.duration_seconds < _HINTS_FROM_SECONDS:
        return
    helpful = [found for found in run.bottlenecks if found.advice]
    slowest = _find_slowest(run, helpful)
    if slowest is not None:
        yield "slowest", slowest.text
    advised = [stage for stage in run.stages if stage.advice]
    if advised:
        yield "hint", format_line(max(advised, key=lambda stage: stage.duration_seconds).advice)
        return
    for found in helpful:
        if found.kind != "slow" and not (slowest is not None and _is_same_advice(found, slowest)):
            yield "hint", found.text
            return
    if run.advice:
        yield "hint", run.advice


def _is_same_advice(found: Bottleneck, slowest: Bottleneck) -> bool:
    """Return whether two bottlenecks have the same cause: a slow stage is often uneven, and makes its lane uneven."""
    return found.stage == slowest.stage or (found.stage is None and found.kind == "uneven")


def _find_slowest(run: RunRecord, found: Sequence[Bottleneck]) -> Bottleneck | None:
    took = {stage.stage: stage.duration_seconds for stage in run.stages}
    slow = [each for each in found if each.kind == "slow"]
    return max(slow, key=lambda each: took.get(each.stage or "", 0.0), default=None)


def _format_pool(name: str, start: int, peak: int, reason: str) -> str:
    return f"{name} {start}" if start == peak else f"{name} {start} -> {peak} ({reason})"
