"""Deliver a run's final page to its sinks, and count the results; `sinks` has the sinks themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import product
from threading import Lock

from paropt_exporter import families
from paropt_exporter.errors import DeliveryError

log = logging.getLogger(__name__)

PUSHGATEWAY, TEXTFILE, OTLP = families.DELIVERY_TARGETS
_SUCCESS, _FAILURE = families.DELIVERY_RESULTS

Deliver = Callable[[bytes], None]

_MOST_DELIVERIES = 3  # of one run: those that end during its deliveries deliver later totals themselves


class Sinks:
    """The sinks of each run's final page: a function for each target. Other deliveries, such as OTLP's, are counted,
    too.

    Guarantees: a target that fails is logged and counted, and the other targets still receive the page.
    """

    def __init__(self, targets: Mapping[str, Deliver]) -> None:
        self._targets = dict(targets)
        self._lock = Lock()  # guards: _counts and _failing, which a scrape reads
        self._counts = dict.fromkeys(product(families.DELIVERY_TARGETS, families.DELIVERY_RESULTS), 0)
        self._failing: dict[str, bool] = {}

    def deliver(self, page: Callable[[], bytes], count_ended_runs: Callable[[], float]) -> frozenset[str]:
        """Deliver a page in text format to all targets; return those that failed. Blocks until each has finished.

        If another run of the project ends meanwhile, its own page may be delivered between the rendering of this one
        and its arrival, and would be replaced by lower totals. So a page follows that counts that run, except to a
        target that has failed.
        """
        failed: set[str] = set()
        left = tuple(self._targets)
        for _ in range(_MOST_DELIVERIES):
            if not left:
                break
            ended, final = count_ended_runs(), page()
            failed.update(target for target in left if not self._deliver_to(target, final))
            left = tuple(target for target in left if target not in failed)
            if count_ended_runs() == ended:
                break
        return frozenset(failed)

    def count(self, target: str, *, failed: bool) -> None:
        """Count a delivery."""
        with self._lock:
            self._counts[target, _FAILURE if failed else _SUCCESS] += 1
            self._failing[target] = failed

    def find_failing(self) -> Mapping[str, bool]:
        """Return for each target that had a delivery whether the last one failed."""
        with self._lock:
            return dict(self._failing)

    def count_deliveries(self) -> Mapping[tuple[str, str], int]:
        """Return the number of deliveries by (target, result)."""
        with self._lock:
            return dict(self._counts)

    def _deliver_to(self, target: str, page: bytes) -> bool:
        try:
            self._targets[target](page)
        except DeliveryError as error:
            log.warning("final values not delivered", extra={"target": target, "err": str(error)})
            self.count(target, failed=True)
            return False
        self.count(target, failed=False)
        return True
