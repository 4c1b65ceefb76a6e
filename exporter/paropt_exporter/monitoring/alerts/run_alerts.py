"""Alerts on stages and lanes: failing, stuck, slow, uneven, GIL-bound or overdue."""

from __future__ import annotations

from paropt_exporter import families
from paropt_exporter.events import Result
from paropt_exporter.monitoring.alerts import questions, recording
from paropt_exporter.monitoring.alerts.rules import LANE, STAGE, Alert, Board, Condition, Level, Query
from paropt_exporter.monitoring.alerts.selectors import SETTLED, SeriesSelector, build_bottleneck_condition
from paropt_exporter.monitoring.options import Options
from paropt_exporter.promql import Without

# A process that waits for a network or disk wakes now and then: less than a hundredth of a core counts as idle.
_IDLE_CORES = "0.01"
# How long a failure lasts before its alert: two runs of a lane that runs each minute or more often, otherwise SETTLED.
_OFTEN_SECONDS, _TWO_RUNS = "60", "2m"
# A lane that runs more often than rules are evaluated may fail at each evaluation, and succeed between them.
_BETWEEN_EVALUATIONS = "1m"
_AFTER = "{{ $labels.after }}"  # in a template: how long a failure has lasted
_THROUGHPUT_RATIO = "0.8"  # the tuning guide's limit for a degradation
_THROUGHPUT_SPAN, _THROUGHPUT_PAST = recording.THROUGHPUT_SPAN, recording.THROUGHPUT_PAST
_FLAKY_RATIO = "0.01"  # one failure in a hundred: rare enough to be doubted, frequent enough to be met
_FLAKY_ATTEMPTS = "1.5"  # two: one alone may be the machine's fault. `increase` extrapolates
# Runs that take longer than a short interval succeed in turn, and each evaluation may come between two of them.
_SHORTEST_OVERDUE_SECONDS = "300"
_ENOUGH_RUNS = 5  # an average of fewer runs is not comparable


def build_stage_alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = SeriesSelector(options)
    return (
        _build_failing_alert(series),
        _build_stuck_alert(series),
        _build_slow_stage_alert(series),
        _build_uneven_stage_alert(series),
        _build_gil_bound_alert(series),
        _build_cache_alert(series),
        _build_flaky_stage_alert(series),
    )


def _build_failing_alert(series: SeriesSelector) -> Alert:
    failing = f"{series.select_last(families.STAGE_FAILING)} == 1"
    often = f"on (job, instance, project, lane)\n{series.select_last(families.RUN_INTERVAL)} <= {_OFTEN_SECONDS}"
    succeeded = f"min_over_time({series.select_now(families.STAGE_FAILING)}[{_BETWEEN_EVALUATIONS}]) == 0"
    return Alert(
        name="ParoptStageFailing",
        conditions=(
            Condition(
                expr=f"{failing}\nand {often}\nunless\n{succeeded}",
                level=Level.WARNING,
                hold=_TWO_RUNS,
                labels=(("after", _TWO_RUNS),),
            ),
            Condition(
                expr=f"{failing}\nunless {often}", level=Level.WARNING, hold=SETTLED, labels=(("after", SETTLED),)
            ),
        ),
        summary="A stage has been failing.",
        title=f"Stage {STAGE.name} has been failing for {_AFTER}.",
        description=(
            f"Stage {STAGE.place} failed, timed out or could not run, and no run of it has succeeded for {_AFTER}."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "The stage ended with `failure` (exit code or exception), `error` (could not start, or was killed) or "
            "`timeout`, and has not succeeded since. Runs in which it was stopped or skipped change nothing. It has "
            "been so for 15 minutes, or for 2 minutes if the lane runs every minute or more often."
        ),
        impact="The stage's checks did not pass; stages that need it are skipped.",
        diagnosis=(
            Query(
                question="Which of the three is it (`cancellation`, `skip`: it has not run to its end since)?",
                expr=(
                    f"{series.select_now(families.STAGE_LAST_RESULT)} == 1"
                    f" and ignoring (result) {series.select_now(families.STAGE_FAILING)} == 1"
                ),
            ),
            Query(
                question="Since when, and does it ever succeed (runs by result over a day)?",
                expr=f"sum by (project, lane, stage, result) ({series.increase(families.STAGE_RUNS, '1d')}) > 0",
            ),
            Query(
                question="Does it fail everywhere (1), or on some hosts only?",
                expr=f"avg by (project, lane, stage) ({series.select_now(families.STAGE_FAILING)})",
            ),
        ),
        mitigation=(
            "`paropt-exporter log STAGE` prints its output.",
            "`paropt-exporter --lane LANE --failed --once` runs it again.",
            "`failure`: fix the errors in the stage's output. `error`: `paropt-exporter check` finds missing programs; "
            "if a program was killed, memory may be short. `timeout`: see [ParoptStageStuck](#paroptstagestuck).",
        ),
    )


