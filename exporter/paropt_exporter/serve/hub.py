"""Serve the socket of the runtime folder: register runs, pass on their series and shares, and answer `serve status`."""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from threading import Event, Lock, Thread

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import descriptors, families
from paropt_exporter._version import __version__
from paropt_exporter.clock import Clock
from paropt_exporter.serve.fair_shares import Machine
from paropt_exporter.serve.merging import LiveSeries, keep_counters
from paropt_exporter.serve.messages import (
    PROTOCOL,
    AskStatus,
    BadMessage,
    Bye,
    FromRun,
    Hello,
    Labels,
    LineBuffer,
    ProjectStatus,
    Refusal,
    RunStatus,
    State,
    Status,
    Usage,
    Welcome,
    decode_from_run,
    encode,
    find_fault,
)
from paropt_exporter.serve.page import ProjectView, Series
from paropt_exporter.serve.registry import RegisteredProject, Registry
from paropt_exporter.serve.runtime_folder import read_peer_user
from paropt_exporter.serve.sessions import Session, Sessions, is_live_process, sum_shares

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
_RECEIVED_BYTES = 1 << 18
_MOST_RUNS = 1000
_MOST_OTHERS = 100  # clients that have not sent Hello, or ask for the status
# runs may use a quarter of this process's descriptors, and other clients another one: the page needs some
_RUNS_PART = 4
_FIRST_MESSAGE_SECONDS = 10.0  # within which a client must send Hello
_UNSENT_BYTES = 1 << 20  # of grants that a stopped run does not read, after which its connection ends
_ACCEPT_PAUSE_SECONDS = 0.1  # while no descriptors are left
# A page waits this long for the series of runs that come back: they try each second, and scrapes time out after 10 s.
RETURN_SECONDS = 3.0


class _Client:
    """A connection, and its session after Hello."""

    def __init__(self, connection: socket.socket, now: float) -> None:
        self.connection = connection
        self.connected_seconds = now
        self.received = LineBuffer()
        self.unsent = bytearray()
        self.session: Session | None = None
        self.has_said_bye = False
        self.closes = False  # whether to close it once all is sent


