"""Trace the files that a command reads, by its system calls, each of which waits for the supervisor.

    command --open("a.py")--> kernel stops it --notification--> Tracer notes the path and its state --> it continues
    at its end: the accesses go into the file that the exporter passed

Guarantees: a path is noted before the call that uses it, by its unique place (`link_walk`), with the links that lead
there; a call that can't be followed adds a problem to the trace, which is then incomplete. The results of calls are
unknown: a trace has the state of each path before its first use, and the exporter compares it with the state at the
end. This is not a sandbox: a program can change a path between the notification and its use.
"""

from __future__ import annotations

import errno
import marshal
import os
import time
from _struct import unpack_from
from itertools import islice

from paropt_exporter.executors.supervisor.link_walk import (
    MOST_LINKS,
    LinkWalk,
    complete_path,
    join,
    leads_through_process,
    read_link,
    read_process_link,
    tidy,
)
from paropt_exporter.executors.supervisor.seccomp import CLONE_NEW_MOUNTS, Kernel, Notification, read_start
from paropt_exporter.executors.supervisor.traced_servers import TracedServers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ClassVar

# How a command used a path. Reads before the first write of the path have their own bits.
STAT, READ, LIST, WRITE = 1, 2, 4, 8
BEFORE = 4  # how far the bits of such a read are shifted

_MOST_PATHS = 100_000
_MOST_FOLDERS = 200  # of a path: the exporter looks at each of them, and remembers the way to each
_MOST_NAMES = 50_000  # of one folder
_MOST_ALL_NAMES = 1_000_000  # of all folders, 100 bytes each
_MOST_MOVES = 1_000
_LARGEST_DIGESTED_BYTES = 1 << 24
_MOST_INTERPRETERS = 5  # in a chain of scripts, as the kernel
_FIRST_LINE_BYTES = 256  # of a script, as the kernel reads it
_RENAME_EXCHANGE = 2
_PLAIN_OPEN_FLAGS = os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # and O_RDONLY, which is 0
_OWN_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # of the tracer, which waits for no pipe
_RESOLVE_IN_ROOT = 0x10
_SET_USER, _SET_GROUP = 0o4000, 0o2000
_KIND, _FILE, _LINK, _FOLDER = 0o170000, 0o100000, 0o120000, 0o040000
# The kernel's files, which describe the machine and its processes.
_PSEUDO = (b"/proc/", b"/sys/", b"/dev/")
_MEMORY_FILES = b"/dev/shm/"
_DELETED = b" (deleted)"  # in the kernel's name of an open file without a name

