"""The shares of a process: which one its run follows, and which ones `serve` must assume that it may follow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from msgspec.structs import replace

from paropt_exporter.engine.interfaces import MachineShare, MachineUsage
from paropt_exporter.serve.messages import UNLIMITED, Grant, Usage
from paropt_exporter.serve.run_shares import RunShares


@dataclass
class FakeRun:
    """A run that keeps the shares that it got."""

    run_id: str = "run"
    taken: list[MachineShare | None] = field(default_factory=list)

    def set_share(self, share: MachineShare | None) -> None:
        self.taken.append(share)


def make_shares(*, limited: bool = True) -> tuple[RunShares, FakeRun, list[Usage]]:
    """Return the shares of a process with a run, and the demands that are sent from now on."""
    sent: list[Usage] = []
    shares, run = RunShares(limited=limited, send=sent.append), FakeRun()
    shares.begin_run(run)
    return shares, run, sent


def grant(number: int, cores: float, memory_bytes: float = 100.0) -> Grant:
    return Grant(number=number, cores=cores, memory_bytes=memory_bytes)


USAGE = MachineUsage(number=0, cores_held=1.0, cores_wanted=3.0, memory_held_bytes=5, memory_wanted_bytes=7)


def test_demand_names_the_grant_of_the_share_that_the_run_follows() -> None:
    shares, run, sent = make_shares()
    shares.apply(grant(17, cores=2.0))
    share = run.taken[-1]
    assert share is not None and sent == []
    shares.confirm(replace(USAGE, number=share.number))
    assert sent == [Usage(number=17, cores_held=1.0, cores_wanted=3.0, memory_held_bytes=5, memory_wanted_bytes=7)]


def test_repeated_grant_changes_nothing() -> None:
    shares, run, _ = make_shares()
    shares.apply(grant(17, cores=2.0))
    count = len(run.taken)
    shares.apply(grant(17, cores=2.0))
    assert len(run.taken) == count


def test_run_on_other_hosts_follows_no_grant() -> None:
    shares, run, _ = make_shares(limited=False)
    shares.apply(grant(17, cores=2.0))
    assert run.taken == [None]


def test_next_session_gets_the_most_that_the_run_may_use() -> None:
    shares, _, _ = make_shares()
    assert shares.get_kept() is None
    for number, cores, memory_bytes in ((1, 4.0, 10.0), (2, 2.0, UNLIMITED), (3, 1.0, 30.0)):
        shares.apply(grant(number, cores, memory_bytes))
    assert shares.get_kept() == (4.0, UNLIMITED)
    shares.confirm(replace(USAGE, number=3))
    assert shares.get_kept() == (1.0, 30.0)


def test_next_session_gets_nothing_once_the_run_is_alone() -> None:
    shares, run, _ = make_shares()
    shares.apply(grant(1, cores=4.0))
    shares.leave()
    assert (shares.get_kept(), run.taken[-1]) == (None, None)


def test_run_confirms_a_grant_of_the_next_session_once_it_follows_that() -> None:
    shares, run, sent = make_shares()
    shares.apply(grant(17, cores=2.0))
    shares.confirm(replace(USAGE, number=17))
    shares.come_back()
    shares.apply(grant(18, cores=1.0))
    assert run.taken[-1] == MachineShare(cores=1.0, memory_bytes=100.0, number=18)
    assert [each.number for each in sent] == [17, 17]
    assert shares.last_number == 18


def test_share_is_confirmed_at_once_between_two_runs() -> None:
    shares, _, sent = make_shares()
    shares.end_run()
    shares.apply(grant(17, cores=2.0, memory_bytes=UNLIMITED))
    assert sent[-1] == Usage(number=17)
    assert shares.current == MachineShare(cores=2.0, memory_bytes=math.inf, number=17)


def test_lone_run_waits_for_a_share_once_serve_is_back() -> None:
    shares, run, _ = make_shares()
    shares.leave()
    shares.come_back()
    assert run.taken[-1] == MachineShare(cores=0.0, memory_bytes=0.0)


def test_idle_process_confirms_that_it_uses_nothing_once_serve_is_back() -> None:
    shares, _, sent = make_shares()
    assert shares.run_id == "run"
    shares.confirm(USAGE)
    shares.end_run()
    shares.come_back()
    assert (shares.run_id, sent[-1]) == ("", Usage())
