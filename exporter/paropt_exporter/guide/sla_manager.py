"""The guide's SLA targets, and checks of stages' durations against them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from paropt_exporter.guide.pool_metrics import WorkerPoolMetrics, group_executions

STAGES = range(2, 7)  # the guide's stages
DEFAULT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class SLATarget:
    """The limit on a stage's duration; at `warning_threshold` (a ratio) of it there is a warning."""

    stage_number: int
    max_duration_seconds: float = DEFAULT_SECONDS
    critical: bool = False
    warning_threshold: float = 0.8

    def __post_init__(self) -> None:
        try:
            good = math.isfinite(self.max_duration_seconds) and self.max_duration_seconds > 0
        except TypeError:  # such as "30s", which paropt.yml may have
            expected = "expected a number of seconds"
            raise TypeError(f"max_duration_seconds is {self.max_duration_seconds!r}: {expected}") from None
        if not good:
            raise ValueError(f"max_duration_seconds is {self.max_duration_seconds!r}: expected a number over 0")
        if not 0 < self.warning_threshold <= 1:
            raise ValueError(f"warning_threshold is {self.warning_threshold!r}: expected a ratio over 0, at most 1")

    @property
    def warning_seconds(self) -> float:
        """The duration from which a stage is warned about."""
        return self.max_duration_seconds * self.warning_threshold

    def check(self, seconds: float) -> tuple[bool, str]:
        """Return whether a duration keeps the limit, and a sentence that also says if the warning was reached."""
        if math.isnan(seconds) or seconds < 0:
            raise ValueError(f"a duration of {seconds!r} s: expected a number from 0 on")
        subject = f"stage {self.stage_number} took {seconds:.1f} s"
        limit = f"its {'critical ' if self.critical else ''}limit of {self.max_duration_seconds:g} s"
        if seconds > self.max_duration_seconds:
            return False, f"{subject}: over {limit}"
        if self.warns(seconds):
            return True, f"{subject}: past {self.warning_threshold:.0%} of {limit}"
        return True, f"{subject}: within {limit}"

    def warns(self, seconds: float) -> bool:
        """Return whether a duration has reached the warning or the limit."""
        return seconds >= self.warning_seconds


class ParallelizationSLAManager:
    """Checks durations against targets and lists the exceeded ones.

    `violations` has the exceeded critical limits, which should block the workflow. `warnings` has other exceeded limits
    and durations past their warning. An execution of a stage is listed once, however often it is checked.
    """

    def __init__(self, slas: Mapping[int, SLATarget] | None = None) -> None:
        """`slas` has targets by stage number. Raises TypeError for anything else."""
        if slas is None:
            slas = {number: SLATarget(stage_number=number) for number in STAGES}
        if not isinstance(slas, Mapping):
            raise TypeError(f"slas is a {type(slas).__name__}: expected a mapping such as {{2: SLATarget(2)}}")
        for number, target in slas.items():
            if not isinstance(target, SLATarget):  # such as the seconds of the guide's `sla_targets`
                raise TypeError(f"slas[{number!r}] is {target!r}: expected a target such as SLATarget({number!r}, 30)")
        self.slas: dict[int, SLATarget] = dict(slas)
        self.violations: list[str] = []
        self.warnings: list[str] = []
        self._listed: dict[tuple[object, ...], str] = {}

    def check_stage_sla(self, stage_number: int, duration_seconds: float) -> bool:
        """Return whether the duration keeps the stage's limit; True without a limit."""
        return self._check(stage_number, duration_seconds, ("duration", stage_number, duration_seconds))

    def check_all_stages(self, metrics: WorkerPoolMetrics) -> bool:
        """Return whether all stages keep their limits. Tasks of one number count as one stage."""
        kept = [
            self._check(stage.number, stage.duration_seconds, stage.key, f" ({stage.name})")
            for stage in group_executions(metrics.stage_metrics)
        ]
        return all(kept)

    def update_sla(self, stage_number: int, max_duration_seconds: float, critical: bool = False) -> None:
        """Change a stage's limit without changing its warning threshold."""
        old = self.slas.get(stage_number, SLATarget(stage_number=stage_number))
        self.slas[stage_number] = replace(old, max_duration_seconds=max_duration_seconds, critical=critical)

    def _check(self, number: int, seconds: float, key: tuple[object, ...], name: str = "") -> bool:
        target = self.slas.get(number)
        if target is None:
            return True
        kept, sentence = target.check(seconds)
        if not kept or target.warns(seconds):
            sentence = sentence.replace(" took", f"{name} took", 1)
            self._add_once(self.violations if target.critical and not kept else self.warnings, (kept, *key), sentence)
        return kept

    def _add_once(self, found: list[str], key: tuple[object, ...], sentence: str) -> None:
        # After a caller has cleared the list, an execution is listed again.
        if self._listed.get(key) not in found:
            self._listed[key] = sentence
            found.append(sentence)
