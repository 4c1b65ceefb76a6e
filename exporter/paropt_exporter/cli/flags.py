"""Define the flags and the commands, and parse a command line with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from paropt_exporter.cli import PROGRAM, format_version
from paropt_exporter.cli.completion import SHELLS, WORDS
from paropt_exporter.cli.parser import HelpFormatter, Parser, describe_run_flag, split_words
from paropt_exporter.config.units import MOST_WORKERS
from paropt_exporter.errors import shorten

_MOST_MARGIN = 100.0
_MOST = 2**31 - 1  # SQLite's integers end at 2**63
_LONGEST_SHOWN = 60  # characters of a count in an error
_USAGE = f"""{PROGRAM} [STAGE ...] [flags] [-- ARGUMENT ...]
       {PROGRAM} COMMAND [flags]"""
_DESCRIPTION = """\
Run a lane's stages in parallel on pools that size themselves, and export
them to Prometheus.

STAGE is a stage's name or number, a glob ('*_tests'), or a stage with some of
its items ('unit_tests[tests/test_a*.py]'). The stages that it needs run too.
Without STAGE the whole lane runs. Use --stage for a stage that is named like a
command. Arguments after -- replace {args} in the commands of the stages.

Start with: paropt-exporter init"""
_EPILOG = """\
exit codes, the first that applies:
  129, 130, 143  interrupted during a run by SIGHUP, SIGINT (Ctrl-C) or SIGTERM
  2              wrong usage or config
  3              internal error, history or report not written, or push failed
                 with --push.fail
  4              critical SLA violation
  1              a stage failed
  5              stages left out or stopped by --deadline
  0              success"""
_CACHE_ACTIONS = ("info", "prune", "verify")
_EVERYWHERE = {"config_file", "color", "log_level", "log_format", "quiet"}  # quiet: without the line `config ../…`
# The flags of a run that may precede the command `plan`.
_OF_A_PLAN = {
    "stages", "skip", "only", "failed", "affected", "deadline", "dry_run", "strategy", "workers", "fail_fast",
    "keep_going",
}  # fmt: skip


def parse_command_line(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the flags of a command line. `stages` are the positional words, `arguments` the words after `--`.

    If the first positional word names a sub-command, its parser reads the rest.
    """
    given = sys.argv[1:] if arguments is None else [*arguments]
    top = build_parser()
    words = split_words(given, top.options)
    if words.positional[:1] and words.positional[0] in top.commands:
        flags = top.parse_args(given)
        _reject_run_flags(top.parse_args(words.leading), top, words.positional[0])
        flags.arguments = None
        return flags
    flags = top.parse_args(words.flags)
    flags.stages, flags.arguments = [*flags.stages, *words.positional], words.arguments
    return flags


def _reject_run_flags(leading: argparse.Namespace, top: Parser, command: str) -> None:
    """Exit with an error if a flag for running a lane precedes a command: `--dry-run init --force` would write.

    Flags without a default in the command's own parser are shared with it, and may precede or follow it.
    """
    parser = top.get_command(command)
    shared = _EVERYWHERE | {action.dest for action in parser.options.values() if action.default is argparse.SUPPRESS}
    shared |= _OF_A_PLAN if command == "plan" else set()
    for flag, action in top.options.items():
        if action.dest not in shared and getattr(leading, action.dest, action.default) != action.default:
            own = next((name for name in action.option_strings if name in parser.options), None)
            parser.error(f"write {own} after {command}" if own else describe_run_flag(flag, command))


def build_parser() -> Parser:
    """Return the whole parser, which completion scripts and the documentation use too."""
    top = Parser(
        prog=PROGRAM,
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=format_version())
    _add_run_flags(top)
    _add_endpoint_flags(top)
    _add_short_run_flags(top)
    _add_global_flags(top)
    top.set_defaults(color="auto", log_level="info", log_format="logfmt")
    run_flags = frozenset(top.options)
    commands = top.add_subparsers(dest="command", prog=PROGRAM, metavar="COMMAND", title="other commands")
    _add_commands(commands, run_flags)
    return top


