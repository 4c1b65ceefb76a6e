"""Mark all that an exporter starts, in the environment, and end what is left of exporters that were killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from paropt_exporter.executors import child_processes, procfs
from paropt_exporter.executors.supervisor.parent_process import RUN_MARK
from paropt_exporter.executors.supervisor.process_tree import living, read_environment


@contextmanager
def marked(root: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Have all that this process starts carry its mark: process id, start time, and a hash of the project's folder."""
    before = environment.get(RUN_MARK)
    environment[RUN_MARK] = f"{os.getpid()}-{procfs.read_start_time(os.getpid())}-{_project(root)}"
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
    Not those that this process descends from, and none by a mark that this process was started with: somebody saved the
    environment of a run, so that the mark is no proof any more.
    """
    return child_processes.end_left(child_processes.Ending(lambda: _orphans(_project(root))))


def _orphans(project: str) -> list[int]:
    space, processes = _namespace("self"), living()
    spared = _with_ancestors(str(os.getpid()), {pid: fields[1] for pid, fields in processes})
    worthless = set(_marks("self"))
    return [
        int(pid)
        for pid, _ in processes
        for mark in _marks(pid)
        if _is_of_the_dead(mark, project) and mark not in worthless and pid not in spared and _namespace(pid) == space
    ]


def _marks(pid: str) -> list[str]:
    return [entry for entry in read_environment(pid) if entry.startswith(f"{RUN_MARK}=")]


def _with_ancestors(pid: str, parents: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    return found


def _is_of_the_dead(entry: str, project: str) -> bool:
    try:
        owner, start, marked_project = entry.partition("=")[2].split("-")
        return marked_project == project and procfs.read_start_time(int(owner)) != start
    except ValueError:
        return False  # not written by us


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 -- the target is no path
    except OSError:
        return ""


def _project(root: Path) -> str:
    return hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
