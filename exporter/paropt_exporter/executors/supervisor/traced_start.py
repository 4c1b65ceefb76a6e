"""Start a traced command by a fork, since posix_spawn can't install a filter before the program runs.

supervisor                         child
fork ----------------------------> session, signals, output, limits, filter
<---- T and the descriptor, or U and why there is none
a thread answers the call <------- execve
<---- F and the error, or the end of the socket: the program runs
"""

from __future__ import annotations

import _socket as socket
import errno
import os
import resource
from _struct import pack, unpack

from paropt_exporter.executors.supervisor.seccomp import OWN_SEND_FLAGS, Forbidden, Kernel, explain_refusal
from paropt_exporter.executors.supervisor.tracer_thread import TracerThread
from paropt_exporter.executors.supervisor.tracing import Tracer, build_trace_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping
else:
    import _signal as signal

_TRACED, _UNTRACED, _FAILED = b"T", b"U", b"F"
_MESSAGE_BYTES = 64
_EXIT_CODE = 127


def start_traced(
    *,
    program: bytes,
    argv: list[bytes],
    env: Mapping[bytes, bytes],
    cwd: bytes,
    output: int,
    default_signals: Iterable[int],
    limits: Mapping[int, tuple[int, int]],
) -> tuple[int, TracerThread | None, str]:
    """Start a program in the current folder and in its own session. `cwd`: that folder, as the config names it.

    Return its process id with the thread that traces it, or with the reason why it runs untraced. Raises OSError if the
    system refuses the program.
    """
    try:
        kernel, refusal = Kernel(), ""
        content = build_trace_filter(kernel)
    except Forbidden as error:
        kernel, content, refusal = None, b"", str(error)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    pid = os.fork()
    if not pid:
        try:
            _prepare(output, default_signals, limits)
            if kernel is not None:
                _install_filter(kernel, content, theirs)
            os.execve(program, argv, env)  # nosec B606 # the command of a stage
        except OSError as error:
            theirs.send(_FAILED + pack("=i", error.errno or 0))
        finally:
            os._exit(_EXIT_CODE)
    theirs.close()
    thread = None
    try:
        kind, code, listener = _receive(ours)
        if kind == _TRACED and kernel is not None:
            thread = _start_thread(Tracer(kernel, listener), cwd)
        elif kind == _UNTRACED:
            refusal = explain_refusal(code)
        if kind in (_TRACED, _UNTRACED):
            kind, code, _ = _receive(ours)
    finally:
        ours.close()
    if kind == _FAILED:
        os.waitpid(pid, 0)
        if thread is not None:
            thread.close()
        raise OSError(code, os.strerror(code))
    return pid, thread, refusal


def _start_thread(tracer: Tracer, cwd: bytes) -> TracerThread:
    """Return a thread that serves the command's calls, first that of execve. Raises OSError if it can't start."""
    tracer.note_folder(cwd)
    thread = TracerThread(tracer)
    try:
        thread.start()
    except RuntimeError as error:
        tracer.close()  # so that execve fails
        raise BlockingIOError(errno.EAGAIN, str(error)) from None
    return thread


def _prepare(output: int, default_signals: Iterable[int], limits: Mapping[int, tuple[int, int]]) -> None:
    """In the child, do what posix_spawn does for other commands."""
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


def _install_filter(kernel: Kernel, content: bytes, theirs: socket.socket) -> None:
    """In the child, send the supervisor the descriptor for its calls, or why they are not traced."""
    try:
        listener = kernel.install_filter(content)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, pack("=i", listener))
        theirs.sendmsg([_TRACED], [rights], OWN_SEND_FLAGS)
        # after the supervisor has closed its copy, or has died, calls must fail instead of waiting
        os.close(listener)
    except OSError as error:
        theirs.send(_UNTRACED + pack("=i", error.errno or 0))


def _receive(ours: socket.socket) -> tuple[bytes, int, int]:
    """Return a message's kind, its number, and the descriptor that came with it; nothing at the end."""
    content, ancillary, _, _ = ours.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    listener = unpack("=i", ancillary[0][2][:4])[0] if ancillary else -1
    return content[:1], unpack("=i", content[1:5])[0] if len(content) >= 5 else 0, listener
