"""Mark all that an exporter starts, in the environment, and end what is left of exporters that were killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from paropt_exporter.pool import children, procfs
from paropt_exporter.pool.guardian.exporter import RUN_MARK
from paropt_exporter.pool.guardian.process_tree import living, read_environment


@contextmanager
def marked(root: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Have all that this process starts carry its mark: process id, start time, and a hash of the project's folder."""
    before = environment.get(RUN_MARK)
    environment[RUN_MARK] = f"{os.getpid()}-{procfs.start_of_living(os.getpid())}-{_project(root)}"
    try:
        yield
    finally:
        if before is None:
            environment.pop(RUN_MARK, None)
        else:
            environment[RUN_MARK] = before


def end_orphans(root: Path) -> tuple[str, ...]:
    """End what runs on of this project's exporters that are gone, and return the names of these processes.

    Only of this user and of this namespace of process ids: in another one the same numbers mean other processes.
    """
    return children.end_left(children.Ending(lambda: _orphans(_project(root))))


def _orphans(project: str) -> list[int]:
    space = _namespace("self")
    return [
        int(pid)
        for pid, _ in living()
        for entry in read_environment(pid)
        if entry.startswith(f"{RUN_MARK}=") and _is_of_the_dead(entry, project) and _namespace(pid) == space
    ]


def _is_of_the_dead(entry: str, project: str) -> bool:
    try:
        owner, start, marked_project = entry.partition("=")[2].split("-")
        return marked_project == project and procfs.start_of_living(int(owner)) != start
    except ValueError:
        return False  # not written by us


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 -- the target is no path
    except OSError:
        return ""


def _project(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
