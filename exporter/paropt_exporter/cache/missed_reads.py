"""Find the files that a stage's last traced run read and that its declared inputs leave out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from paropt_exporter.cache.inputs import is_settings_file
from paropt_exporter.cache.misses import Notes
from paropt_exporter.cache.path_sets import CACHE_FOLDERS
from paropt_exporter.input_files import ITEM, InputPatterns, join_pattern
from paropt_exporter.plan.affected import list_input_patterns

if TYPE_CHECKING:
    from paropt_exporter.cache.result_store import Store
    from paropt_exporter.config import Config, Stage

# They count by other means, or hold no sources.
_OTHER_FOLDERS = CACHE_FOLDERS | {".git", "node_modules"}


def find_missed_reads(config: Config, stage: Stage, store: Store) -> list[str]:
    """Return these files, sorted. They may have changed since."""
    reads = Notes(store.last_folder, config.project).load_reads(stage.name)
    declared = InputPatterns(list_input_patterns(stage))
    outputs = InputPatterns([*_iter_outputs(config)])
    words = " ".join(str(command) for command in (stage.run, *(stage.steps or ())))
    environments = {folder for folder in {path.partition("/")[0] for path in reads} if _is_environment(config, folder)}
    return [
        path
        for path in reads
        if not declared.matches(path)
        and not outputs.matches(path)
        and not is_settings_file(path)
        and path not in words
        and _OTHER_FOLDERS.isdisjoint(path.split("/"))
        and path.partition("/")[0] not in environments
        and os.path.lexists(os.path.join(config.root, path))
    ]


def _iter_outputs(config: Config) -> list[str]:
    return [
        join_pattern(stage.cwd or ".", pattern.replace(ITEM, "*"))
        for stage in config.stages
        for pattern in stage.outputs
    ]


def _is_environment(config: Config, folder: str) -> bool:
    return os.path.exists(os.path.join(config.root, folder, "pyvenv.cfg"))
