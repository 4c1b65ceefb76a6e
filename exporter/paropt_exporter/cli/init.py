"""`init`: write a commented paropt.yml for the project."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from paropt_exporter import files
from paropt_exporter.cli.formatting import format_line, wrap_for_terminal
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.placeholders import ARGS
from paropt_exporter.errors import UsageError, format_count, join_names

if TYPE_CHECKING:
    from paropt_exporter.config.detect import DetectedStages
    from paropt_exporter.config.projects_below import ProjectBelow
    from paropt_exporter.config.values import Stage
    from paropt_exporter.input_files import InputPatterns

FILE = "paropt.yml"
_SPELLINGS = frozenset({FILE, "paropt.yaml"})
_MOST_NAMED = 10
_PLAIN_WORD = re.compile(r"[\w./-](?:[\w./=,-]|:(?=\w))*", re.ASCII)
_PLAIN_NAME = re.compile(r"[A-Za-z_./][\w./-]*", re.ASCII)
_BOOLEANS = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})
_HEAD = """\
# yaml-language-server: $schema={schema}
# `paropt-exporter --once` runs the lane standard; `plan` in place of `--once` shows it, and `check` finds faults here.

# project: NAME                  # the label `project` of every metric; default: this folder's name

# A lane is a way of running the stages: all of them, or those in `stages: [NAME]` and the ones that they need. docs,
# standard and heavy exist even without this section.
lanes:
  # strategy: where Python functions run: thread, process, hybrid, adaptive or sequential.
  # workers: how many tasks run at once: auto, a number, or {{min: 1, max: 16, start: 4}}.
  # sla: the limit of each stage; total: the limit of the lane; null: none. {{max: 45s, critical: true}} stops the lane
  # when the limit is reached. After five runs `paropt-exporter sla --write` sets limits from measured durations.
{docs}  standard: {{strategy: adaptive, workers: auto, sla: null, total: 15m}}
  heavy: {{strategy: process, workers: 8, sla: null, total: 20m}}

# A stage has a name, and one of run (a command), steps (commands, one after another) and call (module:function).
# It starts at once, or after the stages in `needs: [NAME]`. Write plain names of programs: PATH begins with the active
# virtual environment, or with the nearest .venv or venv, here or above. {{args}} stands for the words after `--`, as in
# `paropt-exporter unit_tests -- -k login`. More keys: items (a task for each file of a glob, line of a command's
# output, or entry of a list), retries, timeout, env, cwd, shell, file, sla, locks, exclusive, memory, slots, inputs,
# outputs, cache, pass_env.
stages:
"""
_LINTING = "quality_gates"  # changes of documents can't break other stages
_SOURCE_READERS = frozenset({_LINTING, "type_checking"})  # linters and type checkers
_SOURCES = ("**/*.py", "**/*.pyi", "**/*.ipynb")
_SETTINGS_BELOW = ("*/**/pyproject.toml", "*/**/ruff.toml", "*/**/.ruff.toml")  # for the files in their folders
_ALL_FILES = "cache: true"  # of the repository
_FEWER_FILES = " in the repository (or in some folders: `inputs: [src, tests]`)"
_DOCS = "  docs: {{strategy: thread, workers: 2, sla: null, total: 5m, fail_fast: true, stages: [{}]}}\n"
_EXAMPLE = """\
  - name: hello                  # no tool was found that is installed; put your own commands here
    run: echo "edit paropt.yml"