def _build_cache_alert(series: SeriesSelector) -> Alert:
    lookups = series.increase(families.CACHE_LOOKUPS, "1h", reason="store")
    return Alert(
        name="ParoptCacheUnusable",
        conditions=(
            Condition(
                expr=f"sum without (result, reason) ({lookups}) > 0",
                level=Level.INFO,
            ),
        ),
        summary="A cached stage had to run, since the store of results can't be used.",
        title=f"Stage {STAGE.name} can't use the store of results.",
        description=(
            f"Stage {STAGE.place} ran within the last hour because the store of cached results, or a result in it, "
            "could not be used."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "The stage's result was looked up without success, for the reason `store`: the folder can't be read or "
            "written, other users may write to it, or a result was damaged."
        ),
        impact="Only time is lost: the result is valid, but the stage runs each time until the store is repaired.",
        diagnosis=(
            Query(
                question="Which stages, how often in a day?",
                expr=(
                    "sum by (instance, project, lane, stage) "
                    f"({series.increase(families.CACHE_LOOKUPS, '1d', reason='store')}) > 0"
                ),
            ),
        ),
        mitigation=(
            "The summary of the run has the reason in the stage's line. `paropt-exporter cache info` shows the folder.",
            "A damaged result is removed when it is read. If this happens again, `paropt-exporter cache verify` finds "
            "all damaged results; check the disk.",
            "Free disk space, or set `PAROPT_CACHE_DIR` to a folder to which only this user can write.",
        ),
    )


def _build_stuck_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptStageStuck",
        conditions=(Condition(expr=_build_idle_stage_query(series), level=Level.WARNING, hold=SETTLED),),
        summary="A running stage does nothing.",
        title=f"Stage {STAGE.name} runs and does nothing.",
        description=f"Stage {STAGE.place} has been running for 15 minutes without using CPU and without ending a task.",
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "For 15 minutes the stage and its child processes have used less than a hundredth of a core, and neither "
            "one of its tasks nor a run of its lane has ended, although at least one task runs. It waits for something "
            "that does not come."
        ),
        impact="The lane does not end; with `--every` the next runs do not start.",
        diagnosis=(
            questions.running_time(series),
            Query(
                question="How much of each running stage is done (1: all)?",
                expr=(
                    f"{series.select_now(families.STAGE_PROGRESS)} and {series.select_now(families.STAGE_RUNNING)} == 1"
                ),
            ),
            Query(
                question="How long did the stages take in their last run (seconds)?",
                expr=series.select_now(families.STAGE_LAST_DURATION),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "On the host, find the waiting process below paropt-exporter in `ps -ef --forest`. `py-spy dump` or "
            "`cat /proc/PID/stack` shows the call in which it waits. A common cause is a prompt for a password.",
            "Kill that process: the stage fails, and the lane goes on.",
            "Give the stage a `timeout`, so that it is stopped next time.",
            "If a stage has to wait this long for another system, or if a process that it did not start does its work "
            "(the daemon of `docker run`), silence this alert for it.",
        ),
    )


def _build_idle_stage_query(series: SeriesSelector) -> str:
    """Build the query for stages with running tasks that use no CPU and complete no task.

    Of a lane that is run again as soon as it ends, each scrape may see a running stage without progress: it is not
    stuck if runs end. Neither is one whose remaining tasks wait for workers, locks or memory that other stages use.
    """
    return (
        f"{series.select_last(families.STAGE_TASKS_RUNNING)} > 0\n"
        f"and\n{series.rate(families.STAGE_CPU)} < {_IDLE_CORES}\n"
        f"and\nchanges({series.select_now(families.STAGE_PROGRESS)}[{series.window}]) == 0\n"
        "unless on (job, instance, project, lane)\n"
        f"changes({series.select_now(families.RUN_LAST_COMPLETION)}[{series.window}]) > 0"
    )


