"""Mark the processes of an exporter in their environment, and end those of exporters that were killed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path

from paropt_exporter.executors import child_processes, procfs
from paropt_exporter.executors.supervisor.parent_process import RUN_MARK
from paropt_exporter.executors.supervisor.process_tree import list_living


@contextmanager
def set_run_mark(root: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Set this process's mark for all its children: process id, start time, and a hash of the project's folder."""
    before = environment.get(RUN_MARK)
    environment[RUN_MARK] = f"{os.getpid()}-{procfs.read_start_time(os.getpid())}-{_hash_project(root)}"
    try:
        yield
    finally:
        if before is None:
            environment.pop(RUN_MARK, None)
        else:
            environment[RUN_MARK] = before


def end_orphans(root: Path) -> tuple[str, ...]:
    """End the processes of this project's exporters that have exited, and return the names of the ended processes.

    Only processes of this user and of this pid namespace: in another namespace the same pids mean other processes. It
    spares the ancestors of this process. It ignores marks that this process itself was started with: if a user saves
    the environment of a run, its mark proves nothing any more.
    """
    return child_processes.end_leftovers(child_processes.Termination(lambda: _find_orphans(_hash_project(root))))


def _find_orphans(project: str) -> list[int]:
    inherited = set(_read_marks("self"))
    pids = (pid for pid in procfs.list_pids() if pid.isdigit())
    found = [
        pid for pid in pids for mark in _read_marks(pid) if _is_of_dead_owner(mark, project) and mark not in inherited
    ]
    if not found:
        return []  # as almost always: no reason to look at each process a second time
    space, processes = _read_pid_namespace("self"), {pid: fields[1] for pid, fields in list_living()}
    ancestors = _find_ancestors(str(os.getpid()), processes)
    return [
        int(pid) for pid in found if pid in processes and pid not in ancestors and _read_pid_namespace(pid) == space
    ]


def _read_marks(pid: str) -> list[str]:
    return procfs.read_variables(pid, RUN_MARK)


def _find_ancestors(pid: str, parents: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    return found


def _is_of_dead_owner(entry: str, project: str) -> bool:
    try:
        owner, start, marked_project = entry.partition("=")[2].split("-")
        return marked_project == project and procfs.read_start_time(int(owner)) != start
    except ValueError:
        return False  # not a mark of this program


def _read_pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 -- the target is no path
    except OSError:
        return ""


def _hash_project(root: Path) -> str:
    return os.fsencode(root.resolve()).hex()  # hashlib takes 3 ms to load