"""
_TAIL = """
# feedback: {prometheus: {url: "http://127.0.0.1:9090"}, interval: 15s, mode: act}   # size the pools by queries
# web: {listen_address: "127.0.0.1:10178"}      # where Prometheus scrapes
# history: {path: .paropt/history.db, keep: 1000}
"""


def run(path: Path, *, force: bool, stdout: TextIO, stderr: TextIO) -> int:
    """Write the config `path` for the project in its folder, and the schema for editors.

    Returns 0; or 2 if `path` is a folder and, unless `force` is given, if there is already a config, or if no tool is
    used here while folders below are projects or a config above applies.
    """
    from paropt_exporter.config.detect import detect_stages
    from paropt_exporter.config.projects_below import detect_projects_below

    if files.is_folder(path):
        print(f"{path} is a directory: name the file in it", file=stderr)
        return 2
    there = _find_existing(path)
    if there is not None and not (force and there == path.name):
        remedy = "--force overwrites it" if there == path.name else "remove it first"
        print(f"{there} already exists: {remedy}", file=stderr)
        return 2
    detected = detect_stages(path.parent)
    below = detect_projects_below(path.parent, detected)
    nothing = not detected.stages and not detected.lacks_programs and not below
    if nothing and not force and detected.projects:
        named = join_names([*map(str, detected.projects)], _MOST_NAMED)
        message = f"no tool is used here, but there are projects below: run init in {named} (or here, --force)"
        print(format_line(message), file=stderr)
        return 2
    above = _find_config_above(path.parent)
    if nothing and not force and above is not None:
        what = f"no tool is used in this folder, and {above} applies here"
        print(format_line(f"{what}: edit that (or write one here, with --force)"), file=stderr)
        return 2
    try:
        write_schema(path.parent)
        write_file(path, render_config(detected, path.parent, below))
    except OSError as error:
        place = error.filename if isinstance(error, files.UnexpectedFileType) else path
        print(f"{place} can't be written: {error.strerror}", file=stderr)
        return 2
    named = "" if path.name == FILE else f" --config.file {shlex.quote(str(path))}"
    columns = find_columns_of_terminal(stdout)
    print(*wrap_for_terminal(f"wrote {path}: {_describe_stages(detected, below)}", columns, 2), sep="\n", file=stdout)
    if _list_names(detected, below) or not _lacks_programs(detected, below):  # otherwise the user runs init again
        print(f"  to run it: paropt-exporter --once{named}", file=stdout)
        print(f"  to look for faults after a change: paropt-exporter check{named}", file=stdout)
        print("  commit it; .paropt/ is for this machine only, and git ignores it", file=stdout)
    if above is not None:
        print(f"  {above} no longer applies in this folder", file=stdout)
    for note in _list_notes(detected, path.parent, below):
        print(*wrap_for_terminal(f"  {format_line(note)}", columns, 4), sep="\n", file=stdout)
    return 0


def _find_existing(path: Path) -> str | None:
    """Return the name of an existing config, in any spelling, or None."""
    names = sorted(_SPELLINGS | {path.name}) if path.name in _SPELLINGS else [path.name]
    return next((name for name in names if os.path.lexists(path.with_name(name))), None)


def _find_config_above(folder: Path) -> Path | None:
    """Return the config of a folder above that applies in this one, relative to it, or None."""
    from paropt_exporter.config.locate import discover, is_above

    with suppress(UsageError):  # an invalid one does not apply
        found = discover(None, {"HOME": os.environ.get("HOME", "")}, folder=folder)
        return found if is_above(found) else None
    return None


def render_config(detected: DetectedStages, root: Path, below: Sequence[ProjectBelow] = ()) -> str:
    """Return the text of paropt.yml for the stages that were detected in `root` and in projects below."""
    stages = _render_stages(detected.stages, root)
    stages += "".join(_render_stages(each.detected.stages, root / each.folder, each) for each in below)
    left_out = "".join(f"  # {format_line(note)}\n" for note in _list_notes(detected, root, below))
    linters = [name for name in _list_names(detected, below) if name.startswith(_LINTING)]
    docs = _DOCS.format(", ".join(linters)) if linters else ""
    return _HEAD.format(schema=SCHEMA, docs=docs) + (stages or _EXAMPLE) + left_out + _TAIL


def _render_stages(stages: Sequence[Stage], folder: Path, project: ProjectBelow | None = None) -> str:
    proposals = _propose_caching(stages, folder) if stages else {}
    written = (stage if project is None else project.rename(stage) for stage in stages)
    return "".join(
        _render_stage(as_written, proposals.get(stage.name), is_below=project is not None)
        for stage, as_written in zip(stages, written, strict=True)
    )


def _list_names(detected: DetectedStages, below: Iterable[ProjectBelow]) -> list[str]:
    """Return the names of all stages of the config."""
    renamed = (each.rename(stage) for each in below for stage in each.detected.stages)
    return [stage.name for stage in (*detected.stages, *renamed)]


def _lacks_programs(detected: DetectedStages, below: Iterable[ProjectBelow]) -> bool:
    return detected.lacks_programs or any(each.detected.lacks_programs for each in below)


def _list_notes(detected: DetectedStages, root: Path, below: Sequence[ProjectBelow]) -> list[str]:
    from paropt_exporter.config.detect import describe_projects
    from paropt_exporter.config.locate import has_config

    apart = [folder for folder in detected.projects if has_config(root / folder)]
    of_projects = (note for each in below for note in each.notes)
    return [*_iter_own_notes(detected, below), *of_projects, *describe_projects(root, apart)]


def _iter_own_notes(detected: DetectedStages, below: Iterable[ProjectBelow]) -> Iterator[str]:
    """Yield the notes on a folder, without those on a stage for which a project below has the tool."""
    there = {stage.name for each in below for stage in each.detected.stages}
    for note in detected.notes:
        names, found, reason = note.partition(" left out: ") if note in detected.unused else ("", "", note)
        left = [name for name in names.split(", ") if name not in there]
        if left:
            yield f"{', '.join(left)}{found}{reason}"


def _propose_caching(stages: Iterable[Stage], root: Path) -> dict[str, str]:
    """Return the keys to propose for skipping unchanged stages, by stage.

    Python's linters and type checkers read sources and settings; those of the stage's own folder always count. Which
    files tests and build tools read is not known, so all files count, without those that git ignores.
    """
    from paropt_exporter.config.detect import BUILD_TOOLS, SLOW_TOOLS
    from paropt_exporter.git import find_top_folder
    from paropt_exporter.input_files import InputPatterns

    there = [pattern for pattern in _SOURCES + _SETTINGS_BELOW if _has_files(InputPatterns((pattern,)), root)]
    all_files = _ALL_FILES if find_top_folder(root) is not None else 'inputs: ["**"]'
    sources = "inputs: [" + ", ".join(f'"{pattern}"' for pattern in there or _SOURCES[:1]) + "]"
    readers = {
        stage.name: all_files
        if any(isinstance(words, tuple) and words[0] in BUILD_TOOLS for words in stage.commands)
        else sources
        for stage in stages
    }
    own = {f"{kind}_{tool}" for kind in _SOURCE_READERS for tool in SLOW_TOOLS}
    return {name: readers[name] for name in readers.keys() & (_SOURCE_READERS | own)} | {"unit_tests": all_files}


def _has_files(patterns: InputPatterns, root: Path) -> bool:
    try:
        return bool(patterns.find_readable_files(str(root)))
    except OSError:  # such as in /proc, to which a link leads
        return False


def _render_stage(stage: Stage, proposal: str | None, *, is_below: bool) -> str:
    lines = [f"  - name: {stage.name}"]
    if stage.steps is not None:
        lines += ["    steps:", *(f"      - {_format_command(step)}" for step in stage.steps)]
    elif stage.run is not None:
        lines.append(f"    run: {_format_command(stage.run)}")
    if stage.shell:
        lines.append("    shell: true                  # it replaces patterns such as *.py with file names")
    if stage.cwd is not None:
        lines.append(f"    cwd: {_format_word(stage.cwd)}")
    if stage.env:
        pairs = (f"{name}: {_format_word(value)}" for name, value in stage.env.items())
        lines.append(f"    env: {{{', '.join(pairs)}}}")
    if proposal is not None:
        fewer = _FEWER_FILES if is_below and proposal == _ALL_FILES else ""
        lines += [f"    # To skip it while nothing has changed{fewer}:", f"    # {proposal}"]
    return "\n".join(lines) + "\n"


def _format_command(command: str | tuple[str, ...]) -> str:
    """Return words as a plain line if YAML reads that as the same words, otherwise as a list; a line in quotes."""
    if isinstance(command, str):
        return _quote(command)
    words = command
    is_text = not words[0][:1].isdigit() and (len(words) > 1 or words[0].lower() not in _BOOLEANS)
    if is_text and all(_PLAIN_WORD.fullmatch(word) or word == ARGS for word in words):
        return " ".join(words)
    return f"[{', '.join(map(_quote, words))}]"


def _format_word(word: str) -> str:
    return word if _PLAIN_NAME.fullmatch(word) and word.lower() not in _BOOLEANS else _quote(word)


def _quote(word: str) -> str:
    """Return a word in YAML's double quotes; characters that are invisible or that YAML refuses are escaped."""
    quoted = json.dumps(word, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted)


