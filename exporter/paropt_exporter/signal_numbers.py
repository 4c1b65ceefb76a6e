"""The module `signal` without its enumerations: numbers are plain integers. To define them takes 1 ms of each start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal  # noqa: PLC0414 -- for others
else:
    import _signal as signal


def name_signal(number: int) -> str:
    """Return the name of a signal, such as SIGTERM. Raises ValueError if none has this number.

    Of several names it returns the first, as `signal.Signals` does. It imports nothing: handlers of signals call it.
    """
    for name in dir(signal):
        if name.startswith("SIG") and not name.startswith("SIG_") and getattr(signal, name) == number:
            return name
    raise ValueError(f"no signal has the number {number}")