def _build_slow_stage_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptStageSlow",
        conditions=(build_bottleneck_condition(series, families.BOTTLENECK, "slow", Level.INFO),),
        summary="One stage takes much longer than the others of its lane.",
        title=f"Stage {STAGE.name} takes much longer than the others of its lane.",
        description=f"Stage {STAGE.place} takes more than 1.5 times as long as the lane's average stage.",
        board=Board.LANE,
        link=STAGE.labels,
        meaning="In the last run the stage took over 1.5 times as long as the lane's stages on average.",
        impact="The lane can't end before this stage, however many workers it has.",
        diagnosis=(
            Query(
                question="How do the stages compare (1 is the lane's average)?",
                expr=(
                    f"{series.select_now(families.STAGE_LAST_DURATION)}"
                    " / on (job, instance, project, lane) group_left ()"
                    f" avg by (job, instance, project, lane) ({series.select_now(families.STAGE_LAST_DURATION)})"
                ),
            ),
            questions.stage_cores(series),
        ),
        mitigation=(
            "Split it: `items` makes a task of each file or case.",
            "If one of its tasks takes most of the time, split that one. If it uses about one core although more are "
            "allowed, it does not run in parallel yet.",
        ),
    )


def _build_uneven_stage_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptStageUneven",
        conditions=(build_bottleneck_condition(series, families.BOTTLENECK, "uneven", Level.INFO),),
        summary="A stage's tasks differ in duration by more than three times.",
        title=f"Stage {STAGE.name} has tasks that differ in duration by more than three times.",
        description=f"In stage {STAGE.place} the slowest task takes more than three times as long as the fastest.",
        board=Board.LANE,
        link=STAGE.labels,
        meaning="In the last run the stage's slowest task took over three times as long as its fastest.",
        impact="Workers are idle at the stage's end, while the longest task runs alone.",
        diagnosis=(
            Query(
                question="How long are the tasks (seconds, median)?",
                expr=_build_quantile_query(series, "0.5"),
            ),
            Query(
                question="How long are the longest (seconds, 99th percentile)?",
                expr=_build_quantile_query(series, "0.99"),
            ),
        ),
        mitigation=(
            "Split the longest items, or combine short ones. `--report json=FILE` writes how long each took.",
            "If they can't be split, this does no harm while other stages use the workers.",
        ),
    )


def _build_quantile_query(series: SeriesSelector, quantile: str) -> str:
    buckets = series.increase(families.TASK_DURATION, "1d", part="bucket")
    return f"histogram_quantile({quantile}, sum by (project, lane, stage, le) ({buckets})) > 0"


def _build_gil_bound_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptStageGilBound",
        conditions=(build_bottleneck_condition(series, families.BOTTLENECK, "gil_bound", Level.INFO),),
        summary="A stage computes in threads, which share one core.",
        title=f"Stage {STAGE.name} computes in threads, which share one core.",
        description=f"Stage {STAGE.place} is CPU-bound Python in threads: they take turns on one core.",
        board=Board.LANE,
        link=STAGE.labels,
        meaning="The stage's `call` holds Python's interpreter lock, so its threads together use about one core.",
        impact="More workers make it no faster; one core is busy and the others idle.",
        diagnosis=(
            Query(
                question="How many cores do the pools use?",
                expr=series.rate(families.POOL_CPU),
            ),
            Query(question="How many does the machine allow?", expr=series.select_now(families.HOST_CPUS)),
        ),
        mitigation=(
            "`strategy: adaptive` moves such work to processes by itself; `process` runs it there from the start.",
            "If its arguments can't be sent to a process (open files, locks), turn it into a command.",
        ),
    )


def _build_flaky_stage_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptStageFlaky",
        conditions=(Condition(expr=_build_flaky_query(series), level=Level.INFO),),
        summary="A stage fails and passes with the same files.",
        title=f"Stage {STAGE.name} fails and passes with the same files.",
        description=(
            f"Stage {STAGE.place}: {{{{ $value | humanizePercentage }}}} of its first attempts within a day failed and "
            "later passed with the same files."
        ),
        board=Board.LANE,
        link=STAGE.labels,
        meaning=(
            "Within a day, at least two first attempts of the stage's tasks failed and later passed with the same "
            f"files, in a retry or in another run. They are more than {_FLAKY_RATIO} of its first attempts."
        ),
        impact="People stop believing its failures, and its retries cost time.",
        diagnosis=(
            Query(
                question="Which stages are flaky (ratio of first attempts, over a day)?",
                expr=f"{_build_flaky_ratio(series)} > 0",
            ),
            Query(
                question="On how many hosts?",
                expr=f"count by (project, lane, stage) ({series.increase(families.FLAKY_ATTEMPTS, '1d')} > 0)",
            ),
        ),
        mitigation=(
            "`paropt-exporter history --flaky` names the stages with their items, and how certain the ratio is.",
            "One item: fix its order, clock, port or shared state. A whole stage: files or ports that it shares with "
            "others (`locks`, `exclusive`), or a machine that is too small.",
            "Until then `retries: {flaky: 2}` retries only failures that are known to be flaky, and still counts them; "
            "`quarantine` lets an item fail until a date, with an owner.",
        ),
    )