def _describe_stages(detected: DetectedStages, below: Sequence[ProjectBelow]) -> str:
    if names := _list_names(detected, below):
        return f"{format_count(len(names), 'stage')} ({join_names(names, _MOST_NAMED)})"
    if _lacks_programs(detected, below):
        return "the project's tools are not installed here: install them, then run init --force"
    return "no tool was found: put your own commands in place of the stage hello"


SCHEMA = ".paropt/paropt.schema.json"  # where editors find it without a network
_HEAD_BYTES = 1000  # of a config; the reference to the schema is at its top


def write_schema(root: Path) -> None:
    """Write this version's schema for the project in `root` unless it is up to date. Raises OSError."""
    from paropt_exporter.history import database

    path, text = root / SCHEMA, _load_schema()
    root.stat()  # raises for a missing folder, which is not created
    files.make_folder(path.parent)
    database.keep_out_of_git(path.parent)
    if _has_content(path, text.encode()):
        files.make_private(path)
    else:
        files.replace_file(path, text.encode(), mode=files.PRIVATE_FILE)


def _load_schema() -> str:
    """Return the schema that an earlier command stored, or render it."""
    from paropt_exporter.config.parsed_configs import ParsedConfigs

    kept = ParsedConfigs(os.environ)
    text = kept.find_schema()
    if text is None:
        from paropt_exporter.monitoring import schema

        text = schema.render_schema()
        kept.store_schema(text)
    return text


def refresh_schema(config_path: Path) -> None:
    """Write the schema that a config refers to: a fresh clone has none, and an earlier version's is wrong."""
    with suppress(OSError):  # an unwritable folder is not a fault of the config
        if files.is_file(config_path) and _refers_to_schema(config_path):
            write_schema(config_path.parent)


def write_file(path: Path, text: str) -> None:
    """Replace the file atomically. A link is replaced, not followed. File names in notes may not be valid UTF-8."""
    files.replace_file(path, text.encode(errors="replace"), sync=True)


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return files.read_file(path, len(content)) == content
    except OSError:
        return False


def _refers_to_schema(config_path: Path) -> bool:
    with config_path.open("rb") as file:
        return f"$schema={SCHEMA}\n".encode() in file.read(_HEAD_BYTES)