# By call: which arguments are the folder's descriptor (None: the current folder) and the path.
_STATS = {
    "stat": (None, 0), "lstat": (None, 0), "access": (None, 0), "newfstatat": (0, 1), "statx": (0, 1),
    "faccessat": (0, 1), "faccessat2": (0, 1), "readlink": (None, 0), "readlinkat": (0, 1), "statfs": (None, 0),
    "getxattr": (None, 0), "lgetxattr": (None, 0), "listxattr": (None, 0), "llistxattr": (None, 0), "chdir": (None, 0),
    "name_to_handle_at": (0, 1), "inotify_add_watch": (None, 1), "getxattrat": (0, 1), "listxattrat": (0, 1),
    "file_getattr": (0, 1),
}  # fmt: skip
_WRITES = {
    "unlink": (None, 0), "unlinkat": (0, 1), "rmdir": (None, 0), "mkdir": (None, 0), "mkdirat": (0, 1),
    "mknod": (None, 0), "mknodat": (0, 1), "symlink": (None, 1), "symlinkat": (1, 2), "creat": (None, 0),
}  # fmt: skip
_REMOVALS = frozenset({"unlink", "unlinkat", "rmdir"})
_CHANGES = {
    "truncate": (None, 0), "chmod": (None, 0), "fchmodat": (0, 1), "fchmodat2": (0, 1), "chown": (None, 0),
    "lchown": (None, 0), "fchownat": (0, 1), "utime": (None, 0), "utimes": (None, 0), "futimesat": (0, 1),
    "utimensat": (0, 1), "setxattr": (None, 0), "lsetxattr": (None, 0), "removexattr": (None, 0),
    "lremovexattr": (None, 0), "setxattrat": (0, 1), "removexattrat": (0, 1), "file_setattr": (0, 1),
}  # fmt: skip
_MOVES = {
    "rename": (None, 0, None, 1), "renameat": (0, 1, 2, 3), "renameat2": (0, 1, 2, 3),
    "link": (None, 0, None, 1), "linkat": (0, 1, 2, 3),
}  # fmt: skip
_OPENS = {"open": (None, 0), "openat": (0, 1), "openat2": (0, 1), "open_tree": (0, 1), "open_tree_attr": (0, 1)}
_PROBLEMS = {
    "chroot": "it changes its root folder", "pivot_root": "it changes its root folder", "mount": "it mounts",
    "unshare": "it leaves its namespaces", "setns": "it leaves its namespaces", "move_mount": "it mounts",
    "open_by_handle_at": "it opens files by handles", "pidfd_getfd": "it takes descriptors of other processes",
    "fsmount": "it mounts", "clone": "it leaves its namespaces",
    "": "a program of another architecture runs",
}  # fmt: skip
_REFUSED = ("io_uring_setup",)  # its operations can't be seen; without it, programs use system calls


