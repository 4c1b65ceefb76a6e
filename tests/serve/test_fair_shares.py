"""Shares of the cores and the memory of a host, decided by a pure function."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from paropt_exporter.cpu_demand import CORE_SLACK
from paropt_exporter.serve.fair_shares import (
    QUANTUM_SECONDS,
    Machine,
    RunDemand,
    Share,
    UsedTime,
    decide_shares,
    find_waits,
)

HISTORIES = 600  # of 26 faults in the decision the last one that shows needs six; 4,000 find no other
STEP_SECONDS = 0.25
LONGEST_TASK_STEPS = 8
_SLOW_STEPS = 12  # for messages and their confirmations


def demand(run: int, wanted: float, *, held: float = 0.0, used: float = 0.0, granted: float | None = None) -> RunDemand:
    share = held if granted is None else granted
    return RunDemand(run=run, held=held, wanted=wanted, committed=max(held, share), granted=share, used_seconds=used)


def cores(shares: Mapping[int, Share]) -> dict[int, float]:
    return {run: share.cores for run, share in shares.items()}


def test_unused_cores_go_to_runs_that_want_them() -> None:
    assert cores(decide_shares(Machine(8.0), [demand(1, 1.0), demand(2, 20.0)])) == {1: 1.0, 2: 7.0}


def test_equal_runs_get_equal_shares() -> None:
    assert cores(decide_shares(Machine(8.0), [demand(1, 9.0), demand(2, 9.0)])) == {1: 4.0, 2: 4.0}


def test_no_run_gets_a_second_core_before_each_has_one() -> None:
    assert cores(decide_shares(Machine(3.0), [demand(1, 9.0), demand(2, 9.0)])) == {1: 2.0, 2: 1.0}


def test_core_moves_only_once_its_task_has_ended() -> None:
    holds, waits = demand(1, 3.0, held=2.0, used=100.0), demand(2, 1.0)
    assert cores(decide_shares(Machine(2.0), [holds, waits])) == {1: 1.0, 2: 0.0}
    ended = demand(1, 3.0, held=1.0, granted=1.0, used=100.0)
    assert cores(decide_shares(Machine(2.0), [ended, waits])) == {1: 1.0, 2: 1.0}


def test_remainder_of_a_core_starts_no_task() -> None:
    """Two tasks of 0.99 cores leave 0.02: a run that got these could start a task that computes."""
    holds = demand(1, 1.98, held=1.98)
    assert cores(decide_shares(Machine(2.0), [holds, demand(2, 1.0)]))[2] == 0.0


def test_task_that_is_measured_a_little_above_its_core_blocks_no_other_core() -> None:
    holds = demand(1, 1.03, held=1.03)
    assert cores(decide_shares(Machine(2.0), [holds, demand(2, 1.0)]))[2] == 0.97


def test_half_a_core_is_used() -> None:
    assert cores(decide_shares(Machine(1.5), [demand(1, 1.0), demand(2, 1.0)])) == {1: 1.0, 2: 0.5}
    assert cores(decide_shares(Machine(0.5), [demand(1, 1.0), demand(2, 1.0)])) == {1: 0.5, 2: 0.0}
    assert cores(decide_shares(Machine(1.4), [demand(1, 1.0), demand(2, 1.0)])) == {1: 1.0, 2: 0.0}


def test_run_keeps_its_core_for_a_quantum() -> None:
    new = demand(2, 1.0)
    within = demand(1, 1.0, held=1.0, used=QUANTUM_SECONDS / 2)
    assert cores(decide_shares(Machine(1.0), [within, new]))[1] == 1.0
    beyond = demand(1, 1.0, held=1.0, used=QUANTUM_SECONDS * 1.5)
    assert cores(decide_shares(Machine(1.0), [beyond, new]))[1] == 0.0


def test_fixed_size_beyond_the_machine_leaves_others_nothing() -> None:
    assert cores(decide_shares(Machine(2.0), [demand(1, 8.0, held=8.0), demand(2, 1.0)]))[2] == 0.0


def test_fixed_size_starts_no_task_while_another_run_has_no_core() -> None:
    waits = demand(2, 1.0)
    assert cores(decide_shares(Machine(2.0), [demand(1, 4.0, held=4.0, granted=2.0), waits])) == {1: 0.0, 2: 0.0}
    assert cores(decide_shares(Machine(2.0), [demand(1, 4.0, held=2.0, granted=0.0), waits])) == {1: 0.0, 2: 0.0}
    assert cores(decide_shares(Machine(2.0), [demand(1, 4.0, held=1.0, granted=0.0), waits])) == {1: 1.0, 2: 1.0}
    runs = demand(2, 1.0, held=1.0)
    assert cores(decide_shares(Machine(2.0), [demand(1, 4.0, held=4.0, granted=1.0), runs])) == {1: 1.0, 2: 1.0}


def test_memory_of_the_longest_waiting_run_is_reserved() -> None:
    holds = RunDemand(run=1, held=1, wanted=2, committed=1, granted=1, used_seconds=9, memory_held_bytes=60,
                      memory_wanted_bytes=80, memory_committed_bytes=60)  # fmt: skip
    large = RunDemand(run=2, wanted=1, memory_wanted_bytes=50)
    small = RunDemand(run=3, wanted=1, used_seconds=1, memory_wanted_bytes=20)
    shares = decide_shares(Machine(4.0, 100.0), [holds, large, small])
    assert (shares[2], shares[3].cores) == (Share(0.0, 0.0), 0.0)
    assert decide_shares(Machine(4.0, 100.0), [holds])[1] == Share(2.0, 80)
    ended = RunDemand(run=1, wanted=1, used_seconds=9, memory_wanted_bytes=20)
    shares = decide_shares(Machine(4.0, 100.0), [ended, large, small])
    assert {run: share.memory_bytes for run, share in shares.items()} == {1: 20, 2: 50, 3: 20}


def test_task_larger_than_the_memory_runs_alone() -> None:
    huge, other = RunDemand(run=1, wanted=1, memory_wanted_bytes=500), RunDemand(run=2, wanted=1, used_seconds=1)
    shares = decide_shares(Machine(4.0, 100.0), [huge, other])
    assert shares[1] == Share(1.0, 500)
    beside = RunDemand(run=2, held=1, wanted=1, committed=1, granted=1, memory_held_bytes=10, memory_committed_bytes=10)
    assert decide_shares(Machine(4.0, 100.0), [huge, beside])[1] == Share(0.0, 0.0)


def test_waits_name_the_holders() -> None:
    runs = [demand(1, 1.0, held=1.0), demand(2, 1.0, held=1.0), demand(3, 2.0)]
    (wait,) = find_waits(runs, {1: Share(1, 0), 2: Share(1, 0), 3: Share(0, 0)})
    assert (wait.run, wait.holders) == (3, {1: 1.0, 2: 1.0})
    (wait,) = find_waits([demand(1, 3.0, held=2.0), demand(2, 1.0, held=1.0)], {1: Share(2, 0), 2: Share(1, 0)})
    assert (wait.run, wait.holders) == (1, {2: 1.0}), "no run waits for itself"


def test_waits_of_thousands_of_runs_take_no_second() -> None:
    runs = [demand(1, 2.0, held=2.0), *(demand(number, 1.0) for number in range(2, 5000))]
    began = time.thread_time()
    waits = find_waits(runs, {run.run: Share(run.held, 0) for run in runs})
    assert time.thread_time() - began < 0.5  # each looked at all others before: 25 million steps
    assert len(waits) == 4998


def test_new_run_starts_level_with_the_least_served() -> None:
    used = UsedTime()
    used.set_active([1, 2])
    used.advance(10.0, {1: 1.0, 2: 0.5})
    used.set_active([1, 2, 3])
    assert used.get(3) == 5.0


def test_pause_gives_no_credit() -> None:
    used = UsedTime()
    used.set_active([1, 2])
    used.set_active([1])
    used.advance(100.0, {1: 1.0})
    used.set_active([1, 2])
    assert used.get(2) == 100.0


def test_run_does_not_pay_for_a_time_without_others() -> None:
    used = UsedTime()
    used.set_active([1])
    used.advance(1000.0, {1: 4.0})
    used.set_active([])
    used.set_active([2])
    used.advance(10.0, {2: 1.0})
    used.set_active([1, 2])
    assert used.get(1) == used.get(2)


class _Run:
    """A run of a random history: it follows a share after a delay, and its tasks take whole steps.

    `size`: the demand of each task, in cores.
    """

    def __init__(self, key: int, chance: random.Random, *, size: float = 1.0) -> None:
        self.key, self.chance, self.size = key, chance, size
        self.tasks: list[int] = []  # the steps that are left of each running task
        self.waiting = chance.randint(0, 12)
        self.followed = 0.0
        self.sent: list[float] = [0.0]  # unconfirmed shares, the followed one first
        self.waited_steps = 0

    @property
    def held(self) -> float:
        return len(self.tasks) * self.size

    def build_demand(self, used_seconds: float) -> RunDemand:
        held = self.held
        return RunDemand(
            run=self.key,
            held=held,
            wanted=held + self.waiting * self.size,
            committed=max(held, *self.sent),
            granted=self.sent[-1],
            used_seconds=used_seconds,
        )

    def take(self, share: float) -> None:
        if self.sent[-1] != share:
            self.sent.append(share)

    def step(self) -> None:
        self.tasks = [left - 1 for left in self.tasks if left > 1]
        if self.chance.random() < 0.8:  # confirms all that it was sent; otherwise its messages take a while
            self.sent = self.sent[-1:]
            self.followed = self.sent[0]
        # As in `engine/resources`: on any share, its only task may want more.
        while (
            self.waiting and self.followed and (not self.tasks or self.held + self.size <= self.followed + CORE_SLACK)
        ):
            self.waiting -= 1
            self.tasks.append(self.chance.randint(1, LONGEST_TASK_STEPS))
        if self.chance.random() < 0.05:
            self.waiting += self.chance.randint(1, 10)


def test_random_histories_keep_within_the_machine_and_leave_no_core_idle() -> None:
    for number in range(100, HISTORIES):  # those before begin as the longer ones below
        _check_history(random.Random(number), steps=30)


def test_no_run_of_a_random_history_waits_beyond_its_turn() -> None:
    """Each other run may use a quantum, end its last tasks, and be slow to confirm; then it is this one's turn."""
    for number in range(100):
        _check_history(random.Random(number), steps=400)


