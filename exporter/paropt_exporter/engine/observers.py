"""Tell observers what happened, in order, without letting any of them hurt the work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Protocol

from paropt_exporter.events import Event

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Takes each event once, in order, on the thread that it happened on; should return soon."""

    def observe(self, event: Event) -> None: ...


class Observers:
    """Named observers, told in the order given: what is first has taken an event before what is second sees it.

    Guarantees: an observer that raises loses that event only, is logged once and counted; `emit` never raises.
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
                except Exception:  # a fault of reporting must not become one of the work
                    self._dropped[name] += 1
                    if self._dropped[name] == 1:
                        log.exception("observer failed, its events are dropped", extra={"observer": name})

    def dropped(self) -> Mapping[str, int]:
        """Return how many events each observer failed to take."""
        return dict(self._dropped)
