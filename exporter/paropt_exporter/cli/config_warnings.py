"""The warnings of `check`: settings that are allowed but rarely intended."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, QUOTED, drop_quoted
from paropt_exporter.globs import GlobSearch
from paropt_exporter.plan import is_cached

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Lane, Stage

# {name}, tox's {posargs:tests}, hatch's {args:tests}, just's {{ name }} and go-task's {{.NAME}}. A name in lower case
# after the point is a field in a Go template of docker or kubectl.
_BRACED = re.compile(
    r"(?<![${])\{(?P<name>\w+)\}(?!\})|\{(?P<default>posargs|args):[\w/{-][^{}]*\}"
    r"|(?<!\$)\{\{ +(?P<just>\w+) +\}\}|\{\{ *\.(?P<task>[A-Z_]+) *\}\}"
)
_ARGUMENTS_OF_OTHERS = frozenset({"arg", "arguments", "cli_args", "posargs"})
_JOBS_FLAG = re.compile(r"-j\d*|--jobs(=\d*)?")
_SUBSTITUTED = re.compile(r"\$[\w({]|`|^~(/|$)")  # variables, commands and the home folder
_COMMENT = re.compile(r"(?:^|\s)#.*")
# A command that reads the exit code of the one before it; `exit $?` ends the script as well.
_READS_STATUS = re.compile(
    r"(?P<name>\w+)=\$\?|(?:(?:if|elif|while)\s+)?(?:!\s+)?(?:\[\[?|test)\s+\$\?.*|case\s+\$\?\s+in\b"
)
_HANDLES_FAILURES = re.compile(r"\bset\s+(?:[-+]\w+\s+)*\+(?:\w*e|o\s+errexit)|\btrap\b")
# The command after one of these is reached: `pytest || { code=$?; …; }` on several lines.
_REACHED = re.compile(r"\|\||&&|(?:[{(]|\b(?:then|else|do))$")
# Programs that pass their input on, and whose exit code then replaces that of the command before the pipe.
_PASS_INPUT_ON = frozenset({"tee", "ts", "cat", "tail", "less"})
_RARELY_FAIL = frozenset({"echo", "printf", "cat", "ls", "git", "find", "date", "env"})
_PIPELINE_END = re.compile(r";|&&|\|\|")
_COUNTS_FAILURES_IN_PIPES = re.compile(r"\bpipefail\b|PIPESTATUS|\$\(|`|<<|\$\?")
_MOST_COMPARED = 100_000  # pairs of stages, which takes half a second
_COUNTING_CLIENTS = ("make", "gmake", "ninja")  # with -j they ignore the jobserver


def iter_warnings(config: Config, lanes: Mapping[str, Lane], stages: list[Stage]) -> Iterator[str]:
    """Yield the warnings about these lanes and stages."""
    yield from _warn_unstoppable_calls(lanes, stages)
    yield from _warn_wide_stages(lanes, stages)
    yield from _warn_repeated_starts(stages)
    yield from _warn_unused_items(stages)
    yield from _warn_unknown_placeholders(stages)
    yield from _warn_repeated_items(stages)
    yield from _warn_shared_options(config, stages)
    yield from _warn_shared_outputs(config, stages)
    yield from _warn_unexpanded_words(config, stages)
    yield from _warn_ignored_failures(stages)
    yield from _warn_unknown_syntax(stages)
    yield from _warn_unmatched_inputs(config, stages)
    yield from _warn_missing_needs(config, lanes, stages)
    yield from _warn_items_written_meanwhile(config, stages)
    yield from _warn_ended_quarantines(stages)
    yield from _warn_missed_reads(config, stages)
    yield from _warn_seen_history(config)
    if config.feedback.jobserver:
        yield from _warn_own_jobs(stages)


def _warn_ended_quarantines(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each quarantine whose last day is over."""
    from paropt_exporter.plan.quarantine import find_today, is_over

    today = find_today()
    for stage in stages:
        for each in stage.quarantine:
            if is_over(each, today):
                yield (
                    f"{stage.name}: the quarantine of {each.item} ended on {each.until}, so its failures count again: "
                    f"remove it, or ask {each.owner}"
                )


