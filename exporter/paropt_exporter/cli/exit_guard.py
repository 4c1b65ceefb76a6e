"""End the process even if a call left threads running, for which the interpreter would wait forever."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from paropt_exporter.cli import PROGRAM
from paropt_exporter.cli.streams import LineStream
from paropt_exporter.errors import EXIT_INTERNAL
from paropt_exporter.signal_numbers import signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

_SETTLE_SECONDS = 1.0  # executors stop idle threads within milliseconds
_HANDLERS_SECONDS = 5.0  # for exit handlers of calls; one may wait for a thread that never ends
_exit, _execv, _execve = os._exit, os.execv, os.execve


class ExitGuard:
    """Prevents calls in threads, and their exit handlers, from ending this process with exit code 0.

    `os._exit(0)` exits with `code`, and `os.exec...` raises RuntimeError. Forks of this process and exits in C are not
    affected.
    """

    def __init__(self, code: int = EXIT_INTERNAL) -> None:
        """`code` replaces 0 until the real exit code is known."""
        self.code = code
        self._owner = os.getpid()

    def __enter__(self) -> ExitGuard:
        os._exit = self._exit_with_code
        os.execv = lambda path, argv: _execv(path, argv) if self._is_fork() else self._reject_exec(path)
        os.execve = lambda path, argv, env: _execve(path, argv, env) if self._is_fork() else self._reject_exec(path)
        return self

    def __exit__(self, *_: object) -> None:
        os._exit, os.execv, os.execve = _exit, _execv, _execve

    def _is_fork(self) -> bool:
        return os.getpid() != self._owner

    def _reject_exec(self, path: object) -> NoReturn:
        raise RuntimeError(f"os.exec of {path!r} would end the exporter: start a process, or run the call in one")

    def _exit_with_code(self, status: int) -> NoReturn:
        if not self._is_fork() and not status and self.code:
            with suppress(OSError):
                os.write(2, f"{PROGRAM}: a call ended the exporter by os._exit(0): exit code {self.code}\n".encode())
            status = self.code
        _exit(status)


def end_process(code: int) -> None:
    """Run the exit handlers and end the process; name threads that remain. Return if a call may have added handlers."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # another signal would only change the exit code
    ExitGuard(code).__enter__()  # until the process ends
    is_abandoned = _has_abandoned_call()
    if not _list_remaining_threads() and not is_abandoned:
        if not _has_run_call():  # all handlers are ours, and the interpreter's slow shutdown has nothing to do
            _run_with_limit((atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush), _HANDLERS_SECONDS)
            _exit(code)
        _limit_handlers(code)
        return
    # As the interpreter does, but with a time limit: executors stop idle threads, then wait for busy ones.
    _run_with_limit(getattr(threading, "_threading_atexits", ()), _SETTLE_SECONDS)
    left = _list_remaining_threads()
    if left:
        names = ", ".join(f"thread {thread.name}" for thread in left)
        LineStream(sys.stderr).write_line(f"{PROGRAM}: still running, ended with the exporter: {names}")
    elif not is_abandoned:
        return
    _run_with_limit((atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush), _HANDLERS_SECONDS)
    _exit(code)


def _limit_handlers(code: int) -> None:
    """End the process if the exit handlers, which run next, take too long."""

    def end() -> None:
        LineStream(sys.stderr).write_line(
            f"{PROGRAM}: exit handlers of calls ended after {_HANDLERS_SECONDS:g} s with the exporter"
        )
        _exit(code)

    watch = threading.Timer(_HANDLERS_SECONDS, end)
    watch.daemon = True
    with suppress(RuntimeError):  # the system has no thread left
        watch.start()


def _has_run_call() -> bool:
    """Return whether code of the user may have run in this process."""
    return "paropt_exporter.executors.calls" in sys.modules


def _has_abandoned_call() -> bool:
    """Return whether a call still runs in a daemon thread: if it prints at shutdown, the interpreter would abort."""
    calls = sys.modules.get("paropt_exporter.executors.calls")
    return calls is not None and bool(calls.restore_capture())


def _list_remaining_threads() -> list[threading.Thread]:
    """Return the threads for which the interpreter waits at shutdown."""
    executors = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", ())
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and (thread in executors or not thread.daemon)
    ]


def _run_with_limit(functions: Iterable[Callable[[], object]], seconds: float) -> None:
    """Run functions one after another in a thread; return when they have ended or the time is over."""
    thread = threading.Thread(target=lambda: [function() for function in functions], daemon=True)
    thread.start()
    thread.join(seconds)
