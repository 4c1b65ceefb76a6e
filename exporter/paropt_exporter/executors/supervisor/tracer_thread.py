"""A thread that serves the notifications of one traced command, while the supervisor does its other work.

    supervisor                                thread
    start ----------------------------------> receives a notification, notes it, lets the call continue, and so on
                                              ends once the last process has ended (from Linux 6.11 on)
    finish: signals until it has ended -----> the signal interrupts the receiving

The thread blocks in the receive call: polling first would add a quarter to the cost of a call. Guarantee: only the
thread uses the tracer from `start` until it has ended. If a file system that does not answer holds the thread at the
end of the command, it is left alone: the supervisor has other commands. All of the tracer's paths are absolute, since
the supervisor changes its current folder when it starts commands.
"""

from __future__ import annotations

import _thread
import errno
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from paropt_exporter.executors.supervisor.tracing import Tracer
else:
    import _signal as signal

_WAKE_UP = signal.SIGUSR2  # the supervisor uses it for nothing else
_SIGNAL_SECONDS = 0.002  # between two signals: a signal that arrives just before the receive call does not interrupt it

_HELD_SECONDS = 2.0  # how long the supervisor waits for the thread at the end of a command


class TracerThread:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._identifier = 0
        self._finishing = False
        self._is_held = False
        self._running, self._released = _thread.allocate_lock(), _thread.allocate_lock()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError if the system refuses it."""
        signal.signal(_WAKE_UP, lambda _number, _frame: None)
        # Signals for the process, such as that of an exited child, must not interrupt the receive call.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {_WAKE_UP})
        self._running.acquire()
        self._released.acquire()
        try:
            self._identifier = _thread.start_new_thread(self._serve, ())
        except RuntimeError:
            self._finishing = True
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def write(self, descriptor: int) -> None:
        """Write the trace, after all processes of the command have ended. Raises OSError."""
        self._finish()
        if self._is_held:
            raise OSError(errno.ETIMEDOUT, "a file system does not answer")
        self._tracer.write(descriptor)

    def close(self) -> None:
        """End the thread. From then on, calls of processes that are still running fail."""
        self._finish()
        if not self._is_held:
            self._tracer.close()

    def _serve(self) -> None:
        try:
            self._tracer.serve()
        except OSError as error:
            self._tracer.fail(error)
        finally:
            self._running.release()
            self._released.acquire()  # a signal to a thread that has ended would be undefined behaviour

    def _finish(self) -> None:
        if self._finishing:
            return
        self._finishing = True
        self._tracer.stop()
        held_at = time.monotonic() + _HELD_SECONDS
        while not self._running.acquire(timeout=_SIGNAL_SECONDS):
            if time.monotonic() >= held_at:
                self._is_held = True
                return
            signal.pthread_kill(self._identifier, _WAKE_UP)
        self._released.release()