def _add_global_flags(parser: Parser) -> None:
    """Add the flags that are valid before and after a sub-command. Its own parser has no defaults for them."""
    group = parser.add_argument_group("for all commands")
    group.add_argument(
        "--config.file",
        dest="config_file",
        metavar="FILE",
        help="the config file (default: $PAROPT_CONFIG_FILE, otherwise the nearest paropt.yml in this folder or above, "
        "up to the root of the repository; without one, built-in stages)",
    )
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        help="when to use colours (default: auto, on a terminal; $NO_COLOR and $FORCE_COLOR are honoured)",
    )
    group.add_argument(
        "--log.level",
        dest="log_level",
        choices=("debug", "info", "warn", "error"),
        help="the least severe messages to log to stderr (default: info)",
    )
    group.add_argument(
        "--log.format",
        dest="log_format",
        choices=("logfmt", "json"),
        help="the format of these messages (default: logfmt)",
    )


def _build_global_flags() -> Parser:
    """Return the parent of the parsers of sub-commands."""
    flags = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    _add_global_flags(flags)
    return flags


def _add_run_flags(top: argparse.ArgumentParser) -> None:
    run = top.add_argument_group("running a lane")
    run.add_argument(
        "--lane",
        help="which lane to run: docs, standard, heavy, one of your own, or auto to choose from the git diff "
        "(default: standard, or the first lane that lists the named stages if standard leaves them out)",
    )
    run.add_argument(
        "-s",
        "--stage",
        dest="stages",
        action="append",
        default=[],
        metavar="STAGE",
        help="run only this stage, by name, number or glob, and the stages that it needs; may be repeated; STAGE "
        "without the flag means the same",
    )
    run.add_argument("--only", action="store_true", help="run the named stages without the stages that they need")
    run.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="STAGE",
        help="leave out this stage, by name, number or glob; stages that need it run without it; may be repeated",
    )
    run.add_argument(
        "--list",
        action="store_true",
        help="list lanes and stages (only those that other flags select), without running anything",
    )
    run.add_argument("--dry-run", action="store_true", help="show the plan, without running anything")
    run.add_argument(
        "--once",
        action=argparse.BooleanOptionalAction,
        help="exit when the lane has ended (default if $CI is set), instead of serving its metrics until Ctrl-C",
    )
    run.add_argument(
        "--every",
        metavar="DURATION",
        help="run the lane every DURATION, such as 10m; a run that takes longer delays the next one",
    )
    run.add_argument("--watch", action="store_true", help="run stages again when their inputs change, until Ctrl-C")
    failing = run.add_mutually_exclusive_group()
    failing.add_argument("--fail-fast", action="store_true", help="stop at the first failure, and end running stages")
    failing.add_argument("--keep-going", action="store_true", help="run all stages whose needs succeeded (default)")
    run.add_argument(
        "--failed",
        action="store_true",
        help="run only stages and items that failed or were interrupted last time, and the stages that need them",
    )
    run.add_argument(
        "--no-cache",
        action="store_true",
        help="run unchanged stages too, and replace their cached results",
    )
    run.add_argument(
        "--shard",
        metavar="N/M",
        help="run only part N of M, for parallel CI jobs; items and stages are split by durations in the history, so "
        "all parts need the same history",
    )
    run.add_argument(
        "--affected",
        nargs="?",
        const=False,  # the flag without a commit
        type=_parse_ref,
        metavar="REF",
        help="run only stages whose inputs changed since the branch left REF (default: the main branch), and the "
        "stages that they need; uncommitted and untracked files count; a word after the flag is REF",
    )
    run.add_argument(
        "--deadline",
        metavar="DURATION",
        help="run the most valuable stages that should end within this time, by their earlier durations, and stop "
        "those that still run when it is over",
    )
    run.add_argument(
        "--strategy",
        choices=("thread", "process", "hybrid", "adaptive", "sequential"),
        help="where Python calls run; sequential: one task after another (default: the lane's)",
    )
    run.add_argument(
        "-j",
        "--workers",
        metavar="N|auto",
        help="how many tasks run at once: a number, bounds such as 2-8, or auto (default: the lane's)",
    )
    shown = run.add_mutually_exclusive_group()
    shown.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show the output of every task, not only of failed ones, and line by line if it runs alone",
    )
    shown.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="show only failures, warnings and the summary; with --list only names",
    )
    run.add_argument(
        "--output", choices=("text", "json"), default="text", help="print the summary as text or JSON (default: text)"
    )
    run.add_argument(
        "--report",
        action="append",
        metavar="KIND[=FILE]",
        help="report each run to other programs: junit=FILE, gitlab=FILE (code quality), json=FILE, trace=FILE (for "
        "Perfetto), github (default if $GITHUB_ACTIONS is set), otlp, none; may be repeated",
    )