def _build_flaky_query(series: SeriesSelector) -> str:
    """Build the query for stages of which more than one first attempt in _FLAKY_RATIO of a day was flaky."""
    return (
        f"{_build_flaky_ratio(series)} > {_FLAKY_RATIO}\n"
        f"and\n{series.increase(families.FLAKY_ATTEMPTS, '1d')} > {_FLAKY_ATTEMPTS}"
    )


def _build_flaky_ratio(series: SeriesSelector) -> str:
    flaky, attempts = (series.increase(family, "1d") for family in (families.FLAKY_ATTEMPTS, families.FIRST_ATTEMPTS))
    return f"{flaky} / {attempts}"


def build_lane_alerts(options: Options) -> tuple[Alert, ...]:
    """Return the alerts of this module."""
    series = SeriesSelector(options)
    return (
        _build_overdue_alert(series),
        build_slower_alert(series),
        _build_uneven_lane_alert(series),
    )


def _build_overdue_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneNotSucceeding",
        # Two intervals and SETTLED: ParoptStageFailing comes first, SETTLED after the first failed run, and then
        # Alertmanager keeps this one back.
        conditions=(Condition(expr=_build_overdue_query(series), level=Level.WARNING, hold=SETTLED),),
        summary="A lane has not succeeded for more than two of its intervals.",
        title=f"Lane {LANE.name} has not succeeded for more than two of its intervals.",
        description=(
            f"Lane {LANE.place} runs at an interval, and its last success is more than two intervals ago, or it has "
            "never succeeded."
        ),
        board=Board.LANE,
        link=LANE.labels,
        meaning=(
            "The whole lane runs with `--every`. For a quarter of an hour its last success has been older than two "
            "intervals and than five minutes. A lane that has never succeeded counts if at least two runs have ended, "
            "or if the present one began that long ago. While "
            "ParoptStageFailing, ParoptStageStuck or ParoptSlaCriticalViolation fires for one of its stages, the "
            "example configuration of Alertmanager does not send this one."
        ),
        impact="The lane's checks are out of date.",
        diagnosis=(
            Query(question="How many intervals ago was the last success?", expr=_build_intervals_query(series)),
            Query(
                question="Has it run at all since (seconds since a run ended)?",
                expr=f"time() - {series.select_now(families.RUN_LAST_COMPLETION)}",
            ),
            questions.running_time(series),
            Query(
                question="Which stages keep it from succeeding?",
                expr=f"{series.select_now(families.STAGE_FAILING)} == 1",
            ),
        ),
        mitigation=(
            "If it runs and fails: see [ParoptStageFailing](#paroptstagefailing).",
            "If it does not end: see [ParoptStageStuck](#paroptstagestuck).",
            "If its runs take longer than the interval of `--every`: lengthen the interval. Runs never overlap, so "
            "each delays the next.",
            "If it was interrupted each time (`cancellation`): find out what stops the process, perhaps a deployment.",
        ),
    )


def _build_overdue_query(series: SeriesSelector) -> str:
    """Build the query for lanes without success for two of their intervals, or with two runs and no success at all.

    Without a success, the intervals count from the start of the present run: the first one may never end.
    """
    succeeded, interval = series.select_last(families.RUN_LAST_SUCCESS), series.select_last(families.RUN_INTERVAL)
    started = series.select_last(families.RUN_STARTED)
    unsuccessful = series.select_last(families.RUNS, result=Without((Result.SUCCESS.value,)))
    return (
        f"time() - ({succeeded} or {started}) > clamp_min(2 * {interval}, {_SHORTEST_OVERDUE_SECONDS})\n"
        f"or\n(\n  sum without (result) ({unsuccessful}) >= 2\nand\n  {interval}\n)\n"
        f"unless\n{succeeded}"
    )


def _build_intervals_query(series: SeriesSelector) -> str:
    succeeded, interval = series.select_now(families.RUN_LAST_SUCCESS), series.select_now(families.RUN_INTERVAL)
    return f"(time() - {succeeded}) / {interval}"


