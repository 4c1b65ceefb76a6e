"""A lane's control state: the bounds in force, a person's override and the recommended sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.events import ControlView, PoolControl, QueryCounts
from paropt_exporter.plan import Bounds

ACT, ADVISE, PAUSE, PIN = "act", "advise", "pause", "pin"
DEADLINE = "deadline"  # the objective of just enough workers for the lane to keep its total
PROMETHEUS = "prometheus"  # with this source, query results alone decide


class Override(Struct, frozen=True, kw_only=True):
    """A person's instruction to the controller; it overrides every decision. `size` is the size of a pin."""

    mode: str = ACT
    size: int | None = None


class SizeBounds(Struct, frozen=True, kw_only=True):
    """The bounds for the controller of a lane, and other results of the bounds controller.

    `query_size`: the size by query results, if they alone decide. `reason`: why the bounds are not the config's.
    """

    floor: int
    ceiling: int
    query_size: int | None = None
    reason: str = "bounds"
    no_data: bool = False
    flapping: bool = False


class ControlState:
    """The control state of one lane, shared by both controllers, the control socket and the scrape.

        BoundsController --size bounds-->  ControlState  <--recommended sizes-- Controller
        control socket   --override----->       |
                                                '--snapshot()--> metrics

    Guarantees: each part has one writer; readers get frozen values; no method blocks.
    """

    def __init__(
        self,
        bounds: Bounds,
        pools: Sequence[str],
        *,
        source: str,
        override: Override | None = None,
        queries: Callable[[], QueryCounts] = QueryCounts,
    ) -> None:
        self.config_bounds = bounds
        self.source = source
        self._queries = queries
        self._lock = Lock()  # guards: all below
        self._configured = self._override = override or Override()
        self._paused_size: int | None = None  # the size that a pause keeps, once it is known
        self._size_bounds = SizeBounds(floor=bounds.minimum, ceiling=bounds.maximum)
        self._rescue_size = 0
        self._slots_per_task = 1.0
        self._recommended: dict[str, int] = dict.fromkeys(pools, bounds.start)

    def reconfigure(self, bounds: Bounds, pools: Sequence[str]) -> None:
        """Use the bounds and pools of another config, between two runs; a person's override and the source stay."""
        with self._lock:
            self.config_bounds = bounds
            self._size_bounds = SizeBounds(floor=bounds.minimum, ceiling=bounds.maximum)
            self._rescue_size = 0
            self._slots_per_task = 1.0
            self._recommended = {pool: self._recommended.get(pool, bounds.start) for pool in pools}

    @property
    def pools(self) -> tuple[str, ...]:
        """The names of the lane's pools."""
        with self._lock:
            return tuple(self._recommended)

    @property
    def size_bounds(self) -> SizeBounds:
        with self._lock:
            return self._size_bounds

    @property
    def override(self) -> Override:
        with self._lock:
            return self._override

    @property
    def follows_controller(self) -> bool:
        """Whether the controller's own decisions apply; otherwise it can't try stages with fewer tasks."""
        return self.override.mode == ACT and self.source != PROMETHEUS

    @property
    def allocates_cores(self) -> bool:
        """Whether tasks get cores by their demands: not if a person, the config or queries set the size."""
        return self.follows_controller and not self.config_bounds.fixed

    def set_size_bounds(self, bounds: SizeBounds) -> None:
        """Store new bounds, clamped to the config's: another config may have been loaded while they were decided.

        The stored floor is at most the ceiling, and the size by queries is between the two.
        """
        wanted = bounds.query_size
        with self._lock:
            ceiling = min(max(bounds.ceiling, self.config_bounds.minimum), self.config_bounds.maximum)
            floor = min(max(bounds.floor, self.config_bounds.minimum), ceiling)
            query_size = None if wanted is None else min(max(wanted, floor), ceiling)
            self._size_bounds = replace(bounds, floor=floor, ceiling=ceiling, query_size=query_size)

    def set_override(self, override: Override | None) -> None:
        """Store a person's instruction; None restores the config's mode."""
        with self._lock:
            before, self._override = self._override, override or self._configured
            if self._override.mode != PAUSE:
                self._paused_size = None
            elif before.mode == PIN:
                self._paused_size = before.size

    def keep_paused_size(self, size: int) -> None:
        """Store the size of the running lane, if it is paused: its next runs start with it."""
        with self._lock:
            if self._override.mode == PAUSE:
                self._paused_size = size

    def get_start_size(self, wanted: int) -> int:
        """Return the size with which a run starts: the pinned or paused size, the size by query results, or `wanted`
        within bounds.
        """
        with self._lock:
            bounds, override, paused_size = self._size_bounds, self._override, self._paused_size
        kept = override.size if override.mode == PIN else paused_size
        if kept is not None:
            return kept
        return min(max(wanted if bounds.query_size is None else bounds.query_size, bounds.floor), bounds.ceiling)

    @property
    def rescue_size(self) -> int:
        """The size of the lane that would save a stage which is about to break its limit; 0: no stage is at risk."""
        with self._lock:
            return self._rescue_size

    def set_rescue_size(self, size: int) -> None:
        with self._lock:
            self._rescue_size = size

    @property
    def slots_per_task(self) -> float:
        """How many of the lane's slots a task takes: the mean over the tasks that ran or waited last."""
        with self._lock:
            return self._slots_per_task

    def set_slots_per_task(self, slots: float) -> None:
        with self._lock:
            self._slots_per_task = slots

    def set_recommended_sizes(self, sizes: Mapping[str, int]) -> None:
        """Store the sizes that the controller recommends, by pool."""
        with self._lock:
            self._recommended.update(sizes)

    def snapshot(self) -> ControlView:
        """Return the state for a scrape."""
        with self._lock:
            bounds, override, recommended = self._size_bounds, self._override, dict(self._recommended)
        pools = tuple(
            PoolControl(
                pool=pool,
                mode=override.mode,
                source=self.source,
                floor=bounds.floor,
                ceiling=bounds.ceiling,
                recommended_size=size,
                no_data=bounds.no_data,
                flapping=bounds.flapping,
            )
            for pool, size in recommended.items()
        )
        return ControlView(pools=pools, queries=self._queries())