def _add_endpoint_flags(top: Parser, *, after_command: bool = False) -> None:
    """Add the flags of the endpoint. After a command they have no defaults. Only a run has --web.linger."""
    web = top.add_argument_group("the endpoint", argument_default=argparse.SUPPRESS if after_command else None)
    web.add_argument(
        "--web.listen-address",
        dest="web_listen_address",
        action="append",
        metavar="ADDRESS",
        help="where to serve the metrics; may be repeated (default: 127.0.0.1:10178"
        + (")" if after_command else ", or the next free port)"),
    )
    web.add_argument(
        "--web.config.file",
        dest="web_config_file",
        metavar="FILE",
        help="a file with TLS, basic authentication and headers",
    )
    web.add_argument(
        "--web.systemd-socket",
        dest="web_systemd_socket",
        action="store_true",
        help="serve on the sockets that systemd opened, instead of --web.listen-address",
    )
    web.add_argument(
        "--web.telemetry-path",
        dest="web_telemetry_path",
        metavar="PATH",
        help="the path of the metrics (default: /metrics)",
    )
    if not after_command:
        web.add_argument(
            "--web.linger",
            dest="web_linger",
            metavar="DURATION",
            help="with --once: serve until a scrape has fetched the final values, for at most DURATION",
        )
    web.add_argument(
        "--web.max-requests",
        dest="web_max_requests",
        metavar="N",
        help="answer at most N scrapes at once; others get 503 (default: 0, no limit)",
    )
    web.add_argument(
        "--web.disable-exporter-metrics",
        dest="web_disable_exporter_metrics",
        action="store_true",
        help="leave out metrics about the exporter itself (process_*, python_*)",
    )


def _add_short_run_flags(top: argparse.ArgumentParser) -> None:
    short = top.add_argument_group("runs that end before a scrape")
    short.add_argument(
        "--push.url", dest="push_url", metavar="URL", help="push each run's final values to this Pushgateway"
    )
    short.add_argument(
        "--push.fail", dest="push_fail", action="store_true", help="end with exit code 3 if a push fails"
    )
    short.add_argument(
        "--push.instance",
        dest="push_instance",
        metavar="NAME",
        help="the label instance of pushed values (default: the host's name)",
    )
    short.add_argument(
        "--textfile",
        metavar="DIR",
        help="write each run's final values to this folder, for node_exporter's textfile collector",
    )