def build_slower_alert(series: SeriesSelector) -> Alert:
    """Return the alert on the throughput of a lane, over all of its hosts."""
    return Alert(
        name="ParoptThroughputLow",
        conditions=(Condition(expr=_build_slower_query(series), level=Level.WARNING, hold="30m"),),
        summary="A lane's throughput is under 80 % of its own past.",
        title=f"Lane {LANE.name} has a throughput under 80 % of its own past.",
        description=(
            "Lane {{ $labels.lane }} (project {{ $labels.project }}) did {{ $value | humanize }} tasks in a second of "
            f"running over the last {_THROUGHPUT_SPAN}, under 80 % of its rate over the {_THROUGHPUT_PAST} before."
        ),
        board=Board.LANE,
        link=("job", "project", "lane"),
        meaning=(
            f"In the runs of the last {_THROUGHPUT_SPAN} the lane ended fewer tasks per second than in those of the "
            f"{_THROUGHPUT_PAST} before. The time between runs does not count. Neither do runs of a part of the lane, "
            "nor runs in which a task was cached."
        ),
        impact="The lane takes longer for the same work, and may soon break its limits.",
        diagnosis=(
            Query(
                question="How much slower is it (1: as fast as before)?",
                expr=(
                    f"{recording.select_tasks(series, _THROUGHPUT_SPAN)}"
                    f" / ({recording.select_run_seconds(series, _THROUGHPUT_SPAN)} > 0)"
                    f" / ({_build_throughput_query(series, _THROUGHPUT_PAST)} > 0)"
                ),
            ),
            Query(
                question="Which stages take longer than yesterday (seconds more, mean)?",
                expr=(
                    f"topk(10, avg by (project, lane, stage) ({series.select_now(families.STAGE_LAST_DURATION)})"
                    " - avg by (project, lane, stage) "
                    f"(avg_over_time({series.select_now(families.STAGE_LAST_DURATION)}[1d])))"
                ),
            ),
            questions.run_delay(series),
        ),
        mitigation=(
            "`paropt-exporter history --lane LANE --compare RUN latest`, with an earlier run's id, shows what changed.",
            "If all stages are slower, the machine has become slower (other programs, throttling, a smaller runner).",
            "If one stage is slower, look for the change that affected it. If it simply has more work now, this alert "
            f"ends by itself, once the slower runs are part of the {_THROUGHPUT_PAST} that it compares with.",
        ),
    )


def _build_slower_query(series: SeriesSelector) -> str:
    """Build the query for lanes whose throughput is below _THROUGHPUT_RATIO of its past, if that has enough runs."""
    before = f" offset {_THROUGHPUT_SPAN}"
    past = _build_throughput_query(series, _THROUGHPUT_PAST, before)
    return (
        f"{_build_throughput_query(series, _THROUGHPUT_SPAN)}\n<\n{_THROUGHPUT_RATIO} * ({past})\n"
        f"and\n{recording.select_runs(series, _THROUGHPUT_PAST)}{before} >= {_ENOUGH_RUNS}"
    )


def _build_throughput_query(series: SeriesSelector, over: str, offset: str = "") -> str:
    """Build the query for tasks per second of run time; `offset` is PromQL's modifier, for a time in the past."""
    return f"{recording.select_tasks(series, over)}{offset} / {recording.select_run_seconds(series, over)}{offset}"


def _build_uneven_lane_alert(series: SeriesSelector) -> Alert:
    return Alert(
        name="ParoptLaneUneven",
        conditions=(build_bottleneck_condition(series, families.LANE_BOTTLENECK, "uneven", Level.INFO),),
        summary="A lane's stages differ in duration by more than three times.",
        title=f"Lane {LANE.name} has stages that differ in duration by more than three times.",
        description=f"In lane {LANE.place} the slowest stage takes more than three times as long as the fastest.",
        board=Board.LANE,
        link=LANE.labels,
        meaning="In the last run the lane's slowest stage took over three times as long as its fastest.",
        impact="With one worker for each stage, most workers are idle for most of the run.",
        diagnosis=(
            Query(
                question="Which are the longest stages (seconds)?",
                expr=f"topk(5, {series.select_now(families.STAGE_LAST_DURATION)})",
            ),
            Query(
                question="And the shortest?",
                expr=f"bottomk(5, {series.select_now(families.STAGE_LAST_DURATION)})",
            ),
        ),
        mitigation=("Split the longest stage (`items`); see [ParoptStageSlow](#paroptstageslow).",),
    )
