"""Read `paropt.yml` into a Config, or report all its faults at once."""

from __future__ import annotations

import gc
import os
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.config.parsed_configs import ParsedConfigs
from paropt_exporter.config.units import LARGEST_FILE_BYTES, LONGEST_NAME, NAME_PATTERN, format_value
from paropt_exporter.config.values import CheckedFile, Dask, Feedback, History, Lane, Push, Stage, Web
from paropt_exporter.errors import ConfigError
from paropt_exporter.files import is_file, open_for_reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO


_PLUGIN_SWITCH = "PYDANTIC_DISABLE_PLUGINS"
_OWN_FOLDER = ".paropt"
_PARTS_OF_HISTORY = ("", "-wal", "-shm", "-journal", ".lock", ".functions.json")


class Config(Struct, frozen=True, kw_only=True):
    """A checked workflow. All its paths are relative to `root`, an absolute folder.

    `lanes` includes the default lanes. `path` is the file as the user named it, or None without a file. `notes` are
    the reasons why built-in stages are left out. `places` has each stage's place in the file as `file:line:column`.
    """

    project: str
    lanes: Mapping[str, Lane]
    stages: tuple[Stage, ...]
    feedback: Feedback = field(default_factory=Feedback)
    web: Web = field(default_factory=Web)
    push: Push = field(default_factory=Push)
    dask: Dask = field(default_factory=Dask)
    history: History = field(default_factory=History)
    root: Path
    path: Path | None = None
    notes: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def history_path(self) -> Path:
        return self.root / self.history.path

    def get_folder(self, stage: Stage) -> Path:
        """Return the folder in which a stage's commands run."""
        return self.root / (stage.cwd or "")


def read_config(path: Path | None, *, root: Path) -> Config:
    """Read the file at `path`, or detect the built-in stages of the project in `root` if it is None.

    Raises ConfigError with all faults of the file, each as `file:line:column: path: message`.
    """
    if path is None:
        return _build_config(_build_default_file(), path=None, root=_make_absolute(root))
    return _check_output_files(_build_from_file(_validate(_read_content(path), path), path, root))


def reread_config(path: Path) -> Config:
    """Return the same as `read_config` for a file that was read before. A pipe in its place is a fault."""
    content = _read_content(path, open_for_reading)
    return _check_output_files(_build_from_file(_validate(content, path), path, path.parent))


def load_config(path: Path | None, *, root: Path, environ: Mapping[str, str]) -> Config:
    """Return the same as `read_config`, without validation if the user's cache knows this content as valid."""
    if path is None or not is_file(path):  # the content of a pipe may be secret
        return read_config(path, root=root)
    content, cores = _read_content(path, open_for_reading), host.count_cpu_workers()
    parsed = ParsedConfigs(environ)
    file = parsed.find(path, content, cores=cores, memory_bytes=host.read_total_memory_bytes)
    if file is None:
        file = _validate(content, path)
        parsed.store(path, content, file, cores=cores, memory_bytes=_get_compared_memory(file))
    return _check_output_files(_build_from_file(file, path, root))


def _get_compared_memory(file: CheckedFile) -> int:
    """Return the machine's memory in bytes if the validity of a file depends on it, or 0."""
    return host.read_total_memory_bytes() if any(stage.memory for stage in file.stages or ()) else 0


def read_valid_parts(path: Path, *, root: Path) -> Config | None:
    """Return the valid keys and stages of a file that `read_config` rejected. Nothing in it may run.

    `check` uses them to look for further faults. None if the file can't be read a second time, or has no values.
    """
    if not is_file(path):
        return None  # a pipe is empty now, and a second reader would block
    from paropt_exporter.config import validation

    try:
        file = validation.read_valid_parts(_read_content(path, open_for_reading))
    except ConfigError:
        return None
    return None if file is None else _build_from_file(file, path, root)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


def _read_content(path: Path, open_file: Callable[[Path], BinaryIO] = _open) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(LARGEST_FILE_BYTES + 1)  # a pipe or a device may be endless
    except IsADirectoryError:
        problem = "it is a directory: name the file in it"
    except FileNotFoundError:
        problem = "it is a link to nothing" if path.is_symlink() else "there is no such file"
    except PermissionError:
        problem = "no permission to read it"
    except (OSError, ValueError) as error:
        problem = f"it can't be read: {getattr(error, 'strerror', None) or error}"
    raise ConfigError((f"{path}:1:1: file: {problem}",))


def _validate(content: bytes, path: Path) -> CheckedFile:
    with _disable_plugins():
        from paropt_exporter.config import validation
        from paropt_exporter.config.checks import Machine
        from paropt_exporter.config.document import Unreadable

    machine = Machine(cores=host.count_cpu_workers(), memory_bytes=host.read_total_memory_bytes)
    try:
        with _disable_plugins():
            return validation.validate(content, machine)
    except Unreadable as error:
        raise ConfigError(tuple(fault.format(str(path)) for fault in sorted(error.faults))) from None


