"""The environment of a stage's commands: the exporter's and the stage's own or, if cached, only a few variables.

Which variables a command reads can't be seen, so a cached stage gets only those whose values are in its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

from paropt_exporter.config.virtual_environment import build_environment
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.structure import PlannedStage

# Results may depend on them, and users expect them to reach each program.
STANDARD = (
    "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "NO_COLOR", "FORCE_COLOR",
    "CLICOLOR", "CLICOLOR_FORCE", "PY_COLORS", "CI", "PYTHON*", "LD_LIBRARY_PATH", "XDG_*_HOME",
)  # fmt: skip
# The output of a command is not a terminal, even if the exporter's is.
_FIXED = {"TERM": "dumb"}
# They contain paths that differ between checkouts and runs. The programs on PATH are in the key as the stage's tools.
UNKEYED = frozenset(
    {
        "PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "XDG_RUNTIME_DIR", "MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS",
        "PAROPT_RUN", "PAROPT_COMMAND",
    }
)  # fmt: skip

_MAKE_FLAGS = "MAKEFLAGS"
# Of MAKEFLAGS, as make writes it for its children: the jobserver, the number of jobs, and whether to print folders.
_FLAGS_OF_A_RUN = compile_later(
    r"(?<!\S)(?:--jobserver-(?:auth|fds|style)=\S*|-j ?\d*|--jobs(?:=\d+)?|-l ?[\d.]*|-w|--(?:no-)?print-directory)"
    r"(?!\S)"
)
_DEFINITIONS = compile_later(r"(?<!\S)--(?!\S)")  # before the variables of make's command line

# added by the exporter to any stage
_ADDED = frozenset({"PATH", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS"})


def build_command_environment(stage: PlannedStage, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of a stage's commands, at the moment when they may start."""
    own = {**_find_new_environment(stage, environ), **stage.env}
    if not stage.cached:
        return {**environ, **own}
    kept = {name: value for name, value in environ.items() if _is_passed(name, stage.pass_env)}
    return {**_FIXED, **kept, **own}


def _find_new_environment(stage: PlannedStage, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables of a virtual environment that was not there before the run: a needed stage has made it."""
    if not stage.needs or "PATH" in stage.env:
        return {}
    return build_environment(stage.cwd, environ)


@lru_cache(maxsize=1 << 12)  # a lane of 1,000 stages asks 70,000 times about a few dozen variables
def _is_passed(name: str, pass_env: tuple[str, ...]) -> bool:
    """Return whether a cached stage sees a variable of the exporter's environment."""
    patterns = (*STANDARD, *pass_env)
    return name in patterns or name in UNKEYED or any(_matches(name, each) for each in patterns if _is_pattern(each))


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _matches(name: str, pattern: str) -> bool:
    """Return the same as fnmatchcase, but without a regular expression for patterns with one star, as most have."""
    before, _, after = pattern.partition("*")
    if any(mark in before + after for mark in "*?["):
        return fnmatchcase(name, pattern)
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def select_keyed_variables(stage: PlannedStage, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a cached stage that are in its key."""
    asked = {*stage.pass_env, *stage.env} - _ADDED
    environment = build_command_environment(stage, environ)
    keyed = {name: value for name, value in environment.items() if name not in UNKEYED or name in asked}
    flags = _select_make_flags(environment.get(_MAKE_FLAGS, ""))
    return {**keyed, _MAKE_FLAGS: flags} if flags else keyed


def _select_make_flags(text: str) -> str:
    """Return the flags and variables of MAKEFLAGS on which results may depend, such as `i` and `CC=clang`."""
    if not text:
        return ""
    found = _DEFINITIONS.search(text)
    flags, definitions = (text[: found.start()], text[found.start() :].strip()) if found else (text, "")
    words = _FLAGS_OF_A_RUN.sub("", flags).split()
    if words and "-" not in words[0] and "=" not in words[0]:  # letters: `kw` is -k -w
        words[0] = words[0].replace("w", "")
    return " ".join(filter(None, (*words, definitions)))
