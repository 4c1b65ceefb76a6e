"""Find the processes of each command, and their usage, from /proc."""

from __future__ import annotations

import math
import os

from paropt_exporter.executors import procfs
from paropt_exporter.executors.core_time import ProcessTime, read_age
from paropt_exporter.executors.supervisor import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
else:
    import _signal as signal  # signal imports enum

# Processes that left their session and parent are identified by MARK, or by this limit, which Linux has not enforced
# since 2.4: they inherit it even if they start programs with another environment.
RLIMIT_LOCKS = 10  # asm-generic/resource.h; the same on all architectures
_TICKS = procfs.TICKS_PER_SECOND
_NEWEST_RATIO = 0.3  # the weight of the newest sample in the running average of the machine's crowding
MAX_SAMPLE_SECONDS = 1.0  # between two samples: no kernel reuses a pid so soon
# the times of a vanished process and its parent's sum are both rounded, so a smaller difference is no loss
_LOST_TICKS = 3


class Process:
    """One process, from /proc/PID/stat. Times in clock ticks; `waited` is of reaped children.

    `time` has its own CPU time and its waits for a core in nanosecond precision; zeros if the kernel provides none.
    """

    __slots__ = (
        "ended", "group", "own", "parent", "pid", "rss", "samples", "session", "start", "state", "threads", "time",
        "waited",
    )  # fmt: skip

    def __init__(self, pid: str, fields: list[str]) -> None:
        """`fields` are those after the command name. Call `sample_time` next if it is one of a tree."""
        self.pid = pid
        self.samples = 1
        self.time = ProcessTime(pid)
        self._read_fields(fields)

    def update(self, fields: list[str], now: float) -> None:
        """Replace the values with newer ones."""
        self._read_fields(fields)
        self.sample_time(now)

    def sample_time(self, now: float) -> None:
        """Read the time of its threads."""
        age = read_age(self.start) if self.samples == 1 else None
        self.time.sample(threads=self.threads, state=self.state, now=now, age=age)

    def _read_fields(self, fields: list[str]) -> None:
        self.threads, self.ended = int(fields[17]), procfs.has_ended(fields)
        self.state, self.parent, self.group, self.session = fields[0], fields[1], fields[2], fields[3]
        self.own = int(fields[11]) + int(fields[12])
        self.waited = int(fields[13]) + int(fields[14])
        self.start = fields[19]
        self.rss = int(fields[21]) * procfs.PAGE_BYTES