@contextmanager
def _disable_plugins() -> Iterator[None]:
    """Skip pydantic's search for plugins, which reads the metadata of every installed distribution."""
    if _PLUGIN_SWITCH in os.environ:
        yield
        return
    os.environ[_PLUGIN_SWITCH] = "1"
    collects = gc.isenabled()
    gc.disable()  # garbage collections during the import of pydantic would find nothing
    try:
        yield
    finally:
        del os.environ[_PLUGIN_SWITCH]  # a stage may use pydantic with plugins
        if collects:
            gc.enable()


def _build_default_file() -> CheckedFile:
    from paropt_exporter.config.defaults import build_default_lanes

    return CheckedFile(lanes=build_default_lanes())


def _build_from_file(file: CheckedFile, path: Path, root: Path) -> Config:
    folder = path.parent if is_file(path) else root  # the folder of a pipe is not the project's
    return _build_config(file, path=path, root=_make_absolute(folder))


def _check_output_files(config: Config) -> Config:
    """Return the config. Raises ConfigError if a stage's `file` is the config or the history, which it would empty."""
    named = [(stage, stage.file) for stage in config.stages if stage.file is not None]
    if not named:
        return config
    files, folders = _list_own_files(config)
    resolve = cache(os.path.realpath)  # most of a thousand files are in one folder
    faults = tuple(
        f"{config.places[stage.name]}.file: {format_value(name)} is {owner}, and each run empties the file of a "
        "stage: name another one"
        for stage, name in named
        for path in [_resolve_file(os.path.join(config.root, name), resolve)]  # noqa: PTH118 -- ten times as fast
        if (owner := files.get(path) or next((folders[each] for each in folders if path.startswith(each)), None))
    )
    if faults:
        raise ConfigError(faults)
    return config


def _resolve_file(path: str, resolve: Callable[[str], str]) -> str:
    """Return a path with its links resolved. `resolve` does so for a folder."""
    folder, name = os.path.split(path)
    place = os.path.join(resolve(folder), name)  # noqa: PTH118
    return os.path.realpath(place) if os.path.islink(place) else place  # noqa: PTH114


def _list_own_files(config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files and the folders of the exporter, with links resolved, and what each is."""
    history = os.path.realpath(config.history_path)
    files = {f"{history}{part}": "a file of the history" for part in _PARTS_OF_HISTORY}
    if config.path is not None:
        files[os.path.realpath(config.path)] = "the config"
    folders = {
        os.path.realpath(config.root / _OWN_FOLDER) + "/": "in the exporter's own folder",
        f"{history}.logs/": "a file of the history",
        f"{history}.runs/": "a file of the history",
    }
    return files, folders


def _build_config(file: CheckedFile, *, path: Path | None, root: Path) -> Config:
    notes: tuple[str, ...] = ()
    stages = file.stages
    if stages is None:
        from paropt_exporter.config.detect import describe_projects, detect_stages  # here: most projects have a file
        from paropt_exporter.config.locate import describe_other_names

        detected = detect_stages(root)
        misnamed = describe_other_names(root) if path is None else ()
        stages = detected.stages
        notes = (*misnamed, *detected.notes, *describe_projects(root, detected.projects))
    return Config(
        project=file.project or _choose_project_name(root),
        lanes=MappingProxyType(_resolve_members(file.lanes, stages)),
        stages=stages,
        feedback=file.feedback,
        web=file.web,
        push=file.push,
        dask=file.dask,
        history=file.history,
        root=root,
        path=path,
        notes=notes,
        places=MappingProxyType({name: f"{path}{place}" for name, place in file.places.items()}),
    )


def _resolve_members(lanes: Mapping[str, Lane], stages: tuple[Stage, ...]) -> dict[str, Lane]:
    """Replace the stages under the lanes' `stages`, by name or number, by the names of these and of their needs."""
    names = {str(stage.number): stage.name for stage in stages} | {stage.name: stage.name for stage in stages}
    needs = {stage.name: stage.needs for stage in stages}
    resolved: dict[str, Lane] = {}
    for name, lane in lanes.items():
        if lane.stages is not None:
            members = find_reachable([names.get(word, word) for word in lane.stages], lambda each: needs.get(each, ()))
            lane = replace(lane, stages=tuple(each for each in needs if each in members))  # noqa: PLW2901
        resolved[name] = lane
    return resolved


def _choose_project_name(root: Path) -> str:
    """Return the folder's name, with an underscore for each character that a name may not have."""
    if re.fullmatch(r"\w[\w.-]{0,60}", root.name, re.ASCII):
        return root.name  # as is most common: the patterns below take 2 ms to compile
    name = re.sub(r"[\s\"'`\\]|[^\x20-\U0010ffff]", "_", root.name)[:LONGEST_NAME].lstrip("-") or "project"
    return name if re.match(NAME_PATTERN, name) and name.isprintable() else "project"


def _make_absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 -- resolve() would follow links, and a linked project is meant as named