def _add_commands(commands: argparse._SubParsersAction[Parser], run_flags: frozenset[str]) -> None:
    shared = _build_global_flags()

    def add(name: str, help_text: str, *, examples: Mapping[str, str] | None = None) -> Parser:
        return commands.add_parser(
            name,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}.",
            epilog=_format_examples(examples) if examples else None,
            formatter_class=HelpFormatter,
            parents=[shared],
            allow_abbrev=False,
            run_flags=run_flags,
        )

    init = add("init", "write a commented paropt.yml for this project")
    init.add_argument("--force", action="store_true", help="overwrite an existing paropt.yml")
    check = add("check", "report all faults of the config, and missing programs; this runs nothing")
    check.add_argument("--lane", default=argparse.SUPPRESS, help="check only this lane (default: all)")
    plan = add(
        "plan",
        "show the stages that would run, in order, and how long they should take; this runs the commands under items",
    )
    plan.add_argument("--lane", default=argparse.SUPPRESS, help="the lane, or auto (default: standard)")
    plan.add_argument(
        "--why", action="store_true", help="show which cached stages would be skipped, and why others run"
    )
    plan.add_argument(
        "--shard", metavar="N/M", default=argparse.SUPPRESS, help="show only part N of M, and how the lane is split"
    )
    _add_output_flag(plan)
    _add_log_flags(
        add(
            "log",
            "print the output of a run's tasks",
            examples={
                "log": "everything that the latest run printed",
                "log unit_tests": "one stage of it",
                "log 20261128T1744 'unit_tests[test_a.py]'": "one item of an earlier run",
            },
        )
    )
    _add_history_flags(
        add(
            "history",
            "list past runs and compare them",
            examples={
                "history --run 20261128T1744": "the stages of one run, by its id or the beginning of it",
                "history --compare latest~1 latest": "the latest two runs, stage by stage",
                "history --what-if 2,4,8": "the latest run, with other numbers of workers",
            },
        )
    )
    _add_sla_flags(add("sla", "propose limits for stages and lanes from the durations of their successful runs"))
    _add_profile_flags(
        add(
            "profile",
            "run one stage with several numbers of workers and strategies, and recommend settings for its lane",
        )
    )
    explain = add("explain", "show why a pool has its size, with the calculation")
    explain.add_argument("pool", nargs="?", metavar="POOL", help="only the decisions about this pool (default: all)")
    _add_output_flag(explain)
    replay = add("replay", "repeat recorded decisions with the installed version, and show the differences")
    replay.add_argument("pool", nargs="?", metavar="POOL", help="only the decisions about this pool (default: all)")
    replay.add_argument(
        "--since", metavar="DURATION", default="1h", help="repeat the decisions of the last DURATION (default: 1h)"
    )
    _add_output_flag(replay)
    pin = add(
        "pin",
        "hold the lane that runs here at a fixed size",
        examples={"pin 4": "4 tasks at once, until `paropt-exporter resume`"},
    )
    _add_order_flags(pin).add_argument("size", type=_parse_count, metavar="SIZE", help="how many tasks run at once")
    _add_order_flags(add("pause", "keep the lane that runs here at its current size"))
    _add_order_flags(add("resume", "let the lane that runs here size itself again"))
    _add_cache_flags(add("cache", "show, shrink or check the store of cached results"))
    serve = add(
        "serve",
        "serve the metrics of all projects that run here on one page, and share the cores among them",
    )
    _add_endpoint_flags(serve, after_command=True)
    serve.add_argument(
        "serve_action",
        nargs="?",
        choices=("status",),
        metavar="status",
        help="show the runs on this host, their shares of the cores, and which ones wait for others; serve nothing",
    )
    _add_output_flag(serve, "for status: print text or JSON (default: text)")
    _add_generate_flags(
        add(
            "generate",
            "write generated files: config schema, reference pages, rules, dashboards",
            examples={
                "generate alerts dashboards --out .": "alerts/ and dashboards/ in this folder",
                "generate dashboards --out k8s --format configmap": "dashboards as ConfigMaps",
            },
        )
    )
    completion = add("completion", "print a script that completes this command line in a shell")
    completion.add_argument(
        "shell",
        metavar="|".join(SHELLS),
        choices=SHELLS,
        help="to use it now: source <(paropt-exporter completion bash), paropt-exporter completion fish | source",
    )
    completion.add_argument("--words", nargs="+", choices=WORDS, help=argparse.SUPPRESS)  # used by the scripts
    for command in commands.choices.values():
        command.usage = command.usage or f"{command.prog}{command.format_positional()} [flags]"


def _format_examples(examples: Mapping[str, str]) -> str:
    lines = [f"  {PROGRAM} {command}\n      {meaning}" for command, meaning in examples.items()]
    return "\n".join(["examples:", *lines])


def _add_output_flag(command: Parser, help_text: str = "print text or JSON (default: text)") -> None:
    command.add_argument("--output", choices=("text", "json"), default=argparse.SUPPRESS, help=help_text)


