"""Find syntax of bash in a script that /bin/sh runs, which may be another shell, such as dash on Debian and Ubuntu."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache

from paropt_exporter.config.placeholders import SHELL, drop_quoted

_PROBE_SECONDS = 5.0
_COMMAND = re.compile(  # the words that begin a command
    r"(?m)(?:^|[;&|({]|\b(?:then|do|else|if|elif|while|until)[ \t])[ \t]*(?:![ \t]+)?"
    r"(source|\[\[|pushd|popd|shopt|declare|typeset|let|mapfile|readarray|function)(?=\s)"
)
# Each syntax with a script that succeeds only in a shell that knows it. Some are refused; dash understands others in
# its own way: it runs `pytest &> log` in the background, where a failure has no effect.
_OTHERS = (
    (re.compile(r"\bset[ \t][^;\n]{0,80}\bpipefail\b"), "set -o pipefail", "set -o pipefail"),
    (re.compile(r"(?:^|\s)[<>]\("), "<(…)", "eval 'cat <(:)'"),
    (re.compile(r"<<<"), "<<<", "eval ': <<< a'"),
    (re.compile(r"&>"), "&>", '[ -z "$(echo a &> /dev/null)" ]'),
    (re.compile(r"\|&"), "|&", "eval ': |& :'"),
    (re.compile(r"(?<!\[)\[ [^]\n]{0,80} == "), "==", "[ a == a ]"),
    (re.compile(r"(?:^|[\s;])\w+=\("), "NAME=(…)", "eval 'a=(b)'"),
    # Not beside a wildcard: many programs understand `*.{ts,tsx}` and `{src,test}/**/*.ts` by themselves.
    (
        re.compile(r"(?:^|\s)[\w./-]{0,80}\{(?:\d+\.\.\d+|[\w.]+(?:,[\w.]+)+)\}(?![^\s;|&]{0,80}[*?])"),
        "{a,b}",
        '[ "$(echo {a,b})" = "a b" ]',
    ),
)
_REMEDIES = {"source": "write `.`", "==": "write `=`", "&>": "write `> FILE 2>&1`", "|&": "write `2>&1 |`"}
_COMMENT = re.compile(r"(?m)(?:^|\s)#.*")
_HERE_DOCUMENT = re.compile(r"(?<!<)<<(?!<)")


def find_unknown_syntax(script: str, shell: str = SHELL[0]) -> tuple[str, str] | None:
    """Return the first syntax in a script that the shell does not know, and the remedy; None if there is none.

    Scripts with here-documents, whose lines are no commands, are not searched. Runs the shell, but no part of the
    script.
    """
    if _HERE_DOCUMENT.search(script):
        return None
    for syntax, probe in _iter_uses(_COMMENT.sub("", drop_quoted(script)).replace("\\\n", " ")):
        if not _succeeds(shell, probe):
            bash = "let bash run it: [bash, -c, '…'], without `shell: true`"
            return syntax, f"{_REMEDIES[syntax]}, or {bash}" if syntax in _REMEDIES else bash
    return None


def _iter_uses(script: str) -> Iterator[tuple[str, str]]:
    for found in _COMMAND.finditer(script):
        yield found[1], f"command -v '{found[1]}'"
    for pattern, syntax, probe in _OTHERS:
        if pattern.search(script):
            yield syntax, probe


@lru_cache
def _succeeds(shell: str, script: str) -> bool:
    nothing = subprocess.DEVNULL
    with suppress(OSError, subprocess.TimeoutExpired):
        ended = subprocess.run(
            (shell, "-c", script), stdin=nothing, stdout=nothing, stderr=nothing, timeout=_PROBE_SECONDS, check=False
        )
        return ended.returncode == 0
    return True  # nothing is known about the shell
