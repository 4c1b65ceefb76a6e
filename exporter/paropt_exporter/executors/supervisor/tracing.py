"""Trace the files that a command reads: from its system calls, to which the supervisor lets it proceed.

    command --open("a.py")--> kernel stops it --notification--> Tracer notes the path and its state --> it continues
    at its end: the accesses go into the file that the exporter passed

Guarantees: a path is noted before the call that uses it, by its one place (`link_walk`), with the links that lead
there; a call that can't be followed is a problem in the trace, which is then incomplete. The results of calls are
unknown: a trace has the state of each path before its first use, and the exporter compares it with the state at the
end. This is no sandbox: a program can change a path between the notification and its use.
"""

from __future__ import annotations

import errno
import marshal
import os
import time
from _struct import unpack_from

from paropt_exporter.executors.supervisor.link_walk import LinkWalk, join, leads_through_process, read_link, tidy
from paropt_exporter.executors.supervisor.seccomp import Forbidden, Kernel, Notification

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What a command did with a path. A read before the first write of the path has its own bits.
STAT, READ, LIST, WRITE = 1, 2, 4, 8
BEFORE = 4  # how far the bits of such a read are shifted

_MOST_PATHS = 100_000
_MOST_NAMES = 50_000  # of one folder
_MOST_SERVERS = 20
_MOST_LINKS = 40  # as the kernel
_FIRST_LINE_BYTES = 256  # of a script, as the kernel reads it
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RESOLVE_IN_ROOT = 0x10
_CLONE_NEW_MOUNTS = 0x00020000
_UNIX, _INET, _INET6 = 1, 2, 10
_LOCAL_FAMILIES = (0, 16, 38)  # none, netlink, the kernel's ciphers
_MESSAGE_BYTES, _MOST_MESSAGES = 64, 1024  # struct mmsghdr, UIO_MAXIOV
_LONGEST_ADDRESS_BYTES = 128
_SET_USER, _SET_GROUP = 0o4000, 0o2000
_KIND, _LINK, _FOLDER = 0o170000, 0o120000, 0o040000
_OWN_STATE = 5  # fields of a state without those of a link's target
# The kernel's own files. They describe the machine and its processes.
_PSEUDO = (b"/proc/", b"/sys/", b"/dev/")
_MEMORY_FILES = b"/dev/shm/"
# Sockets by which the C library looks up names of users and hosts, and the system's log.
_NAME_SERVICES = (b"/run/nscd/", b"/var/run/nscd/", b"/run/systemd/userdb/", b"/run/systemd/resolve/", b"/dev/log")

# By call: the places of the folder's descriptor (None: the current folder) and of the path in the arguments.
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
_OPENS = {"open": (None, 0), "openat": (0, 1), "openat2": (0, 1), "open_tree": (0, 1)}
_PROBLEMS = {
    "chroot": "it changes its root folder", "pivot_root": "it changes its root folder", "mount": "it mounts",
    "unshare": "it leaves its namespaces", "setns": "it leaves its namespaces", "move_mount": "it mounts",
    "open_by_handle_at": "it opens files by handles", "clone": "it leaves its namespaces",
    "": "a program of another architecture runs",
}  # fmt: skip
_OTHERS = (
    "execve",
    "execveat",
    "getdents",
    "getdents64",
    "connect",
    "bind",
    "listen",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "clone3",
)
_REFUSED = ("io_uring_setup",)  # its calls can't be seen; programs use others instead