def test_parts_of_a_core_exceed_the_machine_by_half_a_core_at_most() -> None:
    """Another half would be idle."""
    worst = 0.0
    for number in range(300):
        chance = random.Random(number)
        machine, used = Machine(float(chance.randint(1, 4))), UsedTime()
        runs = [_Run(key, chance, size=chance.choice((0.5, 1.0))) for key in range(chance.randint(2, 6))]
        for _ in range(60):
            used.set_active([run.key for run in runs if run.tasks or run.waiting])
            for key, share in decide_shares(machine, [run.build_demand(used.get(run.key)) for run in runs]).items():
                runs[key].take(share.cores)
            for run in runs:
                run.step()
            held = {run.key: run.held for run in runs if run.held}
            used.advance(STEP_SECONDS, held)
            worst = max(worst, sum(held.values()) - machine.cores)
    assert worst == 0.5


def _check_history(chance: random.Random, *, steps: int) -> None:
    count, machine = chance.randint(1, 6), Machine(float(chance.randint(1, 4)))
    runs, used = [_Run(key, chance) for key in range(count)], UsedTime()
    turn_steps = QUANTUM_SECONDS / STEP_SECONDS + LONGEST_TASK_STEPS + _SLOW_STEPS
    for _ in range(steps):
        active = {run.key: run.held for run in runs if run.tasks or run.waiting}
        used.set_active(active)
        demands = [run.build_demand(used.get(run.key)) for run in runs]
        shares = decide_shares(machine, demands)
        assert sum(max(each.committed, shares[each.run].cores) for each in demands) <= machine.cores + 1e-6
        if all(each.committed == max(each.held, each.granted) for each in demands):  # all is confirmed
            taken = sum(max(each.held, each.granted, shares[each.run].cores) for each in demands)
            assert taken >= min(machine.cores, sum(each.wanted for each in demands)) - 1e-6
        for run in runs:
            run.take(shares[run.key].cores)
            run.step()
            run.waited_steps = run.waited_steps + 1 if run.waiting and not run.tasks else 0
            assert run.waited_steps <= count * turn_steps
        used.advance(STEP_SECONDS, active)
