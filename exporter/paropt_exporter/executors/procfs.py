"""Read processes and threads from /proc: state, CPU time, waits for a core, memory and children.

A /proc of another pid namespace, as in a sandbox that shares its host's /proc, shows processes under numbers that mean
nothing to this process's system calls. It counts as missing.

The supervisor and worker processes import this module, so it imports almost nothing itself.
"""

from __future__ import annotations

import os
import time

_ENDED_STATES = "ZX"
_STATE_FIELD, _FLAGS_FIELD, _THREADS_FIELD = 0, 6, 17  # of the fields that `read_stat` returns
_PF_EXITING = 0x4  # linux/sched.h
_LOCK_LIMIT = b"Max file locks"  # in /proc/PID/limits
_NO_FOLDER = "/proc/none"
_READ_BYTES = 8192  # more than the length of any stat, status or schedstat
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_THREAD_CLOCK = 6  # CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED, linux/posix-timers.h


_own_proc: list[bool] = []  # whether /proc shows this pid namespace, once it is known


def has_own_proc() -> bool:
    """Return whether /proc exists and shows the processes of this process's pid namespace."""
    if not _own_proc:
        try:
            _own_proc.append(os.readlink("/proc/self") == str(os.getpid()))  # noqa: PTH115 -- as for the folders below
        except OSError:
            _own_proc.append(False)
    return _own_proc[0]


def locate(process: int | str) -> str:
    """Return the folder of a process ("self": this one); a missing folder if /proc is of another pid namespace."""
    return f"/proc/{process}" if process == "self" or has_own_proc() else _NO_FOLDER


def read_thread_cpu_seconds(thread: int) -> float:
    """Return the CPU time of a live thread of this process, given by its native id; from another thread.

    The kernel knows the clock by this id, and refuses that of no thread. `time.pthread_getcpuclockid` would read any
    memory: under gevent, which replaces `threading`, `Thread.ident` is the address of a Python object.
    """
    return time.clock_gettime(~thread << 3 | _THREAD_CLOCK)


