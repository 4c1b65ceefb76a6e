"""The run's side of `serve`: register, send series and demand, and pass the share of the machine to the run."""

from __future__ import annotations

import errno
import logging
import math
import os
import select
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread

from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter._version import __version__
from paropt_exporter.clock import Clock
from paropt_exporter.engine.interfaces import MachineShare, MachineUsage
from paropt_exporter.errors import ParoptError
from paropt_exporter.metrics.event_state import LaneLabels
from paropt_exporter.metrics.page import Labels, Value
from paropt_exporter.serve import messages
from paropt_exporter.serve.messages import (
    PROTOCOL,
    BadMessage,
    Bye,
    Grant,
    Hello,
    LineBuffer,
    Refusal,
    Registration,
    State,
    Welcome,
    build_sample,
    decode_from_serve,
    encode,
)
from paropt_exporter.serve.run_shares import RunShares, ShareTaker
from paropt_exporter.serve.runtime_folder import SOCKET_NAME, connect, has_just_died

log = logging.getLogger(__name__)

STATE_SECONDS = 1.0
ANSWER_SECONDS = 5.0  # for the answer to Hello: a stopped `serve` must not delay a run
SILENT_SECONDS = 20.0  # `serve` sends a line each second; after so long without one it counts as dead
# How long a run keeps its share after the connection has ended: `serve` may come back.
GRACE_SECONDS = 30.0  # if it was killed: its service manager restarts it, slowly on a busy machine
RESTART_SECONDS = 5.0  # if it ended by itself, and removed its socket
_RETRY_SECONDS = 0.2  # during the grace, later STATE_SECONDS
_RECEIVED_BYTES = 1 << 16
_PROCESS_BYTES = 8
_LAST_SECONDS = 1.0  # at the end, for data that exceeds the socket's buffer: a stopped `serve` must not delay the exit

LiveSeries = Mapping[tuple[str, Labels], Value]


class Refused(ParoptError):
    """`serve` does not accept this run."""


