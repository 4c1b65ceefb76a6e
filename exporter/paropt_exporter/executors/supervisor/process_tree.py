"""Find which processes belong to which command, and what they use, from /proc."""

from __future__ import annotations

import os
import signal

from paropt_exporter.executors.core_time import ProcessTime

MARK = "PAROPT_COMMAND"  # in each command's environment: tells whose a process is that left its session and parent
_PROC = "/proc/"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_NEWEST_RATIO = 0.3  # of the newest sample in the running average of the machine's crowding
_LOST_TICKS = 3  # a vanished process and its parent's sum are each rounded: below this nothing is missing
_ENDED = "ZX"
_READ_BYTES = 4096  # more than a stat ever has


class Process:
    """One process as /proc/PID/stat tells. Times in clock ticks; `waited` is of children that it waited for.

    `time` has its own CPU time and its waits for a core to the nanosecond; zeros where the kernel tells of no waits.
    """

    __slots__ = ("group", "own", "parent", "pid", "rss", "samples", "session", "start", "state", "time", "waited")

    def __init__(self, pid: str, fields: list[str], now: float) -> None:
        self.pid = pid
        self.samples = 1
        self.time = ProcessTime(pid)
        self.update(fields, now)

    def update(self, fields: list[str], now: float) -> None:
        """Take newer numbers; `fields` are those after the command's name."""
        self.state, self.parent, self.group, self.session = fields[0], fields[1], fields[2], fields[3]
        self.time.sample(threads=int(fields[17]), state=fields[0], now=now)
        self.own = int(fields[11]) + int(fields[12])
        self.waited = int(fields[13]) + int(fields[14])
        self.start = fields[19]
        self.rss = int(fields[21]) * _PAGE


class Tree:
    """The processes of one command, from its root down, and what they have used so far.

    `settled_seconds` is the CPU of those that were waited for here, `memory_peak` the highest sum of resident memory.
    """

    def __init__(self, root: int, mark: str, now: float) -> None:
        self.root = str(root)
        self.mark = mark
        self.members: dict[str, Process] = {}
        self.settled_seconds = 0.0
        self.lost_ticks = 0
        self.root_ended = False
        self.ended_delay_seconds = 0.0
        self._at, self._runnable, self._wanted = now, 1, 0.0  # at the last look: when, runnable members, core time
        self.memory = 0
        self.memory_peak = 0

    def list_alive(self) -> list[Process]:
        """Return the members that have not ended."""
        return [member for member in self.members.values() if member.state not in _ENDED]

    def get_cpu_seconds(self) -> float:
        """Return the CPU up to the last look, all that ended included."""
        ticks = sum(member.own + member.waited for member in self.members.values())
        return self.settled_seconds + (ticks + self.lost_ticks) / _TICKS

    def get_delay_seconds(self) -> float:
        """Return how long the members' threads have waited for a core, without the waits under way."""
        return self.ended_delay_seconds + sum(member.time.waited_seconds for member in self.members.values())

    def get_run_seconds(self) -> float:
        """Return what `cpu_seconds` does, with the living members' own time to the nanosecond."""
        own = sum(member.time.run_seconds or member.own / _TICKS for member in self.members.values())
        ticks = sum(member.waited for member in self.members.values()) + self.lost_ticks
        return self.settled_seconds + own + ticks / _TICKS

    def get_wait_seconds(self) -> float:
        """Return how long the members' threads have waited for a core, the waits under way included."""
        return self.ended_delay_seconds + sum(member.time.wait_seconds for member in self.members.values())

    def send(self, number: int) -> None:
        """Send a signal to each process group that has a living member: it reaches those forked since the last look."""
        groups = {member.group for member in self.list_alive()}
        if not self.root_ended:
            groups.add(self.root)  # it has one until it is waited for, and without /proc there are no members
        for group in groups:
            try:
                os.killpg(int(group), number)
                if number == signal.SIGTERM:
                    os.killpg(int(group), signal.SIGCONT)  # a stopped process takes no other signal but KILL
            except (ProcessLookupError, PermissionError):
                continue  # ended meanwhile, or a set-user-id program: not ours to end

    def refresh(self, names: set[str], now: float, crowding: float) -> list[Process]:
        """Read all members again and return those that have vanished.

        `crowding`: how many runnable threads there are for each core. Processes that began and ended since the last
        look have left their CPU time with their parents, but not their waits: with n threads a core each of them waits
        n - 1 times as long as it runs, though not longer than there was time.
        """
        vanished = []
        credit: dict[str, int] = {}
        for pid, member in list(self.members.items()):
            fields = read_stat(pid) if pid in names else None
            if fields is None or fields[19] != member.start:
                vanished.append(self.members.pop(pid))
                self.ended_delay_seconds += member.time.waited_seconds
                continue
            credit[pid] = -member.waited
            member.update(fields, now)
            member.samples += 1
            credit[pid] += member.waited
        self._count_lost(vanished, credit)
        unseen = sum(rest for rest in credit.values() if rest > 0) / _TICKS
        self._count_unseen_wait(unseen * max(0.0, crowding - 1.0), now)
        self.update_memory()
        return vanished

    def _count_unseen_wait(self, seconds: float, now: float) -> None:
        runnable = sum(member.state == "R" for member in self.members.values())
        wanted, most = self.get_run_seconds() + self.get_wait_seconds(), max(1, runnable, self._runnable)
        room = most * (now - self._at) - (wanted - self._wanted)
        self.ended_delay_seconds += max(0.0, min(seconds, room))
        self._at, self._runnable, self._wanted = now, runnable, self.get_run_seconds() + self.get_wait_seconds()

    def settle(self, pid: str, seconds: float, crowding: float, now: float) -> None:
        """Count an ended process's exact CPU; `crowding` as for `refresh`: its children may have ended with it."""
        self.settled_seconds += seconds
        self.root_ended = self.root_ended or self.root == pid
        member = self.members.pop(pid, None)
        if member is None:
            return
        self.ended_delay_seconds += member.time.waited_seconds
        children = sum(child.own + child.waited for child in self.members.values() if child.parent == pid)
        seen = max(member.time.run_seconds, member.own / _TICKS) + (member.waited + children) / _TICKS
        if seconds - seen > _LOST_TICKS / _TICKS:
            self._count_unseen_wait((seconds - seen) * max(0.0, crowding - 1.0), now)

    def _count_lost(self, vanished: list[Process], credit: dict[str, int]) -> None:
        """A parent that ignores SIGCHLD is never told of its children's CPU: count what it did not get."""
        for child in vanished:
            if child.parent in credit:
                credit[child.parent] -= child.own + child.waited
        self.lost_ticks += sum(-rest for rest in credit.values() if rest < -_LOST_TICKS)

    def update_memory(self) -> None:
        # Between fork and exec a child shows its parent's memory as its own: it counts from the second look on.
        self.memory = sum(m.rss for m in self.members.values() if m.samples > 1 or m.pid == self.root)
        self.memory_peak = max(self.memory_peak, self.memory)


