"""The parser of the command line, whose errors name the flag or command that was probably meant, and its words."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from msgspec import Struct

from paropt_exporter.cli import PROGRAM
from paropt_exporter.cli.streams import print_message
from paropt_exporter.errors import EXIT_USAGE

DASHES = "--"
_DASHES_AS_VALUE = re.compile(r"(?P<long>--?[\w.-]+)=--|-\w*(?P<short>\w)--")
# Dissimilar flags of other runners for the same thing, with ours. Our value follows a blank.
_FLAGS_OF_OTHERS = {
    "--jobs": "-j", "--parallel": "-j", "--concurrency": "-j", "--exclude": "--skip", "--skip-env": "--skip",
    "--no-deps": "--only", "--continue": "--keep-going", "--bail": "--fail-fast", "--exitfirst": "--fail-fast",
    "--stop-on-first-error": "--fail-fast", "--lf": "--failed", "--last-failed": "--failed", "--retry": "--failed",
    "--rerun": "--failed", "--force": "--no-cache", "--file": "--config.file", "--since": "--affected",
    "--changed": "--affected", "--base": "--affected", "--target": "--stage", "--filter": "--stage",
    "--env": "--stage", "--interval": "--every", "--port": "--web.listen-address 127.0.0.1:PORT",
    "--web.port": "--web.listen-address 127.0.0.1:PORT", "--json": "--output json",
    "--junit": "--report junit=FILE", "--junitxml": "--report junit=FILE", "--junit-xml": "--report junit=FILE",
    "--debug": "--log.level debug", "--no-color": "--color never", "--no-colour": "--color never",
    "-B": "--no-cache", "-C": "--config.file", "-V": "--version", "-c": "--config.file", "-e": "--stage",
    "-f": "--config.file", "-k": "--keep-going", "-l": "--list", "-n": "--dry-run", "-p": "-j", "-P": "-j",
    "-t": "--stage", "-w": "--watch", "-x": "--fail-fast",
}  # fmt: skip
_FLAGS_OF_COMMANDS = {"-f": ("--follow", "--force")}  # they take precedence over those above in commands that have them
_LEAST_SIMILAR = 0.7  # of names without their dashes; 0.6 suggests --quiet for --junit


class HelpFormatter(argparse.HelpFormatter):
    """Wraps texts of one line, and leaves others unchanged."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, without the usage. `run_flags`: of a command, those of runs."""

    _given: tuple[str, ...] = ()

    def __init__(self, *arguments: Any, run_flags: frozenset[str] = frozenset(), **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.run_flags = run_flags
        self.color = False  # from Python 3.14 on argparse colours its help, but our streams escape control characters

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # the types of argparse
        self._given = tuple(sys.argv[1:] if args is None else args)
        # Before Python 3.13, argparse stores an empty list for the value of `--stage=--` and `-s--`.
        for found in filter(None, map(_DASHES_AS_VALUE.fullmatch, self._given)):
            flag = found["long"] or f"-{found['short']}"
            if flag in self.options and _takes_value(self.options[flag]):
                self.error(f"argument {flag}: expected one argument")
        flags, unknown = super().parse_known_args(args, namespace)
        if unknown and self.prog != PROGRAM:  # a sub-command: argparse's own message would refer to the main help
            words = " ".join(unknown)
            if len(unknown) == 1 and "--config.file" in self.options and words.endswith((".yml", ".yaml")):
                self.error(f"did you mean --config.file {words}?")
            if self.prog == f"{PROGRAM} plan" and not words.startswith("-"):
                command = f"{PROGRAM} --dry-run {shlex.join(unknown)}"
                self.error(f"plan takes no stage: `{command}` shows the plan of such a run")
            self.error(f"unrecognized arguments: {words}")
        return flags, unknown

    @property
    def options(self) -> dict[str, argparse.Action]:
        """The flags with their actions."""
        return dict(self._option_string_actions)

    @property
    def commands(self) -> tuple[str, ...]:
        """The names of the sub-commands."""
        return tuple(name for action in self._actions if action.dest == "command" for name in action.choices or ())

    def get_command(self, name: str) -> Parser:
        """Return the parser of a sub-command."""
        (action,) = (action for action in self._actions if action.dest == "command")
        parser: Parser = dict(action.choices or ())[name]
        return parser

    def format_positional(self) -> str:
        """Return the positional arguments as in a usage line, each after a blank."""
        forms = {argparse.OPTIONAL: " [{}]", argparse.ZERO_OR_MORE: " [{} ...]"}
        return "".join(
            forms.get(str(action.nargs), " {}").format(action.metavar or action.dest)
            for action in self._get_positional_actions()
        )

    def error(self, message: str) -> NoReturn:
        if ": invalid choice: " in message or message.startswith("unrecognized arguments"):
            known = self._find_misspelled_flag() or self._find_run_as_action(message)
            message = known or self._describe_choice(message) or message
        flag, lacks_value, _ = message.removeprefix("argument ").partition(": expected one argument")
        if lacks_value and (wanted := self._find_metavar(flag.split("/")[-1])):
            message = f"{flag} needs a value: {wanted}"
        self._print_error(f"{message} (see {self.prog} --help)")
        self.exit(EXIT_USAGE)

    def _print_error(self, message: str) -> None:
        """Print one line, or a JSON object if the command line has `--log.format json`."""
        words = " ".join(self._given).replace("=", " ")
        if "--log.format json" not in words:
            print_message(f"{PROGRAM}: {message}")
            return
        import logging

        from paropt_exporter import logs

        logs.configure("error", "json")
        logging.getLogger("paropt_exporter").error(message)

    def _find_metavar(self, flag: str) -> str | None:
        action = self._option_string_actions.get(flag)
        if action is None:
            return None
        return "|".join(action.choices) if action.choices else str(action.metavar or action.dest.upper())

    def _find_misspelled_flag(self) -> str | None:
        """Return a message about the first unknown flag, for whose value argparse would report an unknown command."""
        for word in takewhile(lambda word: word not in self.commands, self._given):
            flag = word.partition("=")[0]
            if flag in self.run_flags and flag not in self.options:
                return describe_run_flag(flag, self.prog.removeprefix(f"{PROGRAM} "))
            if flag.startswith("--") and flag not in self._option_string_actions:
                near = self._find_near_flag(flag)
                return f"there is no flag {flag}" + (f": did you mean {near}?" if near else "")
            if re.match("-[A-Za-z]", flag) and flag[:2] not in self._option_string_actions:
                return f"there is no flag {flag}" + self._suggest_for_short_flag(flag)
        return None

    def _find_run_as_action(self, message: str) -> str | None:
        """Return a message if a command that takes a run by a flag got it as a word."""
        word = re.match(r"argument ACTION: invalid choice: '([^']*)'", message)
        if word is None or "--run" not in self._option_string_actions:
            return None
        return f"there is no action {word[1]!r}: to show one run, write --run {word[1]}"

    def _describe_choice(self, message: str) -> str | None:
        """Return argparse's message about a wrong choice in the words of our other messages."""
        # Python 3.15 adds the nearest choice.
        wrong = re.match(
            r"argument (\S+): invalid choice: (.*?)(?:, maybe you meant .*)? \(choose from (.*)\)$", message
        )
        if wrong is None:
            return None
        name, found, choices = wrong[1], wrong[2], wrong[3].replace("'", "")
        if (name, found) == ("--strategy", "'dask'"):
            reason = "profile measures this machine" if self.prog != PROGRAM else "only a lane of paropt.yml can set it"
            return f"--strategy: expected one of {choices}, not dask: {reason}"
        return (
            f"{name}: expected one of {choices}, found {found}" if name[0] == "-" else f"expected {name}, found {found}"
        )

    def _suggest_for_short_flag(self, flag: str) -> str:
        """Return a suggestion for an unknown flag with one dash: another flag, or `--` before commands' arguments."""
        ours = self._find_flag_of_others(flag[:2])
        near = self._find_near_flag(f"-{flag}") if len(flag) > 2 else ours
        if self.prog != PROGRAM or (near and near != ours):
            return f": did you mean {near}?" if near else ""
        place = f"write arguments for the stages' commands after {DASHES}"
        return f": did you mean {ours}? Otherwise {place}" if ours else f": {place}"

    def _find_near_flag(self, flag: str) -> str | None:
        from difflib import get_close_matches  # needed here only

        if ours := self._find_flag_of_others(flag):
            return ours
        names = {name.strip("-"): name for name in self._option_string_actions if name.startswith("--")}
        near = get_close_matches(flag.strip("-"), names, n=1, cutoff=_LEAST_SIMILAR)
        return names[near[0]] if near else None

    def _find_flag_of_others(self, flag: str) -> str | None:
        known = (*_FLAGS_OF_COMMANDS.get(flag, ()), _FLAGS_OF_OTHERS.get(flag, ""))
        return next((ours for ours in known if ours.partition(" ")[0] in self._option_string_actions), None)


def describe_run_flag(flag: str, command: str) -> str:
    """Return a message about a flag for running a lane at a command that does not have it."""
    if command == "plan":
        return f"plan has no {flag}: `{PROGRAM} --dry-run {flag} …` shows the plan of such a run"
    return f"{command} has no {flag}: leave it out"


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