class Tracer:
    """Collects the accesses of one command's processes from their notifications."""

    def __init__(self, kernel: Kernel, listener: int) -> None:
        self._kernel = kernel
        self._listener = listener
        self._paths: dict[bytes, list[Any]] = {}  # by path: bits, time in ns, state, names, digest
        self._all_names = 0  # that were listed
        self._listed: dict[bytes, int] = {}  # by folder: the time of its last change when its names were noted
        # Absolute paths, of which further calls add nothing until the command puts a link on their way or at their end.
        self._noted: dict[int, set[bytes]] = {STAT: set(), READ: set()}
        self._ends: set[bytes] = set()  # the places to which they led
        self._stat_places = kernel.build_places({name: place for name, (_, place) in _STATS.items()})
        self._moves: list[tuple[bytes, bytes]] = []
        self._problems: dict[str, None] = {}
        self._servers = TracedServers(
            kernel,
            note_absence=lambda path: self._note(path, STAT),
            note_write=lambda path: self._note(path, WRITE),
        )
        self._privileged = ""
        self._stopping = False
        self._walk = LinkWalk(self._note_passed)
        kernel.prefer_same_core(listener)

    def note_folder(self, path: bytes) -> None:
        """Note the folder in which the command starts."""
        self._note(tidy(path), STAT)

    def serve(self) -> None:
        """Handle notifications until no more can come, or `stop` was called. Blocks until then. Raises OSError."""
        kernel, listener, noted = self._kernel, self._listener, self._noted[STAT]
        message, receive, read_text, let_continue = (
            kernel.message,
            kernel.receive,
            kernel.read_text,
            kernel.let_continue,
        )
        find_place = self._stat_places.get
        while not self._stopping:
            if not receive(listener):
                if kernel.is_unused(listener):
                    return
                continue
            try:
                # Nine in ten calls of a test suite repeat a question about an absolute path: each import asks about the
                # folders of `sys.path`, each traceback about source files. For them, as little Python code as possible
                # runs.
                pid, number, first, second = read_start(message)
                place = find_place(number)
                if place is None:
                    self._handle(kernel.parse())
                else:
                    text = read_text(pid, second if place else first)
                    if text not in noted:
                        self._note_stat(text)
            except OSError as error:
                # With a bad address the call itself fails, and a process that has ended makes no call.
                if error.errno not in (errno.EFAULT, errno.ESRCH, errno.ENOENT):
                    self._add_problem(error.strerror or str(error))
            except Exception as error:  # noqa: BLE001 -- a process must always get its answer
                self._add_problem(f"internal error: {type(error).__name__}: {error}: please report it")
            let_continue(listener)

    def stop(self) -> None:
        """Make `serve` return after the next notification, or after a signal to its thread."""
        self._stopping = True

    def fail(self, error: OSError) -> None:
        """Note that no more notifications can be served. Further calls fail, since they would wait forever."""
        self._add_problem(f"its system calls can't be received: {error.strerror}")
        self.close()

    def write(self, descriptor: int) -> None:
        """Write the trace. Raises OSError."""
        content = marshal.dumps(
            {
                "problems": [*self._problems],
                "servers": [*self._servers.names],
                "privileged": self._privileged,
                "moves": self._moves,
                "paths": {path: tuple(entry) for path, entry in self._paths.items()},
            }
        )
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def close(self) -> None:
        if self._listener >= 0:
            os.close(self._listener)
        self._listener = -1
        self._kernel.close_memories()

    def _handle(self, call: Notification) -> None:
        if self._problems:
            return  # later calls add nothing
        handler = self.HANDLERS.get(call.name)
        if handler is not None:
            handler(self, call)
        else:
            self._servers.HANDLERS[call.name](self._servers, call)

    # System calls

    def _note_stat(self, text: bytes) -> None:
        """Note that the received call asks about a path."""
        if self._problems:
            return
        if text[:1] == b"/":
            if self._note(tidy(text), STAT):
                self._noted[STAT].add(text)
        else:
            call = self._kernel.parse()
            self._note_once(self._complete_path(call, _STATS[call.name][0], text), STAT)

    def _on_open(self, call: Notification) -> None:
        flags = self._read_open_flags(call)
        if not flags & ~_PLAIN_OPEN_FLAGS:
            self._note_plain_open(call, STAT if flags & os.O_DIRECTORY else READ)
            return
        path = self._read_path(call, *_OPENS[call.name])
        if path is None:
            return
        place = self._walk.find_place(path)
        if flags & (os.O_PATH | os.O_TMPFILE) & ~os.O_DIRECTORY:
            self._note_at(place, STAT if flags & os.O_DIRECTORY else READ)  # it may read the file through /proc
            return
        access = flags & os.O_ACCMODE
        emptied = flags & os.O_TRUNC or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL
        if access == os.O_RDONLY or not emptied:
            self._note_at(place, STAT if flags & os.O_DIRECTORY else READ)
        elif not flags & os.O_CREAT and self._is_absent(place):
            self._note_at(place, STAT)  # it fails, so the absence counts
        if access != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC):
            self._note_at(place, WRITE, follows=not flags & os.O_NOFOLLOW)

    def _note_plain_open(self, call: Notification, kind: int) -> None:
        """Note an open that only reads."""
        folder, place = _OPENS[call.name]
        text = self._read_text(call, place)
        if text not in self._noted[kind]:
            self._note_once(self._complete_path(call, folder, text), kind)

    def _on_write(self, call: Notification) -> None:
        path = self._read_path(call, *_WRITES[call.name])
        if path is None:
            return
        place = self._walk.find_place(path)
        self._note_change(place, is_new_link=call.name.startswith("symlink"))
        if call.name in _REMOVALS and self._is_absent(place):
            self._note_at(place, STAT)  # it fails, so the absence counts
        self._note_at(place, WRITE, follows=call.name == "creat")

    def _on_change(self, call: Notification) -> None:
        path = self._read_path(call, *_CHANGES[call.name])
        if path is not None:
            place = self._walk.find_place(path)
            self._note_at(place, READ)
            self._note_at(place, WRITE, follows=True)

    def _on_move(self, call: Notification) -> None:
        folder, name, new_folder, new_name = _MOVES[call.name]
        source, target = self._read_path(call, folder, name), self._read_path(call, new_folder, new_name)
        self._note(source, READ)
        self._check_moved(source, target)
        if call.name == "renameat2" and call.arguments[4] & _RENAME_EXCHANGE:
            self._note(target, READ)
            self._check_moved(target, source)
        if call.name.startswith("rename"):
            self._note(source, WRITE)
        self._note(target, WRITE)

    def _on_list(self, call: Notification) -> None:
        path = os.readlink(b"/proc/%d/fd/%d" % (call.pid, call.arguments[0] & 0xFFFFFFFF))
        self._note(path, LIST)

    def _on_exec(self, call: Notification) -> None:
        self._kernel.note_program(call.pid)
        if call.name == "execve":
            path = self._read_path(call, None, 0)
        else:
            path = self._read_path(call, 0, 1) or os.readlink(b"/proc/%d/fd/%d" % (call.pid, call.arguments[0]))
        self._note(path, READ)
        if path is None:
            return
        if not self._privileged and _is_privileged(path):
            self._privileged = os.fsdecode(path)
        self._note_interpreters(call, path)

    def _note_interpreters(self, call: Notification, path: bytes) -> None:
        """Note the interpreters of a script, if the exporter can't find them when the command has ended.

        These are the interpreters of scripts that the command made, which may be gone, and those whose paths are
        relative, which the kernel looks for in the current folder.
        """
        script: bytes | None = path
        for _ in range(_MOST_INTERPRETERS):
            interpreter = None if script is None else _read_interpreter(script)
            if script is None or interpreter is None:
                return
            is_lasting = interpreter[:1] == b"/" and not self._is_made(script)
            script = complete_path(call.pid, None, interpreter)
            if not is_lasting:
                self._note(script, READ)

    def _check_moved(self, source: bytes | None, target: bytes | None) -> None:
        """Note that a file, link or folder is moved.

        Files in a moved folder are not noted one by one. So if the command did not make the folder, a folder that it
        did make may then contain files that it did not.
        """
        if source is None or target is None:
            return
        place, new_place = self._walk.find_place(source), self._walk.find_place(target)
        try:
            mode = os.lstat(place).st_mode & _KIND
        except OSError:
            return
        leads_elsewhere = mode in (_LINK, _FOLDER)
        self._note_change(place, is_new_link=leads_elsewhere)
        self._note_change(new_place, is_new_link=leads_elsewhere)  # a link there is replaced
        if mode == _FOLDER and (self._moves or not self._is_own(place)):
            self._moves.append((place, new_place))
            if len(self._moves) > _MOST_MOVES:
                self._add_problem(f"it moves more than {_MOST_MOVES:,} folders that it did not make")

    def _is_own(self, place: bytes) -> bool:
        """Return whether the command made a path, or a folder that contains it."""
        while place:
            entry = self._paths.get(place)
            if entry is not None and entry[0] & WRITE and entry[2] is None:
                return True
            place = place.rpartition(b"/")[0]
        return False

    def _is_made(self, path: bytes) -> bool:
        """Return whether the command wrote a file."""
        entry = self._paths.get(self._walk.find_place(path))
        return entry is not None and bool(entry[0] & WRITE)

    def _is_absent(self, place: bytes) -> bool:
        """Return whether nothing is at a place, and the command has not touched it yet."""
        entry = self._note_place(place, 0)
        return entry is not None and entry[2] is None and not entry[0] & WRITE

    def _on_clone(self, call: Notification) -> None:
        if unpack_from("=Q", self._kernel.read_bytes(call.pid, call.arguments[0], 8))[0] & CLONE_NEW_MOUNTS:
            self._add_problem(_PROBLEMS["clone"])

    def _on_problem(self, call: Notification) -> None:
        self._add_problem(_PROBLEMS[call.name])

    HANDLERS: ClassVar[Mapping[str, Callable[[Tracer, Notification], None]]] = {
        **dict.fromkeys(_WRITES, _on_write), **dict.fromkeys(_CHANGES, _on_change), **dict.fromkeys(_MOVES, _on_move),
        **dict.fromkeys(_OPENS, _on_open), **dict.fromkeys(_PROBLEMS, _on_problem),
        "execve": _on_exec, "execveat": _on_exec, "getdents": _on_list, "getdents64": _on_list, "clone3": _on_clone,
    }  # fmt: skip

    # Paths

    def _read_path(self, call: Notification, folder: int | None, place: int) -> bytes | None:
        """Return the absolute path of an argument; None if it has none, since the call is about a descriptor."""
        return self._complete_path(call, folder, self._read_text(call, place))

    def _read_text(self, call: Notification, place: int) -> bytes:
        address = call.arguments[place]
        return self._kernel.read_text(call.pid, address) if address else b""

    def _complete_path(self, call: Notification, folder: int | None, text: bytes) -> bytes | None:
        return complete_path(call.pid, None if folder is None else call.arguments[folder], text)

    def _read_open_flags(self, call: Notification) -> int:
        if call.name == "open":
            return call.arguments[1]
        if call.name == "openat":
            return call.arguments[2]
        if call.name in ("open_tree", "open_tree_attr"):
            return os.O_PATH
        flags, _, resolve = unpack_from("=QQQ", self._kernel.read_bytes(call.pid, call.arguments[2], 24))
        if resolve & _RESOLVE_IN_ROOT:
            self._add_problem("it opens files below another root folder")
        return int(flags)

    def _note(self, path: bytes | None, kind: int) -> bool:
        """Note a use of a path, if there is one; return whether a repetition adds nothing until a link is changed.

        If one has just been changed on its way or at its end, that call may not have happened yet.
        """
        self._walk.met_change = False
        if path is not None:
            self._note_at(self._walk.find_place(path), kind)
        return not self._walk.met_change

    def _note_at(self, place: bytes, kind: int, *, follows: bool | None = None) -> None:
        """Note a use of a place. `follows`: if it is a link, also a use of the file to which it leads, as by a read."""
        for _ in range(MOST_LINKS):
            if place.count(b"/") > _MOST_FOLDERS:
                self._add_problem(f"it uses a path of more than {_MOST_FOLDERS} folders")
                return
            if kind != STAT and (target := read_process_link(place)) is not None:
                place = target
                if target.endswith(_DELETED):
                    self._add_problem("it reads files through /proc")
            entry = self._note_place(place, kind)
            if entry is None:
                return
            if kind != WRITE:
                self._ends.add(place)
            if not (kind != WRITE if follows is None else follows):
                return
            target = read_link(place)  # `entry` has its state before its first use
            if target is None:
                return
            place = self._walk.find_place(join(place, target))

    def _note_once(self, path: bytes | None, kind: int) -> None:
        """Note a use of a path that adds nothing when it is repeated, until a link is changed."""
        noted = self._noted[kind]
        if path is not None and path not in noted and self._note(path, kind):
            noted.add(path)

    def _note_change(self, place: bytes, *, is_new_link: bool) -> None:
        """Note a removal, a new link or a moved folder; forget the paths that may lead to another place from now on."""
        is_on_ways = self._walk.note_change(place, is_new_link=is_new_link)
        if is_on_ways or (is_new_link and place in self._ends):
            for noted in (*self._noted.values(), self._ends):
                noted.clear()

    def _note_passed(self, place: bytes) -> None:
        self._note_place(place, STAT)

    def _note_place(self, path: bytes, kind: int) -> list[Any] | None:
        entry = self._paths.get(path)
        if entry is None:
            if (path + b"/").startswith(_PSEUDO) and not path.startswith(_MEMORY_FILES):
                if leads_through_process(path):
                    self._add_problem("it reads files through /proc")
                return None
            if len(self._paths) >= _MOST_PATHS:
                self._add_problem(f"it uses more than {_MOST_PATHS:,} paths")
                return None
            entry = self._paths[path] = [0, time.time_ns(), _read_state(path), None, None]
        if kind == WRITE and not entry[0] & WRITE:
            if entry[0]:
                entry[4] = _compute_digest(path, entry[2])
            self._note_place(path.rpartition(b"/")[0] or b"/", STAT)  # without the folder, the call fails
        entry[0] |= kind if kind == WRITE or entry[0] & WRITE else kind | kind << BEFORE
        if kind == LIST:
            self._note_names(path, entry)
        return entry

    def _note_names(self, folder: bytes, entry: list[Any]) -> None:
        """Note the names in a folder; at a later listing, note which have changed since, as the command has seen."""
        # read before the names, so that a change in between shows at the next listing
        changed_ns = os.stat(folder).st_mtime_ns
        if self._listed.get(folder) == changed_ns:
            return
        self._listed[folder] = changed_ns
        names = self._list_names(folder)
        if entry[3] is None:
            entry[3] = names
        for name in {*names}.symmetric_difference(entry[3]):
            self._note_place(folder.rstrip(b"/") + b"/" + name, STAT)

    def _list_names(self, path: bytes) -> list[bytes]:
        with os.scandir(path) as listing:  # a list of all names has no bound
            names = [entry.name for entry in islice(listing, _MOST_NAMES + 1)]
        self._all_names += len(names)
        if len(names) > _MOST_NAMES:
            self._add_problem(f"it lists a folder of more than {_MOST_NAMES:,} files")
            return []
        if self._all_names > _MOST_ALL_NAMES:
            self._add_problem(f"it lists folders of more than {_MOST_ALL_NAMES:,} files in all")
            return []
        return sorted(names)

    def _add_problem(self, problem: str) -> None:
        self._problems[problem] = None


