"""`check`: report all faults of the config, and all programs and modules that it needs but this machine lacks."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from paropt_exporter import files
from paropt_exporter.cli import init
from paropt_exporter.cli.config_warnings import iter_warnings
from paropt_exporter.cli.formatting import format_faults, wrap_for_terminal
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.errors import ConfigError, UsageError, format_count
from paropt_exporter.plan import describe_missing_stages, require_lane

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Stage
    from paropt_exporter.plan.shared_outputs import OutputIndex

_INDENT = 2  # of a wrapped line's rest


def run(config_path: Path | None, root: Path, *, lane: str | None, stdout: TextIO, stderr: TextIO) -> int:
    """Print all faults and return 2, or report that there are none and return 0. `lane`: check only its stages."""
    if config_path is not None:
        init.refresh_schema(config_path)
    config, faults = _read_config(config_path, root)
    if config is None:
        return _print_faults(faults, stderr)
    if lane is not None and not faults:
        require_lane(config, lane)
    lanes = {name: chosen for name, chosen in config.lanes.items() if lane in (None, name)}
    stages = [stage for stage in config.stages if any(chosen.includes(stage) for chosen in lanes.values())]
    _print_wrapped([f"warning: {warning}" for warning in iter_warnings(config, lanes, stages)], stderr)
    faults += _find_missing(config, stages)
    if not config.stages and not faults:
        faults.append(f"{config.path or 'no paropt.yml'}: {describe_missing_stages(config)}")
    _print_wrapped(config.notes, stderr if faults else stdout)
    if faults:
        return _print_faults(faults, stderr)
    name = config.path or "no paropt.yml, built-in stages"
    print(f"{name}: {format_count(len(lanes), 'lane')}, {format_count(len(stages), 'stage')}: no faults", file=stdout)
    return 0


def _read_config(path: Path | None, root: Path) -> tuple[Config | None, list[str]]:
    """Return the config, or its valid parts if the file has faults, and the faults."""
    from paropt_exporter import config as configs

    try:
        return configs.load_config(path, root=root, environ=os.environ), []
    except ConfigError as error:
        sound = configs.read_valid_parts(path, root=root) if path is not None else None
        return sound, [*error.faults]


def _find_missing(config: Config, stages: list[Stage]) -> Iterator[str]:
    """Yield a fault, with its place, for everything that the config needs but this machine lacks."""
    made = _MadeFiles(config)
    for stage in stages:
        yield from (f"{_get_place(config, stage)}: {fault}" for fault in _check_stage(config, stage, made))
    yield from (f"{config.path}: {fault}" for fault in _check_jobserver(config))
    yield from (f"{config.path or config.root}: {fault}" for fault in _check_history(config))
    yield from _check_web_config(config)
    yield from _check_host_config(config)


def _check_history(config: Config) -> Iterator[str]:
    """Yield a fault if runs can't be recorded at the history's path. Damage is no fault: a run repairs it."""
    from paropt_exporter.errors import HistoryError
    from paropt_exporter.history import database

    path = config.history_path
    folder = next((parent for parent in path.parents if files.exists(parent)), path.parent)
    if not files.is_folder(folder):
        yield f"history: {folder} is a file: name a path in a folder"
    elif denied := files.find_denied_listing(folder):  # such as `.paropt` after a run by root
        yield f"history {path}: cannot read {folder} ({denied}); fix its permissions or choose another file"
    if files.exists(path):
        try:
            database.check_file(path)
        except HistoryError as error:
            yield str(error)


def _check_host_config(config: Config) -> tuple[str, ...]:
    """Return the faults of the host config, and of secrets that this config names but the host config forbids."""
    from paropt_exporter.config.host_config import load_host_config
    from paropt_exporter.config.server_access import apply_host_config

    try:
        apply_host_config(config, load_host_config(os.environ))
    except ConfigError as error:
        return error.faults
    except UsageError as error:
        return (str(error),)
    return ()


def _check_web_config(config: Config) -> tuple[str, ...]:
    """Return the faults of the web config."""
    if config.web.config_file is None:
        return ()
    from paropt_exporter.exposition.protection import ProtectionFile

    try:
        ProtectionFile(config.root / config.web.config_file)
    except ConfigError as error:
        return error.faults
    except UsageError as error:
        return (str(error),)
    return ()


def _print_faults(faults: list[str], stderr: TextIO) -> int:
    _print_wrapped([*format_faults(faults), format_count(len(faults), "fault")], stderr)
    return 2


def _print_wrapped(lines: Iterable[str], stream: TextIO) -> None:
    """Print lines, wrapped on a terminal."""
    columns = find_columns_of_terminal(stream)
    stream.writelines(f"{part}\n" for line in lines for part in wrap_for_terminal(line, columns, _INDENT))


def _check_stage(config: Config, stage: Stage, made: _MadeFiles) -> Iterator[str]:
    """Yield the reasons why a stage could not start here."""
    if stage.call is not None:
        yield from check_call(stage.call, config.root)
    folder = config.get_folder(stage)
    if not files.is_folder(folder):
        if not made.may_have(stage, "**"):
            yield f"cwd: there is no folder {stage.cwd}: create it, or correct the path"
        return
    if stage.file is not None and files.is_folder(config.root / stage.file):
        yield f"file: {stage.file} is a folder: name a file in it"
    yield from _check_glob(stage, folder)
    from paropt_exporter.config.virtual_environment import build_environment

    env = {**os.environ, **build_environment(folder, os.environ), **stage.env}
    path = env.get("PATH", os.defpath)
    for program in dict.fromkeys(_iter_programs(stage)):
        if "/" not in program or files.exists(folder / program) or not made.may_have(stage, program):
            yield from _check_program(program, folder, path)


class _MadeFiles:
    """The files that stages write, which a fresh checkout lacks."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def may_have(self, stage: Stage, name: str) -> bool:
        """Return whether another stage may write a file in a stage's folder."""
        from paropt_exporter.input_files import join_pattern

        return self._written.may_write(join_pattern(stage.cwd or ".", name), reader=stage.name)

    @cached_property
    def _written(self) -> OutputIndex:
        from paropt_exporter.plan.shared_outputs import OutputIndex
        from paropt_exporter.plan.stage_patterns import list_output_patterns

        return OutputIndex({stage.name: list_output_patterns(stage) for stage in self._config.stages})


