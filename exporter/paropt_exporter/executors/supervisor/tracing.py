"""Start a command with a filter on its system calls, and trace by these the files that it reads.

    command --open("a.py")--> kernel stops it --notification--> Tracer notes the path and its state --> it continues
    at its end: the accesses go into the file that the exporter passed

Guarantees: a path is noted before the call that uses it; a call that can't be followed is a problem in the trace, which
is then incomplete. The results of calls are unknown: a trace has the state of each path before its first use, and the
exporter compares it with the state at the end. This is no sandbox: a program can change a path between the
notification and its use.
"""

from __future__ import annotations

import _socket as socket
import errno
import marshal
import os
import resource
import select
import time
from _struct import pack, unpack, unpack_from

from paropt_exporter.executors.supervisor.seccomp import Forbidden, Kernel, Notification

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any
else:
    import _signal as signal

# What a command did with a path. A read before the first write of the path has its own bits.
STAT, READ, LIST, WRITE = 1, 2, 4, 8
BEFORE = 4  # how far the bits of such a read are shifted

_MOST_PATHS = 100_000
_MOST_NAMES = 50_000  # of one folder
_MOST_SERVERS = 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RESOLVE_IN_ROOT = 0x10
_CLONE_NEW_MOUNTS = 0x00020000
_UNIX, _INET, _INET6 = 1, 2, 10
_LONGEST_ADDRESS_BYTES = 128
_SET_USER, _SET_GROUP = 0o4000, 0o2000
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
}  # fmt: skip
_WRITES = {
    "unlink": (None, 0), "unlinkat": (0, 1), "rmdir": (None, 0), "mkdir": (None, 0), "mkdirat": (0, 1),
    "mknod": (None, 0), "mknodat": (0, 1), "symlink": (None, 1), "symlinkat": (1, 2), "creat": (None, 0),
}  # fmt: skip
_CHANGES = {
    "truncate": (None, 0), "chmod": (None, 0), "fchmodat": (0, 1), "fchmodat2": (0, 1), "chown": (None, 0),
    "lchown": (None, 0), "fchownat": (0, 1), "utime": (None, 0), "utimes": (None, 0), "futimesat": (0, 1),
    "utimensat": (0, 1), "setxattr": (None, 0), "lsetxattr": (None, 0), "removexattr": (None, 0),
    "lremovexattr": (None, 0),
}  # fmt: skip
_MOVES = {
    "rename": (None, 0, None, 1), "renameat": (0, 1, 2, 3), "renameat2": (0, 1, 2, 3),
    "link": (None, 0, None, 1), "linkat": (0, 1, 2, 3),
}  # fmt: skip
_OPENS = {"open": (None, 0), "openat": (0, 1), "openat2": (0, 1)}
_PROBLEMS = {
    "chroot": "it changes its root folder", "pivot_root": "it changes its root folder", "mount": "it mounts",
    "unshare": "it leaves its namespaces", "setns": "it leaves its namespaces", "move_mount": "it mounts",
    "open_by_handle_at": "it opens files by handles", "clone": "it leaves its namespaces",
    "": "a program of another architecture runs",
}  # fmt: skip
_OTHERS = ("execve", "execveat", "getdents", "getdents64", "connect", "bind", "listen", "sendto", "clone3")
_REFUSED = ("io_uring_setup",)  # its calls can't be seen; programs use others instead
_TRACED, _UNTRACED, _FAILED = b"T", b"U", b"F"
_MESSAGE_BYTES = 64
_EXIT_CODE = 127


