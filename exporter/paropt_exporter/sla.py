"""Compare one duration with its limit while the clock runs. Pure, so that it works with any clock."""

from __future__ import annotations

from paropt_exporter.events import SlaLimit


class Watch:
    """The limit of one stage or lane, from its start on.

    ```
    calm --warn_seconds--> warned --max_seconds--> broken
    ```
    Guarantees: `check` returns each step once and in this order, even if a single check passes both. At `next_deadline`
    it returns a step: otherwise rounding would make a timer fire again at the same moment.
    """

    def __init__(self, limit: SlaLimit, started_seconds: float) -> None:
        self.limit = limit
        self.started_seconds = started_seconds
        self.warned = False
        self.broken = False

    @property
    def next_deadline(self) -> float | None:
        """When the next step is due; None after the last one."""
        if self.broken:
            return None
        return self._max_moment if self.warned else self._warn_moment

    @property
    def _warn_moment(self) -> float:
        return self.started_seconds + self.limit.warn_seconds

    @property
    def _max_moment(self) -> float:
        return self.started_seconds + self.limit.max_seconds

    def check(self, now: float) -> tuple[bool, ...]:
        """Return the steps that are new at `now`: False is the warning, True the broken limit."""
        steps: list[bool] = []
        if not self.warned and now >= self._warn_moment:
            self.warned = True
            steps.append(False)
        if not self.broken and now >= self._max_moment:
            self.broken = True
            steps.append(True)
        return tuple(steps)
