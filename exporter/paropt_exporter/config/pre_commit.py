"""Read the hooks of pre-commit as commands that check a project and change nothing."""

from __future__ import annotations

import re
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
_USUAL_ARGUMENTS = {"mypy": ("--ignore-missing-imports", "--scripts-are-modules")}  # of a hook that gives none
_CHANGES = frozenset({"--fix", "--exit-non-zero-on-fix", "--unsafe-fixes", "--show-fixes", "--in-place", "-i"})
_FOLDERS = re.compile(r"\^\(?((?:[\w.-]+/\|?)+)\)?(?:\.\*)?(?:\\\.pyi?\$)?")  # such as ^src/, ^(src/|tests/).*\.py$


def parse_hooks(text: str) -> Iterator[CommandLine]:
    """Yield the command of each linter and type checker among the hooks, and of hooks that are commands already."""
    for repository in map(raw_yaml.as_mapping, raw_yaml.as_list(raw_yaml.as_mapping(_read(text)).get("repos"))):
        for hook in map(raw_yaml.as_mapping, raw_yaml.as_list(repository.get("hooks"))):
            name, entry = hook.get("id"), hook.get("entry")
            if "manual" in raw_yaml.as_list(hook.get("stages")):
                continue
            if isinstance(entry, str) and hook.get("pass_filenames") is False:
                yield CommandLine(text=" ".join([entry, *raw_yaml.list_words(hook.get("args"))]), group=GROUP)
            elif isinstance(name, str) and name in _HOOKS:
                yield CommandLine(text=_build_command(name, hook), group=GROUP)


def _read(text: str) -> object:
    return Document(text).value if text else None


def _build_command(name: str, hook: Mapping[str, object]) -> Words:
    """Return the command of a hook, or none if it checks files that a command line can't name."""
    start, everything = _HOOKS[name]
    if hook.get("exclude") or (hook.get("files") and not _FOLDERS.fullmatch(str(hook["files"]))):
        return ()
    folders = _FOLDERS.fullmatch(str(hook.get("files") or ""))
    targets = tuple(folder for folder in folders[1].rstrip("|").split("|")) if folders else everything
    given = raw_yaml.list_words(hook["args"]) if "args" in hook else _USUAL_ARGUMENTS.get(name, ())
    return (*start, *(word for word in given if word not in _CHANGES), *(target.rstrip("/") for target in targets))
