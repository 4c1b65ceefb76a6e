"""Check a stage's work: exactly one of run, call and steps, lines that split into words, and items where used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.faults import Fault, Location
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, find_unprotected
from paropt_exporter.config.values import AUTO_INPUTS

_WORK = ("run", "call", "steps")
_SOURCES = ("list", "glob", "command", "changed")
_COMMANDS_ONLY = ("env", "cwd", "shell", "file")
_OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1"})


def check_work(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of one stage's run, call, steps and items."""
    if not stage:
        return  # not a mapping: the model reports it
    yield from _check_kind(place, stage)
    for where, command in _iter_commands(place, stage):
        yield from _check_command(where, command, shell=stage.get("shell") is True)
    yield from _check_items(place, stage)
    yield from _check_arguments(place, stage)
    yield from _check_cache(place, stage)
    yield from _check_quarantine(place, stage)


def _check_kind(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    kinds = [key for key in _WORK if key in stage]
    if not kinds:
        yield Fault(location=place, message="the stage does nothing: it needs one of run, call and steps")
    for extra in kinds[1:]:
        message = f"only one of run, call and steps: the stage already has {kinds[0]!r}"
        yield Fault(location=(*place, extra), message=message, on_key=True)
    for key in _COMMANDS_ONLY if "call" in stage else ():
        if key in stage:
            yield Fault(location=(*place, key), message=f"{key!r} works for commands only, not for a call", on_key=True)


def _iter_commands(place: Location, stage: dict[str, object]) -> Iterator[tuple[Location, object]]:
    if "run" in stage:
        yield (*place, "run"), stage["run"]
    for index, step in enumerate(raw_yaml.as_list(stage.get("steps"))):
        yield (*place, "steps", index), step


def _check_command(place: Location, command: object, *, shell: bool) -> Iterator[Fault]:
    if isinstance(command, list):
        if shell:
            yield Fault(location=place, message="shell: true needs a string, found a list of words")
        elif not command:
            yield Fault(location=place, message="the command is empty")
        elif command[0] == "":
            yield Fault(location=(*place, 0), message="the command's first word is empty")
    elif isinstance(command, str) and command.strip() and not shell:
        yield from _check_line(place, command)
    elif isinstance(command, str) and shell and (found := find_unprotected(command)) is not None:
        item, around = found
        each = "each argument" if item == ARGS else "each item"
        message = f"{item} is in {around}: {each} is quoted already, and in them its name could be run as code"
        yield Fault(location=place, message=f"{message}; take {item} out of them")


def _check_line(place: Location, line: str) -> Iterator[Fault]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        yield Fault(
            location=place, message=f"the line can't be split into words ({str(error).lower()}): close the quote"
        )
        return
    if not words or not words[0]:
        yield Fault(location=place, message="the command is empty")
    operators = [word for word in words if word in _OPERATORS]
    if operators:
        message = f"only a shell understands {operators[0]!r}: add `shell: true`, or use `steps`"
        yield Fault(location=place, message=message)


def _check_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    if "items" in stage:
        items = stage["items"]
        if not isinstance(items, dict):
            return
        kinds = [key for key in _SOURCES if key in items]
        if len(kinds) != 1:
            found = "none" if not kinds else " and ".join(kinds)
            yield Fault(
                location=(*place, "items"), message=f"exactly one of list, glob, command and changed; found {found}"
            )
        yield from _check_command((*place, "items", "command"), items.get("command"), shell=False)
        yield from _check_batched_items(place, stage)
        return
    for where, command in _iter_commands(place, stage):
        for wanted in (ITEM, ITEMS):
            if any(wanted in word for word in _split_words(command)):
                yield Fault(location=where, message=f"the stage has no items for {wanted}: add `items`")


def _check_batched_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield a fault where `{items}` is not a word of its own, or is used together with `{item}`."""
    commands = [(where, _split_words(command)) for where, command in _iter_commands(place, stage)]
    if not any(ITEMS in word for _, words in commands for word in words):
        return
    for where, words in commands:
        if any(ITEM in word for word in words):
            message = "a stage can't use both {item} and {items}: a task has either one item or several"
            yield Fault(location=where, message=message)
        if stage.get("shell") is True:
            continue
        if words and ITEMS in words[0]:
            yield Fault(location=where, message="{items} is in the program's place: put a program before it")
        elif any(ITEMS in word and word != ITEMS for word in words):
            message = "{items} becomes several words, so it must be a word of its own: put spaces around it"
            yield Fault(location=where, message=message)


def _check_arguments(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield a fault where `{args}` is not a word of its own."""
    if stage.get("shell") is True:
        return
    for where, command in _iter_commands(place, stage):
        words = _split_words(command)
        if words and ARGS in words[0]:
            yield Fault(location=where, message="{args} is in the program's place: put a program before it")
        elif any(ARGS in word and word != ARGS for word in words):
            message = "{args} becomes several words, so it must be a word of its own: put spaces around it"
            yield Fault(location=where, message=message)


def _check_quarantine(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults between a stage's items and those that it names as flaky."""
    entries = raw_yaml.as_list(stage.get("quarantine"))
    if entries and "items" not in stage:
        message = "the stage has no items to put in quarantine: add `items`"
        yield Fault(location=(*place, "quarantine"), message=message, on_key=True)
        return
    listed = raw_yaml.as_list(raw_yaml.as_mapping(stage.get("items")).get("list"))
    named: set[object] = set()
    for index, entry in enumerate(entries):
        item = raw_yaml.as_mapping(entry).get("item")
        if not isinstance(item, str):
            continue
        where = (*place, "quarantine", index, "item")
        if item in named:
            yield Fault(location=where, message=f"{item!r} is in quarantine already")
        elif listed and item not in map(str, listed):
            yield Fault(location=where, message=f"{item!r} is none of the stage's items")
        named.add(item)


def _check_cache(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults between a stage's inputs, outputs, cache and work."""
    cache = stage.get("cache")
    if "call" in stage and cache is True:
        message = "a call can't be cached: it sees the state of this process; use `run: python -c ...` for a cached one"
        yield Fault(location=(*place, "cache"), message=message)
    if stage.get("outputs") and cache != "never" and cache is not True and not stage.get("inputs"):
        message = "outputs are kept only for a cached stage: add `inputs`, or `cache: true`"
        yield Fault(location=(*place, "outputs"), message=message, on_key=True)
    for key in ("inputs", "outputs"):
        patterns = raw_yaml.list_words(stage.get(key))
        if key == "inputs" and (AUTO_INPUTS in patterns or stage.get(key) == AUTO_INPUTS):
            if any(pattern.startswith("!") for pattern in patterns) and not _has_own_pattern(patterns):
                what = "a pattern without '!' is missing: it counts where commands can't be traced"
                yield Fault(location=(*place, key), message=what)
        elif stage.get(key) is not None and not any(not pattern.startswith("!") for pattern in patterns):
            what = "the list is empty" if not patterns else "each pattern leaves files out: add one without '!'"
            if key == "inputs" or patterns:
                yield Fault(location=(*place, key), message=what)
        for index, pattern in enumerate(patterns):
            if ITEM in pattern and "items" not in stage:
                message = f"the stage has no items for {ITEM}: add `items`"
                yield Fault(location=(*place, key, index), message=message)


def _has_own_pattern(patterns: list[str]) -> bool:
    return any(pattern != AUTO_INPUTS and not pattern.startswith("!") for pattern in patterns)


def _split_words(command: object) -> list[str]:
    """Return a command's words. A line that can't be split counts as one word here; `_check_line` reports it."""
    if isinstance(command, str):
        try:
            return shlex.split(command)
        except ValueError:
            return [command]
    return raw_yaml.list_words(command)
