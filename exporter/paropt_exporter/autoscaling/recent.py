"""Remember a reading of the machine for a moment: cgroup files take longer to read than a look takes to decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from paropt_exporter.clock import Clock

_Value = TypeVar("_Value")

CORES_SECONDS = 1.0  # a quota or an affinity changes by hand: half of the 2 s within which a wrong size is corrected
MEMORY_SECONDS = 0.2  # memory fills at some GB/s at most, and the policy waits 1 s before it takes slots away for it


class Recent(Generic[_Value]):
    """A callable that reads anew once its last reading is older than `seconds`. For one thread."""

    def __init__(self, read: Callable[[], _Value], seconds: float, clock: Clock) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._value: _Value | None = None
        self._until = 0.0

    def __call__(self) -> _Value:
        now = self._clock.monotonic()
        if self._value is None or now >= self._until:
            self._value, self._until = self._read(), now + self._seconds
        return self._value
