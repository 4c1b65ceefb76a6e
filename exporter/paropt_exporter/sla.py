"""Watch one duration against its limit while the clock runs; pure, so that any clock will do."""

from __future__ import annotations

from paropt_exporter.events import SlaLimit


class Watch:
    """One stage's, or one lane's, limit from its start on.

    ```
    calm --warn_seconds--> warned --max_seconds--> broken
    ```
    Guarantees: each step is told once, in this order, also when one look at the clock passes both.
    """

    def __init__(self, limit: SlaLimit, started_seconds: float) -> None:
        self.limit = limit
        self.started_seconds = started_seconds
        self.warned = False
        self.broken = False

    @property
    def next_deadline(self) -> float | None:
        """The moment of the next step; None when nothing is left to happen."""
        if self.broken:
            return None
        return self.started_seconds + (self.limit.max_seconds if self.warned else self.limit.warn_seconds)

    def check(self, now: float) -> tuple[bool, ...]:
        """Return the steps that `now` reaches for the first time: False is the warning, True the broken limit."""
        elapsed = now - self.started_seconds
        steps: list[bool] = []
        if not self.warned and elapsed >= self.limit.warn_seconds:
            self.warned = True
            steps.append(False)
        if not self.broken and elapsed >= self.limit.max_seconds:
            self.broken = True
            steps.append(True)
        return tuple(steps)
