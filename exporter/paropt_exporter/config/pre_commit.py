"""Read the hooks of pre-commit as commands that check a project and change nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping

from paropt_exporter.config import raw_yaml
from paropt_exporter.config.command_files import CommandLine, Words
from paropt_exporter.config.document import Document

FILE = ".pre-commit-config.yaml"
GROUP = "pre-commit"
# The beginning and the end of the command of each hook. A file or folder is put between, if the hook has none.
_HOOKS: dict[str, tuple[Words, Words]] = {
    "ruff": (("ruff", "check"), (".",)),
    "ruff-check": (("ruff", "check"), (".",)),
    "ruff-format": (("ruff", "format", "--check"), (".",)),
    "black": (("black", "--check"), (".",)),
    "black-jupyter": (("black", "--check"), (".",)),
    "isort": (("isort", "--check-only"), (".",)),
    "flake8": (("flake8",), ()),
    "mypy": (("mypy",), ()),
    "pyright": (("pyright",), ()),
    "bandit": (("bandit",), ()),
}
_USUAL_ARGUMENTS = {"mypy": ("--ignore-missing-imports", "--scripts-are-modules")}  # of a hook without its own entry
_CHANGES = frozenset(
    {"--fix", "--exit-non-zero-on-fix", "--exit-non-zero-on-format", "--unsafe-fixes", "--show-fixes"}
    | {"--in-place", "-i"}
)
# Stages of hooks that run only on request, or that check no files but, say, the message of a commit
_NO_CHECKS = (
    "manual", "commit-msg", "prepare-commit-msg", "post-checkout", "post-commit", "post-merge", "post-rewrite",
    "pre-rebase",
)  # fmt: skip
_MOST_LAUNCHERS = 3  # words before a program, such as `uv run` and `python -m`
_LONGEST_PATTERN = 60  # in a note
_MOST_NAMED = 8  # hooks in a note
# Such as ^src/, ^(src/|tests/).*\.py$, ^(src|tests)/
_FOLDERS = re.compile(r"\^(?:\(?((?:[\w.-]+/\|?)+)\)?|\(([\w.-]+(?:\|[\w.-]+)*)\)/)(?:\.\*)?(?:\\\.pyi?)?\$?")
_ALL_FILES = re.compile(r"(?:\^?\.\*)?\\\.(?:pyi?|\(pyi?\|pyi?\)|pyi?\?)\$")  # such as \.py$


def parse_hooks(text: str) -> Iterator[CommandLine]:
    """Yield the command of each linter and type checker among the hooks, and of hooks that are commands already.

    Of a hook whose files a command line can't name there is a note, and one of all other hooks.
    """
    others: list[str] = []
    config = raw_yaml.as_mapping(Document(text).value)
    if pattern := config.get("exclude"):
        yield CommandLine(note=f"its hooks skip {_shorten(pattern)} (exclude); the stages check these files, too")
    for repository in map(raw_yaml.as_mapping, raw_yaml.as_list(config.get("repos"))):
        for hook in map(raw_yaml.as_mapping, raw_yaml.as_list(repository.get("hooks"))):
            name, entry = hook.get("id"), hook.get("entry")
            stages = raw_yaml.as_list(hook.get("stages", config.get("default_stages")))
            if stages and all(each in _NO_CHECKS for each in stages):
                continue
            known = name if isinstance(name, str) and name in _HOOKS else _find_by_entry(entry)
            if known is not None:
                yield _build_command(known, hook)
            elif isinstance(entry, str) and hook.get("pass_filenames") is False:
                yield CommandLine(text=f"{entry} {shlex.join(raw_yaml.list_words(hook.get('args')))}", group=GROUP)
            elif isinstance(name, str):
                others.append(" ".join(name.split()))
    if others:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        named = ", ".join(map(_shorten, dict.fromkeys(others[:_MOST_NAMED])))
        noun = "hook" if len(others) == 1 else "hooks"
        yield CommandLine(note=f"no stage runs its {noun} {named}{more}: `pre-commit run --all-files` does")


def _build_command(name: str, hook: Mapping[str, object]) -> CommandLine:
    """Return the command of a hook, or a note if it checks files that a command line can't name."""
    start, everything = _HOOKS[name]
    own = _read_entry(hook.get("entry"), start)
    usual = () if "entry" in hook else _USUAL_ARGUMENTS.get(name, ())
    given = tuple(raw_yaml.list_words(hook["args"])) if "args" in hook else usual
    files, exclude = (str(hook.get(key) or "") for key in ("files", "exclude"))
    if hook.get("pass_filenames") is False:  # the patterns only decide when it runs
        files = exclude = ""
        everything = () if _names_targets((*_find_program(own, start)[1:], *given)) else everything
    targets = everything if not files or _ALL_FILES.fullmatch(files) else _read_folders(files)
    left_out = _leave_out(start[0], exclude) if exclude else ()
    for key, found in (("exclude", left_out), ("files", targets)):
        if found is None:
            pattern = _shorten(hook[key])
            return CommandLine(
                note=f"the hook {name} is not used: no command line can name its files ({key}: {pattern})"
            )
    assert targets is not None
    assert left_out is not None
    words = (*(own or start), *(word for word in given if word not in start))
    kept = (word for word in words if word not in _CHANGES)
    return CommandLine(text=(*kept, *left_out, *targets), group=GROUP)


