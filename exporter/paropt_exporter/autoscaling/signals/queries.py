"""The controller's own queries: values of this process's pools, and of a lane's past runs."""

from __future__ import annotations

from collections.abc import Mapping

from paropt_exporter import families
from paropt_exporter.families import Family
from paropt_exporter.promql import build_selector, select

SIGNAL = "signal"  # the label that distinguishes the parts of one answer
PAST = "7d"
_SAME_SECONDS = "0.00002"
_SAME_POOL = "on (job, instance, pool)"


def build_pool_query(project: str, pool: str, epoch_timestamp_seconds: float, window_seconds: float) -> str:
    """Return one query for all of Prometheus' values for a pool of this process.

    The answer has a value for each name of `OWN_SIGNALS` in the label `signal`. The exporter does not know its job and
    instance: its series are those with an epoch equal to the pool's own, which microseconds make unique.
    """
    labels, window = {"project": project, "pool": pool}, format_duration(window_seconds)
    epoch = build_selector(families.POOL_EPOCH, labels)
    epochs = build_selector(families.POOL_EPOCH, labels, over=window)
    # Not ==: VictoriaMetrics keeps 15 digits, and the last of the microseconds is the 16th.
    is_mine = f"abs({epoch} - {epoch_timestamp_seconds!r}) < {_SAME_SECONDS}"
    mine = f"and {_SAME_POOL} ({is_mine})"

    def last(family: Family) -> str:
        return f"sum({build_selector(family, labels)} {mine})"

    def flow(family: Family) -> str:
        return f"sum(rate({build_selector(family, labels, over=window)}) {mine})"

    parts = {
        "matches": f"count({is_mine})",
        "sampled": f"max(timestamp({epoch}) {mine})",
        "scrapes": f"max(count_over_time({epochs}) {mine})",
        "epochs": f"max(changes({epochs}) {mine}) + 1",
        "size": last(families.POOL_SIZE),
        "depth": last(families.POOL_QUEUE_DEPTH),
        "oldest": last(families.POOL_OLDEST_AGE),
        "arrivals": flow(families.POOL_SUBMITTED),
        "completions": flow(families.POOL_FINISHED),
        "busy": flow(families.POOL_BUSY),
        "slots": flow(families.POOL_SLOT),
        "cpu": flow(families.POOL_CPU),
        "delay": flow(families.POOL_RUN_DELAY),
    }
    return _join_parts(parts)


OWN_SIGNALS = (
    "matches", "sampled", "scrapes", "epochs", "size", "depth", "oldest", "arrivals", "completions", "busy", "slots",
    "cpu", "delay",
)  # fmt: skip


def build_past_size_query(project: str, lane: str) -> str:
    """Return the query for the size that nine in ten samples of past runs of a lane did not exceed, for each pool.

    Not the median: the gauge shows the usable size from a run's first seconds on, and earlier samples count too.
    """
    recommended = select(families.CONTROL_RECOMMENDED, project=project, over=PAST)
    of_lane = select(families.STAGE_INFO, project=project, lane=lane, over=PAST)
    return f"max by (pool) (quantile_over_time(0.9, {recommended}) and {_SAME_POOL} last_over_time({of_lane}))"


def build_past_durations_query(project: str, lane: str) -> str:
    """Return the query for the median duration in seconds of each stage of a lane over seven days."""
    last = select(families.STAGE_LAST_DURATION, project=project, lane=lane, over=PAST)
    return f"quantile by (stage) (0.5, quantile_over_time(0.5, {last}))"


def format_duration(seconds: float) -> str:
    """Return a time span in PromQL, to the millisecond."""
    milliseconds = max(1, round(seconds * 1000))
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def _join_parts(parts: Mapping[str, str]) -> str:
    named = (f'label_replace({expression}, "{SIGNAL}", "{name}", "", "")' for name, expression in parts.items())
    return " or ".join(named)
