"""Split a command line into flags with their values, positional words, and arguments after `--`."""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

DASHES = "--"


class Words(Struct, frozen=True, kw_only=True):
    """The words before the first `--`, and the arguments after it (None without `--`)."""

    flags: tuple[str, ...]
    positional: tuple[str, ...]
    arguments: tuple[str, ...] | None


def split_words(words: Sequence[str], options: Mapping[str, argparse.Action]) -> Words:
    """Split a command line. `options` has the flags with their actions, which decide about values.

    argparse can't collect positional words between flags if a sub-command may be among them.
    """
    words = [*words]
    arguments = None
    if DASHES in words:
        end = words.index(DASHES)
        words, arguments = words[:end], tuple(words[end + 1 :])
    flags: list[str] = []
    positional: list[str] = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        flags.append(word)
        if rest and _wants_value(word, options) and not (_may_lack_value(word, options) and rest[0].startswith("-")):
            flags.append(rest.popleft())
    return Words(flags=tuple(flags), positional=tuple(positional), arguments=arguments)


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