def _warn_unstoppable_calls(lanes: Mapping[str, Lane], stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each call with a limit that can't stop it, since it runs in a thread."""
    from paropt_exporter.events import Strategy

    for stage in stages:
        threaded = [
            name for name, lane in lanes.items() if lane.strategy is not Strategy.PROCESS and lane.includes(stage)
        ]
        if stage.call is None or not threaded:
            continue
        critical = [name for name in threaded if (limit := lanes[name].get_limit(stage)) and limit.critical]
        if stage.timeout is not None:
            yield _format_unstoppable(stage.name, "at its timeout", threaded)
        elif critical:
            yield _format_unstoppable(stage.name, "at its critical SLA", critical)


def _warn_wide_stages(lanes: Mapping[str, Lane], stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that needs more slots than a lane has workers. A lane of one worker runs any."""
    from paropt_exporter import host
    from paropt_exporter.config.defaults import resolve_workers

    cores = host.count_cpu_workers()
    most = {name: resolve_workers(lane.workers, lane.strategy, cores)[1] for name, lane in lanes.items()}
    for stage in stages:
        narrow = [name for name, lane in lanes.items() if 1 < most[name] < stage.slots and lane.includes(stage)]
        if narrow:
            listed = ", ".join(f"{name} ({most[name]} workers)" for name in narrow)
            yield f"stage {stage.name!r} needs {stage.slots} slots, and fails in lane {listed}: raise workers there"


def _warn_repeated_starts(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that starts a program for each item, though it accepts several files."""
    from paropt_exporter.plan import start_up

    for stage in stages:
        words = (stage.run.split() if isinstance(stage.run, str) else stage.run) or ()
        program = start_up.find_program_of_item(words, "{item}")
        if stage.items is not None and program is not None:
            yield (
                f"stage {stage.name!r} starts {program} for each item: with {{items}} it takes several, and starts "
                "once for each core"
            )


def _warn_unused_items(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that runs the same commands for each of its items."""
    for stage in stages:
        words = [word for each in stage.commands for word in ([each] if isinstance(each, str) else each)]
        if stage.items is None or not words or any(name in word for name in (ITEM, ITEMS) for word in words):
            continue
        if not any(likely != ARGS for _, likely in _iter_unknown_placeholders(stage)):
            yield f"stage {stage.name!r} runs the same for each item: put {{item}} or {{items}} into its command"


def _warn_unknown_placeholders(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each placeholder of another tool, and each misspelled one: commands get it as written."""
    for stage in stages:
        for written, likely in _iter_unknown_placeholders(stage):
            yield f"stage {stage.name!r}: {written} is passed as written: did you mean {likely}?"


def _iter_unknown_placeholders(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield each such placeholder with the one of ours that is probably meant."""
    for command in stage.commands:
        for found in _BRACED.finditer(_drop_programs(command)):
            likely = _find_likely_placeholder(found[0], str(found[found.lastgroup or 0]).lower())
            if likely is not None:
                yield found[0], likely


def _drop_programs(command: str | tuple[str, ...]) -> str:
    """Return a command without its quoted words with spaces: programs of Python, awk or jq have braces of their own."""
    if not isinstance(command, str):
        return " ".join(word for word in command if not any(map(str.isspace, word)))
    line, _, _ = command.partition("<<")  # here-documents, too
    return QUOTED.sub(lambda quoted: "_" if any(map(str.isspace, quoted[0])) else quoted[0], line)


def _find_likely_placeholder(written: str, name: str) -> str | None:
    if written in (ITEM, ITEMS, ARGS):
        return None
    if name in _ARGUMENTS_OF_OTHERS:
        return ARGS
    import difflib

    near = difflib.get_close_matches(f"{{{name}}}", (ITEM, ITEMS, ARGS), n=1, cutoff=0.85)
    return near[0] if near else None


def _warn_repeated_items(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that lists an item twice: reports and --failed know items by name."""
    for stage in stages:
        if stage.items is None or not stage.items.list:
            continue
        listed = stage.items.list
        repeated = next((item for item, count in Counter(listed).items() if count > 1), None)
        if repeated is not None:
            yield f"stage {stage.name!r}: items: {repeated!r} is listed twice, so it runs twice under one name"


def _warn_shared_options(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each option by which the pytests of a stage with items would disturb each other."""
    from paropt_exporter.plan.pytest_support import find_shared_options

    faults = {
        "--cov": "write their own coverage to the same file: add --no-cov to the command, or run all items with one",
        "--basetemp": "empty the folder of --basetemp when they start: leave it out of pytest's options",
    }
    for stage in stages:
        folders = dict.fromkeys((config.get_folder(stage), config.root))
        for command in stage.commands if stage.items is not None else ():
            line = command if isinstance(command, str) else " ".join(command)
            if ITEM in line or ITEMS in line:
                for option in find_shared_options(line, folders, stage.env):
                    yield f"stage {stage.name!r}: several pytests run at once, and all {faults[option]}"


def _warn_shared_outputs(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that is not cached because its items share outputs, or other stages write them."""
    from paropt_exporter.plan.shared_outputs import map_shared_outputs

    by_others = map_shared_outputs(config.stages)
    for stage in stages:
        if is_cached(stage) and stage.name in by_others:
            why = f"another stage may write {by_others[stage.name]}, too, so it is not cached"
            yield f"stage {stage.name!r}: outputs: {why}"
        shared = [pattern for pattern in stage.outputs if ITEM not in pattern and not pattern.startswith("!")]
        if stage.items is not None and shared and is_cached(stage):
            yield f"stage {stage.name!r}: outputs: its tasks share {shared[0]}, so none is cached: put {ITEM} into it"
        elif is_cached(stage) and (why := _describe_shared_by_items(config, stage)):
            yield f"stage {stage.name!r}: outputs: {why}, so it is not cached: give each its own, such as {ITEM}/**"


def _describe_shared_by_items(config: Config, stage: Stage) -> str:
    """Return two items that may write the same file. If items are changed files, unchanged ones count as well."""
    if stage.items is None or not stage.outputs or stage.items.command is not None:
        return ""  # an items command is not run
    from paropt_exporter.config.values import Items
    from paropt_exporter.plan.item_outputs import describe_shared_outputs
    from paropt_exporter.plan.items import ItemsError, find_items

    items = stage.items if stage.items.changed is None else Items(glob=stage.items.changed)
    folder = config.get_folder(stage)
    with suppress(ItemsError):  # reported as a fault
        return describe_shared_outputs(stage.outputs, find_items(items, cwd=folder, env={}))
    return ""


def _warn_unexpanded_words(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage with a glob, or a variable reference in `env`, that no shell expands."""
    search = GlobSearch()
    for stage in stages:
        folder = config.get_folder(stage)
        commands = () if stage.shell else stage.commands
        lines = [drop_quoted(command) for command in commands if isinstance(command, str)]
        found = [word for line in lines for word in line.split() if _is_glob_with_files(word, folder, search)]
        if found:
            remedy = "add `shell: true`, or quote it if you mean it literally"
            yield f"stage {stage.name!r}: no shell replaces {found[0]}: {remedy}"
        for name, value in stage.env.items():
            if _SUBSTITUTED.search(value):
                remedy = _suggest_variable(stage, name, value)
                yield f"stage {stage.name!r}: env.{name}: its value is used as written, without a shell: {remedy}"


def _suggest_variable(stage: Stage, name: str, value: str) -> str:
    """Return how a variable gets the value that its author means."""
    if value not in (f"${name}", f"${{{name}}}"):
        return "set it in the command"
    if is_cached(stage):
        return f"write `pass_env: [{name}]` instead"
    return "leave it out, since the stage has the exporter's variables"


def _is_glob_with_files(word: str, folder: Path, search: GlobSearch) -> bool:
    return any(mark in word for mark in "*?") and next(search.iter_matches(folder, word), None) is not None


def _warn_ignored_failures(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each script that hides a failure in a pipe, or reads `$?` where a failure has ended it."""
    for stage in stages:
        for script in stage.commands if stage.shell else ():
            if not isinstance(script, str):
                continue
            bare = drop_quoted(script.replace('"$?"', "$?")).replace("\\\n", " ")
            lines = [_COMMENT.sub("", line) for line in bare.splitlines()]
            if (last := _find_pipe(lines)) is not None:
                remedy = "leave it out (`file` keeps the output), or let bash run it with `set -o pipefail`"
                yield f"stage {stage.name!r}: a failure before `| {last}` has no effect: {remedy}"
                break
            if (status := _find_status(lines)) is not None:
                what = f"a failure ends the script before `{status[0]}`"
                yield f"stage {stage.name!r}: {what}: write `|| {status['name'] or 'code'}=$?` after the command"
                break


def _find_status(lines: list[str]) -> re.Match[str] | None:
    """Find a command that reads the exit code of the one before it, and that a failure never reaches."""
    if any(map(_HANDLES_FAILURES.search, lines)):
        return None
    commands = [each for line in lines for part in line.split(";") if (each := part.strip())]
    for before, command in pairwise(commands):
        if (found := _READS_STATUS.match(command)) is not None and not _REACHED.search(before):
            return found
    return None


def _find_pipe(lines: list[str]) -> str | None:
    """Return the program to which a command writes through a pipe that hides its failure, or None."""
    if any(map(_COUNTS_FAILURES_IN_PIPES.search, lines)):
        return None
    for pipeline in (each for line in lines for each in _PIPELINE_END.split(line)):
        first, *others = ((part.lstrip("& ").split() or [""])[0] for part in pipeline.split("|"))
        if others and others[-1] in _PASS_INPUT_ON and first not in _RARELY_FAIL:
            return others[-1]
    return None


def _warn_unknown_syntax(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each script that /bin/sh would refuse or understand in another way than its author."""
    from paropt_exporter.config.placeholders import SHELL
    from paropt_exporter.config.shell_syntax import find_unknown_syntax

    for stage in stages:
        for script in stage.commands if stage.shell else ():
            if isinstance(script, str) and (found := find_unknown_syntax(script)) is not None:
                syntax, remedy = found
                yield f"stage {stage.name!r}: {SHELL[0]} does not know `{syntax}` on this machine: {remedy}"
                break


def _warn_own_jobs(stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each command with -j, which ignores the jobserver."""
    for stage in stages:
        for command in stage.commands:
            words = command.split() if isinstance(command, str) else command
            clients = [word for word in words if Path(word).name in _COUNTING_CLIENTS]
            if clients and any(_JOBS_FLAG.fullmatch(word) for word in words):
                yield (
                    f"stage {stage.name!r}: {Path(clients[0]).name} with -j takes no part in the jobserver: "
                    "leave -j out, and it runs as many jobs as there is room for"
                )


def _warn_unmatched_inputs(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each pattern of inputs that matches no file: a misspelled one would hide changes.

    Patterns of files that another stage writes are left out.
    """
    from paropt_exporter.input_files import ITEM, InputPatterns, join_pattern
    from paropt_exporter.plan.shared_outputs import OutputIndex
    from paropt_exporter.plan.stage_patterns import list_output_patterns

    written: OutputIndex | None = None
    for stage in stages:
        patterns = [pattern for pattern in stage.declared_inputs or () if ITEM not in pattern]
        folder = config.get_folder(stage)
        try:
            missing = InputPatterns(patterns).list_missing_paths(os.fspath(folder))
        except OSError as error:
            yield f"stage {stage.name!r}: inputs: {error.filename} can't be read: {error.strerror}"
            continue
        if missing and written is None:
            written = OutputIndex({each.name: list_output_patterns(each) for each in config.stages})
        where = f" in {stage.cwd}" if stage.cwd else ""
        for pattern in missing:
            if written is None or not written.may_write(join_pattern(stage.cwd or ".", pattern), reader=stage.name):
                what = f"nothing matches {pattern}{where}: correct it, unless the file comes later"
                yield f"stage {stage.name!r}: inputs: {what}"


def _warn_missing_needs(config: Config, lanes: Mapping[str, Lane], stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage that reads the outputs of another one of its lane, if neither needs the other.

    As in `map_shared_outputs`, an output is compared as text.
    """
    writers = [stage for stage in stages if stage.outputs]
    if not writers:
        return
    from paropt_exporter.config.needs import find_reachable
    from paropt_exporter.input_files import InputPatterns
    from paropt_exporter.plan.shared_outputs import OutputIndex
    from paropt_exporter.plan.stage_graph import map_dependents
    from paropt_exporter.plan.stage_patterns import list_input_patterns, list_output_patterns

    index = OutputIndex({stage.name: list_output_patterns(stage) for stage in writers})
    by_name = {stage.name: stage for stage in writers}
    needs = {stage.name: stage.needs for stage in config.stages}
    users = map_dependents(needs)
    compared = 0
    for stage in stages:
        patterns = list_input_patterns(stage) if stage.declared_inputs else ()
        reads = InputPatterns(patterns)
        known, is_ordered = {stage.name, *stage.needs}, False
        near = (output for each in patterns if not each.startswith("!") for output in index.iter_below(each))
        for other, output in near:
            compared += 1
            if other not in known and not is_ordered:
                known |= find_reachable([stage.name], lambda name: needs.get(name, ()))
                known |= find_reachable([stage.name], lambda name: users.get(name, ()))
                compared, is_ordered = compared + len(known), True
            if compared > _MOST_COMPARED:
                return
            if other not in known and reads.matches(output):
                known.add(other)
                if not any(lane.includes(stage) and lane.includes(by_name[other]) for lane in lanes.values()):
                    continue
                what = f"stage {other!r} may write {output} meanwhile: add `needs: [{other}]`"
                yield f"stage {stage.name!r}: inputs: {what}"


def _warn_items_written_meanwhile(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage whose items are found before another stage writes them."""
    globs = [(stage, stage.items.glob) for stage in stages if stage.items is not None and stage.items.glob is not None]
    if not globs or not any(stage.outputs for stage in config.stages):
        return
    from paropt_exporter.input_files import join_pattern
    from paropt_exporter.plan.shared_outputs import OutputIndex
    from paropt_exporter.plan.stage_patterns import list_output_patterns

    written = OutputIndex({stage.name: list_output_patterns(stage) for stage in config.stages if stage.outputs})
    for stage, glob in globs:
        if written.may_write(join_pattern(stage.cwd or ".", glob), reader=stage.name):
            what = f"another stage may write {glob}, but items are found before the run: list them by name"
            yield f"stage {stage.name!r}: items: {what}, or run one command for all"


def _warn_seen_history(config: Config) -> Iterator[str]:
    """Yield a warning if git sees the history, which each run changes. `.paropt` is ignored."""
    import subprocess

    from paropt_exporter.config.values import History
    from paropt_exporter.git import ignores

    path = os.path.relpath(config.history_path, config.root)
    if path == History().path or path.startswith("../"):
        return
    with suppress(OSError, subprocess.SubprocessError):  # there is no git, or no repository
        if not ignores(config.root, path):
            what = f"git does not ignore {path}, which each run changes: add {path}* to .gitignore"
            yield f"history.path: {what}"


def _warn_missed_reads(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a warning for each stage whose last traced run read files that its declared inputs leave out."""
    declared = [stage for stage in stages if stage.declared_inputs is not None]
    if not declared:
        return
    from paropt_exporter.cache.result_store import open_store
    from paropt_exporter.cache.traced_results import find_missed_reads

    store = open_store(os.environ)
    for stage in declared:
        missed = find_missed_reads(config, stage, store)
        if missed:
            more = f" (+{len(missed) - 1})" if len(missed) > 1 else ""
            yield (
                f"stage {stage.name!r}: inputs: its last traced run read {missed[0]}{more}, which no pattern matches: "
                "add it, or let `auto` find it"
            )


def _format_unstoppable(stage: str, when: str, lanes: list[str]) -> str:
    return (
        f"stage {stage!r} in lane {', '.join(lanes)}: a Python function in a thread can't be stopped {when}: it is "
        "abandoned and keeps running. Use strategy process, or run it as a command"
    )