def _add_cache_flags(cache: Parser) -> None:
    cache.add_argument(
        "action",
        metavar="|".join(_CACHE_ACTIONS),
        choices=_CACHE_ACTIONS,
        help="info: show its folder and size; prune: remove the least recently used results; verify: remove damaged "
        "ones",
    )
    kept = cache.add_mutually_exclusive_group()
    kept.add_argument(
        "--size", metavar="SIZE", help="for prune: the size to reach (default: $PAROPT_CACHE_SIZE or 5GB)"
    )
    kept.add_argument("--all", action="store_true", help="for prune: remove everything")
    _add_output_flag(cache)


def _add_history_flags(history: Parser) -> None:
    history.usage = f"{PROGRAM} history [flags]\n       {PROGRAM} history merge [FILE ...]"
    history.add_argument("--lane", default=argparse.SUPPRESS, help="only runs of this lane (default: all)")
    history.add_argument("--limit", type=_parse_count, default=20, metavar="N", help="the latest N runs (default: 20)")
    about = history.add_mutually_exclusive_group()
    about.add_argument(
        "--what-if",
        type=_parse_counts,
        metavar="N,N",
        help="predict a run's duration with each of these numbers of workers",
    )
    history.add_argument(
        "--run",
        metavar="RUN",
        help="show the stages of this run; with --what-if: predict this run (default: the latest)",
    )
    about.add_argument(
        "--flaky", action="store_true", help="list the stages that failed and passed with the same files"
    )
    about.add_argument(
        "--compare",
        nargs=2,
        metavar=("RUN", "RUN"),
        help="compare two runs, stage by stage; RUN is an id, the beginning of one, `latest`, or `latest~1` for "
        "the one before it",
    )
    _add_output_flag(history)
    actions = history.add_subparsers(
        dest="history_action", prog=f"{PROGRAM} history", metavar="ACTION", title="instead of listing runs"
    )
    help_text = "join the histories and JUnit reports of shards, so that the next split knows all durations"
    merge = actions.add_parser(
        "merge",
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}. Without files, the measurements of the shards that ran "
        "here count from now on. Exit code 1: the files are not all shards of one split; 3: a file can't be used.",
        parents=[_build_global_flags()],
        allow_abbrev=False,
        run_flags=history.run_flags,
    )
    merge.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="a shard's .paropt/history.db, or its JUnit report (--report junit=FILE)",
    )
    merge.usage = f"{merge.prog}{merge.format_positional()} [flags]"


def _add_log_flags(log: Parser) -> None:
    log.add_argument(
        "which",
        nargs="*",
        metavar="RUN|STAGE[ITEM]",
        help="a run (default: the latest) and one of its stages (default: all), optionally with an item or its number "
        "in brackets",
    )
    log.add_argument("--lane", default=argparse.SUPPRESS, help="print the latest run of this lane")
    log.add_argument("--failed", action="store_true", help="print only attempts that failed")
    log.add_argument("--follow", action="store_true", help="keep printing until the run has ended")


def _add_profile_flags(profile: Parser) -> None:
    profile.add_argument(
        "stage", metavar="STAGE", help="the stage's name; it runs without its needs, and the history is not changed"
    )
    profile.add_argument(
        "--lane",
        default=argparse.SUPPRESS,
        help="the lane to recommend settings for (default: as for a run of the stage)",
    )
    profile.add_argument(
        "--runs",
        type=_parse_count,
        default=3,
        metavar="N",
        help="how often to measure each number of workers with each strategy (default: 3)",
    )
    profile.add_argument(
        "--workers",
        dest="sizes",
        type=_parse_counts,
        default=(),
        metavar="N,N",
        help="the numbers of workers to measure (default: 1, 2, 4 and so on)",
    )
    profile.add_argument(
        "--strategy",
        dest="strategies",
        action="append",
        default=[],
        choices=("thread", "process", "hybrid", "adaptive"),
        help="the strategy to measure; may be repeated (default: the lane's; for a call also thread and process)",
    )
    profile.add_argument(
        "--write", action="store_true", help="set the recommended values in paropt.yml, and keep its comments"
    )
    _add_output_flag(profile)


