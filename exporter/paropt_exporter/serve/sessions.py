"""The registered runs and their shares, apart from sockets and threads: `Hub` moves their messages."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import psutil

from paropt_exporter.metrics.page import Labels, Value
from paropt_exporter.serve.fair_shares import (
    Machine,
    RunDemand,
    Share,
    UsedTime,
    Wait,
    decide_shares,
    find_waits,
)
from paropt_exporter.serve.messages import UNLIMITED, Grant, Hello, State, Usage, get_value

if TYPE_CHECKING:
    from paropt_exporter.serve.registry import RegisteredProject

SETTLE_SECONDS = 30.0  # after the death of another `serve`: by then its runs have registered again, or continue alone
SILENT_SECONDS = 10.0  # a run that sends nothing for so long has been stopped, and its old grants no longer count


class Session:
    """A registered run. `send` queues a message to it."""

    def __init__(
        self, key: int, hello: Hello, project: RegisteredProject, send: Callable[[Grant], None], now: float
    ) -> None:
        self.key = key
        self.hello = hello
        self.project = project
        self.usage = hello.usage
        self.heard_seconds = now
        self.series: dict[tuple[str, Labels], Value] = {}
        self.waiting_since: float | None = None
        self.waiting_seconds = 0.0
        self._send = send
        self._grants: deque[Grant] = deque()  # the grant that the run follows, then unconfirmed ones

    @property
    def granted(self) -> float:
        """The cores of the last grant."""
        return self._grants[-1].cores if self._grants else 0.0

    @property
    def demand_committed(self) -> tuple[float, float]:
        """The most cores and bytes that the run may use."""
        cores = max([self.usage.cores_held, *(grant.cores for grant in self._grants)])
        memory = max([float(self.usage.memory_held_bytes), *(_bytes(grant) for grant in self._grants)])
        return cores, memory

    def follow(self, usage: Usage, now: float) -> None:
        """Apply a usage report, which confirms a grant."""
        self.usage, self.heard_seconds = usage, now
        while len(self._grants) > 1 and self._grants[0].number < usage.number:
            self._grants.popleft()

    def forget_unconfirmed(self) -> None:
        """Count only the last grant from now on, since the run has been stopped."""
        while len(self._grants) > 1:
            self._grants.popleft()

    def grant(self, share: Share) -> None:
        """Send a share if it is new."""
        memory = UNLIMITED if math.isinf(share.memory_bytes) else share.memory_bytes
        last = self._grants[-1] if self._grants else None
        if last is None or (last.cores, last.memory_bytes) != (share.cores, memory):
            number = 1 + (self.hello.last_number if last is None else last.number)
            self._grants.append(Grant(number=number, cores=share.cores, memory_bytes=memory))
            self._send(self._grants[-1])

    def repeat_grant(self) -> None:
        """Send the last grant again, as a sign of life."""
        if self._grants:
            self._send(self._grants[-1])

    def update_series(self, state: State) -> None:
        """Apply the changed series of the run."""
        for sample in state.samples:
            key, value = (sample.family, sample.labels), get_value(sample)
            if value is None:
                self.series.pop(key, None)
            else:
                self.series[key] = value


def _bytes(grant: Grant) -> float:
    return 0.0 if grant.memory_bytes < 0 else grant.memory_bytes


class Sessions:
    """All registered runs and their shares. Not thread-safe.

    Guarantee: if runs act only on confirmed grants, their shares together never exceed the machine. After the death of
    another `serve`, its runs keep their shares when they come back. Until each of them (`awaited`, process ids) is back
    or has ended, but at most for SETTLE_SECONDS, no run gets a larger share.
    """

    def __init__(
        self,
        read_machine: Callable[[], Machine],
        now: float,
        *,
        awaited: Collection[int],
        is_alive: Callable[[int], bool] | None = None,
    ) -> None:
        self._read_machine = read_machine
        self._keys = itertools.count(1)
        self._open: dict[int, Session] = {}
        self._used = UsedTime()
        self._advanced_seconds = now
        self._awaited = {*awaited}
        self._is_alive = is_alive or is_live_process
        self._settled_seconds = now + SETTLE_SECONDS
        self.waits: tuple[Wait, ...] = ()
        self.machine = read_machine()

    def add(self, hello: Hello, project: RegisteredProject, send: Callable[[Grant], None], now: float) -> Session:
        """Register a run, without a share yet."""
        session = Session(next(self._keys), hello, project, send, now)
        self._open[session.key] = session
        self._awaited.discard(hello.pid)
        if not hello.limited:
            session.grant(Share(UNLIMITED, math.inf))
        elif hello.share is not None:
            session.grant(Share(min(hello.share[0], self.machine.cores), hello.share[1]))
        return session

    def remove(self, session: Session) -> None:
        """Forget a run that has ended."""
        self._open.pop(session.key, None)
        self._used.forget(session.key)

    def list_open(self) -> tuple[Session, ...]:
        """Return the registered runs, the oldest first."""
        return tuple(self._open.values())

    def list_runs_with_shares(self, now: float) -> frozenset[int]:
        """Return the process ids of the runs that may act on a share: registered ones, and awaited ones."""
        registered = {session.hello.pid for session in self._open.values() if session.hello.limited}
        return frozenset(registered | self._find_awaited(now))

    def decide(self, now: float) -> None:
        """Charge the time since the last decision to the runs, and send new shares."""
        self._account(now)
        limited = [session for session in self._open.values() if session.hello.limited]
        for session in limited:
            if now - session.heard_seconds > SILENT_SECONDS:
                session.forget_unconfirmed()
        self.machine = self._read_machine()
        demands = [self._build_demand(session) for session in limited]
        if self._find_awaited(now):
            shares = {each.run: Share(each.granted, each.memory_committed_bytes) for each in demands}
        else:
            shares = dict(decide_shares(self.machine, demands))
        for session in limited:
            session.grant(shares[session.key])
        self.waits = find_waits(demands, shares)
        lacking = {wait.run for wait in self.waits}
        for session in limited:
            if session.key not in lacking:
                session.waiting_since = None
            elif session.waiting_since is None:
                session.waiting_since = now

    def _find_awaited(self, now: float) -> set[int]:
        """Return the runs of another `serve` that are alive but have not come back."""
        self._awaited = {pid for pid in self._awaited if self._is_alive(pid)} if now < self._settled_seconds else set()
        return self._awaited

    def _account(self, now: float) -> None:
        elapsed, self._advanced_seconds = now - self._advanced_seconds, now
        active = {
            session.key: max(session.usage.cores_held, min(session.granted, session.usage.cores_wanted))
            for session in self._open.values()
            if session.hello.limited and session.usage.cores_wanted > 0
        }
        self._used.advance(elapsed, active)
        self._used.set_active(active)
        for session in self._open.values():
            if session.waiting_since is not None:
                session.waiting_seconds += elapsed

    def _build_demand(self, session: Session) -> RunDemand:
        usage = session.usage
        cores, memory = session.demand_committed
        return RunDemand(
            run=session.key,
            held=usage.cores_held,
            wanted=max(usage.cores_wanted, usage.cores_held),
            committed=cores,
            granted=session.granted,
            used_seconds=self._used.get(session.key),
            memory_held_bytes=usage.memory_held_bytes,
            memory_wanted_bytes=usage.memory_wanted_bytes,
            memory_committed_bytes=memory,
        )


def is_live_process(pid: int) -> bool:
    """Return whether a process is running: False once it has exited, even if not reaped; True if that is unknown."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
    except OSError:  # no descriptors are left to read its state
        return True


def sum_shares(sessions: Iterable[Session], waits: Iterable[Wait]) -> Mapping[str, dict[str, float]]:
    """Return for each project the cores that it lacks, by the project whose runs hold them.

    Runs that have ended since the decision that found the waits are left out.
    """
    projects = {session.key: session.project.registration.project for session in sessions}
    lacks: dict[str, dict[str, float]] = {}
    for wait in waits:
        if wait.run not in projects:
            continue
        by_holder = lacks.setdefault(projects[wait.run], {})
        for holder, cores in ((projects[run], cores) for run, cores in wait.holders.items() if run in projects):
            by_holder[holder] = by_holder.get(holder, 0.0) + cores
    return lacks
