"""Read `paropt.yml` into a Config, or report all its faults at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ValidationError

from paropt_exporter import host
from paropt_exporter.config import defaults, messages, raw_yaml
from paropt_exporter.config.checks import Machine, cross_check
from paropt_exporter.config.command_checks import check_work
from paropt_exporter.config.document import LARGEST_FILE_BYTES, Document, Unreadable, decode_text
from paropt_exporter.config.faults import Fault
from paropt_exporter.config.fields import LONGEST_NAME, NAME_PATTERN
from paropt_exporter.config.model import ALL_STAGES, Dask, Feedback, File, History, Lane, Push, Stage, Web
from paropt_exporter.errors import ConfigError

_EMPTY = "the file is empty: `paropt-exporter init --force` writes one for this project"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
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


def read_config(path: Path | None, *, root: Path) -> Config:
    """Read the file at `path`, or detect the built-in stages of the project in `root` if it is None.

    Raises ConfigError with all faults of the file, each as `file:line:column: path: message`.
    """
    if path is None:
        return _build_config(File(), path=None, root=_make_absolute(root), places={})
    try:
        document = Document(decode_text(_read_content(path)))
        file = _validate(document)
    except Unreadable as error:
        raise ConfigError(tuple(fault.format(str(path)) for fault in sorted(error.faults))) from None
    return _build_from_document(file, document, path, root)


def read_valid_parts(path: Path, *, root: Path) -> Config | None:
    """Return the keys and stages without faults of a file that `read_config` rejected. Nothing of it may run.

    `check` uses them to look for further faults. None if the file can't be read a second time, or has no values.
    """
    if not path.is_file():
        return None  # a pipe is empty now, and a second reader would block
    try:
        document = Document(decode_text(_read_content(path)))
        return _build_from_document(File.model_validate(_keep_valid_parts(document.value)), document, path, root)
    except (Unreadable, ConfigError, ValidationError):
        return None


def _keep_valid_parts(value: object) -> dict[str, object]:
    file = raw_yaml.as_mapping(value)
    parts = {key: child for key, child in file.items() if _is_valid(File, {key: child})}
    stages = [
        stage
        for place, stage in raw_yaml.list_stages(file)
        if _is_valid(Stage, stage) and not any(check_work(place, stage))
    ]
    return {**parts, "stages": stages}


def _is_valid(model: type[BaseModel], value: dict[str, object]) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True


def _build_from_document(file: File, document: Document, path: Path, root: Path) -> Config:
    folder = path.parent if path.is_file() else root  # the folder of a pipe is not the project's
    places = {
        raw_yaml.get_name(stage): document.locate(Fault(location=location, message=""))
        for location, stage in raw_yaml.list_stages(raw_yaml.as_mapping(document.value))
    }
    texts = {name: place.format(str(path)).removesuffix(": ") for name, place in places.items()}
    return _build_config(file, path=path, root=_make_absolute(folder), places=texts)


def _read_content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
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


def _validate(document: Document) -> File:
    value = document.value
    if value is None:
        raise Unreadable([document.locate(Fault(location=(), message=_EMPTY))])
    if isinstance(value, dict):
        value = {key: child for key, child in value.items() if not key.startswith("x-")}  # users keep anchors there
    machine = Machine(cores=host.count_cpu_workers(), memory_bytes=host.read_total_memory_bytes)
    found: list[Fault] = []
    file = None
    try:
        file = File.model_validate(value)
    except ValidationError as error:
        found += messages.iter_faults(error, document, File)
    found += cross_check(value, machine)
    if found or file is None:
        raise Unreadable([*dict.fromkeys(document.locate(fault) for fault in found)])
    return file


def _build_config(file: File, *, path: Path | None, root: Path, places: Mapping[str, str]) -> Config:
    notes: tuple[str, ...] = ()
    stages = file.stages
    if stages is None:
        from paropt_exporter.config.detect import detect_stages  # here: most projects have a file

        detected = detect_stages(root)
        stages, notes = detected.stages, detected.notes
    return Config(
        project=file.project or _choose_project_name(root),
        lanes=MappingProxyType(_resolve_stage_numbers(_add_default_lanes(file.lanes), stages)),
        stages=stages,
        feedback=file.feedback,
        web=file.web,
        push=file.push,
        dask=file.dask,
        history=file.history,
        root=root,
        path=path,
        notes=notes,
        places=MappingProxyType(dict(places)),
    )


def _add_default_lanes(lanes: Mapping[str, Lane]) -> dict[str, Lane]:
    """Return the default lanes and those of a file; one of a default lane's name has its values for missing keys."""
    known = defaults.build_default_lanes()
    return {
        **known,
        **{name: _merge_lane(known[name], lane) if name in known else lane for name, lane in lanes.items()},
    }


def _merge_lane(default: Lane, lane: Lane) -> Lane:
    """Return a default lane with the keys that a file gives; limits by stage leave other stages the default's limit."""
    said = {key: getattr(lane, key) for key in lane.model_fields_set}
    if isinstance(lane.sla, dict) and default.sla is not None:
        said["sla"] = {ALL_STAGES: default.sla, **lane.sla}
    return default.model_copy(update=said)


def _resolve_stage_numbers(lanes: Mapping[str, Lane], stages: tuple[Stage, ...]) -> dict[str, Lane]:
    """Replace the stage numbers in the lanes by names."""
    names = {str(stage.number): stage.name for stage in stages} | {stage.name: stage.name for stage in stages}
    return {
        name: lane.model_copy(update={"stages": tuple(names.get(word, word) for word in lane.stages)})
        if lane.stages is not None
        else lane
        for name, lane in lanes.items()
    }


def _choose_project_name(root: Path) -> str:
    """Return the folder's name, with an underscore for each character that a name may not have."""
    name = re.sub(r"[\s\"'`\\]|[^\x20-\U0010ffff]", "_", root.name)[:LONGEST_NAME].lstrip("-") or "project"
    return name if re.match(NAME_PATTERN, name) and name.isprintable() else "project"


def _make_absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 -- resolve() would follow links, and a linked project is meant as named
