"""A project with one traced stage, run by the real engine, cache and pool of commands."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from paropt_exporter.cache.traced_results import PROOFS
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.plan import PlannedStage
from support.cached_project import CachedProject, Ran
from support.command_scripts import shell


class TracedProject:
    """A project with one stage, `lint`, which runs a line of shell."""

    def __init__(self, folder: Path, pool: CommandPool) -> None:
        self.project = CachedProject(folder / "project", folder / "store", work={})
        self.project.environ["PATH"] = os.environ["PATH"]
        self.root = self.project.root
        self.pool = pool

    def write(self, name: str, content: str) -> None:
        """Write a file, and wait until its time is old enough to prove that a reader saw this content."""
        self.project.write_file(name, content)
        wait_for_next_ticks(self.root / name)

    def run(self, line: str | tuple[str, ...], **fields: Any) -> Ran:
        return self.project.run(
            self.build_stage(line, **fields), pool=self.pool, no_cache=fields.pop("no_cache", False)
        )

    def build_stage(self, line: str | tuple[str, ...], **fields: Any) -> PlannedStage:
        fields.pop("no_cache", None)
        command = tuple(shell(line)) if isinstance(line, str) else line
        return self.project.build_stage("lint", command=command, **{"inputs": None, "traces_inputs": True, **fields})

    def prove(self, line: str | tuple[str, ...], **fields: Any) -> Ran:
        """Run a stage until its inputs have proved themselves; return the next run."""
        for _ in range(1 + PROOFS):
            ran = self.run(line, **fields)
            assert not ran.is_cached("lint")
        return self.run(line, **fields)


def wait_for_next_ticks(path: Path) -> None:
    """Wait until files that are written now get a later time than this one, twice."""
    probe = path.with_name(f"{path.name}.probe")
    deadline = time.monotonic() + 10
    last = path.stat().st_mtime_ns
    for _ in range(3):
        while True:
            probe.write_text("")
            now = probe.stat().st_mtime_ns
            if now > last:
                last = now
                break
            assert time.monotonic() < deadline
    probe.unlink()
