"""Parse a command line: flags of a run between stages, or a command with its own flags."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from paropt_exporter.cli.flags import build_parser
from paropt_exporter.cli.parser import DASHES, Parser, describe_run_flag

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


class Words(Struct, frozen=True, kw_only=True):
    """The words before the first `--`, and the arguments after it (None without `--`).

    `leading` has the flags before the first positional word.
    """

    flags: tuple[str, ...]
    leading: tuple[str, ...]
    positional: tuple[str, ...]
    arguments: tuple[str, ...] | None


def split_words(words: Sequence[str], options: Mapping[str, argparse.Action]) -> Words:
    """Split a command line. `options` are the flags with their actions, which say whether they take a value.

    argparse can't collect positional words between flags if a sub-command may be among them.
    """
    words = [*words]
    arguments = None
    if DASHES in words:
        end = words.index(DASHES)
        words, arguments = words[:end], tuple(words[end + 1 :])
    flags: list[str] = []
    positional: list[str] = []
    leading_count = 0
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("-") or word == "-":
            leading_count = leading_count if positional else len(flags)
            positional.append(word)
            continue
        flags.append(word)
        if rest and _wants_value(word, options) and not (_may_lack_value(word, options) and rest[0].startswith("-")):
            flags.append(rest.popleft())
    leading = flags[:leading_count] if positional else flags
    return Words(flags=tuple(flags), leading=tuple(leading), positional=tuple(positional), arguments=arguments)


def _wants_value(word: str, options: Mapping[str, argparse.Action]) -> bool:
    """Return whether the next word is the value of this flag, or of the last flag in a cluster such as `-qs`."""
    if word.startswith("--"):
        return word in options and _takes_value(options[word])
    for place, letter in enumerate(word[1:], start=1):
        option = options.get(f"-{letter}")
        if option is not None and _takes_value(option):
            return place == len(word) - 1  # the rest of the word is its value: -j4
    return False


def _may_lack_value(word: str, options: Mapping[str, argparse.Action]) -> bool:
    return word in options and options[word].nargs == argparse.OPTIONAL


def _takes_value(option: argparse.Action) -> bool:
    return option.nargs != 0