class Tracer:
    """The accesses of one command's processes, by their notifications."""

    def __init__(self, kernel: Kernel, listener: int) -> None:
        self._kernel = kernel
        self._listener = listener
        self._paths: dict[bytes, list[Any]] = {}  # by path: bits, time in ns, state, names
        self._problems: dict[str, None] = {}
        self._servers: dict[str, None] = {}
        self._own_sockets: set[bytes] = set()
        self._own_ports: set[int] = set()
        self._privileged = ""
        self._handlers = self._build_handlers()
        kernel.prefer_same_core(listener)

    @property
    def listener(self) -> int:
        return self._listener

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
            "sendto": self._on_send, "clone3": self._on_clone,
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
            self._note(path, STAT)
            return
        access = flags & os.O_ACCMODE
        emptied = flags & os.O_TRUNC or flags & (os.O_CREAT | os.O_EXCL) == os.O_CREAT | os.O_EXCL
        if access == os.O_RDONLY or not emptied:
            self._note(path, STAT if flags & os.O_DIRECTORY else READ)
        if access != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC):
            self._note(path, WRITE)

    def _on_write(self, call: Notification) -> None:
        self._note(self._read_path(call, *_WRITES[call.name]), WRITE)

    def _on_change(self, call: Notification) -> None:
        path = self._read_path(call, *_CHANGES[call.name])
        self._note(path, READ)
        self._note(path, WRITE)

    def _on_move(self, call: Notification) -> None:
        folder, name, new_folder, new_name = _MOVES[call.name]
        source, target = self._read_path(call, folder, name), self._read_path(call, new_folder, new_name)
        self._note(source, READ)
        if call.name == "renameat2" and call.arguments[4] & _RENAME_EXCHANGE:
            self._note(target, READ)
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
        if path is not None and not self._privileged and _is_privileged(path):
            self._privileged = os.fsdecode(path)

    def _on_clone(self, call: Notification) -> None:
        if unpack_from("=Q", self._kernel.read_memory(call.pid, call.arguments[0], 8))[0] & _CLONE_NEW_MOUNTS:
            self._add_problem(_PROBLEMS["clone"])

    def _on_problem(self, call: Notification) -> None:
        self._add_problem(_PROBLEMS[call.name])

    # Sockets

    def _on_connect(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 1))

    def _on_send(self, call: Notification) -> None:
        self._note_server(call, self._read_address(call, 4))

    def _on_bind(self, call: Notification) -> None:
        address = self._read_address(call, 1)
        family, port = _parse_address(address)
        if family == _UNIX:
            name = self._find_socket(call, address)
            self._own_sockets.add(name)
            if name[:1] == b"/":
                self._note(name, WRITE)
        elif port:
            self._own_ports.add(port)

    def _on_listen(self, call: Notification) -> None:
        """Note the port of a server of the command's own, which the kernel may have chosen."""
        import _socket as socket  # here: few commands listen

        with open(b"/proc/%d/status" % call.pid, "rb") as file:
            process = next(int(line.split()[1]) for line in file if line.startswith(b"Tgid:"))
        with_copy = socket.socket(fileno=self._kernel.copy_descriptor(process, call.arguments[0] & 0xFFFFFFFF))
        try:
            name = with_copy.getsockname()
        finally:
            with_copy.close()
        if isinstance(name, tuple) and len(name) >= 2:
            self._own_ports.add(int(name[1]))

    def _note_server(self, call: Notification, address: bytes) -> None:
        family, port = _parse_address(address)
        if family == _UNIX:
            name = self._find_socket(call, address)
            if name[:1] == b"/" and not os.path.exists(name):
                self._note(name, STAT)
            elif name and name not in self._own_sockets and not name.startswith(_NAME_SERVICES):
                self._add_server(f"the socket {os.fsdecode(name.replace(bytes(1), b'@'))}")
        elif family in (_INET, _INET6) and port and not (port in self._own_ports and _is_loopback(address)):
            self._add_server(f"port {port} of {'this host' if _is_loopback(address) else 'another host'}")

    def _find_socket(self, call: Notification, address: bytes) -> bytes:
        """Return the path of a Unix socket; an abstract one begins with NUL."""
        if address[2:3] == b"\0":
            return address[2:].rstrip(b"\0") or b"\0"
        return self._complete(call, None, address[2:].partition(b"\0")[0]) or b""

    def _read_address(self, call: Notification, place: int) -> bytes:
        size = min(call.arguments[place + 1] & 0xFFFFFFFF, _LONGEST_ADDRESS_BYTES)
        return self._kernel.read_memory(call.pid, call.arguments[place], size) if size else b""

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
        if b"/." in path or b"//" in path or path[-1:] == b"/":
            path = b"/" + b"/".join([part for part in path.split(b"/") if part not in (b"", b".")])
        return path

    def _read_open_flags(self, call: Notification) -> int:
        if call.name == "open":
            return call.arguments[1]
        if call.name == "openat":
            return call.arguments[2]
        flags, _, resolve = unpack_from("=QQQ", self._kernel.read_memory(call.pid, call.arguments[2], 24))
        if resolve & _RESOLVE_IN_ROOT:
            self._add_problem("it opens files below another root folder")
        return int(flags)

    def _note(self, path: bytes | None, kind: int) -> None:
        if path is None:
            return
        entry = self._paths.get(path)
        if entry is None:
            if path.startswith(_PSEUDO) and not path.startswith(_MEMORY_FILES):
                self._check_pseudo(path)
                return
            if len(self._paths) >= _MOST_PATHS:
                self._add_problem(f"it uses more than {_MOST_PATHS:,} paths")
                return
            entry = self._paths[path] = [0, time.time_ns(), _read_state(path), None]
        entry[0] |= kind if kind == WRITE or entry[0] & WRITE else kind | kind << BEFORE
        if kind == LIST and entry[3] is None:
            entry[3] = self._list_names(path)

    def _check_pseudo(self, path: bytes) -> None:
        """Note a path through a folder or descriptor of a process: it leads to a file that is not noted."""
        parts = path.split(b"/")
        if parts[1] == b"proc" and len(parts) > 4 and (parts[3] in (b"cwd", b"root") or b"fd" in parts[3:-2]):
            self._add_problem("it reads files through /proc")

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
    if state.st_mode & 0o170000 != 0o120000:
        return own
    try:
        end = os.stat(path)
    except OSError:
        return (*own, None)
    return (*own, (end.st_size, end.st_mtime_ns, end.st_ctime_ns, end.st_ino, end.st_mode))


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


