"""The thread that sizes a lane while it runs. It loads the controller and its policies once the first tasks run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.engine.interfaces import Admission

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.controller import ControllablePools, ControllableRun, Controller

log = logging.getLogger(__name__)

TICK_SECONDS = 0.03  # lanes of a few seconds gain nothing from a shorter interval; a step costs about 0.1 ms
IDLE_TICK_SECONDS = 0.1  # while no task waits, and there is nothing to decide
_STEP_RATIO = 0.03  # of a core, at most, for all steps: with a thousand waiting stages a step takes milliseconds
# The same in advance. The first steps cost milliseconds each, and up to 14 ms on a busy machine; with pauses of half a
# second after them, a command that slept for a second could end before it was measured.
_ADVANCE_SECONDS = 0.05


class ControlThread:
    """Sizes one run from a thread of its own; `with ControlThread(...):` around the run.

        start: admission by earlier runs --a task runs--> make_controller() --each tick--> Controller.step()

    `cpu_demands`, `peak_bytes`: of a task in earlier runs, by stage, in cores and bytes. `make_controller` is called in
    the thread. An error ends only one step.
    """

    def __init__(
        self,
        run: ControllableRun,
        pools: ControllablePools,
        make_controller: Callable[[], Controller],
        *,
        control_state: ControlState,
        host: HostReadings,
        cpu_demands: Mapping[str, float],
        peak_bytes: Mapping[str, int],
    ) -> None:
        self._run = run
        self._pools = pools
        self._make_controller = make_controller
        self._control_state = control_state
        self._host = host
        self._cpu_demands = cpu_demands
        self._peak_bytes = peak_bytes
        self._controller: Controller | None = None
        self._has_failed = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_steps, name="paropt-control", daemon=True)

    def __enter__(self) -> ControlThread:
        start_admission(
            self._run,
            self._control_state,
            self._host,
            cpu_demands=self._cpu_demands,
            peak_bytes=self._peak_bytes,
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no threads left: the pools took the last ones
            log.warning("no thread to size the lane: its size stays", extra={"err": str(error)})
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        # The next run starts with the largest size that this one could use, not with the size that sufficed at its end.
        peak_size = self._controller.peak_size if self._controller is not None else 0
        self._control_state.set_recommended_sizes(self._pools.get_pool_sizes(peak_size or self._run.size))

    def _run_steps(self) -> None:
        controller, budget, has_waiting_tasks = None, StepBudget(time.monotonic()), True
        while not self._done.wait(budget.get_pause_seconds(has_waiting_tasks=has_waiting_tasks)):
            began = time.thread_time()
            try:
                if controller is None and self._has_begun():
                    controller = self._controller = self._make_controller()
                    began = time.thread_time()  # the modules load only once
                # the check is skipped while tasks wait, of which there may be a thousand
                if controller is not None and (has_waiting_tasks or not controller.is_quiet()):
                    controller.step()
            except Exception:  # the thread's boundary: if it ended, the lane would keep the last size and admission
                if not self._has_failed:
                    log.exception("a step of the controller failed; later failures are not logged")
                self._has_failed = True
            has_waiting_tasks = controller is None or controller.has_waiting_tasks
            budget.spend(time.thread_time() - began, time.monotonic())

    def _has_begun(self) -> bool:
        """Return whether a task has begun. If all stages are cached, none ever does."""
        demand = self._run.measure_demand()
        return bool(demand.running or demand.ended)


class StepBudget:
    """Spreads the CPU time of a lane's steps: `_STEP_RATIO` of a core over time, `_ADVANCE_SECONDS` of it at once."""

    def __init__(self, now: float) -> None:
        self._left_seconds = _ADVANCE_SECONDS
        self._at = now

    def spend(self, cpu_seconds: float, now: float) -> None:
        """Count a step that took `cpu_seconds` and has ended at the monotonic time `now`."""
        earned = _STEP_RATIO * (now - self._at)
        self._left_seconds = min(_ADVANCE_SECONDS, self._left_seconds + earned) - cpu_seconds
        self._at = now

    def get_pause_seconds(self, *, has_waiting_tasks: bool) -> float:
        """Return how long to wait for the next step."""
        return max(TICK_SECONDS if has_waiting_tasks else IDLE_TICK_SECONDS, -self._left_seconds / _STEP_RATIO)


def start_admission(
    run: ControllableRun,
    control_state: ControlState,
    host: HostReadings,
    *,
    cpu_demands: Mapping[str, float],
    peak_bytes: Mapping[str, int],
) -> None:
    """Admit tasks by the demands and peaks that earlier runs measured, until this run's first measurement."""
    if not control_state.allocates_cores:
        return
    # without a known peak no task could be refused, and the reading takes 0.1 ms
    available = host.memory_available_bytes() if peak_bytes else 0
    run.set_admission(
        Admission(
            cores=host.cores(),
            floor=control_state.size_bounds.floor,
            stages=cpu_demands,
            peak_bytes=peak_bytes,
            memory_bytes=available - host.memory_reserve_bytes() if available else None,
        )
    )
