"""Pass a run's events on to observers: in order, and those of a burst together."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from paropt_exporter.clock import Clock
from paropt_exporter.events import Event

log = logging.getLogger(__name__)

_Argument = TypeVar("_Argument")

# How often in a row the engine passes on events at once, and the interval after that: tasks of 2 ms share transactions
# of the history, which would otherwise cost more than the tasks. Events of stages that take a second never wait.
_MOST_AT_ONCE = 10
BURST_SECONDS = 0.02


class Observer(Protocol):
    """Receives each event once, in order, on the thread on which it happened; it should return soon.

    It may have a method `observe_all` for several events, if they are cheaper together.
    """

    def observe(self, event: Event) -> None: ...


class Observers:
    """Named observers, called in order.

        hold(event) -> held events --flush, or emit by any thread--> each observer takes all of them, then the next does

    Guarantees: an observer that raises loses only that event, or those of one `observe_all`; its first error is logged,
    all are counted; no method raises.
    """

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        self._observers = dict(observers)
        methods = {name: getattr(observer, "observe_all", None) for name, observer in observers.items()}
        self._batched: dict[str, Callable[[Sequence[Event]], None]] = {name: m for name, m in methods.items() if m}
        self._lock = threading.Lock()  # guards: the order of events between emitting threads, and all below
        self._held: list[Event] = []
        self._dropped = dict.fromkeys(observers, 0)

    def emit(self, event: Event) -> None:
        """Pass on the held events and then this one."""
        with self._lock:
            self._held.append(event)
            self._pass_on()

    def hold(self, event: Event) -> None:
        """Hold an event, to pass it on with the next ones; the caller calls `flush` before it waits."""
        with self._lock:
            self._held.append(event)

    def flush(self) -> None:
        """Pass on the held events."""
        with self._lock:
            if self._held:
                self._pass_on()

    def _pass_on(self) -> None:
        events, self._held = tuple(self._held), []
        for name, observer in self._observers.items():
            if name in self._batched:
                self._call(name, self._batched[name], events, count=len(events))
                continue
            for event in events:
                self._call(name, observer.observe, event, count=1)

    def _call(self, name: str, method: Callable[[_Argument], None], argument: _Argument, *, count: int) -> None:
        try:
            method(argument)
        except Exception:  # an error in reporting must not fail the work
            if not self._dropped[name]:
                log.exception("observer failed, its events are dropped", extra={"observer": name})
            self._dropped[name] += count

    def dropped(self) -> Mapping[str, int]:
        """Return how many events each observer has lost."""
        return dict(self._dropped)


class EventStream:
    """Passes events on at once or, in a burst, together with later ones.

    `hold` receives each event, and `flush` passes on the held ones; `flush` None: `hold` itself passes them on. Events
    are passed on at once up to `_MOST_AT_ONCE` times in a row, then once in BURST_SECONDS, so that no event waits
    longer. This is the generic cell rate algorithm (ITU-T I.371): `_due_seconds` is when the next turn would be if
    turns were even.
    """

    def __init__(self, clock: Clock, hold: Callable[[Event], None], flush: Callable[[], None] | None) -> None:
        self._clock = clock
        self._hold = hold
        self._flush = flush
        self._holds_events = False
        self._due_seconds = -math.inf

    def emit(self, event: Event) -> None:
        self._holds_events = True
        self._hold(event)

    def flush(self) -> None:
        """Pass on the events that are held."""
        self._holds_events = False
        if self._flush is not None:
            self._flush()

    def flush_in_turn(self) -> float | None:
        """Pass on the held events, or return the moment at which to do so; None: no events are held."""
        if not self._holds_events or self._flush is None:
            return None
        now = self._clock.monotonic()
        moment = self._due_seconds - (_MOST_AT_ONCE - 1) * BURST_SECONDS
        if now < moment:
            return moment
        self._due_seconds = max(self._due_seconds, now) + BURST_SECONDS
        self.flush()
        return None
