"""How many tasks at once, by numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.control.policy import Load, Sizing, closed_size


def loads(*shares: float | None, pool: str = "commands") -> list[Load]:
    return [Load(pool=pool, stage="a", share=share) for share in shares]


def size(running: list[Load], waiting: list[Load], *, maximum: int = 32) -> Sizing:
    return closed_size(running, waiting, cores=2.0, minimum=1, maximum=maximum)


def test_unknown_work_starts_with_one_worker_a_core() -> None:
    assert size([], loads(*[None] * 5)) == Sizing(size=2, reason="cpu_limit")


def test_work_that_is_seen_to_wait_all_runs_at_once() -> None:
    assert size(loads(0.0, 0.01), loads(*[0.01] * 198), maximum=64) == Sizing(size=64, reason="bounds")
    assert size(loads(0.0, 0.0), loads(*[0.0] * 3)) == Sizing(size=5, reason="plan")


def test_burners_get_one_core_each() -> None:
    assert size(loads(1.0, 0.98), loads(1.0, 1.0)) == Sizing(size=2, reason="cpu_limit")


def test_half_waiting_work_gets_two_workers_a_core() -> None:
    assert size(loads(0.5, 0.5), loads(0.5, 0.5, 0.5)) == Sizing(size=4, reason="cpu_limit")


def test_a_saturated_machine_still_takes_work_that_only_waits() -> None:
    assert size(loads(1.0, 1.0), loads(0.02)) == Sizing(size=3, reason="plan")


def test_threads_that_share_one_core_between_them_do_not_grow_on_their_own_word() -> None:
    running = loads(0.3, 0.3, 0.3, pool="threads")
    assert size(running, loads(0.3, pool="threads")) == Sizing(size=3, reason="cpu_limit")


def test_nothing_to_run_leaves_the_minimum() -> None:
    assert closed_size([], [], cores=2, minimum=3, maximum=8).size == 3


_SHARES = st.lists(st.one_of(st.none(), st.floats(0, 4)), max_size=40)


@given(_SHARES, _SHARES, st.integers(1, 10), st.integers(0, 60), st.floats(0.1, 64))
def test_the_size_stays_in_bounds_and_never_above_the_tasks_there_are(
    running: list[float | None], waiting: list[float | None], minimum: int, room: int, cores: float
) -> None:
    maximum = minimum + room
    chosen = closed_size(loads(*running), loads(*waiting), cores=cores, minimum=minimum, maximum=maximum)
    assert minimum <= chosen.size <= maximum
    assert chosen.size <= max(minimum, len(running) + len(waiting))


@given(_SHARES, _SHARES, _SHARES, st.floats(0.1, 64))
def test_more_waiting_tasks_never_mean_fewer_workers(
    running: list[float | None], waiting: list[float | None], more: list[float | None], cores: float
) -> None:
    def chosen(tasks: list[float | None]) -> int:
        return closed_size(loads(*running), loads(*tasks), cores=cores, minimum=1, maximum=100).size

    assert chosen(waiting) <= chosen(waiting + more)
