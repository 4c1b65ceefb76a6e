"""Read the host's cores and memory; limits are cached for a moment, since the controller asks many times a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from msgspec import Struct

from paropt_exporter import host
from paropt_exporter.clock import Clock

_Value = TypeVar("_Value")

# quotas and affinities change by hand; this is half of the 2 s within which a wrong size is corrected
LIMITS_SECONDS = 1.0


class CachedReading(Generic[_Value]):
    """A callable that reads again if its last value is older than `seconds`. Not thread-safe.

    Reading a cgroup's files takes longer than a decision.
    """

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


def read_memory_left_bytes(
    root: Path = Path("/"), machine: Callable[[], tuple[int, int]] = host.read_machine_memory_bytes
) -> int:
    """Return the available memory; at least 1 if it is known, since 0 means that it is unknown and bounds no size."""
    return host.read_available_memory_bytes(root, machine) or min(1, host.read_total_memory_bytes(root, machine))


def read_memory_reserve_bytes() -> int:
    """Return the part of the available memory that no new worker may take."""
    return host.compute_reserve_bytes(host.read_total_memory_bytes())


class HostReadings(Struct, frozen=True, kw_only=True):
    """The cores that this process may use, the available memory (0: unknown) and its reserve, read on each call."""

    cores: Callable[[], float] = host.count_cpus
    memory_available_bytes: Callable[[], int] = read_memory_left_bytes
    memory_reserve_bytes: Callable[[], int] = read_memory_reserve_bytes

    @classmethod
    def cached(cls, clock: Clock) -> HostReadings:
        """Return readings whose limits are cached for as long as old values are precise enough for the controller."""
        return cls(
            cores=CachedReading(host.count_cpus, LIMITS_SECONDS, clock),
            memory_reserve_bytes=CachedReading(read_memory_reserve_bytes, LIMITS_SECONDS, clock),
        )
