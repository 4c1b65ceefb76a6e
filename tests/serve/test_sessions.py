"""Sessions and their shares, with a clock that stands still."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Collection

from paropt_exporter.serve.fair_shares import Machine
from paropt_exporter.serve.messages import PROTOCOL, Grant, Hello, Registration, Sample, State, Usage
from paropt_exporter.serve.registry import RegisteredProject
from paropt_exporter.serve.sessions import (
    SETTLE_SECONDS,
    SILENT_SECONDS,
    Session,
    Sessions,
    is_live_process,
    sum_shares,
)

NOW = 1000.0


class Runs:
    """Sessions on a machine of some cores, with their grants."""

    def __init__(self, cores: float = 2.0, *, awaited: Collection[int] = ()) -> None:
        self.ended: set[int] = set()  # process ids
        self.sessions = Sessions(
            lambda: Machine(cores), NOW, awaited=awaited, is_alive=lambda pid: pid not in self.ended
        )
        self.sent: dict[int, list[Grant]] = {}

    def add(
        self,
        *,
        pid: int = 1,
        limited: bool = True,
        share: tuple[float, float] | None = None,
        held: float = 0.0,
        last_number: int = 0,
    ) -> Session:
        registration = Registration(project=f"p{len(self.sent)}", root="/r", history="/r/history.db")
        hello = Hello(
            protocol=PROTOCOL, version="1", pid=pid, lane="standard", registration=registration, limited=limited,
            share=share, usage=Usage(cores_held=held, cores_wanted=held), last_number=last_number,
        )  # fmt: skip
        sent: list[Grant] = []
        session = self.sessions.add(hello, RegisteredProject(registration), sent.append, NOW)
        self.sent[session.key] = sent
        self.sessions.decide(NOW)
        return session

    def want(self, session: Session, wanted: float, *, held: float = 0.0, now: float = NOW) -> None:
        """Report a demand under the last grant."""
        number = self.sent[session.key][-1].number
        session.follow(Usage(number=number, cores_held=held, cores_wanted=wanted), now)
        self.sessions.decide(now)

    def share(self, session: Session) -> float:
        return self.sent[session.key][-1].cores


def test_run_gets_no_core_before_it_wants_one() -> None:
    runs = Runs()
    one = runs.add()
    assert runs.share(one) == 0.0
    runs.want(one, 5.0)
    assert runs.share(one) == 2.0


def test_core_is_passed_on_only_after_its_holder_confirmed() -> None:
    runs = Runs(cores=1.0)
    one, other = runs.add(), runs.add()
    runs.want(one, 1.0)
    one.follow(Usage(number=2, cores_held=0.0, cores_wanted=0.0), NOW)  # it has nothing to do any more
    runs.want(other, 1.0)
    assert (runs.share(one), runs.share(other)) == (0.0, 0.0)  # it may have begun a task before the message came
    runs.want(one, 0.0)
    assert runs.share(other) == 1.0


def test_stopped_run_keeps_only_the_cores_that_it_uses() -> None:
    runs = Runs(cores=1.0)
    one, other = runs.add(), runs.add()
    runs.want(one, 1.0)
    one.follow(Usage(number=2, cores_held=0.0, cores_wanted=0.0), NOW)
    later = NOW + SILENT_SECONDS + 1
    runs.want(other, 1.0, now=later)
    runs.sessions.decide(later)
    assert runs.share(other) == 1.0


def test_ended_run_leaves_its_cores() -> None:
    runs = Runs(cores=1.0)
    one, other = runs.add(), runs.add()
    runs.want(one, 1.0, held=0.0)
    runs.want(one, 1.0, held=1.0)
    runs.want(other, 1.0)
    assert runs.share(other) == 0.0
    runs.sessions.remove(one)
    runs.sessions.decide(NOW)
    assert runs.share(other) == 1.0


def test_runs_of_a_dead_serve_keep_their_shares_until_all_are_back() -> None:
    runs = Runs(cores=2.0, awaited=[7, 8])
    back = runs.add(pid=7, share=(1.0, 0.0), held=1.0)
    new = runs.add()
    runs.want(new, 2.0, now=NOW + 0.9 * SETTLE_SECONDS)  # a full machine may take long
    assert (runs.share(back), runs.share(new)) == (1.0, 0.0)
    last = runs.add(pid=8, share=(0.0, 0.0))
    assert (runs.share(new), runs.share(last)) == (1.0, 0.0)


def test_run_that_has_ended_is_not_awaited() -> None:
    runs = Runs(cores=2.0, awaited=[7])
    new = runs.add()
    runs.want(new, 2.0)
    assert runs.share(new) == 0.0
    runs.ended.add(7)
    runs.sessions.decide(NOW)
    assert runs.share(new) == 2.0


def test_run_that_never_comes_back_is_awaited_until_it_goes_on_alone() -> None:
    runs = Runs(cores=2.0, awaited=[7])
    new = runs.add()
    runs.want(new, 2.0, now=NOW + SETTLE_SECONDS - 0.1)
    assert runs.share(new) == 0.0
    runs.sessions.decide(NOW + SETTLE_SECONDS)
    assert runs.share(new) == 2.0


def test_process_that_has_ended_is_not_alive_before_it_is_reaped() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    sessions = Sessions(lambda: Machine(2.0), NOW, awaited=[child.pid])
    assert sessions.list_runs_with_shares(NOW) == {child.pid}
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert sessions.list_runs_with_shares(NOW) == set()
    child.wait()


def test_process_counts_as_alive_without_a_descriptor_to_read_its_state() -> None:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, most))
    try:
        assert is_live_process(os.getppid())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


def test_runs_of_a_dead_serve_count_until_they_are_back_or_given_up() -> None:
    runs = Runs(awaited=[7, 8])
    assert runs.sessions.list_runs_with_shares(NOW) == {7, 8}
    runs.add(pid=1)
    runs.add(pid=2, limited=False)
    runs.add(pid=7, share=(1.0, 0.0), held=1.0)
    assert runs.sessions.list_runs_with_shares(NOW) == {1, 7, 8}
    assert runs.sessions.list_runs_with_shares(NOW + SETTLE_SECONDS) == {1, 7}


def test_run_on_other_hosts_has_no_limit_and_takes_no_core() -> None:
    runs = Runs(cores=1.0)
    remote, one = runs.add(limited=False), runs.add()
    runs.want(one, 1.0)
    assert (runs.share(remote), runs.share(one)) == (-1.0, 1.0)


def test_waits_are_summed_by_project() -> None:
    runs = Runs(cores=1.0)
    one, other = runs.add(), runs.add()
    runs.want(one, 1.0)
    runs.want(one, 1.0, held=1.0)
    runs.want(other, 1.0)
    runs.sessions.decide(NOW + 5)
    assert sum_shares(runs.sessions.list_open(), runs.sessions.waits) == {"p1": {"p0": 1.0}}
    assert other.waiting_seconds == 5.0
    assert one.waiting_seconds == 0.0


def test_runs_that_have_just_ended_neither_wait_nor_hold() -> None:
    """A scrape may come before the decision that follows the end of a run."""
    runs = Runs(cores=1.0)
    one, other, last = runs.add(), runs.add(), runs.add()
    runs.want(one, 1.0)
    runs.want(one, 1.0, held=1.0)
    runs.want(other, 1.0)
    runs.want(last, 1.0)
    runs.sessions.remove(one)
    runs.sessions.remove(other)
    assert sum_shares(runs.sessions.list_open(), runs.sessions.waits) == {"p2": {}}


def test_demand_under_a_share_of_an_earlier_session_confirms_no_grant() -> None:
    runs = Runs()
    one = runs.add(share=(2.0, 100.0), held=1.0, last_number=17)
    assert [grant.number for grant in runs.sent[one.key]] == [18, 19]
    one.follow(Usage(number=17, cores_held=1.0, cores_wanted=1.0), NOW)
    assert one.demand_committed[0] == 2.0
    one.follow(Usage(number=19, cores_held=1.0, cores_wanted=1.0), NOW)
    assert one.demand_committed[0] == 1.0


def test_repeated_grant_has_the_same_number() -> None:
    runs = Runs()
    one = runs.add()
    one.repeat_grant()
    assert [grant.number for grant in runs.sent[one.key]] == [1, 1]


def test_changed_series_replace_and_ended_ones_go() -> None:
    session = Runs().add()
    first = Sample(family="paropt_pool_size", labels=("commands",), value=2.0)
    session.update_series(State(run_id="r", samples=(first,)))
    assert session.series == {("paropt_pool_size", ("commands",)): 2.0}
    ended = Sample(family="paropt_pool_size", labels=("commands",), value=None)
    session.update_series(State(run_id="r", samples=(ended,)))
    assert session.series == {}