def _add_sla_flags(sla: Parser) -> None:
    sla.add_argument("--lane", default=argparse.SUPPRESS, help="propose limits only for this lane (default: all)")
    sla.add_argument(
        "--quantile",
        type=_parse_ratio,
        default=0.95,
        metavar="Q",
        help="the quantile of the durations, over 0 and at most 1 (default: 0.95)",
    )
    sla.add_argument(
        "--margin",
        type=_parse_margin,
        default=0.5,
        metavar="M",
        help="how much to add to the quantile, as a ratio of it (default: 0.5, so a limit is 1.5 times the quantile)",
    )
    sla.add_argument(
        "--write", action="store_true", help="set the proposed limits in paropt.yml, and keep its comments"
    )
    _add_output_flag(sla)


def _add_order_flags(order: Parser) -> Parser:
    order.add_argument(
        "pool",
        nargs="?",
        metavar="POOL",
        help="choose the lane that has this pool; the order applies to all of its pools",
    )
    order.add_argument("--lane", default=argparse.SUPPRESS, help="choose the lane, if several run here")
    order.add_argument(
        "--pid",
        type=_parse_count,
        metavar="PID",
        help="choose the exporter by its process id, if several run the same lane here",
    )
    return order


def _add_generate_flags(generate: Parser) -> None:
    generate.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help="alerts (Prometheus rules), fleet (rules for many hosts), dashboards (for Grafana), deploy (Kubernetes "
        "objects), docs (metrics and runbook), schema (of paropt.yml and the host config); with --out and no WHAT, all",
    )
    generate.add_argument(
        "--out",
        metavar="DIR",
        help="the folder to write to (default: the current one)",
    )
    chosen = generate.add_argument_group("parameters of rules and dashboards")
    chosen.add_argument(
        "--selector", metavar="MATCHERS", default="", help="label matchers for each query, such as 'job=\"x\"'"
    )
    chosen.add_argument(
        "--rate-window",
        metavar="DURATION",
        help="the range of rates (default: 5m in rules, Grafana's choice in panels)",
    )
    chosen.add_argument(
        "--datasource-uid", metavar="UID", help="Grafana's data source (default: chosen in Grafana, by a variable)"
    )
    chosen.add_argument(
        "--runbook-url", metavar="URL", help="where you publish docs/runbook.md (default: alerts have no link)"
    )
    chosen.add_argument("--grafana-url", metavar="URL", help="where your Grafana is (default: alerts have no link)")
    chosen.add_argument(
        "--sla-target", metavar="RATIO", help="the target ratio of SLA checks within their limit (default: 0.99)"
    )
    chosen.add_argument(
        "--format",
        metavar="FORMAT",
        help="grafana: plain files; provisioning, configmap or prometheus-operator: files wrapped for these (default: "
        "grafana)",
    )


def _parse_ref(text: str) -> str:
    """Refuse an empty commit, which an unset variable gives: it would mean the main branch."""
    if not text:
        raise argparse.ArgumentTypeError("the commit is empty: correct it, or leave it out")
    return text


def _parse_ratio(text: str) -> float:
    number = _parse_number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number over 0 and at most 1")
    return number


def _parse_margin(text: str) -> float:
    number = _parse_number(text)
    if not 0 <= number <= _MOST_MARGIN:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {_MOST_MARGIN:g}")
    return number


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not (digits := text.lstrip("0")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    if len(digits) > len(str(_MOST)) or int(digits) > _MOST:  # int() rejects 4,300 digits
        raise argparse.ArgumentTypeError(f"{shorten(text, _LONGEST_SHOWN)} is more than {_MOST}")
    return int(digits)


def _parse_counts(text: str) -> tuple[int, ...]:
    counts = sorted({_parse_count(part.strip()) for part in text.split(",")})
    if counts[-1] > MOST_WORKERS:
        raise argparse.ArgumentTypeError(
            f"{counts[-1]} is more than {MOST_WORKERS}, the most workers that a lane may have"
        )
    return tuple(counts)
