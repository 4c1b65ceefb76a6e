"""Run `paropt-exporter serve`: the page of all registered projects, and the shares of their runs."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Collection, MutableMapping
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from paropt_exporter import descriptors, host
from paropt_exporter.clock import SystemClock
from paropt_exporter.cpu_demand import count_task_cores
from paropt_exporter.errors import ParoptError, UsageError, format_count
from paropt_exporter.exposition import listeners
from paropt_exporter.exposition.endpoint import Endpoint
from paropt_exporter.exposition.protection import NoProtection, ProtectionFile
from paropt_exporter.serve import runtime_folder
from paropt_exporter.serve.fair_shares import Machine
from paropt_exporter.serve.hub import Hub
from paropt_exporter.serve.link import GRACE_SECONDS
from paropt_exporter.serve.page import ServePage
from paropt_exporter.serve.registry import Registry
from paropt_exporter.signals import Signals

log = logging.getLogger(__name__)

_LOCK_BYTES = 1 << 14  # the ids of 1,000 processes
DEFAULT_ADDRESS = f"{listeners.DEFAULT_HOST}:{listeners.DEFAULT_PORT}"


class ServeRequest(Struct, frozen=True, kw_only=True):
    """The settings of the command line; None leaves the default."""

    addresses: tuple[str, ...] = ()
    web_config: Path | None = None
    systemd_socket: bool = False
    telemetry_path: str | None = None
    max_requests: int | None = None
    process_metrics: bool = True


def serve_projects(request: ServeRequest, environ: MutableMapping[str, str], say: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code 0.

    Raises UsageError, one line, if another one serves already, an address is taken or the folder is not safe;
    ParoptError if one of its threads fails, or if another one takes the folder.
    """
    descriptors.raise_limit()
    folder = find_folder(environ)
    protection = ProtectionFile(request.web_config) if request.web_config is not None else NoProtection()
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(reloads=True))
        failure = stack.enter_context(_ThreadFailure(on_failure=signals.wake))
        # systemd's sockets are taken before the lock, so that no error leaves its variables to others.
        web = listeners.inherit_listeners(environ) if request.systemd_socket else None
        runtime_folder.make_folder(folder)
        lock = stack.enter_context(FolderLock(folder / runtime_folder.LOCK_NAME))
        web = web or listeners.open_listeners(request.addresses or (DEFAULT_ADDRESS,), on_fallback=say)
        # Before the endpoint: a scrape that has waited for it gets the page of all projects.
        registry = Registry(folder / runtime_folder.PROJECTS_NAME)
        listener = FolderSocket(folder, lock)
        hub = Hub(
            listener.open(),
            registry,
            read_machine=_read_machine,
            clock=SystemClock(),
            beat=lock.beat,
            replace_listener=listener.reopen_if_gone,
            awaited=lock.awaited,
            returning=lock.earlier,
        )
        page = ServePage(hub.take_views, protection=protection, process_metrics=request.process_metrics)
        endpoint = Endpoint(
            web,
            page,
            protection,
            telemetry_path=request.telemetry_path or "/metrics",
            max_requests=request.max_requests or sys.maxsize,
        )
        stack.callback(endpoint.close)
        hub.start(endpoint.url)
        stack.callback(hub.close)
        projects = format_count(sum(not project.is_missing for project in registry.projects.values()), "project")
        say(f"metrics at {endpoint.url}, runs register in {folder}, {projects} known")
        while not signals.wait(None):
            if failure.error is not None:
                raise failure.error
            signals.take_reload()  # SIGHUP: the web config is read for each connection anyway
        return 0


def find_folder(environ: MutableMapping[str, str]) -> Path:
    """Return the runtime folder. Raises UsageError if the environment turns `serve` off, or names a relative folder."""
    folder = runtime_folder.find_folder(environ)
    if folder is None:
        raise UsageError(f"{runtime_folder.VARIABLE}={runtime_folder.OFF} turns `paropt-exporter serve` off: unset it")
    if not folder.is_absolute():  # each run would look for it in its project
        raise UsageError(f"{runtime_folder.VARIABLE}={folder}: expected the absolute path of a folder")
    return folder


def _read_machine() -> Machine:
    return Machine(count_task_cores(host.count_cpus()), float(host.read_total_memory_bytes()))


class OtherServe(UsageError):
    """Another `serve` has the folder."""


