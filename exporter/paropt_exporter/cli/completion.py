"""`paropt-exporter completion`: print a script that completes the command line in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, TextIO

SHELLS = ("bash", "zsh", "tcsh", "fish")
_STAGES = "paropt-exporter --list -q 2>/dev/null"
_TCSH_STAGES = "paropt-exporter --list -q 2>&-"  # through sh: tcsh can't redirect stderr alone; a / would end the list
_ZSH_COMMANDS = re.compile(r"(  _describe '[^\n]* commands' _commands\n)\}\n")
_ZSH_STAGES = rf"""\1  {{prefix}}_stages
}}}}

{{prefix}}_stages() {{{{
  local -a _stages=(${{{{(f)"$({_STAGES})"}}}})
  _describe 'stages' _stages
}}}}
"""


def run(shell: str, parser: argparse.ArgumentParser, *, stdout: TextIO) -> int:
    """Print the script for a shell: `source <(paropt-exporter completion bash)`."""
    import shtab

    stages: dict[str, Any] = {**shtab.cmd(_STAGES), "tcsh": f'`sh -c "{_TCSH_STAGES}"`'}
    _complete_values(parser, {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "STAGE": stages})
    script = shtab.complete(parser, shell=shell)
    prefix = shtab.wordify(f"_shtab_{parser.prog}")
    print(_complete_words(script, shell, prefix, parser.prog, stages), file=stdout)
    return 0


def _complete_words(script: str, shell: str, prefix: str, program: str, stages: Mapping[str, Any]) -> str:
    """Add stages to the words that the script completes: shtab knows the commands alone."""
    match shell:
        case "bash":
            return f"{script}\n{prefix}_pos_0_COMPGEN={stages['bash']}"
        case "fish":
            return f"{script}\ncomplete -c {program} -n {prefix}_using -ka '{stages['fish']}' -d stage"
        case "zsh":
            script = script.replace("zsh_eval_context[-1] == eval ", "zsh_eval_context[-1] == (eval|file) ")  # `source`
            return _ZSH_COMMANDS.sub(_ZSH_STAGES.format(prefix=prefix), script, count=1).replace(
                "\n      esac", f"\n        *) {prefix}_stages ;;\n      esac"
            )
    first = re.sub(r"'p/1/\((.*?)\)/'", lambda found: f"""'p/1/`sh -c "echo {found[1]}; {_TCSH_STAGES}"`/'""", script)
    return first.replace("'p/*/()/'", f"'p/*/{stages['tcsh']}/'")


def _complete_values(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Complete the values that a flag's help calls FILE, DIR or STAGE."""
    for action in parser._actions:  # argparse has no public list of its flags; shtab reads this one too
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_values(command, kinds)
        elif isinstance(action.metavar, str) and action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]  # shtab's own protocol
