"""Syntax of bash in scripts of /bin/sh is found, if that shell does not know it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from paropt_exporter.config.shell_syntax import find_unknown_syntax

DASH, BASH = shutil.which("dash") or "", shutil.which("bash") or ""
needs_dash = pytest.mark.skipif(not DASH, reason="dash is not installed")

SCRIPTS = {
    "source .venv/bin/activate && pytest": "source",
    "cd web; source x": "source",
    "if [[ -f a ]]; then pytest; fi": "[[",
    "! [[ -f a ]] || pytest": "[[",
    "pytest &> log": "&>",
    "pytest |& tee log": "|&",
    "diff <(ls a) <(ls b)": "<(…)",
    "grep a <<< $B": "<<<",
    '[ "$A" == b ] && pytest': "==",
    "files=(a b)\npytest $files": "NAME=(…)",
    "for n in {1..3}; do pytest; done": "{a,b}",
    "cat {a,b}.txt": "{a,b}",
}
KNOWN = (
    "set -eu\n. .venv/bin/activate\npytest > log 2>&1",
    "echo 'source x' \"[[ a ]]\"  # source x",
    "[ $A = b ] && echo $((1<(2))) ${A:-b,c} {item}",
    "cat <<EOF\nsource x\nEOF",
    "prettier --check src/**/*.{ts,tsx} --ignore={a,b}",
    "prettier --check {src,test}/**/*.ts && eslint src/{a,b}/*.js",
    "zip -r out.zip \\\n  source tests",
    "./source a; npm run source && resource x",
    "git show stash@{0} && (cd web && ls) | sort & wait",
)


@needs_dash
@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax_that_dash_does_not_know_is_found(script: str) -> None:
    found = find_unknown_syntax(script, DASH)
    assert found is not None
    assert found[0] == SCRIPTS[script]


@needs_dash
@pytest.mark.parametrize("script", KNOWN)
def test_syntax_of_every_shell_is_not(script: str) -> None:
    assert find_unknown_syntax(script, DASH) is None


@needs_dash
def test_pipefail_is_found_in_a_dash_without_it() -> None:
    """Newer versions of dash have it."""
    knows = subprocess.run([DASH, "-c", "set -o pipefail"], capture_output=True, check=False).returncode == 0
    assert (find_unknown_syntax("set -euo pipefail\npytest | tee log", DASH) is None) is knows


@pytest.mark.skipif(not BASH, reason="bash is not installed")
@pytest.mark.parametrize("script", [*SCRIPTS, *KNOWN])
def test_bash_knows_all_of_it(script: str) -> None:
    assert find_unknown_syntax(script, BASH) is None


def test_shell_that_can_not_run_is_no_reason() -> None:
    assert find_unknown_syntax("source x", "/no/such/shell") is None


@needs_dash
def test_remedy_is_the_word_of_every_shell_if_there_is_one() -> None:
    bash = "let bash run it: [bash, -c, '…'], without `shell: true`"
    assert find_unknown_syntax("source x", DASH) == ("source", f"write `.`, or {bash}")
    assert find_unknown_syntax("pushd x", DASH) == ("pushd", bash)
