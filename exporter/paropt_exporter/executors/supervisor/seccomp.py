"""Seccomp user notifications: a filter stops a process at some system calls until this process answers.

A process installs the filter for itself and all its descendants. This needs no privileges, but sets `no_new_privs`, so
that set-user-id programs run without their privileges. Numbers and layouts are those of linux/seccomp.h,
linux/bpf_common.h and the kernel's tables of system calls. Only `_ctypes` is loaded, since the package ctypes would
take half as long to load as all other modules of the supervisor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import sys
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_USE_ERRNO,
    Array,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
    get_errno,
)
from _struct import Struct as Layout
from _struct import pack
from array import array

from paropt_exporter.executors import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from ctypes import c_char
else:

    class c_char(_SimpleCData):  # noqa: N801 -- that of ctypes, without that package
        _type_ = "c"


_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
# SECCOMP_FILTER_FLAG_SPEC_ALLOW: without it, kernels before 5.16 slow the program down by the mitigations against
# reading other memory by speculation, which matter to sandboxes only.
_ALLOW_SPECULATION = 4
_WAIT_KILLABLE = 32  # SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, since Linux 5.19
_RECEIVE, _SEND, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082104  # SECCOMP_IOCTL_NOTIF_*
_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, since Linux 6.6
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE, since Linux 5.5
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000  # SECCOMP_RET_*
_LOAD_WORD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ARCH_OFFSET, _NUMBER_OFFSET, _ARGUMENTS_OFFSET = 4, 0, 16  # in struct seccomp_data
_X32_BIT = 0x40000000  # in the numbers of the x32 ABI
_LONGEST_JUMP = 255
CLONE_NEW_MOUNTS = 0x00020000
_AT_EMPTY_PATH = 0x1000
_NEGATIVE = 0x80000000  # the highest bit of a descriptor: AT_FDCWD has it
_NOTIFICATION = Layout("=QIIiIQ6Q")  # id, pid, flags, number, architecture, instruction pointer, arguments
# MSG_CONFIRM, MSG_EOR, MSG_DONTROUTE and MSG_NOSIGNAL do nothing on a Unix socket, and no program gives all of them.
OWN_SEND_FLAGS = 0x0800 | 0x0080 | 0x0004 | 0x4000
_ANSWER = Layout("=QqiI")  # id, result, error, flags
_ID_BYTES = 8
_CALL_LAYOUT, _CALL_PARTS = Layout("=Q"), Layout("=iI")  # number and architecture
# process, number and architecture as one integer, first two arguments
read_start = Layout("=8xI4xQ8xQQ32x").unpack
_EMPTY = bytes(_NOTIFICATION.size)
_PAGE_BYTES = 4096
_FIRST_READ_BYTES = 256  # most paths are shorter
_LONGEST_PATH_BYTES = 4096
_MANY_TEXTS, _MOST_MEMORIES, _MOST_COUNTS = 32, 16, 10_000

# The numbers of each system call on x86-64 and aarch64; None: it does not exist there.
CALLS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None), "creat": (85, None),
    "openat": (257, 56), "openat2": (437, 437), "newfstatat": (262, 79), "statx": (332, 291),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "statfs": (137, 43), "getxattr": (191, 8), "lgetxattr": (192, 9), "listxattr": (194, 11), "llistxattr": (195, 12),
    "chdir": (80, 49), "execve": (59, 221), "execveat": (322, 281), "getdents": (78, None), "getdents64": (217, 61),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "mkdir": (83, None), "mkdirat": (258, 34), "mknod": (133, None), "mknodat": (259, 33), "truncate": (76, 45),
    "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206),
    "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268),
    "move_mount": (429, 429), "open_by_handle_at": (304, 265), "clone": (56, 220), "clone3": (435, 435),
    "open_tree_attr": (467, 467), "fsmount": (432, 432),
    "open_tree": (428, 428), "name_to_handle_at": (303, 264), "inotify_add_watch": (254, 27),
    "setxattrat": (463, 463), "getxattrat": (464, 464), "listxattrat": (465, 465), "removexattrat": (466, 466),
    "file_getattr": (468, 468), "file_setattr": (469, 469), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "io_uring_setup": (425, 425), "ioctl": (16, 29), "process_vm_readv": (310, 270), "seccomp": (317, 277),
    "pidfd_getfd": (438, 438),
}  # fmt: skip

_Instruction = tuple[int, int | str, int | str, int]  # code, jumps if true and if false, value


def _notify_if_set(argument: int, low: int, high: int) -> list[_Instruction]:
    """Return instructions that notify if an argument has one of these bits, in its lower or its upper half."""
    offset = _ARGUMENTS_OFFSET + 8 * argument
    return [
        (_LOAD_WORD, 0, 0, offset),
        (_JUMP_IF_SET, "notify", 0, low),
        (_LOAD_WORD, 0, 0, offset + 4),
        (_JUMP_IF_SET, "notify", "allow", high),
    ]


def _notify_unless_open(flags: int) -> list[_Instruction]:
    """Return instructions that notify unless a call is about a descriptor. `flags`: the argument with its flags."""
    return [
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + 8 * flags),
        (_JUMP_IF_EQUAL, 0, "notify", _AT_EMPTY_PATH),
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET),
        (_JUMP_IF_SET, "notify", "allow", _NEGATIVE),
    ]


# Calls that are notified of only in some cases; see `Kernel.build_filter`.
_CONDITIONS: dict[str, list[_Instruction]] = {
    "clone": _notify_if_set(0, CLONE_NEW_MOUNTS, 0),
    "sendto": _notify_if_set(4, 0xFFFFFFFF, 0xFFFFFFFF),
    "newfstatat": _notify_unless_open(flags=3),
    "statx": _notify_unless_open(flags=2),
    "sendmsg": [
        (_LOAD_WORD, 0, 0, _ARGUMENTS_OFFSET + 8 * 2),
        (_JUMP_IF_EQUAL, "allow", "notify", OWN_SEND_FLAGS),
    ],
}


class Forbidden(Exception):
    """The kernel, or a filter that this process already has, refuses. The message has the reason."""


class _Address(_SimpleCData):  # type: ignore[type-arg]  # ctypes.c_void_p, without that package
    _type_ = "P"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _Page(Array[c_char]):
    _type_ = c_char
    _length_ = _PAGE_BYTES


class _Message(Array[c_char]):
    _type_ = c_char
    _length_ = _NOTIFICATION.size


class Notification:
    """A system call that waits for an answer. `name` is "" for a call of another architecture."""

    __slots__ = ("arguments", "name", "pid")

    def __init__(self, pid: int, name: str, arguments: list[int]) -> None:
        self.pid, self.name, self.arguments = pid, name, arguments


class Kernel:
    """The calls to the kernel. `machine`: its name in uname. Raises Forbidden if its call numbers are unknown."""

    def __init__(self, machine: str = os.uname().machine) -> None:
        if machine not in _ARCHITECTURES:
            raise Forbidden(f"the numbers of its system calls are unknown for {machine}")
        self._architecture = _ARCHITECTURES[machine]
        place = tuple(_ARCHITECTURES).index(machine)
        self._numbers = {name: number for name, each in CALLS.items() if (number := each[place]) is not None}
        self._names = {number: name for name, number in self._numbers.items()}
        library = dlopen(None, os.RTLD_NOW)  # type: ignore[arg-type]  # typeshed wants a name; None is this process
        self._syscall, self._prctl = (_Function(dlsym(library, name)) for name in ("syscall", "prctl"))
        self._buffer: Array[c_char] = _Page()
        self._buffer_address = addressof(self._buffer)
        self._local, self._remote = array("Q", [self._buffer_address, 0]), array("Q", [0, 0])  # struct iovec
        self._vectors = (_Address(self._local.buffer_info()[0]), _Address(self._remote.buffer_info()[0]))
        self._read_number = _Address(self._numbers["process_vm_readv"])
        self._one, self._zero = _Address(1), _Address(0)
        self.message = bytearray(_NOTIFICATION.size)  # the received notification
        self._fixed_message = _Message.from_buffer(self.message)
        self._message_address = _Address(addressof(self._fixed_message))
        self._ioctl_number, self._receive = _Address(self._numbers["ioctl"]), _Address(_RECEIVE)
        # From Python 3.15 on, fcntl.ioctl repeats a call that a signal has interrupted.
        self._fill_message = self._fill_message_once if sys.version_info >= (3, 15) else fcntl.ioctl
        self._answer = bytearray(_ANSWER.pack(0, 0, 0, _CONTINUE))
        self._memories: dict[int, int] = {}  # by process: the open file of its memory
        self._counts: dict[int, int] = {}  # by process: the texts that were read since it started a program

    @property
    def own_text_address(self) -> int:
        """The address of an empty text in this process, for trying whether memory can be read."""
        return self._buffer_address

    def install_filter(self, program: bytes) -> int:
        """Install a filter in the calling thread, and return the descriptor of its notifications. Raises OSError.

        While a received notification awaits its answer, only a fatal signal interrupts the call.
        """
        content = array("B", program)
        header = array("Q", [len(program) // 8, content.buffer_info()[0]])  # struct sock_fprog, little-endian
        if self._prctl(_PR_SET_NO_NEW_PRIVS, self._one, self._zero, self._zero, self._zero):
            raise OSError(get_errno(), "no_new_privs is refused")
        address, flags = header.buffer_info()[0], _NEW_LISTENER | _ALLOW_SPECULATION
        try:
            return self._call("seccomp", _SET_MODE_FILTER, flags | _WAIT_KILLABLE, address)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return self._call("seccomp", _SET_MODE_FILTER, flags, address)  # an older kernel

    def build_filter(self, names: Iterable[str], refused: Iterable[str]) -> bytes:
        """Return a program that notifies of the calls `names`, refuses `refused` with ENOSYS, and allows all others.

        It notifies of `clone` only if that makes a mount namespace, of `sendto` only with an address, and of `sendmsg`
        unless its flags are OWN_SEND_FLAGS, with which the child passes on the descriptor of its own notifications. It
        does not notify of `newfstatat` and `statx` of a descriptor with no flag but AT_EMPTY_PATH, which are the fstat
        of the C library, Rust and Node, a third of a test suite's calls: the file was opened before. It also notifies
        of calls of another architecture, such as those of a 32-bit program.
        """
        numbers = self._numbers
        asked = {name: numbers[name] for name in names if name in numbers}
        plain = sorted(number for name, number in asked.items() if name not in _CONDITIONS)
        denied = sorted(numbers[name] for name in refused if name in numbers)
        body: list[_Instruction] = [
            (_LOAD_WORD, 0, 0, _ARCH_OFFSET),
            (_JUMP_IF_EQUAL, 0, "notify", self._architecture),
            (_LOAD_WORD, 0, 0, _NUMBER_OFFSET),
            (_JUMP_IF_GREATER, "notify", 0, _X32_BIT - 1),
            *((_JUMP_IF_EQUAL, "notify", 0, number) for number in plain),
            *((_JUMP_IF_EQUAL, "refuse", 0, number) for number in denied),
        ]
        for name, condition in _CONDITIONS.items():
            if name in asked:
                body += [(_JUMP_IF_EQUAL, 0, len(condition), asked[name]), *condition]
        ends = {"allow": len(body), "notify": len(body) + 1, "refuse": len(body) + 2}
        body += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
        return b"".join(_pack_instruction(each, place, ends) for place, each in enumerate(body))

    def receive(self, listener: int) -> bool:
        """Put the next notification into `message`. Blocks until there is one.

        Return False if its process has just ended, after a signal to this thread, and once all processes have ended.
        """
        self.message[:] = _EMPTY  # as the kernel demands
        try:
            self._fill_message(listener, _RECEIVE, self.message)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.ENOTCONN):
                return False
            raise
        return True

    def _fill_message_once(self, listener: int, _request: int, _message: object) -> None:
        """Do the same as fcntl.ioctl, but return after a signal. It takes a microsecond longer."""
        if self._syscall(self._ioctl_number, listener, self._receive, self._message_address) < 0:
            code = get_errno()
            raise OSError(code, os.strerror(code))

    def is_unused(self, listener: int) -> bool:
        """Return whether all processes that have the filter have ended. False before Linux 5.9."""
        poll = select.poll()
        poll.register(listener, 0)
        return bool(poll.poll(0))

    def parse(self) -> Notification:
        """Return the call of the received notification."""
        _, pid, _, number, architecture, _, *arguments = _NOTIFICATION.unpack(self.message)
        return Notification(pid, self._names.get(number, "") if architecture == self._architecture else "", arguments)

    def build_places(self, places: Mapping[str, int]) -> dict[int, int]:
        """Return `places` with the numbers that `read_start` returns as keys, in place of the names of the calls."""
        return {
            _CALL_LAYOUT.unpack(_CALL_PARTS.pack(self._numbers[name], self._architecture))[0]: place
            for name, place in places.items()
            if name in self._numbers
        }

    def let_continue(self, listener: int) -> bool:
        """Let the process make its system call. Return False if it has ended, or a signal has interrupted the call."""
        answer = self._answer
        answer[:_ID_BYTES] = self.message[:_ID_BYTES]
        try:
            fcntl.ioctl(listener, _SEND, answer)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def prefer_same_core(self, listener: int) -> None:
        """Let the kernel switch to the other process and back on one core, as in a call, which saves time."""
        try:
            fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError:
            return  # an older kernel

    def read_memory(self, pid: int, address: int, count: int) -> bytes:
        """Return at most `count` bytes of a process's memory, at most to the end of the page. Raises OSError."""
        copied = self._copy_memory(pid, address, count)
        return self._buffer.raw[:copied]

    def read_bytes(self, pid: int, address: int, count: int) -> bytes:
        """Return `count` bytes of a process's memory, which may be on two pages. Raises OSError."""
        found = self.read_memory(pid, address, count)
        if len(found) < count:
            found += self.read_memory(pid, address + len(found), count - len(found))
        return found

    def read_text(self, pid: int, address: int) -> bytes:
        """Return the bytes up to the first NUL, such as those of a path. Raises OSError."""
        descriptor = self._memories.get(pid)
        if descriptor is not None:
            try:
                found = os.pread(descriptor, _FIRST_READ_BYTES, address)
            except (OSError, OverflowError):
                pass  # a bad address, of which the copy raises the error
            else:
                text, end, _ = found.partition(b"\0")
                if end:
                    return text
                if not found:
                    self._close_memory(pid)  # it has another memory now
        count = self._copy_memory(pid, address, _FIRST_READ_BYTES)
        if descriptor is None:
            self._count_text(pid)
        found = self._buffer.value  # up to the first NUL
        if len(found) < count:
            return found  # as almost always
        found = found[:count]  # the rest is from an earlier, longer copy
        while 0 < len(found) < _LONGEST_PATH_BYTES:
            chunk = self.read_memory(pid, address + len(found), _PAGE_BYTES)
            text, end, _ = chunk.partition(b"\0")
            found += text
            if end:
                return found
            if not chunk:
                break
        raise OSError(errno.ENAMETOOLONG, "a path without an end")

    def note_program(self, pid: int) -> None:
        """Note that a process starts a program: unless the call fails, it gets another memory."""
        self._close_memory(pid)
        if len(self._counts) >= _MOST_COUNTS:  # nearly all of them have ended
            self._counts = dict.fromkeys(self._memories, 0)
        self._counts[pid] = 0

    def close_memories(self) -> None:
        for pid in [*self._memories]:
            self._close_memory(pid)
        self._counts.clear()

    def _count_text(self, pid: int) -> None:
        """Open the memory of a process that makes many calls: reading the file takes half as long as copying.

        The file shows the memory that the process had when it was opened, and nothing once no process has this memory.
        So another process's memory is never read if two processes never have the same: threads are left out, and
        children by `vfork`, which start a program before they make many calls.
        """
        count = self._counts.get(pid)
        if count is None:
            return  # it is a thread, or a copy of another process
        self._counts[pid] = count + 1
        if count < _MANY_TEXTS:
            return
        if len(self._memories) >= _MOST_MEMORIES:
            self._close_ended_memories()
        if len(self._memories) >= _MOST_MEMORIES:
            self._counts[pid] = 0  # perhaps later, when others have ended
            return
        descriptor = _open_memory(pid) if _is_main_thread(pid) else None
        if descriptor is None:
            del self._counts[pid]
        else:
            self._memories[pid] = descriptor

    def _close_ended_memories(self) -> None:
        for pid, descriptor in [*self._memories.items()]:
            try:
                has_ended = not os.pread(descriptor, 1, 0)
            except OSError:  # it lives, but has nothing at this address
                has_ended = False
            if has_ended:
                self._close_memory(pid)

    def _close_memory(self, pid: int) -> None:
        self._counts.pop(pid, None)
        descriptor = self._memories.pop(pid, None)
        if descriptor is not None:
            os.close(descriptor)

    def _copy_memory(self, pid: int, address: int, count: int) -> int:
        """Copy memory into the buffer, as for `read_memory`, and return the number of bytes."""
        left = _PAGE_BYTES - (address & _PAGE_BYTES - 1)
        self._local[1] = self._remote[1] = count if count < left else left
        self._remote[0] = address
        local, remote = self._vectors
        found = self._syscall(self._read_number, pid, local, self._one, remote, self._one, self._zero)
        if found < 0:
            raise OSError(get_errno(), "the memory of a process can't be read")
        return int(found)

    def copy_descriptor(self, pid: int, descriptor: int) -> int:
        """Return a copy of a descriptor of another process. Raises OSError."""
        handle = os.pidfd_open(pid)
        try:
            return self._call("pidfd_getfd", handle, descriptor, 0)
        finally:
            os.close(handle)

    def _call(self, name: str, *arguments: int) -> int:
        found = self._syscall(*(_Address(each) for each in (self._numbers[name], *arguments)))
        if found < 0:
            code = get_errno()
            raise OSError(code, os.strerror(code), name)
        return int(found)