class Hub:
    """The registered runs of this user, on one thread.

        run --lines--> _Client --messages--> Sessions --Grant--> run
                                   '--> series --take_views()--> ServePage (the renderer's thread)

    Guarantees: only processes of this user are served; a faulty or slow client delays no other; a run that ends, is
    killed or stops reading loses its share, but its counters stay on the page, and count once if it comes back; `close`
    keeps all registrations. Even the first views include the runs of an earlier `serve`: they wait for these to
    register again, for RETURN_SECONDS at most.
    """

    def __init__(
        self,
        listener: socket.socket,
        registry: Registry,
        *,
        read_machine: Callable[[], Machine],
        clock: Clock,
        beat: Callable[[Collection[int]], None],
        replace_listener: Callable[[], socket.socket | None] = lambda: None,
        awaited: Collection[int],
        returning: Collection[int],
        most_runs: int = _MOST_RUNS,
    ) -> None:
        """Prepare the thread. `beat` is called with the process ids of the runs that follow shares: each second, and
        with each new run before it gets one, so that another `serve` waits for all of them after a kill.
        `replace_listener` is called each second before `beat`; it returns a new socket if runs can't find the present
        one any more.

        `awaited`: the process ids of the runs of another `serve` that has just died. `returning`: those of the runs of
        any earlier `serve`, for whose series pages wait.
        """
        self._listener = listener
        self._registry = registry
        self._url = ""
        self._clock = clock
        self._beat = beat
        self._replace_listener = replace_listener
        part = max(1, descriptors.get_limit() // _RUNS_PART)
        self._most_runs = min(most_runs, part)
        self._most_clients = self._most_runs + min(_MOST_OTHERS, part)
        self._lock = Lock()  # guards: _registry, _sessions and the sessions' series, _lost
        now = clock.monotonic()
        self._sessions = Sessions(read_machine, now, awaited=awaited)
        self._lost: dict[str, Session] = {}  # by process: sessions that lost their connection and may not have ended
        self._wait_seconds: dict[str, float] = {}  # of ended runs, by project
        self._returning = {*returning}  # those without series so far; only the thread uses it
        self._returned_by_seconds = now + RETURN_SECONDS
        self._has_all_series = Event()
        self._clients: set[_Client] = set()
        self._next_beat_seconds = now
        self._resumes_seconds: float | None = None
        self._lacks_descriptors = False  # whether this has been logged
        self._must_decide = False  # whether demands have changed since the last decision
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: None)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._thread = Thread(target=self._run, name="paropt-serve", daemon=True)

    def start(self, url: str) -> None:
        """Start the thread. `url`: where the page is."""
        self._url = url
        self._thread.start()

    def close(self) -> None:
        """Disconnect all runs; they continue on their own, and register again with the next `serve`."""
        self._closing = True
        self._has_all_series.set()
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def take_views(self) -> tuple[ProjectView, ...]:
        """Return the state of each project, for a page; from any thread.

        Blocks while runs of an earlier `serve` come back: without their counters, sums would fall for a moment, and
        `rate()` would count these runs again.
        """
        self._has_all_series.wait(RETURN_SECONDS)
        with self._lock:
            self._registry.store_changes()
            sessions = (*self._sessions.list_open(), *self._lost.values())
            self._registry.merge_deleted([session.project for session in sessions])
            by_name: dict[str, list[RegisteredProject]] = {}
            for project in self._registry.projects.values():
                by_name.setdefault(project.registration.project, []).append(project)
            live: dict[str, list[LiveSeries]] = {
                name: [project.ended for project in checkouts] for name, checkouts in by_name.items()
            }
            for lost in self._lost.values():
                live[lost.project.registration.project].append(dict(lost.series))
            for run in self._sessions.list_open():
                live[run.hello.registration.project].append(dict(run.series))
            shares = self._collect_shares(by_name)
            return tuple(
                ProjectView(
                    name=name,
                    checkouts=tuple(checkouts),
                    live=tuple(live[name]),
                    shares=shares[name],
                )
                for name, checkouts in by_name.items()
            )

    def _build_status(self) -> Status:
        """Return the state for `serve status`; the caller holds the lock."""
        sessions, machine = self._sessions.list_open(), self._sessions.machine
        names = {session.key: f"{session.hello.registration.project} (pid {session.hello.pid})" for session in sessions}
        waits = {wait.run: {names[run]: cores for run, cores in wait.holders.items()} for wait in self._sessions.waits}
        runs = Counter(session.project.key for session in sessions)
        return Status(
            version=__version__,
            pid=os.getpid(),
            url=self._url,
            cores=machine.cores,
            memory_bytes=int(machine.memory_bytes),
            projects=tuple(
                ProjectStatus(
                    project=project.registration.project,
                    root=project.registration.root,
                    runs=runs[project.key],
                    fault=project.fault,
                )
                for project in self._registry.projects.values()
                if runs[project.key] or not project.is_missing
            ),
            runs=tuple(
                RunStatus(
                    pid=session.hello.pid,
                    project=session.hello.registration.project,
                    lane=session.hello.lane,
                    version=session.hello.version,
                    limited=session.hello.limited,
                    cores_held=session.usage.cores_held,
                    cores_granted=max(0.0, session.granted),
                    cores_wanted=session.usage.cores_wanted,
                    memory_held_bytes=session.usage.memory_held_bytes,
                    waiting_seconds=0.0
                    if session.waiting_since is None
                    else self._clock.monotonic() - session.waiting_since,
                    waits_for=waits.get(session.key, {}),
                )
                for session in sessions
            ),
        )

    def _collect_shares(self, names: Mapping[str, object]) -> dict[str, dict[Series, float]]:
        shares: dict[str, dict[Series, float]] = {
            name: {
                **{(family, ()): 0.0 for family in _SHARE_FAMILIES},
                (families.SERVE_WAIT, ()): self._wait_seconds.get(name, 0.0),
            }
            for name in names
        }
        for session in self._sessions.list_open():
            series = shares[session.hello.registration.project]
            limited = session.hello.limited
            for family, amount in zip(
                _SHARE_FAMILIES, _measure(session) if limited else (1.0, 0, 0, 0, 0), strict=True
            ):
                series[family, ()] += amount
            series[families.SERVE_WAIT, ()] += session.waiting_seconds
        for name, holders in sum_shares(self._sessions.list_open(), self._sessions.waits).items():
            for holder, cores in holders.items():
                shares[name][families.SERVE_CORES_AWAITED, (holder,)] = round(cores, 3)
        return shares

    # The thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._run_step()
        finally:
            self._closing = True
            for client in tuple(self._clients):
                self._close_client(client)
            self._selector.close()
            self._listener.close()

    def _run_step(self) -> None:
        """Wait for messages or the next beat, and handle them."""
        now = self._clock.monotonic()
        if now >= self._next_beat_seconds:
            self._next_beat_seconds = now + BEAT_SECONDS
            self._keep_alive(now)
        moments = [self._next_beat_seconds, *([] if self._resumes_seconds is None else [self._resumes_seconds])]
        for key, _ in self._selector.select(max(0.0, min(moments) - now)):
            key.data()
        if self._must_decide:  # once for all messages that have arrived, since a decision considers every run
            self._decide()
        if self._resumes_seconds is not None and self._clock.monotonic() >= self._resumes_seconds:
            self._resumes_seconds = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _keep_alive(self, now: float) -> None:
        if (renewed := self._replace_listener()) is not None:
            self._take_listener(renewed)
        self._beat(self._sessions.list_runs_with_shares(now))
        is_due = now >= self._returned_by_seconds
        self._set_returning(set() if is_due else {pid for pid in self._returning if is_live_process(pid)})
        for client in tuple(self._clients):
            if client.session is None and now > client.connected_seconds + _FIRST_MESSAGE_SECONDS:
                self._close_client(client)
        self._decide()
        with self._lock:
            for session in self._sessions.list_open():
                session.repeat_grant()
            for lost in [each for each in self._lost.values() if not is_live_process(each.hello.pid)]:
                self._registry.keep_counters(lost.project, self._lost.pop(lost.hello.process).series)

    def _take_listener(self, renewed: socket.socket) -> None:
        if self._resumes_seconds is None:  # otherwise it is registered later
            self._selector.unregister(self._listener)
            self._selector.register(renewed, selectors.EVENT_READ, self._accept)
        self._listener.close()
        self._listener = renewed
        with self._lock:
            self._registry.store_all()

    def _set_returning(self, pids: set[int]) -> None:
        self._returning = pids
        if not pids:
            self._has_all_series.set()

    def _decide(self) -> None:
        self._must_decide = False
        with self._lock:
            self._sessions.decide(self._clock.monotonic())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if not self._lacks_descriptors:
                log.warning("can't accept a run", extra={"err": str(error)})
            self._lacks_descriptors = True
            self._selector.unregister(self._listener)
            self._resumes_seconds = self._clock.monotonic() + _ACCEPT_PAUSE_SECONDS
            return
        self._lacks_descriptors = False
        if read_peer_user(connection) != os.geteuid() or len(self._clients) >= self._most_clients:
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection, self._clock.monotonic())
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._serve_client, client))

    def _serve_client(self, client: _Client) -> None:
        """Receive and send. A fault ends only this connection."""
        try:
            if client.unsent:
                self._send_unsent(client)
            try:
                received = client.connection.recv(_RECEIVED_BYTES)
            except BlockingIOError:
                return
            if not received:
                self._close_client(client)
                return
            for line in client.received.add(received):
                self._handle(client, decode_from_run(line))
                if client.closes or client not in self._clients:
                    return
        except OSError:
            self._close_client(client)
        except BadMessage as error:
            log.warning("a client sent an invalid message", extra={"err": str(error)[:200]})
            self._close_client(client)
        except Exception:  # the boundary of one connection
            log.exception("a client failed")
            self._close_client(client)

    def _handle(self, client: _Client, message: FromRun) -> None:
        session = client.session
        match message:
            case AskStatus():
                self._decide()
                with self._lock:
                    status = self._build_status()
                client.closes = True  # once it is sent
                self._send(client, status)
            case Hello() if session is None:
                self._admit(client, message)
            case Usage() if session is not None:
                with self._lock:
                    session.follow(message, self._clock.monotonic())
                self._must_decide = True
            case State() if session is not None:
                with self._lock:
                    session.heard_seconds = self._clock.monotonic()
                    session.update_series(message)
                self._set_returning(self._returning - {session.hello.pid})
            case Labels() if session is not None:
                renewed = replace(session.hello.registration, lanes=message.lanes, bounds=message.bounds)
                with self._lock:
                    session.hello = replace(session.hello, registration=renewed)
                    self._registry.register(renewed)
            case Bye():
                client.has_said_bye = True
                self._close_client(client)
            case _:
                raise BadMessage("an unexpected message")

    def _admit(self, client: _Client, hello: Hello) -> None:
        reason = _find_refusal_reason(hello)
        if not reason and len(self._sessions.list_open()) >= self._most_runs:
            reason = f"it has {self._most_runs:,} run{'' if self._most_runs == 1 else 's'} already"
        if reason:
            self._send(client, Refusal(reason=reason))
            client.closes = True
            self._send_unsent(client)
            return
        for other in tuple(self._clients):  # an earlier connection of this process, whose end has not been noticed yet
            if hello.process and other.session is not None and other.session.hello.process == hello.process:
                self._close_client(other)
        with self._lock:
            now = self._clock.monotonic()
            project = self._registry.register(hello.registration)  # before Welcome, for which the run waits
            self._send(client, Welcome(protocol=PROTOCOL, version=__version__, pid=os.getpid(), url=self._url))
            client.session = self._sessions.add(hello, project, partial(self._send, client), now)
            if (lost := self._lost.pop(hello.process, None)) is not None:
                client.session.series = lost.series
            self._beat(self._sessions.list_runs_with_shares(now))
        self._must_decide = True

    def _send(self, client: _Client, message: Struct) -> None:
        client.unsent += encode(message)
        if client in self._clients:
            self._send_unsent(client)

    def _send_unsent(self, client: _Client) -> None:
        try:
            with suppress(BlockingIOError):
                sent = client.connection.send(client.unsent)
                del client.unsent[:sent]
        except OSError:
            client.unsent.clear()
            client.closes = True
        if client.session is not None and len(client.unsent) > _UNSENT_BYTES:
            client.closes = True
            client.unsent.clear()
        if client.closes and not client.unsent:
            # The thread then sees the end of the connection and closes the client, outside of the lock.
            with suppress(OSError):
                client.connection.shutdown(socket.SHUT_RDWR)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        if self._selector.get_key(client.connection).events != events:
            self._selector.modify(client.connection, events, partial(self._serve_client, client))

    def _close_client(self, client: _Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client.connection)
        client.connection.close()
        session = client.session
        if session is None:
            return
        with self._lock:
            if any(lane.interval_seconds is not None for lane in session.hello.registration.lanes):
                self._registry.register(session.hello.registration)  # a run beside it, without --every, has replaced it
            if session.hello.process and not client.has_said_bye:
                session.series = keep_counters({}, session.series)
                self._lost[session.hello.process] = session
            else:
                self._registry.keep_counters(session.project, session.series)
            name = session.project.registration.project
            self._wait_seconds[name] = self._wait_seconds.get(name, 0.0) + session.waiting_seconds
            self._sessions.remove(session)
            # After the end of this process, runs keep their shares and come back to the next `serve`, which must know
            # them all.
            if not self._closing:
                self._beat(self._sessions.list_runs_with_shares(self._clock.monotonic()))
        self._must_decide = not self._closing


_SHARE_FAMILIES = (
    families.SERVE_RUNS,
    families.SERVE_CORES_HELD,
    families.SERVE_CORES_GRANTED,
    families.SERVE_CORES_WANTED,
    families.SERVE_MEMORY_HELD,
)


def _measure(session: Session) -> tuple[float, float, float, float, float]:
    usage = session.usage
    return (1.0, usage.cores_held, max(0.0, session.granted), usage.cores_wanted, float(usage.memory_held_bytes))


def _find_refusal_reason(hello: Hello) -> str:
    if hello.protocol != PROTOCOL:
        return (
            f"it is version {__version__} and the run {hello.version}: use one version, or restart it after an upgrade"
        )
    return find_fault(hello.registration)