def build_trace_filter(kernel: Kernel) -> bytes:
    """Return the filter of a traced command."""
    return kernel.build_filter(_STATS.keys() | Tracer.HANDLERS.keys() | TracedServers.HANDLERS.keys(), _REFUSED)


def _read_state(path: bytes) -> Any:
    """Return the state of a path; None if nothing is there; the error's number if it can't be read.

    A state has size, times in ns, inode and mode, as in the exporter's index of files; for a link, followed by those of
    its target.
    """
    try:
        state = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return error.errno
    own = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_mode)
    if state.st_mode & _KIND != _LINK:
        return own
    try:
        end = os.stat(path)
    except OSError:
        return (*own, None)
    return (*own, (end.st_size, end.st_mtime_ns, end.st_ctime_ns, end.st_ino, end.st_mode))


def _compute_digest(path: bytes, state: Any) -> str | None:
    """Return the SHA-256 of a regular file with this state; None if it is large, unreadable, or has changed since."""
    if type(state) is not tuple or state[4] & _KIND != _FILE or state[0] > _LARGEST_DIGESTED_BYTES:
        return None
    import hashlib  # here: few commands write a file that they have used

    try:
        with open(os.open(path, _OWN_OPEN_FLAGS), "rb", buffering=0) as file:
            digest = hashlib.sha256(file.read(state[0] + 1)).hexdigest()
    except OSError:
        return None
    return digest if _read_state(path) == state else None


def _read_interpreter(path: bytes) -> bytes | None:
    """Return the interpreter that a script names, possibly relative to the folder of the process that starts it."""
    try:
        if os.stat(path).st_mode & _KIND != _FILE:
            return None  # by /proc/self/fd, it may be a pipe of this process, which would lose what is read here
        with open(os.open(path, _OWN_OPEN_FLAGS), "rb", buffering=0) as file:
            line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return None  # the call fails, or this is a program that only the kernel may read
    words = line[2:].split()
    return words[0] if line[:2] == b"#!" and words else None


def _is_privileged(path: bytes) -> bool:
    """Return whether a program has privileges of its own, which it lacks while it is traced."""
    try:
        state = os.stat(path)
        if state.st_mode & _SET_USER and state.st_uid != os.geteuid():
            return True
        if state.st_mode & _SET_GROUP and state.st_gid != os.getegid():
            return True
        return os.geteuid() != 0 and bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False