class Link:
    """The session of an exporter with `serve`, on a thread of its own.

        connected --end of connection, silence--> lost: keeps its share --time of grace--> alone: no limit
            ^-----------------------------registers again---------------'------------------'

    Guarantees: a run does not depend on `serve`: without one it continues alone within GRACE_SECONDS; `report_usage`
    takes a few µs; a grant is confirmed only once the run follows it.
    """

    def __init__(
        self,
        folder: Path,
        hello: Hello,
        *,
        clock: Clock,
        collect: Callable[[], LiveSeries] = dict,
        say: Callable[[str], None] = lambda _: None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """Register. Raises Refused, or OSError without a `serve` or a thread. `collect` returns this process's series.

        If a `serve` exists but does not answer in time, the thread retries, and `url` is "" until then.
        """
        self._folder = folder
        self._hello = hello
        self._clock = clock
        self._say = say
        self._answer_seconds = answer_seconds
        self.collect = collect
        self._lock = Lock()  # guards: everything below but the last four
        self._connection: socket.socket | None = None
        self._unsent = bytearray()
        self._shares = RunShares(limited=hello.limited, send=self._send)
        self._received = LineBuffer()
        self._sent: dict[tuple[str, Labels], Value] = {}
        self._heard_seconds = self._lost_seconds = 0.0
        self._closed = False
        self._connecting: socket.socket | None = None
        self._refusal = ""  # the last refusal that was reported; only the thread uses it
        try:
            self.url = self._register_first()
        except TimeoutError:
            self.url = ""
            self._shares.leave()
            say("`paropt-exporter serve` does not answer: sizing alone until it does")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = Thread(target=self._serve, name="paropt-link", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left
            with self._lock:
                self._send(Bye())
                self._disconnect()
            os.close(self._wake)
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None

    @property
    def share(self) -> MachineShare | None:
        """The share with which a run starts; None: it is alone."""
        with self._lock:
            return self._shares.current

    def limit_cores(self, cores: float) -> float:
        """Return how many of the host's cores a run should plan with: its share, but at least one."""
        share = self.share
        return cores if share is None else min(cores, max(1.0, share.cores))

    def begin_run(self, run: ShareTaker) -> None:
        """Pass shares to this run from now on."""
        with self._lock:
            self._shares.begin_run(run)

    def end_run(self) -> None:
        """Send the last series of a run, and give its share back."""
        with self._lock:
            self._shares.end_run()
        self._send_state_safely()

    def report_usage(self, usage: MachineUsage) -> None:
        """Send the run's demand; from the run's thread."""
        with self._lock:
            self._shares.confirm(usage)

    def reconfigure(self, lanes: tuple[LaneLabels, ...], bounds: Mapping[str, tuple[int, int]]) -> None:
        """Send the label sets of a changed config."""
        registration = replace(self._hello.registration, lanes=lanes, bounds=dict(bounds))
        with self._lock:
            self._hello = replace(self._hello, registration=registration)
            self._send(messages.Labels(lanes=lanes, bounds=dict(bounds)))

    def close(self) -> None:
        """Send the last series, and end the session. Blocks for at most two seconds, if `serve` does not read."""
        self._closed = True
        os.eventfd_write(self._wake, 1)
        if (connecting := self._connecting) is not None:
            with suppress(OSError):
                connecting.shutdown(socket.SHUT_RDWR)  # ends a wait for an answer
        self._thread.join()
        self._send_all()
        self._send_state_safely()
        with self._lock:
            self._send(Bye())
        self._send_all()
        with self._lock:
            self._disconnect()
        os.close(self._wake)

    # Sending; the caller holds the lock

    def _send(self, message: messages.FromRun) -> None:
        if self._connection is None:
            return
        self._unsent += encode(message)
        self._send_unsent()

    def _send_unsent(self) -> None:
        if self._connection is None:
            return
        try:
            with suppress(BlockingIOError):
                while self._unsent:
                    del self._unsent[: self._connection.send(self._unsent)]
        except OSError:
            self._unsent.clear()  # the thread will see the end of the connection

    def _send_all(self) -> None:
        """Wait until all is sent, or end the connection. Call it when no other thread sends."""
        if self._connection is None or not self._unsent:
            return
        try:
            self._connection.settimeout(_LAST_SECONDS)
            self._connection.sendall(self._unsent)
            self._connection.setblocking(False)
            self._unsent.clear()
        except OSError:
            self._disconnect()

    def _send_state(self) -> None:
        series = self.collect()
        with self._lock:
            if self._connection is None or self._unsent:
                return
            changed = [(key, value) for key, value in series.items() if self._sent.get(key) != value]
            gone = self._sent.keys() - series.keys()
            samples = (
                *(build_sample(key, value) for key, value in changed),
                *(build_sample(key, None) for key in gone),
            )
            self._sent = dict(series)
            self._send(State(run_id=self._shares.run_id, samples=samples))

    # The connection

    def _register_first(self) -> str:
        """Register. If `serve` was killed a moment ago, wait for it, since it may be back soon."""
        while True:
            try:
                return self._register(self._answer_seconds)
            except ConnectionRefusedError:
                if not has_just_died(self._folder, self._answer_seconds):
                    raise
            time.sleep(_RETRY_SECONDS)

    def _register(self, connect_seconds: float) -> str:
        """Connect and say hello; return the URL of the page. Raises Refused and OSError."""
        connection = connect(self._folder, connect_seconds)
        if connection is None:
            raise ConnectionRefusedError("no exporter serves this user's projects")
        connection.settimeout(self._answer_seconds)
        self._connecting = connection
        if self._closed:
            connection.close()
            raise ConnectionAbortedError("this process ends")
        try:
            with self._lock:
                shares = self._shares
                hello = replace(
                    self._hello,
                    share=shares.get_kept(),
                    usage=shares.build_usage(),
                    last_number=shares.last_number,
                )
            connection.sendall(encode(hello))
            received, lines = LineBuffer(), list[bytes]()
            while not lines:
                part = connection.recv(_RECEIVED_BYTES)
                if not part:
                    raise ConnectionResetError("it closed the connection")
                lines.extend(received.add(part))
            answer = decode_from_serve(lines[0])
            if isinstance(answer, Refusal):
                raise Refused(answer.reason)
            if not isinstance(answer, Welcome) or answer.protocol != PROTOCOL:
                raise Refused("its protocol is unknown")
            others = [decode_from_serve(line) for line in lines[1:]]
        except BadMessage as error:
            connection.close()
            raise Refused(str(error)) from error
        except BaseException:  # close the socket whatever happened, then raise again
            connection.close()
            raise
        finally:
            self._connecting = None
        connection.setblocking(False)
        with self._lock:
            self._connection, self._received, self._heard_seconds = connection, received, self._clock.monotonic()
            self._unsent.clear()
            self._sent = {}
            for message in others:
                self._apply(message)
        return answer.url

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._lost_seconds = self._clock.monotonic()

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        except Exception:  # the boundary of the thread: without it the run would wait for a share that never comes
            log.exception("the connection to `paropt-exporter serve` failed")
            with self._lock:
                self._disconnect()
                self._leave()

    def _serve_until_closed(self) -> None:
        next_state = self._clock.monotonic() + STATE_SECONDS
        next_try = 0.0
        while not self._closed:
            now = self._clock.monotonic()
            if self._connection is None:
                if now >= next_try:
                    self._come_back()
                    in_grace = self._shares.current is not None
                    next_try = now + (_RETRY_SECONDS if in_grace else STATE_SECONDS)
                    next_state = now  # at once: the page of a `serve` that is back waits for the series of its runs
                if self._connection is None:
                    self._wait(max(0.0, next_try - self._clock.monotonic()))
                continue
            if now >= next_state:
                next_state = now + STATE_SECONDS
                self._send_state_safely()
            self._wait(max(0.0, next_state - self._clock.monotonic()))
            self._receive()

    def _send_state_safely(self) -> None:
        try:
            self._send_state()
        except Exception:  # the boundary of a thread: shares continue without series
            log.exception("the state of the run was not sent")

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if (connection := self._connection) is not None:
            poll.register(connection, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        poll.poll(math.ceil(seconds * 1000))
        with self._lock:
            self._send_unsent()

    def _receive(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            if self._connection is None:
                return
            try:
                with suppress(BlockingIOError):
                    received = self._connection.recv(_RECEIVED_BYTES)
                    if not received:
                        raise ConnectionResetError
                    self._heard_seconds = now
                    for line in self._received.add(received):
                        self._apply(decode_from_serve(line))
            except (OSError, BadMessage):
                self._disconnect()
                return
            if now > self._heard_seconds + SILENT_SECONDS:
                self._disconnect()
                self._lost_seconds -= GRACE_SECONDS  # no grace is left
                self._leave()

    def _come_back(self) -> None:
        has_socket = os.path.exists(self._folder / SOCKET_NAME)  # noqa: PTH110 -- Path's raises PermissionError
        grace_seconds = GRACE_SECONDS if has_socket else RESTART_SECONDS
        if self._clock.monotonic() >= self._lost_seconds + grace_seconds:
            with self._lock:
                self._leave()
        try:
            # a short timeout, since `close` can't end a wait for room in the queue
            self.url = self._register(_RETRY_SECONDS)
        except OSError:
            return
        except Refused as refusal:
            if str(refusal) != self._refusal:
                self._refusal = str(refusal)
                self._say(f"`paropt-exporter serve` refuses this run, which goes on alone: {refusal}")
            return
        self._refusal = ""
        with self._lock:
            self._shares.come_back()

    def _leave(self) -> None:
        """Let the run continue alone; the caller holds the lock."""
        if self._shares.current is not None:
            self._say("`paropt-exporter serve` has gone: sizing alone until it is back")
            self._shares.leave()

    def _apply(self, message: messages.FromServe) -> None:
        """Follow a grant; the caller holds the lock."""
        if isinstance(message, Grant):
            self._shares.apply(message)


def find_registration(
    project: str, root: Path, history: Path, lanes: tuple[LaneLabels, ...], bounds: Mapping[str, tuple[int, int]]
) -> Registration:
    """Return the registration of a project. Its paths are resolved, so that they don't depend on links."""
    own = files.find_private_parts(history)[:1]  # in `.paropt` no link is followed
    place = own[0].parent.resolve() / history.relative_to(own[0].parent) if own else history.resolve()
    return Registration(project=project, root=str(root.resolve()), history=str(place), lanes=lanes, bounds=dict(bounds))


def build_hello(registration: Registration, *, lane: str, limited: bool) -> Hello:
    """Return the first message of this process."""
    return Hello(
        protocol=PROTOCOL,
        version=__version__,
        pid=os.getpid(),
        lane=lane,
        registration=registration,
        limited=limited,
        process=os.urandom(_PROCESS_BYTES).hex(),
    )
