"""Pass events to observers in order, and protect the run from errors in them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Protocol

from paropt_exporter.events import Event

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Takes each event once, in order, on the thread on which it happened; should return soon."""

    def observe(self, event: Event) -> None: ...


class Observers:
    """Named observers, called in order.

    Guarantees: an observer that raises loses only that event; its first error is logged, all are counted; `emit` never
    raises.
    """

    def __init__(self, observers: Mapping[str, Observer]) -> None:
        self._observers = dict(observers)
        self._lock = threading.Lock()  # guards: the order of events between emitting threads, and _dropped
        self._dropped = dict.fromkeys(observers, 0)

    def emit(self, event: Event) -> None:
        with self._lock:
            for name, observer in self._observers.items():
                try:
                    observer.observe(event)
                except Exception:  # an error in reporting must not fail the work
                    self._dropped[name] += 1
                    if self._dropped[name] == 1:
                        log.exception("observer failed, its events are dropped", extra={"observer": name})

    def dropped(self) -> Mapping[str, int]:
        """Return how many events each observer has lost."""
        return dict(self._dropped)
