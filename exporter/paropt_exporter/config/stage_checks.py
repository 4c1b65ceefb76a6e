"""Check the keys of one stage against each other: run, call, steps, items, placeholders, cache and quarantine.

As in `checks`, these read plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from paropt_exporter.config import messages, raw_yaml
from paropt_exporter.config.faults import Fault, Location
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, QUOTED, drop_quoted, find_unprotected, split_line
from paropt_exporter.config.values import AUTO_INPUTS

_WORK = ("run", "call", "steps")
_SOURCES = ("list", "glob", "command", "changed")
_COMMANDS_ONLY = ("env", "cwd", "shell", "file")
# Outside of quotes; `foo>=1.0`, `?a=1&b=2` and `a|b` may be meant as they are. An indented line continues the one
# before: YAML's folded style leaves such lines apart.
_OPERATOR = re.compile(r"&&|\|\||[;&](?!\S)|(?<!\S)(?:\|(?!\S)|(?:\d+|&)?[<>]+)|\\\n|\n(?![ \t])")
# Variables, arguments, commands and the home folder, outside of quotes.
_SUBSTITUTION = re.compile(r"\$(?:\w+|[@*]|\{[^}\s]*\}?|\([^)]*\)?)|`[^`]*`?|(?<!\S)~(?:/\S*)?(?!\S)")
_SCRIPT_ARGUMENTS = ("$@", "$*", "$1")
_QUOTED_ARGUMENTS = tuple(f'"{each}"' for each in _SCRIPT_ARGUMENTS)  # as scripts have them

# The programs that take a script as an argument, the option before it, and options with a value of their own.
_SHELL = re.compile(r"(?:ba|da|a|z|[mp]?k|fi|t?c)?sh")
_NO_OPTION = re.compile("(?!)")
_INTERPRETERS = (
    (_SHELL, re.compile(r"-[A-Za-z]*c[A-Za-z]*"), re.compile(r"[-+][A-Za-z]*[oO]")),
    (re.compile(r"(?:python|pypy)[\d.]*"), re.compile(r"-[A-Za-z]*c"), re.compile(r"-[A-Za-z]*[WX]")),
    (re.compile(r"perl[\d.]*"), re.compile(r"-[A-Za-z]*[eE]"), _NO_OPTION),
    (re.compile(r"(?:ruby|lua)[\d.]*"), re.compile(r"-[A-Za-z]*e"), _NO_OPTION),
    (re.compile(r"node(?:js)?[\d.]*"), re.compile(r"-[A-Za-z]*[ep]|--eval|--print"), _NO_OPTION),
    (re.compile(r"php[\d.]*"), re.compile(r"-r"), _NO_OPTION),
)
_MOST_OPTIONS = 20  # of such a program


def check_stage(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield the faults of one stage's run, call, steps and items."""
    if not stage or messages.is_named_by_key(stage):
        return  # not a mapping, or one without a key of a stage: the model reports it
    yield from _check_kind(place, stage)
    for where, command in _iter_commands(place, stage):
        yield from _check_command(where, command, shell=stage.get("shell") is True)
        if raw_yaml.as_mapping(stage.get("items")).get("list") is None:  # whose items the config's author knows
            yield from _check_script(where, command)
    yield from _check_items(place, stage)
    yield from _check_arguments(place, stage)
    yield from _check_cache(place, stage)
    yield from _check_quarantine(place, stage)