class Tree:
    """The processes of one command, from its root down, and their usage so far.

    `settled_seconds` is the CPU time of reaped processes, `memory_peak` the highest sum of resident memory. `limit` is
    its RLIMIT_LOCKS; 0: it has none of its own.
    """

    def __init__(self, root: int, mark: str, now: float, *, limit: int = 0) -> None:
        self.root = str(root)
        self.mark = mark
        self.limit = limit
        self.members: dict[str, Process] = {}
        self.settled_seconds = 0.0
        self.lost_ticks = 0
        self.root_ended = False
        self.ended_delay_seconds = 0.0
        self._unsampled_seconds = 0.0
        # at the last sample: the time, the runnable members, their core time
        self._at, self._runnable, self._wanted = now, 1, 0.0
        self.memory = 0
        self.memory_peak = 0

    def list_alive(self) -> list[Process]:
        """Return the members that have not exited."""
        return [member for member in self.members.values() if not member.ended]

    def get_cpu_seconds(self) -> float:
        """Return the CPU time up to the last sample, exited processes included."""
        ticks = sum(member.own + member.waited for member in self.members.values())
        return self.settled_seconds + (ticks + self.lost_ticks) / _TICKS

    def get_delay_seconds(self) -> float:
        """Return how long the members' threads have waited for a core, without current waits."""
        return self.ended_delay_seconds + sum(member.time.waited_seconds for member in self.members.values())

    def get_run_seconds(self) -> float:
        """Return the same as `get_cpu_seconds`, with the live members' own time in nanosecond precision."""
        own = sum(member.time.run_seconds or member.own / _TICKS for member in self.members.values())
        ticks = sum(member.waited for member in self.members.values()) + self.lost_ticks
        return self.settled_seconds + own + ticks / _TICKS

    def get_wait_seconds(self) -> float:
        """Return how long the members' threads have waited for a core, current waits included."""
        return self.ended_delay_seconds + sum(member.time.wait_seconds for member in self.members.values())

    def send(self, number: int) -> bool:
        """Send a signal to each process group with a live member, which includes processes newer than the sample.

        Return whether all groups refused it, because only processes of other users are left.
        """
        refused, reached = False, False
        groups = {member.group for member in self.list_alive()}
        if not self.root_ended:
            groups.add(self.root)  # its group exists until it is reaped; without /proc, no members are known
        for group in groups:
            try:
                os.killpg(int(group), number)
                reached = True
                if number == signal.SIGTERM:
                    os.killpg(int(group), signal.SIGCONT)  # a stopped process reacts to no other signal but SIGKILL
            except ProcessLookupError:
                reached = True  # it has exited
            except PermissionError:
                refused = True  # a set-user-id program
        return refused and not reached

    def refresh(self, names: set[str], now: float, crowding: float) -> list[Process]:
        """Read all members again and return those that have vanished.

        `crowding`: the number of runnable threads for each core. Processes that started and exited since the last
        sample have left their CPU time with their parents, but not their waits: with n threads a core, each of them
        waits n - 1 times as long as it runs, but not longer than the time between the samples. A process that was
        runnable at the last sample has vanished half-way to this one, on average, and waited for that part of the time.
        """
        vanished, waited = [], 0.0
        credit: dict[str, int] = {}
        for pid, member in list(self.members.items()):
            fields = procfs.read_stat(pid) if pid in names else None
            if fields is None or fields[19] != member.start:
                vanished.append(self.members.pop(pid))
                self.ended_delay_seconds += member.time.wait_seconds
                waited += (now - self._at) / 2 * (1.0 - 1.0 / max(1.0, crowding)) * (member.state == "R")
                continue
            credit[pid] = -member.waited
            member.update(fields, now)
            member.samples += 1
            credit[pid] += member.waited
        self._count_lost(vanished, credit)
        unseen = sum(rest for rest in credit.values() if rest > 0) / _TICKS
        self._count_unseen_wait(unseen * max(0.0, crowding - 1.0) + waited, now)
        self.update_memory()
        return vanished

    def _count_unseen_wait(self, seconds: float, now: float) -> None:
        runnable = sum(member.state == "R" for member in self.members.values())
        wanted, most = self.get_run_seconds() + self.get_wait_seconds(), max(1, runnable, self._runnable)
        room = most * (now - self._at) - (wanted - self._wanted)
        self.ended_delay_seconds += max(0.0, min(seconds, room))
        self._at, self._runnable, self._wanted = now, runnable, self.get_run_seconds() + self.get_wait_seconds()

    def settle(self, pid: str, seconds: float, crowding: float, now: float) -> None:
        """Count the exact CPU time of an exited process.

        `crowding`: as for `refresh`, since children may have exited, too.
        """
        self.settled_seconds += seconds
        self.root_ended = self.root_ended or self.root == pid
        member = self.members.pop(pid, None)
        children = sum(child.own + child.waited for child in self.members.values() if child.parent == pid) / _TICKS
        if member is not None:
            self.ended_delay_seconds += member.time.waited_seconds
            seen = max(member.time.run_seconds, member.own / _TICKS) + member.waited / _TICKS + children
        else:
            seen, self._unsampled_seconds = self._unsampled_seconds + children, 0.0
        if seconds - seen > _LOST_TICKS / _TICKS:
            self._count_unseen_wait((seconds - seen) * max(0.0, crowding - 1.0), now)

    def note_unsampled(self, run_seconds: float, wait_seconds: float) -> None:
        """Count the core time of a process that has exited before any sample, until `settle` has its CPU time."""
        self._unsampled_seconds = run_seconds
        self.ended_delay_seconds += wait_seconds

    def _count_lost(self, vanished: list[Process], credit: dict[str, int]) -> None:
        """Count the CPU time of children whose parent ignores SIGCHLD: the kernel does not add it to the parent's."""
        for child in vanished:
            if child.parent in credit:
                credit[child.parent] -= child.own + child.waited
        self.lost_ticks += sum(-rest for rest in credit.values() if rest < -_LOST_TICKS)

    def update_memory(self) -> None:
        # Between fork and exec a child shows its parent's memory as its own, so memory counts from the second sample
        # on.
        self.memory = sum(m.rss for m in self.members.values() if m.samples > 1 or m.pid == self.root)
        self.memory_peak = max(self.memory_peak, self.memory)


