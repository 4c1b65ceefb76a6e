"""`paropt-exporter completion`: print a script that completes the command line in a shell."""

from __future__ import annotations

import argparse
from typing import Any, TextIO

SHELLS = ("bash", "zsh", "tcsh", "fish")
_STAGES = "paropt-exporter --list -q 2>/dev/null"


def run(shell: str, parser: argparse.ArgumentParser, *, stdout: TextIO) -> int:
    """Print the script for a shell: `source <(paropt-exporter completion bash)`."""
    import shtab

    stages = shtab.cmd(_STAGES)
    _complete_values(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "STAGE": stages})
    print(shtab.complete(parser, shell=shell), file=stdout)
    prefix = shtab.wordify(f"_shtab_{parser.prog}")
    if shell == "bash":
        print(
            f"{prefix}_pos_0_COMPGEN={stages['bash']}", file=stdout
        )  # of a word: beside the commands, which shtab has
    elif shell == "fish":
        print(f"complete -c {parser.prog} -n {prefix}_using -ka '{stages['fish']}' -d stage", file=stdout)
    return 0


def _complete_values(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Complete the values that a flag's help calls FILE, DIR or STAGE."""
    for action in parser._actions:  # argparse has no public list of its flags; shtab reads this one too
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_values(command, kinds)
        elif isinstance(action.metavar, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # shtab's own protocol
