"""The shares of the machine that a process has got from `serve`, and which of them its run follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from paropt_exporter.engine.interfaces import MachineShare, MachineUsage
from paropt_exporter.serve.messages import UNLIMITED, Grant, Usage

_MOST_UNCONFIRMED = 1000  # grants whose numbers are kept
_NO_SHARE = MachineShare(cores=0.0, memory_bytes=0.0)


class ShareTaker(Protocol):
    """The run that follows a share."""

    run_id: str

    def set_share(self, share: MachineShare | None) -> None: ...


class RunShares:
    """The shares of one process. Callers hold the lock of its link.

        Grant --apply--> current share --set_share--> run --confirm (by its number)--> Usage

    A share has the number of its grant; numbers grow through all sessions. A grant is confirmed only once the run
    follows its share; between two runs at once, since nothing is used then. `current` is None while the run is alone.
    """

    def __init__(self, *, limited: bool, send: Callable[[Usage], None]) -> None:
        """`limited`: whether the run's tasks are on this machine. `send` sends a demand, if there is a connection."""
        self._limited = limited
        self._send = send
        self._run: ShareTaker | None = None
        self._usage = _build_idle_usage(0)
        self.current: MachineShare | None = _NO_SHARE if limited else None
        self.last_number = 0  # of the last grant
        self._unconfirmed: dict[int, MachineShare] = {}  # shares that the run may act on, by number

    @property
    def run_id(self) -> str:
        """The id of the run that follows the shares; "" between two runs."""
        return "" if self._run is None else self._run.run_id

    def begin_run(self, run: ShareTaker) -> None:
        """Pass shares to this run from now on."""
        self._run = run
        run.set_share(self.current)

    def end_run(self) -> None:
        """Give the run's share back."""
        self._run = None
        self._confirm_idle()

    def come_back(self) -> None:
        """Follow shares again after an earlier session."""
        if self._limited and self.current is None:
            self._set(_NO_SHARE)
        elif self._run is None:
            self._confirm_idle()
        else:
            self._send(self.build_usage())

    def leave(self) -> None:
        """Let the run use the whole machine."""
        self._set(None)

    def apply(self, grant: Grant) -> None:
        """Follow a grant."""
        if not self._limited or grant.number <= self.last_number:
            return  # a repeated grant only shows that `serve` lives
        self.last_number = grant.number
        memory_bytes = math.inf if grant.memory_bytes < 0 else grant.memory_bytes
        self._set(MachineShare(cores=grant.cores, memory_bytes=memory_bytes, number=grant.number))

    def confirm(self, usage: MachineUsage) -> None:
        """Send a demand, and forget shares older than the one that it follows."""
        self._usage = usage
        for number in [number for number in self._unconfirmed if number < usage.number]:
            del self._unconfirmed[number]
        self._send(self.build_usage())

    def build_usage(self) -> Usage:
        """Return the last demand."""
        usage = self._usage
        return Usage(
            number=usage.number,
            cores_held=usage.cores_held,
            cores_wanted=usage.cores_wanted,
            memory_held_bytes=usage.memory_held_bytes,
            memory_wanted_bytes=usage.memory_wanted_bytes,
        )

    def get_kept(self) -> tuple[float, float] | None:
        """Return the most cores and bytes that the run may use, since it may not have seen its last shares yet.

        None: there were no shares, or the run is alone by now.
        """
        if not self.last_number or self.current is None:
            return None
        shares = self._unconfirmed.values()
        memory_bytes = max((share.memory_bytes for share in shares), default=0.0)
        cores = max((share.cores for share in shares), default=0.0)
        return cores, UNLIMITED if math.isinf(memory_bytes) else memory_bytes

    def _confirm_idle(self) -> None:
        self.confirm(_build_idle_usage(self.last_number))

    def _set(self, share: MachineShare | None) -> None:
        self.current = share
        if share is None:
            self._unconfirmed.clear()
        else:
            self._unconfirmed[share.number] = share
            self._unconfirmed.pop(share.number - _MOST_UNCONFIRMED, None)
        if self._run is not None:
            self._run.set_share(share)
        elif share is not None:
            self._confirm_idle()


def _build_idle_usage(number: int) -> MachineUsage:
    return MachineUsage(number=number, cores_held=0.0, cores_wanted=0.0, memory_held_bytes=0, memory_wanted_bytes=0)
