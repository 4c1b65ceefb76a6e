"""A run follows its share of the machine, and reports its demand."""

from __future__ import annotations

from paropt_exporter.engine.interfaces import Admission, MachineShare, MachineUsage
from paropt_exporter.events import Strategy
from paropt_exporter.plan import Bounds
from paropt_exporter.testing import Script
from support.lanes import GIB, Bench, plan, stage

AUTO = Bounds(minimum=1, maximum=8, start=8)


def share(cores: float, *, memory_bytes: float = GIB, number: int = 1) -> MachineShare:
    return MachineShare(cores=cores, memory_bytes=memory_bytes, number=number)


class FakeLink:
    """The link to other runs: the share that this run begins with, and the demands that it has reported."""

    def __init__(self, granted: MachineShare | None) -> None:
        self.share = granted
        self.reported: list[MachineUsage] = []

    def report_usage(self, usage: MachineUsage) -> None:
        self.reported.append(usage)


def admission(**stages: float) -> Admission:
    return Admission(cores=8.0, floor=1, stages=stages)


def test_no_task_starts_before_there_is_a_core() -> None:
    bench = Bench(plan(stage("a", tasks=2), workers=2), {"a": [Script(seconds=10)]}, link=FakeLink(share(0.0)))
    bench.inbox.at(3.0, lambda: bench.engine.set_share(share(1.0, number=2)))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [3, 3]  # its size is fixed


def test_computing_tasks_keep_within_the_share() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=AUTO), {"a": [Script(seconds=10)]}, link=FakeLink(share(2.0)))
    bench.engine.set_admission(admission(a=1.0))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 0, 10, 10]


def test_smaller_share_interrupts_no_task_and_starts_none() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=AUTO), {"a": [Script(seconds=10)]}, link=FakeLink(share(2.0)))
    bench.engine.set_admission(admission(a=1.0))
    bench.inbox.at(2.0, lambda: bench.engine.set_share(share(0.0, number=2)))
    bench.inbox.at(25.0, lambda: bench.engine.set_share(share(2.0, number=3)))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 0, 25, 25]


def test_waiting_tasks_need_no_share() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=AUTO), {"a": [Script(seconds=10)]}, link=FakeLink(share(0.0)))
    bench.engine.set_admission(admission(a=0.01))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0] * 4


def test_task_that_wants_more_than_the_share_runs_as_the_only_one() -> None:
    bench = Bench(plan(stage("a", tasks=2), workers=AUTO), {"a": [Script(seconds=10)]}, link=FakeLink(share(1.0)))
    bench.engine.set_admission(admission(a=4.0))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 10]


def test_lost_share_lets_the_run_go_on_alone() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=AUTO), {"a": [Script(seconds=10)]}, link=FakeLink(share(0.0)))
    bench.engine.set_admission(admission(a=1.0))
    bench.inbox.at(5.0, lambda: bench.engine.set_share(None))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [5] * 4


def test_declared_memory_keeps_within_the_share() -> None:
    large = stage("a", tasks=2, memory_bytes=60)
    bench = Bench(plan(large, workers=4), {"a": [Script(seconds=10)]}, link=FakeLink(share(4.0, memory_bytes=100)))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 10]


def test_sequential_run_waits_for_its_core_too() -> None:
    bench = Bench(plan(stage("a"), strategy=Strategy.SEQUENTIAL), link=FakeLink(share(0.0)))
    bench.inbox.at(3.0, lambda: bench.engine.set_share(share(1.0)))
    bench.run()
    assert bench.starts == {"a": 3}


def test_usage_is_reported_with_each_change_and_the_share_that_it_follows() -> None:
    link = FakeLink(share(0.0))
    bench = Bench(plan(stage("a", tasks=3), workers=AUTO), {"a": [Script(seconds=10)]}, link=link, cores=4.0)
    bench.engine.set_admission(admission(a=1.0))
    bench.inbox.at(3.0, lambda: bench.engine.set_share(share(2.0, number=2)))
    bench.run()
    shown = [(usage.number, usage.cores_held, usage.cores_wanted) for usage in link.reported]
    assert shown == [(1, 0, 3), (2, 2, 3), (2, 2, 2), (2, 1, 1), (2, 0, 0)]


def test_half_a_core_of_a_quota_is_reported_as_a_core() -> None:
    link = FakeLink(share(1.0))
    bench = Bench(plan(stage("a", tasks=3), workers=AUTO), {"a": [Script(seconds=10)]}, link=link, cores=1.5)
    bench.engine.set_admission(admission(a=1.0))
    bench.run()
    assert max(usage.cores_wanted for usage in link.reported) == 2


def test_stage_that_a_lock_holds_back_wants_no_core() -> None:
    link = FakeLink(share(4.0))
    one, other = stage("a", locks=frozenset({"db"})), stage("b", locks=frozenset({"db"}))
    bench = Bench(plan(one, other, workers=AUTO), link=link, cores=4.0)
    bench.run()
    assert max(usage.cores_wanted for usage in link.reported) == 1.0


def test_waiting_memory_is_that_of_one_more_task() -> None:
    link = FakeLink(share(4.0, memory_bytes=60))
    large = stage("a", tasks=3, memory_bytes=60)
    bench = Bench(plan(large, workers=AUTO), link=link, cores=4.0)
    bench.run()
    assert (link.reported[0].memory_held_bytes, link.reported[0].memory_wanted_bytes) == (60, 120)