class Tracer:
    """The accesses of one command's processes, by their notifications."""

    def __init__(self, kernel: Kernel, listener: int) -> None:
        self._kernel = kernel
        self._listener = listener
        self._paths: dict[bytes, list[Any]] = {}  # by path: bits, time in ns, state, names
        self._problems: dict[str, None] = {}
        self._servers: dict[str, None] = {}
        self._own_servers: set[bytes | int] = set()  # paths of sockets, and ports
        self._bound: dict[bytes | int, list[tuple[int, int]]] = {}  # processes and descriptors, if the call succeeds
        self._privileged = ""
        self._walk = LinkWalk(self._note_link)
        self._handlers = self._build_handlers()
        kernel.prefer_same_core(listener)

    @property
    def listener(self) -> int:
        return self._listener

    def note_folder(self, path: bytes) -> None:
        """Note the folder in which the command starts."""
        self._note(tidy(path), STAT)

    def serve(self) -> None:
        """Handle one notification. Raises OSError if no more can come."""
        notification = self._kernel.receive(self._listener)
        if notification is None:
            return
        try:
            if not self._problems:  # later calls tell nothing more
                self._handlers[notification.name](notification)
        except OSError as error:
            # A bad address fails the call itself, and a process that has ended makes none.
            if error.errno not in (errno.EFAULT, errno.ESRCH, errno.ENOENT):
                self._add_problem(error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 -- a process must always get its answer
            self._add_problem(f"internal error: {type(error).__name__}: {error}: please report it")
        self._kernel.let_continue(self._listener, notification)

    def write(self, descriptor: int) -> None:
        """Write the trace. Raises OSError."""
        content = marshal.dumps(
            {
                "problems": [*self._problems],
                "servers": [*self._servers],
                "privileged": self._privileged,
                "paths": {path: tuple(entry) for path, entry in self._paths.items()},
            }
        )
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def close(self) -> None:
        os.close(self._listener)

    def _build_handlers(self) -> dict[str, Callable[[Notification], None]]:
        handlers: dict[str, Callable[[Notification], None]] = {
            "execve": self._on_exec, "execveat": self._on_exec, "getdents": self._on_list,
            "getdents64": self._on_list, "connect": self._on_connect, "bind": self._on_bind, "listen": self._on_listen,
            "sendto": self._on_send, "sendmsg": self._on_send_message, "sendmmsg": self._on_send_messages,
            "clone3": self._on_clone,
        }  # fmt: skip
        for names, handler in (
            (_STATS, self._on_stat),
            (_WRITES, self._on_write),
            (_CHANGES, self._on_change),
            (_MOVES, self._on_move),
            (_OPENS, self._on_open),
            (_PROBLEMS, self._on_problem),
        ):
            handlers.update(dict.fromkeys(names, handler))
        return handlers

    # The calls

    def _on_stat(self, call: Notification) -> None:
        self._note(self._read_path(call, *_STATS[call.name]), STAT)

    def _on_open(self, call: Notification) -> None:
        flags = self._read_open_flags(call)
        path = self._read_path(call, *_OPENS[call.name])
        if flags & (os.O_PATH | os.O_TMPFILE) & ~os.O_DIRECTORY:
            self._note(path, STAT if flags & os.O_DIRECTORY else READ)  # by /proc it may read the file
            return
        access = flags & os.O_ACCMODE
        emptied = flags & os.O_TRUNC or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL
        if access == os.O_RDONLY or not emptied:
            self._note(path, STAT if flags & os.O_DIRECTORY else READ)
        if access != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC):
            self._note(path, WRITE, follows=not flags & os.O_NOFOLLOW)

    def _on_write(self, call: Notification) -> None:
        path = self._read_path(call, *_WRITES[call.name])
        if path is None:
            return
        place = self._walk.find_place(path)
        self._walk.note_change(place, is_new_link=call.name.startswith("symlink"))
        if call.name in _REMOVALS and self._is_absent(place):
            self._note(path, STAT)  # it fails, so the absence counts
        self._note(path, WRITE, follows=call.name == "creat")

    def _on_change(self, call: Notification) -> None:
        path = self._read_path(call, *_CHANGES[call.name])
        self._note(path, READ)
        self._note(path, WRITE, follows=True)

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
        if call.name == "execve":
            path = self._read_path(call, None, 0)
        else:
            path = self._read_path(call, 0, 1) or os.readlink(b"/proc/%d/fd/%d" % (call.pid, call.arguments[0]))
        self._note(path, READ)
        if path is None:
            return
        if not self._privileged and _is_privileged(path):
            self._privileged = os.fsdecode(path)
        self._note(_find_own_interpreter(path, self._paths.get(self._walk.find_place(path))), READ)

    def _check_moved(self, source: bytes | None, target: bytes | None) -> None:
        """Note that a link or a folder is somewhere else from now on. Files in a folder are not noted one by one."""
        if source is None or target is None:
            return
        place, new_place = self._walk.find_place(source), self._walk.find_place(target)
        try:
            mode = os.lstat(place).st_mode & _KIND
        except OSError:
            return
        if mode in (_LINK, _FOLDER):
            self._walk.note_change(place, is_new_link=True)
            self._walk.note_change(new_place, is_new_link=True)
        if mode == _FOLDER and not self._is_own(place):
            self._add_problem("it moves a folder that it did not make")

    def _is_own(self, place: bytes) -> bool:
        """Return whether the command made a path, or a folder that it is in."""
        while place:
            entry = self._paths.get(place)
            if entry is not None and entry[0] & WRITE and entry[2] is None:
                return True
            place = place.rpartition(b"/")[0]
        return False

    def _is_absent(self, place: bytes) -> bool:
        """Return whether there is nothing at a place that the command did not touch yet."""
        entry = self._paths.get(place)
        return _read_state(place) is None if entry is None else entry[2] is None and not entry[0] & WRITE

    def _on_clone(self, call: Notification) -> None:
        if unpack_from("=Q", self._read_bytes(call, call.arguments[0], 8))[0] & _CLONE_NEW_MOUNTS:
            self._add_problem(_PROBLEMS["clone"])

    def _on_problem(self, call: Notification) -> None:
        self._add_problem(_PROBLEMS[call.name])

    # Sockets

    def _on_connect(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 1))

    def _on_send(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 4))

    def _on_send_message(self, call: Notification) -> None:
        self._note_receiver(call, call.arguments[1])

    def _on_send_messages(self, call: Notification) -> None:
        for number in range(min(call.arguments[2] & 0xFFFFFFFF, _MOST_MESSAGES)):
            self._note_receiver(call, call.arguments[1] + number * _MESSAGE_BYTES)

    def _note_receiver(self, call: Notification, header: int) -> None:
        """Note the address in a message's header, struct msghdr."""
        address, size = unpack_from("=QI", self._read_bytes(call, header, 16))
        if address and size:
            self._note_server(call, self._read_bytes(call, address, min(size, _LONGEST_ADDRESS_BYTES)))

    def _on_bind(self, call: Notification) -> None:
        address = self._read_address(call, 1)
        family, port = _parse_address(address)
        name: bytes | int = self._find_socket(call, address) if family == _UNIX else port
        if isinstance(name, bytes) and name[:1] == b"/":
            self._note(name, WRITE)
        if len(self._bound) < _MOST_PATHS:
            # It may fail since another server has the address: the socket itself tells, once somebody connects.
            self._bound.setdefault(name, []).append((self._find_process(call), call.arguments[0] & 0xFFFFFFFF))

    def _on_listen(self, call: Notification) -> None:
        """Note the address of a server of the command's own, whose port the kernel may have chosen."""
        own = self._find_process(call), call.arguments[0] & 0xFFFFFFFF
        name = self._read_socket_name(*own)
        if isinstance(name, tuple) and len(name) >= 2:
            self._own_servers.add(int(name[1]))
        elif name:
            self._own_servers.update(bound for bound, sockets in self._bound.items() if own in sockets)

    def _find_process(self, call: Notification) -> int:
        """Return the process of a thread."""
        with open(b"/proc/%d/status" % call.pid, "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))

    def _read_socket_name(self, process: int, descriptor: int) -> Any:
        import _socket as socket  # here: few commands listen

        copy = socket.socket(fileno=self._kernel.copy_descriptor(process, descriptor))
        try:
            return copy.getsockname()
        finally:
            copy.close()

    def _is_own_server(self, name: bytes | int) -> bool:
        """Return whether the command itself has a socket with this address."""
        if name not in self._own_servers:
            chosen = () if isinstance(name, bytes) else self._bound.get(0, ())  # their ports were chosen by the kernel
            if any(self._has_name(own, name) for own in (*self._bound.get(name, ()), *chosen)):
                self._own_servers.add(name)
        return name in self._own_servers

    def _has_name(self, own: tuple[int, int], name: bytes | int) -> bool:
        try:
            found = self._read_socket_name(*own)
        except OSError:
            return False  # it is closed: nothing shows that it had the address
        if isinstance(name, int) or isinstance(found, tuple):
            return isinstance(found, tuple) and len(found) >= 2 and found[1] == name
        # The socket has the path that was given, perhaps a relative one.
        text = os.fsencode(found or b"")
        return bool(text) and (text == name or os.path.basename(text) == os.path.basename(name))

    def _note_server(self, call: Notification, address: bytes) -> None:
        family, port = _parse_address(address)
        if family == _UNIX:
            name = self._find_socket(call, address)
            if name[:1] == b"/" and not os.path.exists(name):
                self._note(name, STAT)
            elif name and not name.startswith(_NAME_SERVICES) and not self._is_own_server(name):
                self._add_server(f"the socket {os.fsdecode(name.replace(bytes(1), b'@'))}")
        elif family in (_INET, _INET6):
            here = _is_loopback(address)
            if port and not (here and self._is_own_server(port)):
                self._add_server(f"port {port} of {'this host' if here else 'another host'}")
        elif family not in _LOCAL_FAMILIES:
            self._add_server(f"a server of the address family {family}")

    def _find_socket(self, call: Notification, address: bytes) -> bytes:
        """Return the path of a Unix socket; an abstract one begins with NUL."""
        if address[2:3] == b"\0":
            return address[2:].rstrip(b"\0") or b"\0"
        return self._complete(call, None, address[2:].partition(b"\0")[0]) or b""

    def _read_address(self, call: Notification, place: int) -> bytes:
        size = min(call.arguments[place + 1] & 0xFFFFFFFF, _LONGEST_ADDRESS_BYTES)
        return self._read_bytes(call, call.arguments[place], size) if size else b""

    def _read_bytes(self, call: Notification, address: int, count: int) -> bytes:
        """Return so many bytes of the process's memory, which may be on two pages."""
        found = self._kernel.read_memory(call.pid, address, count)
        if len(found) < count:
            found += self._kernel.read_memory(call.pid, address + len(found), count - len(found))
        return found

    # Paths

    def _read_path(self, call: Notification, folder: int | None, place: int) -> bytes | None:
        """Return the absolute path of an argument; None if it has none: the call is about a descriptor."""
        address = call.arguments[place]
        if not address:
            return None
        descriptor = None if folder is None else call.arguments[folder]
        return self._complete(call, descriptor, self._kernel.read_text(call.pid, address))

    def _complete(self, call: Notification, descriptor: int | None, text: bytes) -> bytes | None:
        if not text:
            return None
        path = text
        if text[:1] != b"/":
            number = _AT_FDCWD if descriptor is None else (descriptor & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
            place = b"/proc/%d/cwd" % call.pid if number == _AT_FDCWD else b"/proc/%d/fd/%d" % (call.pid, number)
            path = os.readlink(place) + b"/" + text
        return tidy(path)

    def _read_open_flags(self, call: Notification) -> int:
        if call.name == "open":
            return call.arguments[1]
        if call.name == "openat":
            return call.arguments[2]
        if call.name == "open_tree":
            return os.O_PATH
        flags, _, resolve = unpack_from("=QQQ", self._read_bytes(call, call.arguments[2], 24))
        if resolve & _RESOLVE_IN_ROOT:
            self._add_problem("it opens files below another root folder")
        return int(flags)

    def _note(self, path: bytes | None, kind: int, *, follows: bool | None = None) -> None:
        """Note a use of a path. `follows`: also one of the file to which it leads if it is a link, as a read does."""
        for _ in range(_MOST_LINKS):
            if path is None:
                return
            place = self._walk.find_place(path)
            entry = self._note_place(place, kind)
            if entry is None or not (kind != WRITE if follows is None else follows):
                return
            # Of a path that the command changed the state of now counts, not that of the first use.
            is_link = entry[0] & WRITE or (type(entry[2]) is tuple and len(entry[2]) > _OWN_STATE)
            target = read_link(place) if is_link else None
            path = None if target is None else join(place, target)

    def _note_link(self, place: bytes) -> None:
        self._note_place(place, STAT)

    def _note_place(self, path: bytes, kind: int) -> list[Any] | None:
        entry = self._paths.get(path)
        if entry is None:
            if path.startswith(_PSEUDO) and not path.startswith(_MEMORY_FILES):
                if leads_through_process(path):
                    self._add_problem("it reads files through /proc")
                return None
            if len(self._paths) >= _MOST_PATHS:
                self._add_problem(f"it uses more than {_MOST_PATHS:,} paths")
                return None
            entry = self._paths[path] = [0, time.time_ns(), _read_state(path), None]
        entry[0] |= kind if kind == WRITE or entry[0] & WRITE else kind | kind << BEFORE
        if kind == LIST and entry[3] is None:
            entry[3] = self._list_names(path)
        return entry

    def _list_names(self, path: bytes) -> list[bytes] | None:
        names = os.listdir(path)
        if len(names) > _MOST_NAMES:
            self._add_problem(f"it lists a folder of more than {_MOST_NAMES:,} files")
            return []
        return sorted(names)

    def _add_problem(self, problem: str) -> None:
        self._problems[problem] = None

    def _add_server(self, server: str) -> None:
        if len(self._servers) < _MOST_SERVERS:
            self._servers[server] = None


def load_kernel() -> Kernel:
    """Return this machine's. Raises Forbidden."""
    return Kernel(os.uname().machine)


def build_trace_filter(kernel: Kernel) -> bytes:
    """Return the filter of a traced command."""
    names = [*_STATS, *_OPENS, *_WRITES, *_CHANGES, *_MOVES, *_OTHERS, *_PROBLEMS]
    return kernel.build_filter([name for name in names if name], _REFUSED)


def find_refusal() -> str:
    """Return why no command of this process can be traced; "" if they can.

    Tries it on a thread, which ends at once: a filter concerns only the thread that installs it.
    """
    import threading

    found: list[str] = ["the kernel does not answer"]
    thread = threading.Thread(target=lambda: found.__setitem__(0, _try_filter()), name="paropt-probe", daemon=True)
    thread.start()
    thread.join()
    return found[0]


def _try_filter() -> str:
    try:
        kernel = load_kernel()
        kernel.read_text(os.getpid(), kernel.own_text_address)
        os.close(kernel.install_filter(kernel.build_filter(["pivot_root"], ())))
    except Forbidden as error:
        return str(error)
    except OSError as error:
        return explain_refusal(error.errno or 0)
    return _read_ptrace_limit()


def explain_refusal(code: int) -> str:
    """Return why the kernel refused the filter."""
    if code == errno.EBUSY:
        return "a tracer or a container watches its system calls already"
    if code in (errno.ENOSYS, errno.EINVAL):
        return "the kernel has no seccomp user notifications, which Linux 5.5 brought"
    return f"the kernel or the container forbids it: {os.strerror(code)}"


def _read_ptrace_limit() -> str:
    """Return a refusal if Yama lets no process read the memory of its descendants."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", "rb") as file:
            forbids = int(file.read()) > 1 and os.geteuid() != 0
    except (OSError, ValueError):
        return ""
    return "kernel.yama.ptrace_scope forbids to read the memory of other processes" if forbids else ""


def _read_state(path: bytes) -> Any:
    """Return the state of a path: None if it names nothing, the error's number if it can't be read.

    Size, times in ns, inode and mode, as in the exporter's index of files; of a link also those of its target.
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


def _find_own_interpreter(path: bytes, entry: list[Any] | None) -> bytes | None:
    """Return the interpreter of a script that the command made: its end may be that of the script, too."""
    if entry is None or not entry[0] & WRITE:
        return None
    with open(path, "rb") as file:
        line = file.read(_FIRST_LINE_BYTES).partition(b"\n")[0]
    words = line[2:].split()
    return tidy(words[0]) if line[:2] == b"#!" and words and words[0][:1] == b"/" else None


def _is_privileged(path: bytes) -> bool:
    """Return whether a program has rights of its own, which it lacks while it is traced."""
    try:
        state = os.stat(path)
        if state.st_mode & _SET_USER and state.st_uid != os.geteuid():
            return True
        if state.st_mode & _SET_GROUP and state.st_gid != os.getegid():
            return True
        return os.geteuid() != 0 and bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _parse_address(address: bytes) -> tuple[int, int]:
    """Return the family and the port of a socket's address."""
    if len(address) < 4:
        return (unpack_from("=H", address)[0] if len(address) >= 2 else 0), 0
    return unpack_from("=H", address)[0], unpack_from(">H", address, 2)[0]


def _is_loopback(address: bytes) -> bool:
    if _parse_address(address)[0] == _INET:
        return address[4:5] == b"\x7f" or address[4:8] == bytes(4)
    host = address[8:24]
    return host in (bytes(15) + b"\1", bytes(16)) or host[:13] == bytes(10) + b"\xff\xff\x7f"