class FolderSocket:
    """The socket in the runtime folder, which is made again if it was removed, as by a logout or a cleaner of /tmp."""

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self._folder = folder
        self._lock = lock
        self._identity: tuple[int, int] | None = None
        self._fault = ""

    def open(self) -> socket.socket:
        """Listen. Raises UsageError."""
        listener = runtime_folder.listen(self._folder)
        self._identity = runtime_folder.identify_socket(self._folder)
        return listener

    def reopen_if_gone(self) -> socket.socket | None:
        """Return a new socket if the one in the folder is gone, otherwise None.

        Raises OtherServe if another `serve` has the folder by now.
        If the folder can't be made again, runs do not find this `serve`, and one line says so.
        """
        if self._identity is not None and runtime_folder.identify_socket(self._folder) == self._identity:
            return None
        try:
            runtime_folder.make_folder(self._folder)
            self._lock.retake_if_gone()
            listener = self.open()
        except OtherServe:
            raise
        except UsageError as error:
            if str(error) != self._fault:
                log.warning("runs can't find this process: its socket is gone", extra={"err": str(error)})
            self._fault = str(error)
            return None
        log.warning("the socket was removed and made again", extra={"folder": str(self._folder)})
        self._fault = ""
        return listener


class _ThreadFailure:
    """Notes and logs that a thread has ended by an exception. `error`: the one to raise then.

    Without one of its threads, `serve` would look alive to systemd, but not answer runs or scrapes.
    """

    def __init__(self, *, on_failure: Callable[[], None]) -> None:
        self.error: ParoptError | None = None
        self._on_failure = on_failure

    def __enter__(self) -> _ThreadFailure:
        self._previous, threading.excepthook = threading.excepthook, self._take
        return self

    def __exit__(self, *_: object) -> None:
        threading.excepthook = self._previous

    def _take(self, failed: threading.ExceptHookArgs) -> None:
        if isinstance(failed.exc_value, OtherServe):
            self.error = ParoptError(f"{failed.exc_value}, so this one ends")
        else:
            name = failed.thread.name if failed.thread is not None else "of no name"
            log.error("a thread has failed", extra={"failed": name}, exc_info=failed.exc_value)
            self.error = ParoptError(f"the thread {name} has failed: start `paropt-exporter serve` again")
        self._on_failure()


class FolderLock:
    """The lock of the one `serve` in a folder.

    Its file has the process ids of `serve` and of the runs with shares. Its time tells the next `serve` when this one
    was last alive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.earlier: frozenset[int] = frozenset()  # the last known runs of another `serve`
        self.awaited: frozenset[int] = frozenset()  # the same, if it died a moment ago

    def __enter__(self) -> FolderLock:
        self._descriptor, words = self._take()
        self.earlier = frozenset(int(word) for word in words[1:] if word.isdecimal())
        if runtime_folder.has_just_died(self._path.parent, GRACE_SECONDS):
            self.awaited = self.earlier
        self.beat(self.awaited)  # for the next one, if this one is killed before they are back
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_in_place():  # otherwise the socket may be that of another `serve`
            with suppress(OSError):
                (self._path.parent / runtime_folder.SOCKET_NAME).unlink()
        os.close(self._descriptor)

    def retake_if_gone(self) -> None:
        """Take the lock in a new file if its own was removed. Raises UsageError if another `serve` has done so."""
        if not self._is_in_place():
            descriptor, _ = self._take()
            os.close(self._descriptor)
            self._descriptor = descriptor

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def _take(self) -> tuple[int, list[str]]:
        """Return the descriptor of the locked file, and the process ids in it."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise self._build_error(error) from None
        line, end, _ = os.pread(descriptor, _LOCK_BYTES, 0).decode(errors="replace").partition("\n")
        words = line.split()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            pid = words[0] if words else "unknown"
            raise OtherServe(
                f"another `paropt-exporter serve` (pid {pid}) already serves {self._path.parent}"
            ) from None
        except OSError as error:  # a file system without locks
            os.close(descriptor)
            raise self._build_error(error) from None
        return descriptor, words if end else []

    def _build_error(self, error: OSError) -> UsageError:
        return UsageError(f"{self._path}: {error.strerror}: set {runtime_folder.VARIABLE} to another folder")

    def beat(self, runs: Collection[int]) -> None:
        """Note that this process lives, and the process ids of the runs with shares."""
        with suppress(OSError):  # a full disk
            os.pwrite(self._descriptor, " ".join(map(str, [os.getpid(), *sorted(runs)])).encode() + b"\n", 0)
            os.utime(self._descriptor)