class ProcessTable:
    """All commands' trees, and what is known of every other process, so that a look reads only what may be ours.

    A pid once found foreign stays so until it vanishes: only descendants of ours are ever handed to us by the kernel.
    """

    def __init__(self) -> None:
        self.trees: list[Tree] = []
        self._owners: dict[str, Tree] = {}
        self._sessions: dict[str, Tree] = {}
        self._foreign: set[str] = set()
        self._me = str(os.getpid())
        self._cores = len(os.sched_getaffinity(0))
        self.crowding = 1.0  # runnable threads for each core, a running average

    def add(self, tree: Tree, now: float) -> None:
        """Take a tree whose root was just started; its first numbers are read at once."""
        self.trees.append(tree)
        self._sessions[tree.root] = tree
        fields = read_stat(tree.root)
        if fields is not None:
            self._add_member(tree, Process(tree.root, fields, now))
            tree.update_memory()

    def remove(self, tree: Tree) -> None:
        """Forget a tree that has ended."""
        self.trees.remove(tree)
        self._owners = {pid: find_owner for pid, find_owner in self._owners.items() if find_owner is not tree}
        self._sessions = {
            session: find_owner for session, find_owner in self._sessions.items() if find_owner is not tree
        }

    def refresh(self, now: float) -> None:
        """Read /proc once: refresh all members, find new ones."""
        names = set(_list_pids())
        self._foreign &= names
        self.crowding += _NEWEST_RATIO * (count_runnable_threads() / self._cores - self.crowding)
        for tree in self.trees:
            for member in tree.refresh(names, now, self.crowding):
                self._owners.pop(member.pid, None)
            for member in tree.members.values():
                self._sessions[member.session] = tree  # it may have made a session of its own since
        fresh = names - self._foreign - self._owners.keys()
        self._foreign |= fresh - self._assign_new([pid for pid in fresh if pid.isdigit()], now)

    def get_shape(self) -> tuple[tuple[int, int], ...]:
        """Return how many processes each tree has, and how many MiB of memory: what changes where work changes."""
        return tuple((len(tree.members), tree.memory >> 20) for tree in self.trees)

    def clear(self) -> None:
        """Forget all processes: there is none any more."""
        self._owners.clear()
        for tree in self.trees:
            tree.members.clear()

    def find_owner(self, pid: int, now: float) -> Tree | None:
        """Return the tree of a process that has ended but was not waited for yet, and read its last numbers."""
        name = str(pid)
        tree = self._owners.get(name)
        if tree is None:
            self._assign_new([name], now)
            return self._owners.get(name)
        if (member := tree.members.get(name)) is not None:
            member.time.sample(threads=1, state="Z", now=now)
        return tree

    def settle(self, pid: int, seconds: float, now: float) -> None:
        """Count an ended process's exact CPU in place of what was read of it; it was waited for."""
        tree = self._owners.pop(str(pid), None)
        if tree is not None:
            tree.settle(str(pid), seconds, self.crowding, now)

    def _assign_new(self, pids: list[str], now: float) -> set[str]:
        """Give new processes to the trees that they belong to and return those that were given."""
        found = [Process(pid, fields, now) for pid in pids if (fields := read_stat(pid)) is not None]
        given: set[str] = set()
        left = len(found) + 1
        while len(found) < left:  # a parent may stand after its child
            left = len(found)
            rest = []
            for process in found:
                tree = self._find_owner(process)
                if tree is None:
                    rest.append(process)
                    continue
                self._add_member(tree, process)
                given.add(process.pid)
            found = rest
        return given

    def _find_owner(self, process: Process) -> Tree | None:
        tree = self._owners.get(process.parent) or self._sessions.get(process.session)
        if tree is not None or process.parent != self._me:
            return tree
        # It left its session before anyone looked, and its parent has ended: its environment still tells.
        marks = read_environment(process.pid)
        for candidate in self.trees:
            if candidate.mark in marks:
                return candidate
        return self.trees[0] if len(self.trees) == 1 else None

    def _add_member(self, tree: Tree, process: Process) -> None:
        tree.members[process.pid] = process
        self._owners[process.pid] = tree
        self._sessions[process.session] = tree


