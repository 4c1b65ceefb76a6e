"""Read npm scripts by their names and lines: which stage they fit, and whether they watch or change files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice

_SEPARATOR = re.compile(r"[-_:.]")
_WATCHES = re.compile(r"(?<!\S)(?:--watch(?:All)?|watch|(?P<react>react-scripts test)|(?P<angular>ng test))(?![\w=-])")
_WATCHES_NO_MORE = re.compile(r"--(?:watch(?:All)?=false|no-watch)(?![\w-])")  # whatever is before it
_RUNS_IN_CI = re.compile(r"\bCI=\w")  # react-scripts watches unless this variable says that it runs in CI
_CHANGES = re.compile(r"(?<!\S)--(?:fix|write|apply(?:-unsafe)?)(?![\w=-])")
_CALLS_SCRIPTS = re.compile(r"(?<![\w-])(?:npm|pnpm|yarn|bun|npm-run-all2?|run-[sp])(?![\w-])")
_SCRIPT_NAME = re.compile(r"[\w:.*/-]+")
_PLAIN_LINE = re.compile(r"[^&|;<>$`\\\n]+")  # one command
_MOST_SCRIPTS = 20  # that one script calls
_MOST_WORDS = 50  # of a line that may name scripts
_MOST_COMPARED = 1_000  # scripts, with a pattern
_PROGRAMS_OF_CHECK = {
    "quality_gates": re.compile(r"(?<![\w/-])(?:biome|eslint|oxlint|prettier|xo)(?![\w-])"),
    "type_checking": re.compile(r"(?<![\w/-])(?:(?:vue-)?tsc|svelte-check|astro check)(?![\w-])"),
}
_LAUNCHERS = frozenset({"npx", "npm", "pnpm", "yarn", "bun", "bunx", "exec", "run", "dlx", "x", "cross-env"})


def split_name(name: str) -> frozenset[str]:
    """Return the words of a name: `test:unit`, `test-unit` and `unit_test` have the same."""
    return frozenset(filter(None, _SEPARATOR.split(name)))


def find_by_words(wanted: Iterable[str], names: Collection[str]) -> list[str]:
    """Return the names that have the words of a wanted one, in the order of these."""
    by_words = {split_name(name): name for name in reversed([*names])}
    return [by_words[words] for each in wanted if (words := frozenset(each.split())) in by_words]


def get_stage_of_check(scripts: Mapping[str, str]) -> str:
    """Return the built-in stage to which a script `check` belongs by the first program in it; "" for others."""
    line = scripts.get("check", "")
    places = [(match.start(), stage) for stage, each in _PROGRAMS_OF_CHECK.items() if (match := each.search(line))]
    return min(places)[1] if places else ""


def find_fault(scripts: Mapping[str, str], name: str, *, must_only_check: bool, has_karma: bool) -> str:
    """Return why a script can't be a stage, or "". `has_karma`: Angular's `ng test` waits for changes."""
    line = scripts[name]
    if _watches_files(line, has_karma=has_karma):
        return "it watches files, and would not end"
    if must_only_check and (match := next(filter(None, map(_CHANGES.search, _iter_lines(scripts, name))), None)):
        plain = _CHANGES.sub("", line)
        like = f", such as `npx {' '.join(plain.split())}`" if plain != line and _PLAIN_LINE.fullmatch(line) else ""
        return f"it changes files ({match[0]}): write a stage that only checks{like}"
    return ""


def find_program(script: str) -> str:
    """Return the program of an npm script, with its subcommand if it has one, such as `biome format`."""
    words = [word for word in script.split() if word not in _LAUNCHERS and "=" not in word]
    return " ".join(words[: 2 if words[1:] and words[1].isalpha() else 1])


def _watches_files(line: str, *, has_karma: bool) -> bool:
    *_, start = 0, *(match.end() for match in _WATCHES_NO_MORE.finditer(line))
    runs_in_ci = _RUNS_IN_CI.search(line) is not None
    for match in _WATCHES.finditer(line, start):
        if not (match["react"] and runs_in_ci) and not (match["angular"] and not has_karma):
            return True
    return False


def _iter_lines(scripts: Mapping[str, str], name: str) -> Iterator[str]:
    """Yield the line of a script, and those of the scripts that it calls."""
    called = [name]
    for each in called:  # which grows
        line = scripts[each]
        yield line
        if _CALLS_SCRIPTS.search(line):
            words = islice(_SCRIPT_NAME.findall(line), _MOST_WORDS)
            found = (script for word in words for script in _find_scripts(scripts, word))
            called += islice((script for script in dict.fromkeys(found) if script not in called), _MOST_SCRIPTS)
        if len(called) > _MOST_SCRIPTS:
            return


def _find_scripts(scripts: Mapping[str, str], word: str) -> list[str]:
    """Return the scripts that a word names, such as `lint:css` or `lint:*`."""
    if "*" not in word:
        return [word] if word in scripts else []
    return [name for name in islice(scripts, _MOST_COMPARED) if fnmatchcase(name, word)]
