"""`paropt-exporter completion`: print a script that completes the command line in a shell, or the words it asks for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, TextIO

SHELLS = ("bash", "zsh", "tcsh", "fish")
WORDS = ("lanes", "runs", "stages")  # kinds of names in a project
_ASK = "paropt-exporter completion bash --words"
# The commands that print the words for a flag's value, one per line, by the value's name in the help.
_COMMANDS = {
    "STAGE": ("stages", f"{_ASK} stages"),
    "LANE": ("lanes", f"{_ASK} lanes"),
    "RUN": ("runs", f"{_ASK} runs"),
    "RUN|STAGE[ITEM]": ("runs_and_stages", f"{_ASK} stages runs"),
}
_ZSH_COMMANDS = re.compile(r"(  _describe '[^\n]* commands' _commands\n)\}\n")
# Bash splits words at `:` and `=`, and replaces only the part behind: `test:u` must become `test:unit`, of which `unit`
# is proposed. A file name follows `=`, without a space; shtab's function can't set that, since a subshell calls it.
_BASH_WHOLE_WORDS = """
{prefix}_whole_words() {{
  local typed="${{COMP_LINE:0:COMP_POINT}}" start=""
  local word="${{typed##*[[:space:]]}}"
  if [[ ($word == *:* && $COMP_WORDBREAKS == *:*) || ($word == --*=* && $COMP_WORDBREAKS == *=*) ]]; then
    local COMP_CWORD
    local -a COMP_WORDS
    typed="${{typed%"$word"}}"
    [[ $word != --*=* ]] || typed+="${{word%%=*}} " word="${{word#*=}}"
    [[ $COMP_WORDBREAKS != *:* ]] || start="${{word%"${{word##*:}}"}}"
    read -ra COMP_WORDS <<< "$typed"
    COMP_CWORD=${{#COMP_WORDS[@]}}
    COMP_WORDS+=("$word")
  fi
  {prefix} "$@"
  COMPREPLY=("${{COMPREPLY[@]#"$start"}}")
  [[ ${{COMPREPLY[0]-}} != *= ]] || compopt -o nospace
}}
complete -o bashdefault -F {prefix}_whole_words {program}"""


def run(shell: str, parser: argparse.ArgumentParser, *, stdout: TextIO) -> int:
    """Print the script for a shell: `source <(paropt-exporter completion bash)`."""
    import shtab

    prefix = shtab.wordify(f"_shtab_{parser.prog}")
    kinds: dict[str, Any] = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY, "KIND[=FILE]": _build_report_kinds(prefix)}
    for value, (noun, command) in _COMMANDS.items():
        kinds[value] = _build_words(f"{prefix}_{noun}", command)
    _complete_values(parser, kinds)
    script = shtab.complete(parser, shell=shell)
    print(_complete_words(script, shell, prefix, parser.prog, kinds["STAGE"]), file=stdout)
    return 0


def _build_words(function: str, command: str) -> dict[str, Any]:
    """Return shtab's description of a completion by the words that a command prints; it has none if that fails."""
    import shtab

    words: dict[str, Any] = shtab.cmd(f"{command} 2>/dev/null")
    zsh = f"""\
{function}() {{
  local -a _found=(${{(f)"$({command} 2>/dev/null)"}})
  _found=(${{_found//:/\\\\:}})  # a description would follow a plain colon
  _describe '{function.rpartition("exporter_")[2]}' _found
}}"""
    # Through sh: tcsh can't redirect stderr alone. A / would end its list.
    tcsh = f'`sh -c "{command} 2>&-"`'
    return {**words, "zsh": function, "tcsh": tcsh, "preamble": {**words["preamble"], "zsh": zsh}}


def _build_report_kinds(prefix: str) -> dict[str, Any]:
    """Return shtab's description of the values of `--report`."""
    import shtab

    from paropt_exporter.reports.reporting import KINDS, KINDS_WITH_FILE

    with_file = " ".join(f"{kind}=" for kind in KINDS_WITH_FILE)
    others = " ".join(kind for kind in KINDS if kind not in KINDS_WITH_FILE)
    words: dict[str, Any] = shtab.cmd(f"echo {with_file} {others}")
    zsh = f"{prefix}_reports() {{\n  compadd -S '' -- {with_file}\n  compadd -- {others}\n}}"
    return {
        **words,
        "zsh": f"{prefix}_reports",
        "tcsh": f"({with_file} {others})",
        "fish": f"{with_file} {others}",
        "preamble": {**words["preamble"], "zsh": zsh},
    }


def _complete_words(script: str, shell: str, prefix: str, program: str, stages: Mapping[str, Any]) -> str:
    """Add stages to the words that the script completes: shtab knows only the commands."""
    match shell:
        case "bash":
            whole_words = _BASH_WHOLE_WORDS.format(prefix=prefix, program=program)
            return f"{script}\n{prefix}_pos_0_COMPGEN={stages['bash']}{whole_words}"
        case "fish":
            return f"{script}\ncomplete -c {program} -n {prefix}_using -ka '{stages['fish']}' -d stage"
        case "zsh":
            script = script.replace("zsh_eval_context[-1] == eval ", "zsh_eval_context[-1] == (eval|file) ")  # `source`
            return _ZSH_COMMANDS.sub(rf"\1  {stages['zsh']}\n}}\n", script, count=1).replace(
                "\n      esac", f"\n        *) {stages['zsh']} ;;\n      esac"
            )
    before, quote, after = stages["tcsh"].partition('"')
    first = re.sub(r"'p/1/\((.*?)\)/'", rf"'p/1/{before}{quote}echo \1; {after}/'", script)
    return first.replace("'p/*/()/'", f"'p/*/{stages['tcsh']}/'")


def _complete_values(parser: argparse.ArgumentParser, kinds: dict[str, Any]) -> None:
    """Set the completion of each flag whose value has a name in `kinds`."""
    for action in parser._actions:  # argparse has no public list of its flags; shtab reads this one too
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_values(command, kinds)
            continue
        metavar = action.metavar or action.dest.upper()
        name = metavar if isinstance(metavar, str) else metavar[0]
        if name in kinds:
            action.complete = kinds[name]  # type: ignore[attr-defined]  # shtab's own protocol
