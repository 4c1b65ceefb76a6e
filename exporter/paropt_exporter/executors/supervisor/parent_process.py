"""Track the exporter's own child processes, those of calls in its threads, and find them after it has exited."""

from __future__ import annotations

import math
import os
import select
import time

from paropt_exporter.executors import procfs
from paropt_exporter.executors.supervisor import RUN_MARK
from paropt_exporter.executors.supervisor.process_tree import list_living

_SAMPLE_SECONDS = 0.1  # a sample costs some 0.2 ms with 20 threads


class ParentProcess:
    """The exporter: the process that started the supervisor.

    When it exits, the kernel gives its children to another parent. The supervisor finds them by the mark in their
    environment and, since a program may have another environment, by the last sample.
    """

    def __init__(self, pid: int) -> None:
        try:
            self.handle = os.pidfd_open(pid) if os.getppid() == pid else -1  # readable once it has ended
        except OSError:
            self.handle = -1  # it has exited already
        self.next_sample = math.inf
        self._kills = self._exits = False
        self._pid = str(pid)
        self._known: dict[str, str] = {}  # pid: start time
        mark = os.environ.get(RUN_MARK, "")
        # An exporter in a stage of another exporter has the outer one's mark until it sets its own.
        self._mark = f"{RUN_MARK}={mark}" if mark.startswith(f"{pid}-") else ""

    def watch(self) -> None:
        """Sample the exporter's child processes from now on, and kill them when it has exited."""
        self.next_sample = 0.0
        self._kills = True

    def stop_watching(self) -> None:
        """Stop sampling, since no call runs."""
        self.next_sample = math.inf

    def sample(self, now: float) -> None:
        """Note which processes descend from the exporter, if a sample is due."""
        if now < self.next_sample:
            return
        self.next_sample = min(now, time.monotonic()) + _SAMPLE_SECONDS
        me = str(os.getpid())
        waiting, seen = procfs.list_child_pids(self._pid), {}
        while waiting:
            pid = waiting.pop()
            fields = procfs.read_stat(pid) if pid != me else None
            if fields is not None and pid not in seen:
                seen[pid] = fields[19]
                waiting += procfs.list_child_pids(pid)
        # Some may be orphans by now; they stay known as long as they live.
        gone = [pid for pid in self._known if pid not in seen and not self._is_known(pid)]
        self._known.update(seen)
        for pid in gone:
            del self._known[pid]

    def note_release(self, *, exits: bool) -> None:
        """Note that the exporter releases its supervisor, because it `exits` or no longer needs it."""
        self._exits, self._kills = exits, self._kills and exits
        if self._kills:
            self.sample(math.inf)

    @property
    def is_exiting(self) -> bool:
        """Whether it is exiting. The kernel closes its descriptors before its children get another parent."""
        return self._kills and not (self._exits or self._is_gone())

    def wait(self) -> None:
        """Wait until an exiting exporter has exited, since its threads may start processes until then."""
        while self._kills and not self._is_gone():
            self.sample(math.inf)
            select.select([self.handle], [], [], _SAMPLE_SECONDS)

    def list_leftovers(self) -> list[int]:
        """Return the live processes of an exporter that is exiting or has exited, with all their descendants."""
        if not self._kills or self.is_exiting:
            return []
        found = list_living()
        ours = {pid for pid, fields in found if self._known.get(pid) == fields[19] or self._is_marked(pid)}
        family = procfs.add_descendants(ours, {pid: fields[1] for pid, fields in found})
        return [int(pid) for pid in family - {str(os.getpid()), self._pid} if not _is_resource_tracker(pid)]

    def _is_gone(self) -> bool:
        return self.handle < 0 or bool(select.select([self.handle], [], [], 0)[0])

    def _is_known(self, pid: str) -> bool:
        fields = procfs.read_stat(pid)
        return fields is not None and fields[19] == self._known[pid]

    def _is_marked(self, pid: str) -> bool:
        return bool(self._mark) and self._mark in procfs.read_variables(pid, RUN_MARK)


def _is_resource_tracker(pid: str) -> bool:
    """Return whether this is multiprocessing's resource tracker, which cleans up after its users' exit, and ends."""
    return b"from multiprocessing.resource_tracker import main" in procfs.read_file(f"/proc/{pid}/cmdline")
