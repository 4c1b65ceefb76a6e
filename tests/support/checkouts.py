"""Checkouts of one project that are run, copied, moved and deleted while `serve` counts their runs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from paropt_exporter import families
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
from paropt_exporter.serve.messages import Registration
from paropt_exporter.serve.registry import Registry, refresh_checkouts
from support.event_samples import START, run_started

NAMES = "abc"
_PROJECT = "shop"


@dataclass(slots=True)
class Checkouts:
    """The checkouts `a`, `b` and `c` below a folder, and the registry of a `serve`.

    `apply` takes a change as words, such as `run a` or `move a b`.
    """

    folder: Path
    registry: Registry = field(init=False)
    runs: int = 0

    def __post_init__(self) -> None:
        for name in ("projects", "work", "unmounted"):
            (self.folder / name).mkdir(mode=0o700)
        self.restart()

    def apply(self, change: str) -> None:
        """Make a change. Do nothing if the checkouts that it names are not there, or are in the way."""
        word, *names = change.split()
        getattr(self, word)(*names)

    def count(self) -> float:
        """Make a page, and return the runs on it."""
        self.registry.store_changes()
        self.registry.merge_deleted(())
        checkouts = tuple(self.registry.projects.values())
        refresh_checkouts(checkouts)
        totals = [each.values.totals.counters for each in checkouts if each.is_known]
        return sum(value for each in totals for (name, _), value in each.items() if name == families.RUNS.name)

    def run(self, name: str) -> None:
        if (self.folder / "unmounted" / name).exists():
            return
        history = self._find_history(name)
        history.parent.mkdir(parents=True, exist_ok=True)
        History(history, project=_PROJECT, clock=SystemClock()).close()  # a run opens it before it registers
        root = str(self.folder / "work" / name)
        self.registry.register(Registration(project=_PROJECT, root=root, history=str(history)))
        self.runs += 1
        with closing(History(history, project=_PROJECT, clock=SystemClock())) as opened:
            opened.observe(run_started(run_id=f"run-{self.runs}", at=START + self.runs))
        with closing(History(history, project=_PROJECT, clock=SystemClock())) as opened:
            opened.mark_interrupted_runs()

    def restart(self) -> None:
        self.registry = Registry(self.folder / "projects")

    def clean(self, name: str) -> None:
        shutil.rmtree(self._find_history(name).parent, ignore_errors=True)

    def delete(self, name: str) -> None:
        shutil.rmtree(self.folder / "work" / name, ignore_errors=True)

    def copy(self, name: str, other: str) -> None:
        if self._has(name) and self._is_free(other):
            shutil.copytree(self.folder / "work" / name, self.folder / "work" / other)

    def move(self, name: str, other: str) -> None:
        if self._has(name) and self._is_free(other):
            (self.folder / "work" / name).rename(self.folder / "work" / other)

    def save(self, name: str) -> None:
        """Save the history in the cache of a CI system."""
        if self._find_history(name).exists():
            shutil.rmtree(self.folder / "cache", ignore_errors=True)
            shutil.copytree(self._find_history(name).parent, self.folder / "cache")

    def restore(self, name: str) -> None:
        if (self.folder / "cache").exists() and not (self.folder / "unmounted" / name).exists():
            self.clean(name)
            shutil.copytree(self.folder / "cache", self._find_history(name).parent)

    def unmount(self, name: str) -> None:
        if self._has(name):
            (self.folder / "work" / name).rename(self.folder / "unmounted" / name)

    def mount(self, name: str) -> None:
        if (self.folder / "unmounted" / name).exists():
            (self.folder / "unmounted" / name).rename(self.folder / "work" / name)

    def _find_history(self, name: str) -> Path:
        return self.folder / "work" / name / ".paropt" / "history.db"

    def _has(self, name: str) -> bool:
        return (self.folder / "work" / name).exists()

    def _is_free(self, name: str) -> bool:
        return not self._has(name) and not (self.folder / "unmounted" / name).exists()


def draw_changes(chance: Random, words: Sequence[str], steps: int) -> list[str]:
    """Return random changes."""
    changes = []
    for _ in range(steps):
        word = chance.choice(words)
        wanted = {"page": 0, "restart": 0, "copy": 2, "move": 2}.get(word, 1)
        changes.append(" ".join((word, *chance.sample(NAMES, wanted))))
    return changes


def find_wrong_page(checkouts: Checkouts, changes: Sequence[str]) -> str:
    """Make the changes; return the first page whose number of runs is wrong, or "".

    It may not fall while `serve` lives, nor exceed the runs that there were, and has each run after which nothing was
    deleted or replaced before the page.
    """
    shown, certain = 0.0, 0
    for change in (*changes, "page"):
        if change == "page":
            count = checkouts.count()
            if not shown + certain <= count <= checkouts.runs:
                return f"{count} runs after {shown} and {certain} more, of {checkouts.runs} in all"
            shown, certain = count, 0
            continue
        before = checkouts.runs
        checkouts.apply(change)
        certain = certain + checkouts.runs - before if change.startswith("run") else 0
        if change == "restart":
            shown = 0.0
    return ""