class ProcessTable:
    """The trees of all commands, and the pids of foreign processes, so that a sample reads only new processes.

    A foreign pid stays foreign until it vanishes: the kernel gives this process only its own descendants. A descendant
    that belongs to no known tree is checked again in each sample. A tree owns its root until that is reaped, even if
    /proc does not show it: there may be no /proc, or one with `hidepid` and a set-user-id program.
    """

    def __init__(
        self,
        list_pids: Callable[[], list[str]] = procfs.list_pids,
        read_stat: Callable[[str], list[str] | None] = procfs.read_stat,
        read_environment: Callable[[str], list[str]] = lambda pid: procfs.read_variables(pid, MARK),
        list_children: Callable[[str], list[str]] = lambda pid: procfs.list_child_pids(pid, threads=1),
        read_limit: Callable[[str], int] = procfs.read_lock_limit,
    ) -> None:
        self._list_children, self._read_limit = list_children, read_limit
        self._list_pids, self._read_stat, self._read_environment = list_pids, read_stat, read_environment
        self.trees: list[Tree] = []
        self._owners: dict[str, Tree] = {}
        self._sessions: dict[str, Tree] = {}
        self._foreign: set[str] = set()
        self._listed_at = -math.inf  # when `_foreign` was last compared with all processes
        self._given_up: set[str] = set()  # live members of trees that were removed, and their descendants
        self._unassigned: set[str] = set()  # live descendants that belong to no tree, at the last refresh
        self._me = str(os.getpid())
        self._cores = len(os.sched_getaffinity(0))
        self.crowding = 1.0  # runnable threads for each core, a running average

    def add(self, tree: Tree, now: float) -> None:
        """Add a tree whose root has just started. The next refresh samples it, unless it has exited by then."""
        if not self.trees and now > self._listed_at + MAX_SAMPLE_SECONDS:
            self._foreign.clear()  # without trees there were no samples, and other processes may have these pids by now
        self.trees.append(tree)
        self._sessions[tree.root] = self._owners[tree.root] = tree

    def skip_present(self, now: float) -> None:
        """Count all present processes as foreign, so that no sample reads them; this process has no child yet."""
        self._foreign, self._listed_at = set(self._list_pids()), now

    def remove(self, tree: Tree) -> None:
        """Forget a tree that has ended. Members of it that can't be killed are not assigned to other trees."""
        self.trees.remove(tree)
        self._given_up |= tree.members.keys()
        self._owners = {pid: owner for pid, owner in self._owners.items() if owner is not tree}
        self._sessions = {session: owner for session, owner in self._sessions.items() if owner is not tree}

    def refresh(self, now: float) -> None:
        """Read /proc once: refresh all members, find new ones."""
        names = set(self._list_pids())
        self._foreign &= names
        self._given_up &= names
        self._listed_at = now
        self.crowding += _NEWEST_RATIO * (count_runnable_threads() / self._cores - self.crowding)
        for tree in self.trees:
            for member in tree.refresh(names, now, self.crowding):
                if member.pid != tree.root:
                    self._owners.pop(member.pid, None)
            for member in tree.members.values():
                self._sessions[member.session] = tree  # it may have its own session by now
        unread_roots = {tree.root for tree in self.trees if not (tree.root_ended or tree.root in tree.members)}
        fresh = names - self._foreign - (self._owners.keys() - unread_roots)
        unassigned = self._assign_new([pid for pid in fresh if pid.isdigit()], now)
        self._foreign |= fresh - self._owners.keys() - unassigned
        self._unassigned = {pid for pid in unassigned if not self._is_exiting(pid)}

    def get_shape(self) -> tuple[tuple[int, int], ...]:
        """Return the number of processes and the memory in MiB of each tree, which change when the work changes."""
        return tuple((len(tree.members), tree.memory >> 20) for tree in self.trees)

    def clear(self, now: float) -> None:
        """Forget all processes: none is left. Their waits count, as after a refresh that misses them."""
        self._owners.clear()
        for tree in self.trees:
            tree.refresh(set(), now, self.crowding)

    def has_left_processes(self, tree: Tree) -> bool:
        """Return whether a process of a tree may have outlived its reaped root, without reading all of /proc.

        Such a process is known, or it is a child of this process, which is the parent of all orphans.
        """
        if tree.members:
            return True
        roots = {other.root for other in self.trees if not other.root_ended}
        if not roots:
            return procfs.has_children()
        return set(self._list_children(self._me)) != roots

    def has_unseen_children(self) -> bool:
        """Return whether this process has a child that the last refresh did not see, or saw exiting.

        A process whose ancestors have exited during the refresh is such a child. An exiting process shows no
        environment any more, so its tree may be unknown, and its children may be too. One that /proc never shows
        (`hidepid`, for a set-user-id program) does not count: no refresh will see it.
        """
        unseen = set(self._list_children(self._me)) - self._owners.keys() - self._unassigned
        return any(self._read_stat(pid) is not None for pid in unseen)

    def find_owner(self, pid: int, now: float) -> Tree | None:
        """Return the tree of a process that has exited but is not reaped yet, and take its last sample."""
        name = str(pid)
        tree = self._owners.get(name)
        if tree is None:
            self._assign_new([name], now)
            return self._owners.get(name)
        if (member := tree.members.get(name)) is not None:
            member.time.sample(threads=1, state="Z", now=now)
        elif (times := procfs.read_schedstat(f"{procfs.locate(name)}/schedstat")) is not None:
            tree.note_unsampled(*times)
        return tree

    def settle(self, pid: int, seconds: float, now: float) -> None:
        """Replace the sampled CPU time of a reaped process by the exact one."""
        tree = self._owners.pop(str(pid), None)
        self._given_up.discard(str(pid))
        if tree is not None:
            tree.settle(str(pid), seconds, self.crowding, now)

    def _assign_new(self, pids: list[str], now: float) -> set[str]:
        """Assign new processes to their trees, and return the descendants of this process that belong to none."""
        found = self._read_new(pids)
        while owned := {pid: tree for pid, process in found.items() if (tree := self._find_owner(process, found))}:
            for pid, tree in owned.items():  # children may be listed before their parents
                found[pid].sample_time(now)
                self._add_member(tree, found.pop(pid))
        return {pid for pid, process in found.items() if self._is_descendant(process, found)}

    def _read_new(self, pids: list[str]) -> dict[str, Process]:
        """Read new processes, and their ancestors that are new, too, but not listed yet.

        The parent of a process may exit between the two reads. Once it is reaped, its child has another parent, which
        a second read of the child shows.
        """
        found: dict[str, Process] = {}
        left = set(pids)
        while left:
            for pid in left:
                if (fields := self._read_stat(pid)) is not None:
                    found[pid] = Process(pid, fields)
                else:
                    found.pop(pid, None)
            known = found.keys() | self._owners.keys() | self._foreign | {self._me, "0"}
            unlisted = {process.parent for process in found.values()} - known
            gone = {pid for pid in unlisted if self._read_stat(pid) is None}
            left = unlisted - gone | {pid for pid, process in found.items() if process.parent in gone}
        return found

    def _find_owner(self, process: Process, unassigned: Mapping[str, Process]) -> Tree | None:
        tree = self._owners.get(process.pid, self._owners.get(process.parent))
        if tree is not None or not self._is_descendant(process, unassigned):
            return tree  # its session is not checked: a foreign process may have that number by now
        if process.pid in self._given_up or process.parent in self._given_up:
            self._given_up.add(process.pid)
            return None
        if (tree := self._sessions.get(process.session)) is not None:
            return tree
        # It left its session before the first sample, and an ancestor has exited: its inherited limit identifies it.
        limit = self._read_limit(process.pid)
        for candidate in self.trees:
            if candidate.limit and candidate.limit == limit:
                return candidate
        marks = self._read_environment(process.pid)
        for candidate in self.trees:
            if candidate.mark in marks:
                return candidate
        return self.trees[0] if len(self.trees) == 1 else None

    def _is_descendant(self, process: Process, unassigned: Mapping[str, Process]) -> bool:
        """Return whether parents that are all unassigned lead from `process` up to this process."""
        for _ in range(len(unassigned) + 1):  # the processes are read one after another, so the chain may be a circle
            if process.parent == self._me:
                return True
            if process.parent not in unassigned:
                return False
            process = unassigned[process.parent]
        return False

    def _is_exiting(self, pid: str) -> bool:
        fields = self._read_stat(pid)
        return fields is None or procfs.has_ended(fields) or procfs.is_exiting(fields)

    def _add_member(self, tree: Tree, process: Process) -> None:
        tree.members[process.pid] = process
        self._owners[process.pid] = tree
        self._sessions[process.session] = tree