def _check_kind(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    kinds = [key for key in _WORK if stage.get(key) is not None]
    if not kinds and not any(map(messages.is_work_of_others, stage)):  # whose fault names the right key
        empty = [key for key in _WORK if key in stage][:1]
        message = f"{empty[0]} is empty" if empty else "it needs one of run, call and steps"
        yield Fault(location=(*place, *empty), message=f"the stage does nothing: {message}")
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
        message = f"{item} is in {around}: {each} is quoted already, and there its name could be run as code"
        yield Fault(location=place, message=f"{message}; take {item} out")


def _check_script(place: Location, command: object) -> Iterator[Fault]:
    """Yield a fault if an item is a part of a script. One that is the whole script is meant to be run."""
    words = _split_words(command)
    program, script = _find_script(words) if any(ITEM in word for word in words) else ("", "")
    if ITEM not in script or script == ITEM:
        return
    if _SHELL.fullmatch(program):
        argument = f"{program} -c '... \"$1\"' {program} {ITEM}"
        remedy = f"write the script itself and add `shell: true`, or pass the item as an argument: {argument}"
    else:
        remedy = f"pass the item as an argument, behind the script: {program} ... {ITEM}"
    yield Fault(location=place, message=f"{ITEM} is in a script of {program}: its name could be run as code; {remedy}")


def _find_script(words: Sequence[str]) -> tuple[str, str]:
    """Return the first interpreter of a command that gets a script as an argument, and the script; otherwise two ""."""
    for index, word in enumerate(words):
        program, has_script = word.rpartition("/")[2], False
        for names, option, option_with_value in _INTERPRETERS:
            if not names.fullmatch(program):
                continue
            for before, each in pairwise(words[index : index + _MOST_OPTIONS]):
                if each.startswith(("-", "+")):
                    has_script = has_script or option.fullmatch(each) is not None
                elif not option_with_value.fullmatch(before):
                    if has_script:
                        return program, each
                    break
    return "", ""


def _check_line(place: Location, line: str) -> Iterator[Fault]:
    try:
        words = [*split_line(line)]
    except ValueError as error:
        yield Fault(
            location=place, message=f"the line can't be split into words ({str(error).lower()}): close the quote"
        )
        return
    if not words or not words[0]:
        yield Fault(location=place, message="the command is empty")
    if (message := _describe_shell_syntax(line, words, lists_items="items" in place)) is not None:
        yield Fault(location=place, message=message)


def _describe_shell_syntax(line: str, words: Sequence[str], *, lists_items: bool) -> str | None:
    """Return what only a shell would understand in a line, and the remedy. `lists_items`: it is a command of items."""
    shell = "write `[sh, -c, ...]`" if lists_items else "add `shell: true`"
    operator = _OPERATOR.search(drop_quoted(line.strip()))
    if operator is not None and operator[0].endswith("\n"):
        steps = "" if lists_items else "use `steps`, "
        return f"only a shell understands a line break: {steps}fold the lines with `>-`, or {shell}"
    if operator is not None:
        remedy = shell
        if words[:1] == ["cd"] and not lists_items:
            remedy += ", or put the folder into `cwd`"
        elif operator[0] in ("&&", ";") and not lists_items:
            remedy += ", or use `steps`"
        return f"only a shell understands {operator[0]!r}: {remedy}"
    unquoted = QUOTED.sub(lambda quoted: quoted[0] if quoted[0] in _QUOTED_ARGUMENTS else "_", line)
    if (found := _SUBSTITUTION.search(unquoted)) is not None:
        if found[0] in _SCRIPT_ARGUMENTS:
            return f"a command has no {found[0]}: write {ARGS} for the arguments after --"
        return f"only a shell replaces {found[0]}: {shell}, or put it in single quotes if you mean it literally"
    return None


def _check_items(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    if "items" in stage:
        items = stage["items"]
        if not isinstance(items, dict):
            return
        kinds = [key for key in _SOURCES if items.get(key) is not None]
        if len(kinds) != 1:
            empty = [f"an empty {key}" for key in _SOURCES if key in items]
            found = " and ".join(kinds or empty) or "none"
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
        yield from _check_own_word(ITEMS, words, where)


def _check_arguments(place: Location, stage: dict[str, object]) -> Iterator[Fault]:
    """Yield a fault where `{args}` is not a word of its own."""
    if stage.get("shell") is True:
        return
    for where, command in _iter_commands(place, stage):
        words = _split_words(command)
        yield from _check_own_word(ARGS, words, where)


def _check_own_word(placeholder: str, words: Sequence[str], where: Location) -> Iterator[Fault]:
    """Yield a fault if a placeholder for several words is the program of a command, or a part of a word."""
    if words and placeholder in words[0]:
        yield Fault(location=where, message=f"{placeholder} is in the program's place: put a program before it")
    elif any(placeholder in word and word != placeholder for word in words):
        message = f"{placeholder} becomes several words, so it must be a word of its own: put spaces around it"
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
            yield Fault(location=where, message=f"{item!r} is already in quarantine")
        elif listed and item not in map(str, listed):
            yield Fault(location=where, message=f"{item!r} is not an item of the stage")
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
        elif key == "inputs" and stage.get(key) == []:
            yield Fault(location=(*place, key), message="the list is empty")
        elif patterns and all(pattern.startswith("!") for pattern in patterns):
            what = "each pattern leaves files out: add one without '!'"
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
            return [*split_line(command)]
        except ValueError:
            return [command]
    return raw_yaml.list_words(command)
