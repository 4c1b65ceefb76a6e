"""Alerts on pools and hosts: idle or saturated pools, lack of memory, dying workers."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.monitoring.alerts import questions, recording
from paropt_exporter.monitoring.alerts.rules import LANE, POOL, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.selectors import SETTLED, UNASKED, SeriesSelector, build_bottleneck_condition
from paropt_exporter.monitoring.options import Options

# The tuning guide's limits, which engine.run_record applies to single runs.
_UNDER_USED_RATIO, _SATURATED_RATIO = "0.5", "0.9"
_MEMORY_RATIO = "0.1"  # the usual need of one more worker on a machine with ten
# Three in the span: increase() extrapolates two to 2.03 with scrapes every 15 s, and to 2.3 with scrapes every 2 m.
_DEATHS, _DEATHS_SPAN = "2.5", "15m"


def build_pool_alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = SeriesSelector(options)
    return (
        _build_under_used_alert(series),
        _build_saturated_alert(series),
        _build_under_used_lane_alert(series),
        _build_saturated_lane_alert(series),
        _build_at_maximum_alert(series),
        _build_memory_alert(series),
        _build_dying_workers_alert(series),
    )


def _build_under_used_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptPoolUnderUsed",
        conditions=(Condition(expr=_build_idle_query(series), level=Level.INFO, hold=SETTLED),),
        summary="A pool's workers are idle for more than half of their time.",
        title=f"Pool {POOL.name} has workers that are idle more than half of their time.",
        description=(
            f"The workers of pool {POOL.place} have been used for {{{{ $value | humanizePercentage }}}} of their time, "
            "for 15 minutes."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning=(
            "The pool has more than one worker, and they are busy for under 50 % of their time. The time between runs "
            "of a lane does not count."
        ),
        impact="The pool holds memory and processes that it does not need; nothing is slower because of it.",
        diagnosis=(
            Query(
                question="How many workers are busy (mean over an hour)?",
                expr=f"avg_over_time({series.select_now(families.POOL_WORKERS, state='busy')}[1h])",
            ),
            Query(
                question="How many workers are there (mean over an hour)?",
                expr=f"avg_over_time({series.select_now(families.POOL_SIZE)}[1h])",
            ),
            Query(
                question="How far may the controller shrink the pool (its floor)?",
                expr=series.select_now(families.CONTROL_FLOOR),
            ),
        ),
        mitigation=(
            "A fixed size: lower `workers`, or let it size itself (`strategy: adaptive`, `workers: auto`).",
            "Few tasks at once: split stages (`items`), loosen `needs` and `locks`.",
        ),
    )


def _build_idle_query(series: SeriesSelector) -> str:
    """Build the query for mostly idle pools of several workers, except between runs of a project's lanes.

    Workers stay between runs, so the utilization of a lane's pool is divided by the part of the time in which it ran.
    """
    used = recording.select_utilization(series)
    running = series.select_now(families.RUN_IN_PROGRESS)
    ran = f"max by (job, instance, project) (avg_over_time({running}[{series.window}]))"
    return (
        f"(\n  {used} / on (job, instance, project) group_left () {ran}\nor\n  {used}\n)\n"
        f"< {_UNDER_USED_RATIO}\n"
        f"and\n{series.select_last(families.POOL_SIZE)} > 1\n"
        f"unless on (job, instance, project)\nmax without (lane) ({running}) == 0"
    )


def _build_saturated_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptPoolSaturated",
        conditions=(
            Condition(
                expr=(
                    f"{recording.select_utilization(series)} > {_SATURATED_RATIO}\n"
                    f"and\nmin_over_time({series.select_now(families.POOL_QUEUE_DEPTH)}[{series.window}]) > 0"
                ),
                level=Level.INFO,
                hold=SETTLED,
            ),
        ),
        summary="A pool is busy all the time, and tasks wait for it.",
        title=f"Pool {POOL.name} is busy all the time, and tasks wait for it.",
        description=(
            f"The workers of pool {POOL.place} have been used for {{{{ $value | humanizePercentage }}}} of their time "
            "while tasks waited, for 15 minutes."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning="The workers are busy for over 90 % of their time, and the queue was never empty.",
        impact="Tasks wait longer than necessary. During a long batch of work this is normal.",
        diagnosis=(
            Query(question="How many tasks wait?", expr=series.select_now(families.POOL_QUEUE_DEPTH)),
            Query(
                question="How long has the oldest waited (seconds)?",
                expr=series.select_now(families.POOL_OLDEST_AGE),
            ),
            questions.holds(series),
        ),
        mitigation=(
            "`paropt-exporter explain` shows why the pool has its size. `cpu_limit`: more cores; `memory_limit`: more "
            "memory, or smaller tasks; `bounds`: see [ParoptPoolAtMaximum](#paroptpoolatmaximum).",
        ),
    )


def _build_under_used_lane_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneUnderUsed",
        conditions=(build_bottleneck_condition(series, families.LANE_BOTTLENECK, "under_used", Level.INFO),),
        summary="A lane's workers were idle for more than half of its last run.",
        title=f"Lane {LANE.name} had workers that were idle for more than half of its last run.",
        description=f"In the last run of lane {LANE.place} the workers were busy for less than 50 % of their time.",
        board=Board.POOLS,
        link=LANE.labels,
        meaning="During its last run, however short, the lane's workers were busy for less than half of their time.",
        impact="The lane has workers that it can't use: it would be as fast with fewer.",
        diagnosis=(
            questions.longest_stages(series),
            Query(question="How many workers may the pools have?", expr=series.select_now(families.POOL_SIZE_MAX)),
        ),
        mitigation=(
            "Let more tasks run at once: split the longest stage (`items`), loosen `needs`, `locks`, `exclusive`.",
            "Or lower `workers`.",
        ),
    )


def _build_saturated_lane_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneSaturated",
        conditions=(build_bottleneck_condition(series, families.LANE_BOTTLENECK, "saturated", Level.INFO),),
        summary="A lane's workers were busy for the whole of its last run, and tasks waited.",
        title=f"Lane {LANE.name} had workers that were busy for the whole of its last run, and tasks waited.",
        description=(
            f"In the last run of lane {LANE.place} the workers were busy for more than 90 % of their time, while tasks "
            "waited."
        ),
        board=Board.POOLS,
        link=LANE.labels,
        meaning="During its last run the lane's workers were busy over 90 % of the time, while tasks were queued.",
        impact="With more workers, or more cores, the lane would end sooner.",
        diagnosis=(
            questions.queue_wait(series),
            questions.cores_used(series),
        ),
        mitigation=("Cores left: raise `workers`. None left: a larger machine, or less work in this lane.",),
    )


def _build_at_maximum_alert(series: SeriesSelector) -> Alert:
    bound = f"({series.select_last(families.POOL_SIZE_MAX)} > {series.select_last(families.POOL_SIZE_MIN)})"
    return Alert(
        name="ParoptPoolAtMaximum",
        conditions=(
            Condition(
                expr=(
                    f"{series.select_last(families.POOL_SIZE_TARGET)} >= {bound}\n"
                    f"and\nmin_over_time({series.select_now(families.POOL_QUEUE_DEPTH)}[{series.window}]) > 0"
                ),
                level=Level.WARNING,
                hold=SETTLED,
            ),
        ),
        summary="A pool has all the workers that it may have, and tasks still wait.",
        title=f"Pool {POOL.name} has all the workers that it may have, and tasks still wait.",
        description=(
            f"Pool {POOL.place} has been at its maximum of {{{{ $value }}}} workers for 15 minutes while tasks waited."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning="The pool has reached its maximum, and grows only if you raise `max` in the config.",
        impact="Work takes longer than it has to on this machine; limits may be broken.",
        diagnosis=(
            Query(
                question="How many workers would the controller give?",
                expr=series.select_now(families.CONTROL_RECOMMENDED),
            ),
            questions.cores_used(series),
            questions.memory_left(series),
        ),
        mitigation=(
            "Cores and memory left: raise the lane's `workers: {max: N}`.",
            "Neither left: a larger machine, or spread the work over several.",
        ),
    )


def _build_memory_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptMemoryPressure",
        conditions=(
            Condition(
                # `serve` has the host's memory for each project.
                expr=(
                    f"min without (project) (\n  {series.select_last(families.HOST_MEMORY)}\n/\n"
                    f"  {series.select_last(families.HOST_MEMORY_LIMIT)}\n)\n< {_MEMORY_RATIO}"
                ),
                level=Level.WARNING,
                hold="5m",
            ),
        ),
        summary="A host that runs lanes is almost out of memory.",
        title="Host {{ $labels.instance }} of job {{ $labels.job }} is almost out of memory.",
        description=(
            "{{ $labels.instance }} of job {{ $labels.job }} has had less than 10 % of its memory left for 5 minutes, "
            "now {{ $value | humanizePercentage }}; its cgroup's limit counts."
        ),
        board=Board.POOLS,
        link=("job", "instance"),
        meaning="Less than 10 % is left of the memory of the machine, or of the cgroup in which the exporter runs.",
        impact=(
            "In a lane that sizes itself, tasks wait if their known peak does not fit. The kernel may kill a worker, "
            "and its task then fails with `error`."
        ),
        diagnosis=(
            Query(
                question="Which stages have the largest tasks (bytes; pages that processes share count for each)?",
                expr=f"topk(10, {series.select_now(families.STAGE_MEMORY_PEAK)})",
            ),
            Query(question="How many workers share the memory?", expr=series.select_now(families.POOL_SIZE)),
            questions.deaths(series),
        ),
        mitigation=(
            "Declare what the stage needs (`memory: 2GiB`): its tasks then start only when that much is free.",
            "Use fewer workers, or threads instead of processes for work on shared data.",
            "Move other programs to another host, or limit them.",
        ),
    )


def _build_dying_workers_alert(series: SeriesSelector) -> Alert:
    deaths = series.increase(families.POOL_DEATHS, _DEATHS_SPAN, cause=UNASKED)
    return Alert(
        name="ParoptWorkersDying",
        conditions=(Condition(expr=f"sum without (cause) ({deaths}) > {_DEATHS}", level=Level.WARNING),),
        summary="Workers of a pool keep dying.",
        title=f"Pool {POOL.name} loses workers again and again.",
        description=(
            'At least {{ $value | printf "%.0f" }} workers of pool {{ $labels.pool }} (project {{ $labels.project }}) '
            "on {{ $labels.instance }} died in the last 15 minutes."
        ),
        board=Board.POOLS,
        link=POOL.labels,
        meaning=(
            "Three or more worker processes ended in 15 minutes without being stopped: killed by a signal, by "
            "`os._exit`, or before they were ready. Each is replaced; the task that it ran has failed."
        ),
        impact="Tasks end with `error`; only those with `retries` run again.",
        diagnosis=(
            questions.deaths(series),
            Query(
                question="In which stages (tasks that ended with `error`, over an hour)?",
                expr=f"sum by (project, lane, stage) ({series.increase(families.TASK_ATTEMPTS, '1h', result='error')})",
            ),
            questions.memory_left(series),
        ),
        mitigation=(
            "`signal`: `dmesg | grep -i oom` shows whether the kernel killed it for lack of memory. A segmentation "
            "fault comes from the code, usually an extension module: `PYTHONFAULTHANDLER=1` in "
            "the stage's `env` shows where.",
            "`exit`: some code calls `os._exit`. `initializer`: the pool's initializer fails; the log has the error.",
            "`lost`: a worker of a Dask cluster is gone; its log and the scheduler's log have the reason.",
        ),
    )