def read_stat(pid: str) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command's name (which may hold anything), None if it is gone."""
    text = _read(pid + "/stat")
    return text[text.rindex(")") + 2 :].split() if ")" in text else None


def count_runnable_threads() -> int:
    """Return how many threads of the machine run or wait for a core, this one left out; 0 if the kernel tells not."""
    running, slash, _ = _read("loadavg").partition("/")
    return int(running.split()[-1]) - 1 if slash else 0


def read_environment(pid: str) -> list[str]:
    """Return the process's environment as it was at its start; empty if it ended or belongs to someone else."""
    return _read(pid + "/environ").split("\0")


def list_living() -> list[tuple[str, list[str]]]:
    """Return the pid and the stat fields of every process of this machine that has not ended."""
    read_frames = ((pid, read_stat(pid)) for pid in _list_pids() if pid.isdigit())
    return [(pid, fields) for pid, fields in read_frames if fields is not None and fields[0] not in _ENDED]


def list_descendants() -> list[int]:
    """Return all living processes below this one."""
    parents = {pid: fields[1] for pid, fields in list_living()}
    me = str(os.getpid())
    below = {me}
    count = 0
    while count < len(below):
        count = len(below)
        below |= {pid for pid, parent in parents.items() if parent in below}
    return [int(pid) for pid in below - {me}]


def read_own_peak_bytes() -> int:
    """Return the highest resident memory of this process; what a child's `ru_maxrss` starts from."""
    for line in _read("self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _list_pids() -> list[str]:
    try:
        return os.listdir(_PROC)  # noqa: PTH208 -- a path object for each process would cost more than the look itself
    except OSError:
        return []  # no /proc: commands still run, are waited for and killed by their group


def _read(name: str) -> str:
    try:
        handle = os.open(_PROC + name, os.O_RDONLY)
    except OSError:
        return ""
    try:
        text = part = os.read(handle, _READ_BYTES)
        while len(part) == _READ_BYTES:  # an environment may be longer
            part = os.read(handle, _READ_BYTES)
            text += part
        return text.decode("latin-1")
    except OSError:
        return ""
    finally:
        os.close(handle)
