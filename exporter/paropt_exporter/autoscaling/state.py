"""What the two loops, the commands and the scrape share about a lane's pools: bounds in force, mode, recommendation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from paropt_exporter.events import ControlView, PoolControl, QueryCounts
from paropt_exporter.plan import Bounds

ACT, ADVISE, PAUSE, PIN = "act", "advise", "pause", "pin"
PROMETHEUS = "prometheus"  # the source by which query results alone decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person wants of the controller; it beats everything. `size` is that of a pin."""

    mode: str = ACT
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeBounds:
    """Between which sizes the inner loop moves now, and what the outer loop has found out beside that.

    `target`: the size by query results, where they alone decide. `reason`: why the band is not the config's.
    """

    floor: int
    ceiling: int
    target: int | None = None
    reason: str = "bounds"
    no_data: bool = False
    flapping: bool = False


class ControlState:
    """One lane's standing with its controller.

        outer loop --band--> Standing <--recommended-- inner loop       pin, pause, resume --order--> Standing
                                 '--view()--> metrics

    Guarantees: each part has one writer; readers get frozen values; nothing here blocks.
    """

    def __init__(
        self,
        bounds: Bounds,
        pools: Sequence[str],
        *,
        source: str,
        order: Order | None = None,
        queries: Callable[[], QueryCounts] = QueryCounts,
    ) -> None:
        self.bounds = bounds
        self.source = source
        self._queries = queries
        self._lock = Lock()  # guards: all below
        self._configured = self._order = order or Order()
        self._band = SizeBounds(floor=bounds.minimum, ceiling=bounds.maximum)
        self._rescue_size = 0
        self._recommended: dict[str, int] = dict.fromkeys(pools, bounds.start)

    def reconfigure(self, bounds: Bounds, pools: Sequence[str]) -> None:
        """Take the bounds and pools of another config, between two runs; orders and the source stay."""
        with self._lock:
            self.bounds = bounds
            self._band = SizeBounds(floor=bounds.minimum, ceiling=bounds.maximum)
            self._rescue_size = 0
            self._recommended = {pool: self._recommended.get(pool, bounds.start) for pool in pools}

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the lane's pools."""
        with self._lock:
            return tuple(self._recommended)

    @property
    def band(self) -> SizeBounds:
        with self._lock:
            return self._band

    @property
    def order(self) -> Order:
        with self._lock:
            return self._order

    def set_band(self, band: SizeBounds) -> None:
        """Take what the outer loop found; a band is never outside of the config's bounds nor upside down."""
        ceiling = min(max(band.ceiling, self.bounds.minimum), self.bounds.maximum)
        floor = min(max(band.floor, self.bounds.minimum), ceiling)
        with self._lock:
            self._band = replace(band, floor=floor, ceiling=ceiling)

    def give(self, order: Order | None) -> None:
        """Take a person's order; None: go back to what the config says."""
        with self._lock:
            self._order = order or self._configured

    def start_size(self, wanted: int) -> int:
        """Return the size that a run begins with: of an order, of query results, else the wanted one in the band."""
        band, order = self.band, self.order
        if order.mode == PIN and order.size is not None:
            return order.size
        return min(max(wanted if band.target is None else band.target, band.floor), band.ceiling)

    @property
    def rescue_size(self) -> int:
        """The lane's size that would save a stage which is about to break its limit; 0: none is."""
        with self._lock:
            return self._rescue_size

    def rescue(self, size: int) -> None:
        """Take what would save a stage at risk."""
        with self._lock:
            self._rescue_size = size

    def recommend(self, sizes: Mapping[str, int]) -> None:
        """Take the sizes that the inner loop would give the pools."""
        with self._lock:
            self._recommended.update(sizes)

    def view(self) -> ControlView:
        """Return what a scrape shows."""
        with self._lock:
            band, order, recommended = self._band, self._order, dict(self._recommended)
        pools = tuple(
            PoolControl(
                pool=pool,
                mode=order.mode,
                source=self.source,
                floor=band.floor,
                ceiling=band.ceiling,
                recommended_size=size,
                no_data=band.no_data,
                flapping=band.flapping,
            )
            for pool, size in recommended.items()
        )
        return ControlView(pools=pools, queries=self._queries())