def read_run_delay_seconds(path: str) -> float:
    """Return how long the thread of a `schedstat` file was runnable without a core."""
    try:
        return int(_read(path).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def read_schedstat(path: str) -> tuple[float, float] | None:
    """Return the seconds that a thread ran and waited for a core; None if the kernel does not provide them."""
    try:
        fields = _read(path).split()
    except OSError:
        return None
    return (int(fields[0]) / 1e9, int(fields[1]) / 1e9) if len(fields) > 1 else None


def sample_schedstat(path: str) -> tuple[float, float, float]:
    """Return the monotonic time of the sample, and the seconds that a thread ran and waited for a core until then.

    If the kernel does not provide them, both are 0. The time is taken next to the read itself: before and after it, the
    caller may wait long for the GIL.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            now = time.monotonic()
            fields = os.read(descriptor, _READ_BYTES).split()
        finally:
            os.close(descriptor)
        return now, int(fields[0]) / 1e9, int(fields[1]) / 1e9
    except (OSError, IndexError):
        return time.monotonic(), 0.0, 0.0


def read_stat(process: int | str) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the command name, which may be any text; None if it has exited."""
    try:
        text = _read(f"{locate(process)}/stat").decode("latin-1")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split() if ")" in text else None


def has_ended(fields: list[str]) -> bool:
    """Return whether a process with these fields of `read_stat` has exited.

    A process whose main thread has exited looks like a zombie, too, while its other threads live.
    """
    return fields[_STATE_FIELD] in _ENDED_STATES and int(fields[_THREADS_FIELD]) <= 1


def is_exiting(fields: list[str]) -> bool:
    """Return whether a process with these fields of `read_stat` has begun to exit: the kernel closes its files next."""
    return bool(int(fields[_FLAGS_FIELD]) & _PF_EXITING)


def is_runnable(folder: str) -> bool:
    """Return whether the thread of a /proc folder is runnable, on a core or not."""
    try:
        return _read(f"{folder}/stat").rpartition(b") ")[2][:1] == b"R"
    except OSError:
        return False


def read_voluntary_switches(folder: str) -> int | None:
    """Return how often the thread of a /proc folder gave up its core voluntarily; None if it has exited."""
    switches = read_switches(folder)
    return None if switches is None else switches[0]


def read_switches(folder: str) -> tuple[int, int] | None:
    """Return how often the thread of a /proc folder gave up its core, and was preempted; None if it has exited."""
    try:
        lines = _read(f"{folder}/status").splitlines()
    except OSError:
        return None
    counts = [int(line.split()[1]) for line in lines if b"voluntary_ctxt_switches:" in line]
    return (counts[0], counts[1]) if len(counts) == 2 else None


def list_pids() -> list[str]:
    """Return the names in /proc, including the pids of all processes; empty if there is no /proc."""
    return _list_folder("/proc") if has_own_proc() else []


def list_threads(process: int | str) -> list[str]:
    """Return the native ids of a process's threads; empty if it has exited."""
    return _list_folder(f"{locate(process)}/task")


def list_thread_children(thread: int) -> tuple[int, ...]:
    """Return the child processes, including zombies, that a thread of this process (a native id) started.

    Empty if the thread has exited: another thread has inherited its children. A child that starts or exits meanwhile
    may be missing, or hide another one: read twice if it matters.
    """
    return tuple(map(int, read_file(f"/proc/self/task/{thread}/children").split()))


def list_child_pids(process: int | str, *, threads: int | None = None) -> list[str]:
    """Return the child processes of all threads of a process, including zombies; `threads`: their number, if known.

    An exiting thread hands its children to the first thread in the list. In reverse order, a child that moves during
    the scan is read twice rather than never.
    """
    if threads == 1:
        return _read_children(process, process)
    present = reversed(list_threads(process))
    return list(dict.fromkeys(child for thread in present for child in _read_children(process, thread)))


def list_children(process: int | str) -> set[int]:
    """Return the child processes of all threads of a process ("self": this one), including zombies."""
    return set(map(int, list_child_pids(process)))


def has_children() -> bool:
    """Return whether this process has a child, alive or not reaped yet."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _read_children(process: int | str, thread: int | str) -> list[str]:
    return read_file(f"{locate(process)}/task/{thread}/children").decode().split() if has_own_proc() else []


def read_lock_limit(process: int | str) -> int:
    """Return the soft RLIMIT_LOCKS of a process; 0 if it has none, or has exited."""
    for line in read_file(f"{locate(process)}/limits").splitlines():
        if line.startswith(_LOCK_LIMIT):
            value = line.removeprefix(_LOCK_LIMIT).split()[0]
            return int(value) if value.isdigit() else 0
    return 0


def read_variables(process: int | str, name: str) -> list[str]:
    """Return the entries of a variable in a process's environment at its start, each as `name=value`.

    Empty if it has exited or belongs to another user.
    """
    path = f"{locate(process)}/environ"
    try:
        content = _read(path)  # one read: a scan of all processes is part of each start
    except OSError:
        return []
    if len(content) == _READ_BYTES:
        content = read_file(path)
    beginning = f"{name}=".encode()
    if beginning not in content:  # as in most processes: avoid splitting the content
        return []
    return [entry.decode("latin-1") for entry in content.split(b"\0") if entry.startswith(beginning)]


def read_start_time(process: int) -> str:
    """Return the start time of a process in kernel ticks; "" if it has exited or is a zombie."""
    fields = read_stat(process)
    return "" if fields is None or has_ended(fields) else fields[19]


def read_command_name(process: int) -> str:
    """Return the name of a process's program, at most 15 characters; "?" if it has exited."""
    try:
        return _read(f"{locate(process)}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def read_memory_peak_bytes() -> int:
    """Return the highest memory use of this process since its start, or since its high-water mark was reset."""
    try:
        for line in _read("/proc/self/status").splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


def read_memory_and_peak_bytes(process: int | str) -> tuple[int, int]:
    """Return the current and the highest memory use of a process with one read; zeros if it has exited."""
    found = {b"VmRSS:": 0, b"VmHWM:": 0}
    try:
        for line in _read(f"{locate(process)}/status").splitlines():
            name, _, value = line.partition(b"\t")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return found[b"VmRSS:"], found[b"VmHWM:"]


def read_memory_bytes(process: int | str = "self") -> int:
    """Return the current memory use of a process."""
    try:
        return int(_read(f"{locate(process)}/statm").split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def add_descendants(roots: set[str], parents: dict[str, str]) -> set[str]:
    """Return processes with all their descendants; `parents`: the parent of each process that counts."""
    found, before = set(roots), 0
    while before < len(found):
        before = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found


def measure_trees(roots: set[int]) -> dict[int, tuple[float, int]]:
    """Return the CPU seconds and memory bytes of each root's process tree, from one scan of /proc.

    CPU time includes live descendants and, through their parents' figures, reaped ones.
    """
    found = _read_processes()
    owner: dict[int, int] = {}
    totals = dict.fromkeys(roots, (0.0, 0))
    for pid, (_, cpu_seconds) in found.items():
        root = _find_root(pid, found, roots, owner)
        if root:
            cpu, memory = totals[root]
            totals[root] = (cpu + cpu_seconds, memory + read_memory_bytes(pid))
    return totals


def list_descendants(root: int) -> list[int]:
    """Return all descendants of a process, zombies too."""
    return list(_read_descendants(root))


def measure_descendants_cpu(root: int) -> float:
    """Return the CPU time of a process's descendants that are not reaped yet, including zombies."""
    return sum(_read_descendants(root).values())


def _read_descendants(root: int) -> dict[int, float]:
    """Return the CPU seconds of each descendant of a process."""
    found = _read_processes()
    owner: dict[int, int] = {}
    below = (pid for pid in found.keys() - {root} if _find_root(pid, found, {root}, owner) == root)
    return {pid: found[pid][1] for pid in below}


def _find_root(pid: int, found: dict[int, tuple[int, float]], roots: set[int], owner: dict[int, int]) -> int:
    path = []
    root = pid
    while root not in roots and root not in owner and root in found:
        path.append(root)
        owner[root] = 0  # the processes are read one after another, so the chain may be a circle
        root = found[root][0]
    root = root if root in roots else owner.get(root, 0)
    owner.update(dict.fromkeys(path, root))
    return root


def _read_processes() -> dict[int, tuple[int, float]]:
    """Return the parent and the CPU seconds, including reaped children, of every process."""
    found: dict[int, tuple[int, float]] = {}
    for name in list_pids():
        fields = read_stat(name) if name.isdigit() else None
        if fields is not None:
            found[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_SECOND)
    return found


def read_file(path: str) -> bytes:
    """Return the content of a file of any length; empty if it does not exist or belongs to another user.

    Reads to the end: a short read does not mean the end of a list of children, of which the kernel returns whole lines.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(descriptor, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    """Return the content of a short file with one read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _list_folder(path: str) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208 -- Path is not worth its import in a worker, nor its time in a scan
    except OSError:
        return []