def _check_glob(stage: Stage, folder: Path) -> Iterator[str]:
    if stage.items is None or stage.items.glob is None:
        return  # an items command is not run: it belongs to the repository
    from paropt_exporter.plan.items import ItemsError, describe_missing_items, find_items

    try:
        if not find_items(stage.items, cwd=folder, env={}) and not stage.items.allow_empty:
            yield describe_missing_items(stage.items)
    except ItemsError as error:
        yield str(error)


def _iter_programs(stage: Stage) -> Iterator[str]:
    if stage.shell:
        yield "/bin/sh"  # only the shell knows the programs in its line
    commands = [] if stage.shell else [*stage.commands]
    if stage.items is not None and stage.items.command is not None:
        commands.append(stage.items.command)
    for command in commands:
        words = shlex.split(command) if isinstance(command, str) else command
        if words and "{item" not in words[0]:
            yield words[0]


def _check_program(program: str, folder: Path, path: str) -> Iterator[str]:
    if "/" not in program:
        if _search_path(program, folder, path) is None:
            yield f"{program!r} is not on PATH: {_suggest_remedy(program)}"
        return
    file = folder / program
    if files.is_folder(file):
        yield f"{program!r} is a directory: name a program"
    elif not files.exists(file):
        yield f"there is no program {program!r}: install it, or correct the path"
    elif not os.access(file, os.X_OK):
        yield f"{program!r} is not executable: chmod +x it"


def _suggest_remedy(program: str) -> str:
    from paropt_exporter.executors.commands.command_task import suggest_shell

    if remedy := suggest_shell(program):
        return remedy
    if " " in program:
        return "a list has the words of one command; several commands are `steps`"
    return "install it, or correct the command"


def _search_path(program: str, folder: Path, path: str) -> str | None:
    """Search a PATH as the stage would, with relative entries taken from the stage's folder."""
    entries = os.pathsep.join(os.path.join(folder, entry) for entry in path.split(os.pathsep))  # noqa: PTH118 -- a PATH is text
    return shutil.which(program, path=entries)


def _check_jobserver(config: Config) -> Iterator[str]:
    if config.feedback.jobserver:
        from paropt_exporter.autoscaling.jobserver import require_make

        try:
            require_make(os.environ)
        except UsageError as error:
            yield str(error)


def _get_place(config: Config, stage: Stage) -> str:
    return config.places.get(stage.name) or f"stage {stage.name}"


# If a package's source contains one of these, its modules may be anywhere, or may be created by the import.
_DYNAMIC = (b"__path__", b"sys.modules")
_LARGEST_SOURCE_BYTES = 1_000_000


def check_call(target: str, root: Path) -> Iterator[str]:
    """Yield a fault if the module of a call is missing. Searches as a run does, in the config's folder first."""
    module = target.partition(":")[0]
    if module in sys.modules:
        return  # such as os.path, which has no package
    importlib.invalidate_caches()
    folders: Sequence[str] = [str(root), *sys.path]
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _find_in_folders(name, folders) or _find_elsewhere(name)
        if spec is None:
            yield f"there is no module {name!r} for {target}: correct the name, or install it"
            return
        if _is_dynamic(spec):
            return  # the package may load its modules in its own way
        folders = spec.submodule_search_locations or ()


def _find_in_folders(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Return the first module or package of that name in the folders, otherwise a namespace package of all of them."""
    portions: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or ()) if spec is not None else ()
    if not portions:
        return None
    namespace = ModuleSpec(name, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def _find_elsewhere(name: str) -> ModuleSpec | None:
    """Return a built-in module, or one that the finder of an installed package knows."""
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None) if finder is not PathFinder else None
        if spec is not None:
            return spec
    return None


def _is_dynamic(spec: ModuleSpec) -> bool:
    if spec.submodule_search_locations is None or spec.origin is None:
        return False
    try:
        with Path(spec.origin).open("rb") as file:
            source = file.read(_LARGEST_SOURCE_BYTES)
    except OSError:
        return False
    return any(word in source for word in _DYNAMIC)
