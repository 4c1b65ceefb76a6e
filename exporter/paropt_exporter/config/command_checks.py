"""Check what a stage does: exactly one kind of work, lines that can be split, and items where they are used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.faults import Fault, Location
from paropt_exporter.config.placeholders import find_unprotected

ITEM = "{item}"  # one item for each task
ITEMS = "{items}"  # several items for each command
ARGS = "{args}"  # the arguments after -- on the command line
_WORK = ("run", "call", "steps")
_SOURCES = ("list", "glob", "command")
_COMMANDS_ONLY = ("env", "cwd", "shell", "file")
_OPERATORS = frozenset({"|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1"})


def check_work(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of one stage's run, call, steps and items."""
    if not stage:
        return  # no mapping at all: its own check reports it
    yield from _check_kind(place, stage)
    for where, command in _iter_commands(place, stage):
        yield from _check_command(where, command, shell=stage.get("shell") is True)
    yield from _check_items(place, stage)
    yield from _check_arguments(place, stage)


def _check_kind(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    kinds = [key for key in _WORK if key in stage]
    if not kinds:
        yield Fault(location=place, message="no work: it needs one of run, call and steps")
    for extra in kinds[1:]:
        message = f"only one of run, call and steps; {kinds[0]!r} is there already"
        yield Fault(location=(*place, extra), message=message, on_key=True)
    for key in _COMMANDS_ONLY if "call" in stage else ():
        if key in stage:
            yield Fault(location=(*place, key), message=f"{key!r} is for commands: a call has none", on_key=True)


def _iter_commands(place: Location, stage: dict[str, object]) -> Iterator[tuple[Location, object]]:
    if "run" in stage:
        yield (*place, "run"), stage["run"]
    for index, step in enumerate(raw_yaml.as_list(stage.get("steps"))):
        yield (*place, "steps", index), step


def _check_command(place: Location, command: object, *, shell: bool) -> Iterator[Fault]:
    if isinstance(command, list):
        if shell:
            yield Fault(location=place, message="shell: true needs a line, found a list of words: write one string")
        elif not command:
            yield Fault(location=place, message="the command is empty")
        elif command[0] == "":
            yield Fault(location=(*place, 0), message="the command's first word is empty")
    elif isinstance(command, str) and command.strip() and not shell:
        yield from _check_line(place, command)
    elif isinstance(command, str) and shell and (found := find_unprotected(command)) is not None:
        item, around = found
        each = "each argument" if item == ARGS else "each item"
        message = f"{item} stands in {around}: {each} is quoted already, and in them its name could be run as code"
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
        message = f"{operators[0]!r} means something to a shell only: add `shell: true`, or use `steps`"
        yield Fault(location=place, message=message)


def _check_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    if "items" in stage:
        items = stage["items"]
        if not isinstance(items, dict):
            return
        kinds = [key for key in _SOURCES if key in items]
        if len(kinds) != 1:
            found = "none" if not kinds else " and ".join(kinds)
            yield Fault(location=(*place, "items"), message=f"exactly one of list, glob and command; found {found}")
        yield from _check_command((*place, "items", "command"), items.get("command"), shell=False)
        yield from _check_batched_items(place, stage)
        return
    for where, command in _iter_commands(place, stage):
        for wanted in (ITEM, ITEMS):
            if any(wanted in word for word in _split_words(command)):
                yield Fault(location=where, message=f"{wanted} stands here, but the stage has no items: add `items`")


def _check_batched_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield where `{items}` can't become arguments of their own, or stands beside `{item}`."""
    commands = [(where, _split_words(command)) for where, command in _iter_commands(place, stage)]
    if not any(ITEMS in word for _, words in commands for word in words):
        return
    for where, words in commands:
        if any(ITEM in word for word in words):
            message = "{item} and {items} in one stage: a task is for one item, or for several"
            yield Fault(location=where, message=message)
        if stage.get("shell") is True:
            continue
        if words and ITEMS in words[0]:
            yield Fault(location=where, message="{items} stands in the program's place: name a program before it")
        elif any(ITEMS in word and word != ITEMS for word in words):
            message = "{items} becomes several words, so it has to stand alone: put blanks around it"
            yield Fault(location=where, message=message)


def _check_arguments(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield where `{args}` can't become arguments of their own."""
    if stage.get("shell") is True:
        return
    for where, command in _iter_commands(place, stage):
        words = _split_words(command)
        if words and ARGS in words[0]:
            yield Fault(location=where, message="{args} stands in the program's place: name a program before it")
        elif any(ARGS in word and word != ARGS for word in words):
            message = "{args} becomes several words, so it has to stand alone: put blanks around it"
            yield Fault(location=where, message=message)


def _split_words(command: object) -> list[str]:
    """Return a command's words; a line that can't be split is one, and its own check reports it."""
    if isinstance(command, str):
        try:
            return shlex.split(command)
        except ValueError:
            return [command]
    return raw_yaml.list_words(command)