def count_runnable_threads() -> int:
    """Return how many threads on the machine run or wait for a core, without this one; 0 if unknown."""
    running, slash, _ = procfs.read_file("/proc/loadavg").decode().partition("/")
    return int(running.split()[-1]) - 1 if slash else 0


def list_living() -> list[tuple[str, list[str]]]:
    """Return the pid and the stat fields of every process of this machine that has not exited."""
    found = ((pid, procfs.read_stat(pid)) for pid in procfs.list_pids() if pid.isdigit())
    return [(pid, fields) for pid, fields in found if fields is not None and not procfs.has_ended(fields)]


def list_descendants() -> list[int]:
    """Return all live descendants of this process. Since it is a subreaper, it has none if it has no child."""
    if not procfs.has_children():
        return []
    me = str(os.getpid())
    children = procfs.list_child_pids(me)  # the list of all processes may lack some of them because of `hidepid`
    found = procfs.add_descendants({me, *children}, {pid: fields[1] for pid, fields in list_living()})
    return [int(pid) for pid in found - {me}]


def kill_all(pids: list[int]) -> bool:
    """Send SIGKILL, and return whether a process got it."""
    killed = False
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            killed = True
        except (ProcessLookupError, PermissionError):
            continue  # it has exited, or is a set-user-id program
    return killed
