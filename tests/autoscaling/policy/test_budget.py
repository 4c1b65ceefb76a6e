"""Several pools within one machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.autoscaling.policy.budget import Allowance, Budget, Claim, compute_allowance, divide_resources
from paropt_exporter.cpu_demand import count_task_cores


def claim(pool: str, wanted: int, **more: object) -> Claim:
    fields: dict[str, object] = {"floor": 1, "cpu_demand": 1.0, **more}
    return Claim(pool=pool, wanted=wanted, **fields)  # type: ignore[arg-type]  # each test names its own


def test_two_greedy_pools_share_the_cores_evenly() -> None:
    assert divide_resources([claim("a", 8), claim("b", 8)], cores=4.0, memory_bytes=0) == {"a": 2, "b": 2}


def test_weights_divide_scarce_cores() -> None:
    assert divide_resources([claim("a", 8, weight=3.0), claim("b", 8)], cores=8.0, memory_bytes=0) == {"a": 6, "b": 2}


def test_unwanted_cores_go_to_the_other_pool() -> None:
    assert divide_resources([claim("a", 1), claim("b", 8)], cores=4.0, memory_bytes=0) == {"a": 1, "b": 3}


def test_each_pool_gets_its_wanted_size_if_there_is_enough() -> None:
    claims = [claim("a", 2, memory_bytes=100), claim("b", 3, floor=2, cpu_demand=0.6)]
    assert divide_resources(claims, cores=3.8, memory_bytes=200) == {"a": 2, "b": 3}


def test_urgent_pool_goes_first() -> None:
    assert divide_resources([claim("a", 8), claim("b", 3, urgent=True)], cores=4.0, memory_bytes=0) == {"a": 1, "b": 3}


def test_workers_of_sleeping_tasks_are_always_granted() -> None:
    assert divide_resources([claim("a", 8), claim("b", 50, cpu_demand=0.01)], cores=2.0, memory_bytes=0)["b"] == 50


def test_memory_bounds_a_pool_too() -> None:
    assert divide_resources([claim("a", 50, cpu_demand=0.01, memory_bytes=100)], cores=2.0, memory_bytes=450) == {
        "a": 4
    }


def test_scarce_memory_is_divided_by_weight() -> None:
    claims = [
        claim("a", 50, cpu_demand=0.01, memory_bytes=100, weight=3.0),
        claim("b", 50, cpu_demand=0.01, memory_bytes=100),
    ]
    assert divide_resources(claims, cores=2.0, memory_bytes=800) == {"a": 6, "b": 2}


def test_urgent_pool_gets_its_memory_first() -> None:
    claims = [
        claim("a", 50, cpu_demand=0.01, memory_bytes=100),
        claim("b", 8, cpu_demand=0.01, memory_bytes=100, urgent=True),
    ]
    assert divide_resources(claims, cores=2.0, memory_bytes=1000) == {"a": 2, "b": 8}


def test_allowance_names_the_scarce_resource() -> None:
    claims = (claim("a", 50, memory_bytes=100), claim("b", 1, cpu_demand=0.0))
    assert compute_allowance(Budget(claims=claims, cores=4.0), "a", 1) == Allowance(size=4, reason="cpu_limit")
    assert compute_allowance(Budget(claims=claims, cores=4.0, memory_bytes=300), "a", 1) == Allowance(
        size=3, reason="memory_limit"
    )
    assert compute_allowance(Budget(claims=claims, cores=4.0, memory_bytes=300), "b", 1) == Allowance(
        size=1, reason="demand"
    )


def test_workers_stay_while_only_spare_memory_is_spent() -> None:
    budget = Budget(claims=(claim("a", 50, cpu_demand=0.0, memory_bytes=100),), memory_bytes=450, spare_bytes=200)
    assert [compute_allowance(budget, "a", size).size for size in (1, 4, 6, 9)] == [4, 4, 6, 6]


_CLAIMS = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 5), st.floats(0.0, 2.0), st.floats(0.1, 5.0)), min_size=1, max_size=6
)


@given(_CLAIMS, st.floats(0.5, 16.0))
def test_sizes_stay_between_floor_and_wanted(drawn: list[tuple[int, int, float, float]], cores: float) -> None:
    claims = [
        claim(str(place), wanted, floor=floor, cpu_demand=cpu_demand, weight=weight)
        for place, (wanted, floor, cpu_demand, weight) in enumerate(drawn)
    ]
    sizes = divide_resources(claims, cores=cores, memory_bytes=0)
    assert all(min(c.floor, c.wanted) <= sizes[c.pool] <= c.wanted for c in claims)
    floors = sum(c.cpu_demand * min(c.floor, c.wanted) for c in claims)
    computing = sum(c.cpu_demand * sizes[c.pool] for c in claims if c.cpu_demand >= 0.1)
    waiting = sum(c.cpu_demand * c.wanted for c in claims if c.cpu_demand < 0.1)
    assert computing <= max(count_task_cores(cores), floors) + 0.1 + waiting