if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping
else:
    import _signal as signal


def start_traced(
    *,
    program: bytes,
    argv: list[bytes],
    env: Mapping[bytes, bytes],
    output: int,
    default_signals: Iterable[int],
    limits: Mapping[int, tuple[int, int]],
) -> tuple[int, Tracer | None, str]:
    """Start a traced program in the current folder, in a session of its own.

        supervisor                         child
        fork ----------------------------> session, signals, output, limits, filter
        <---- T and the descriptor, or U and why there is none
        answers the call of execve <------ execve
        <---- F and the error, or the end of the socket: the program runs

    It forks, since posix_spawn can't install a filter before the program runs. Return its process id and its tracer,
    or None and the reason: then it runs untraced. Raises OSError if the system refuses the program.
    """
    try:
        kernel = load_kernel()
        content = build_trace_filter(kernel)
    except Forbidden as error:
        kernel, content, refusal = None, b"", str(error)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    pid = os.fork()
    if not pid:
        try:
            _prepare(output, default_signals, limits)
            if kernel is not None:
                try:
                    listener = kernel.install_filter(content)
                    theirs.sendmsg([_TRACED], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, pack("=i", listener))])
                except OSError as error:
                    theirs.send(_UNTRACED + pack("=i", error.errno or 0))
            os.execve(program, argv, env)  # nosec B606 # the command of a stage
        except OSError as error:
            theirs.send(_FAILED + pack("=i", error.errno or 0))
        finally:
            os._exit(_EXIT_CODE)
    theirs.close()
    try:
        tracer, failure = None, 0
        if kernel is not None:
            kind, code, listener = _receive(ours)
            if kind == _TRACED:
                tracer = Tracer(kernel, listener)
            refusal = explain_refusal(code) if kind == _UNTRACED else ""
            failure = code if kind == _FAILED else 0
        failure = failure or _await_program(ours, tracer)
    finally:
        ours.close()
    if failure:
        os.waitpid(pid, 0)
        if tracer is not None:
            tracer.close()
        raise OSError(failure, os.strerror(failure))
    return pid, tracer, refusal


def _prepare(output: int, default_signals: Iterable[int], limits: Mapping[int, tuple[int, int]]) -> None:
    """In the child: what posix_spawn does for other commands."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (*default_signals, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for kind, limit in limits.items():
        resource.setrlimit(kind, limit)


def _receive(ours: socket.socket) -> tuple[bytes, int, int]:
    """Return a message's kind, its number, and the descriptor that came with it; nothing at the end."""
    content, ancillary, _, _ = ours.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    listener = unpack("=i", ancillary[0][2][:4])[0] if ancillary else -1
    return content[:1], unpack("=i", content[1:5])[0] if len(content) >= 5 else 0, listener


def _await_program(ours: socket.socket, tracer: Tracer | None) -> int:
    """Serve the notification of execve until the program runs. Return the error if it does not."""
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    if tracer is not None:
        poll.register(tracer.listener, select.POLLIN)
    while True:
        for descriptor, event in poll.poll():
            if descriptor == ours.fileno():
                kind, code, _ = _receive(ours)
                return code if kind == _FAILED else 0
            if tracer is not None and event & select.POLLIN:
                tracer.serve()
            else:
                poll.unregister(descriptor)
