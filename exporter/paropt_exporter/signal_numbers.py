"""The module `signal` without its enumerations: numbers are plain integers. To define them takes 1 ms of each start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal  # noqa: PLC0414 -- for others
else:
    import _signal as signal  # noqa: F401


def name_signal(number: int) -> str:
    """Return the name of a signal, such as SIGTERM. Raises ValueError if none has this number."""
    from signal import Signals

    return Signals(number).name