def _open_memory(pid: int) -> int | None:
    """Return a descriptor of a process's memory; None if the kernel refuses it, or if half of all descriptors are open.

    The supervisor needs the others for its commands. The kernel gives the lowest free number.
    """
    try:
        descriptor = os.open(b"/proc/%d/mem" % pid, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or descriptor < limit // 2:
        return descriptor
    os.close(descriptor)
    return None


def _is_main_thread(number: int) -> bool:
    try:
        os.close(os.pidfd_open(number))
    except OSError:
        return False
    return True


def _pack_instruction(each: _Instruction, place: int, ends: Mapping[str, int]) -> bytes:
    code, if_true, if_false, value = each
    jumps = [ends[target] - place - 1 if isinstance(target, str) else target for target in (if_true, if_false)]
    if max(jumps) > _LONGEST_JUMP:
        raise ValueError("the filter is too long for its jumps")
    return pack("=HBBI", code, jumps[0], jumps[1], value)


def find_refusal() -> str:
    """Return why no command of this process can be traced; "" if they can.

    Tries it in a thread that ends at once: a filter concerns only the thread that installs it.
    """
    import threading

    found: list[str] = ["the kernel does not answer"]
    thread = threading.Thread(target=lambda: found.__setitem__(0, _try_filter()), name="paropt-probe", daemon=True)
    thread.start()
    thread.join()
    return found[0]


def _try_filter() -> str:
    if not procfs.has_own_proc():
        return "/proc is missing or belongs to another pid namespace"
    try:
        kernel = Kernel()
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
    return "kernel.yama.ptrace_scope forbids reading the memory of other processes" if forbids else ""
