"""Detect the stages of the projects below a folder, such as the packages of a workspace, for one config above them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.detect import KINDS, TEST_STAGES, DetectedStages, detect_stages
from paropt_exporter.config.locate import has_config
from paropt_exporter.config.values import Stage

_LONGEST_LABEL = 60  # characters; the name of a stage has at most 100


class ProjectBelow(Struct, frozen=True, kw_only=True):
    """A project below, and what to add for it to a config above. Its stages have the names of its own config."""

    folder: str
    label: str
    detected: DetectedStages

    def rename(self, stage: Stage) -> Stage:
        """Return one of its stages as it is in a config above."""
        folder = self.folder if stage.cwd is None else f"{self.folder}/{stage.cwd}"
        return replace(stage, name=f"{stage.name}_{self.label}", cwd=folder)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on tools that the project uses; a line on each stage that it does not need would be too much."""
        unused = self.detected.unused
        return tuple(f"{self.folder}: {note}" for note in self.detected.notes if note not in unused)


def detect_projects_below(root: Path, above: DetectedStages) -> tuple[ProjectBelow, ...]:
    """Return the projects without a config that have stages to add, or programs to install for them."""
    folders = [
        folder.as_posix() for folder in above.projects if not has_config(root / folder) and str(folder).isprintable()
    ]
    labels = Counter(_make_label(Path(folder).name) for folder in folders)
    taken = {stage.name for stage in above.stages}
    found: list[ProjectBelow] = []
    for folder in folders:
        detected = detect_stages(root / folder)
        covered = [stage.name for stage in detected.stages if _is_covered(stage, above.stages)]
        stages = tuple(stage for stage in detected.stages if stage.name not in covered)
        notes = tuple(note for note in detected.notes if note.partition(":")[0] not in covered)
        if stages or detected.lacks_programs:
            label = _make_label(Path(folder).name)
            label = label if labels[label] == 1 else _make_label(folder)
            label = next(each for each in _iter_labels(label) if taken.isdisjoint(_name_stages(stages, each)))
            taken.update(_name_stages(stages, label))
            found.append(
                ProjectBelow(folder=folder, label=label, detected=replace(detected, stages=stages, notes=notes))
            )
    return tuple(found)


def _make_label(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[-_LONGEST_LABEL:]


def _iter_labels(label: str) -> Iterator[str]:
    yield label
    yield from (f"{label}_{number}" for number in count(2))  # such as a folder npm beside the stage quality_gates_npm


def _name_stages(stages: Iterable[Stage], label: str) -> list[str]:
    return [f"{stage.name}_{label}" for stage in stages]


def _is_covered(stage: Stage, above: Iterable[Stage]) -> bool:
    """Return whether stages above run the same linters or type checkers, which also read the files below."""
    kind = _find_kind(stage)
    same = (each for each in above if _find_kind(each) == kind)
    return kind not in TEST_STAGES and _list_programs([stage]) <= _list_programs(same)


def _find_kind(stage: Stage) -> str:
    return next(kind for kind in KINDS if stage.name == kind or stage.name.startswith(f"{kind}_"))


def _list_programs(stages: Iterable[Stage]) -> set[str]:
    commands = (command for stage in stages for command in stage.commands)
    words = (command.split() if isinstance(command, str) else command for command in commands)
    return {each[0] for each in words if each}
