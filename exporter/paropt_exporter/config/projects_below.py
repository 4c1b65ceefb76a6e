"""Detect the stages of the projects below a folder, such as the packages of a workspace, for one config above them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.detect import KINDS, TEST_STAGES, DetectedStages, detect_stages
from paropt_exporter.config.locate import has_config
from paropt_exporter.config.values import Stage


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
    last = Counter(Path(folder).name for folder in folders)
    found: list[ProjectBelow] = []
    for folder in folders:
        detected = detect_stages(root / folder)
        covered = [stage.name for stage in detected.stages if _is_covered(stage, above.stages)]
        stages = tuple(stage for stage in detected.stages if stage.name not in covered)
        notes = tuple(note for note in detected.notes if note.partition(":")[0] not in covered)
        if stages or detected.lacks_programs:
            name = Path(folder).name
            label = re.sub(r"[^\w.-]", "_", name if last[name] == 1 else folder)
            found.append(
                ProjectBelow(folder=folder, label=label, detected=replace(detected, stages=stages, notes=notes))
            )
    return tuple(found)


def _is_covered(stage: Stage, above: Iterable[Stage]) -> bool:
    """Return whether stages above run the same linters or type checkers, which also read the files below."""
    kind = _find_kind(stage)
    same = (each for each in above if _find_kind(each) == kind)
    return kind not in TEST_STAGES and _list_programs([stage]) <= _list_programs(same)


def _find_kind(stage: Stage) -> str:
    return next(kind for kind in KINDS if stage.name == kind or stage.name.startswith(f"{kind}_"))


def _list_programs(stages: Iterable[Stage]) -> set[str]:
    commands = (command for stage in stages for command in (stage.run, *(stage.steps or ())))
    words = (command.split() if isinstance(command, str) else command for command in commands)
    return {each[0] for each in words if each}