def _names_targets(arguments: Words) -> bool:
    """Return whether a word is certainly not an option's value."""
    pairs = zip(("", *arguments), arguments, strict=False)
    return any(word[:1] != "-" and ("/" in word or word == "." or before[:1] != "-") for before, word in pairs)


def _read_folders(pattern: str) -> Words | None:
    """Return the folders that a pattern means, if it means all Python files in some folders."""
    match = _FOLDERS.fullmatch(pattern)
    return tuple(folder.rstrip("/") for folder in (match[1] or match[2]).strip("|").split("|")) if match else None


def _leave_out(program: str, pattern: str) -> Words | None:
    """Return the option with which a program leaves out the files of a pattern, or None if it has none like that."""
    folders = _read_folders(pattern)
    match program:
        case "mypy" if "\n" not in pattern:  # it compares the same names in the same way
            return (f"--exclude={pattern}",)
        case "ruff" if folders:
            return tuple(f"--extend-exclude=./{folder}" for folder in folders)
        case "black" if folders:
            return (f"--extend-exclude=^/({'|'.join(map(re.escape, folders))})/",)
    return None


def _find_by_entry(entry: object) -> str | None:
    """Return the name of the published hook that a local one with another name is like, by its program."""
    words = _split(entry)
    return next((name for name, (start, _) in _HOOKS.items() if _find_program(words, start)), None)


def _find_program(words: Words, start: Words) -> Words:
    """Return the words from the last of a hook's first ones on, such as `check` of `uv run ruff check src`, or ()."""
    program = tuple(word for word in start if not word.startswith("-"))
    places = range(min(len(words), _MOST_LAUNCHERS + 1))
    at = next((at for at in places if words[at : at + len(program)] == program), None)
    return () if at is None else words[at + len(program) - 1 :]


def _read_entry(entry: object, start: Words) -> Words:
    """Return the words of a hook's entry that starts its tool, with the options that let it change nothing, or ()."""
    words = _split(entry)
    if not _find_program(words, start):
        return ()  # a script of the project, perhaps
    return (*words, *(word for word in start if word.startswith("-") and word not in words))


def _split(entry: object) -> Words:
    try:
        return tuple(shlex.split(entry)) if isinstance(entry, str) else ()
    except ValueError:
        return ()


def _shorten(pattern: object) -> str:
    line = " ".join(str(pattern).split())
    return line if len(line) <= _LONGEST_PATTERN else f"{line[: _LONGEST_PATTERN - 1]}…"
