"""Tokens in the pipe, taken and put back as a client does it, and the spare slots of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.autoscaling.jobserver import Jobserver, require_make
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup
from paropt_exporter.autoscaling.policy.lane_size import LaneObservation, count_spare_slots
from paropt_exporter.errors import UsageError


@pytest.fixture
def server() -> Iterator[Jobserver]:
    server = Jobserver()
    yield server
    server.close()


class Client:
    """Opens the server by the path in MAKEFLAGS without blocking, so that an empty pipe shows."""

    def __init__(self, server: Jobserver) -> None:
        match = re.search(r"--jobserver-auth=fifo:(\S+)", server.build_environment({}, 4)["MAKEFLAGS"])
        assert match
        self.pipe = os.open(match[1], os.O_RDWR | os.O_NONBLOCK)

    def take(self, most: int = 100) -> int:
        try:
            return len(os.read(self.pipe, most))
        except BlockingIOError:
            return 0

    def put_back(self, count: int) -> None:
        os.write(self.pipe, b"+" * count)


@pytest.fixture
def client(server: Jobserver) -> Iterator[Client]:
    client = Client(server)
    yield client
    os.close(client.pipe)


def test_offer_puts_as_many_tokens_into_the_pipe(server: Jobserver, client: Client) -> None:
    assert client.take() == 0
    server.offer(2)
    server.offer(2)
    assert client.take() == 2
    server.offer(2)
    assert client.take() == 0, "the client holds the tokens"


def test_smaller_offer_removes_free_tokens_and_held_ones_once_they_return(server: Jobserver, client: Client) -> None:
    server.offer(5)
    assert client.take(3) == 3
    server.offer(1)
    assert client.take() == 0
    client.put_back(2)
    server.offer(1)
    client.put_back(1)
    server.offer(1)
    assert client.take() == 1


def test_larger_offer_adds_the_missing_tokens(server: Jobserver, client: Client) -> None:
    server.offer(1)
    assert client.take() == 1
    server.offer(3)
    assert client.take() == 2


def test_tokens_added_by_a_client_are_removed(server: Jobserver, client: Client) -> None:
    server.offer(1)
    client.put_back(5)
    server.offer(1)
    assert client.take() == 1


def test_reset_replaces_the_tokens_of_a_killed_client(server: Jobserver, client: Client) -> None:
    server.offer(3)
    assert client.take(2) == 2
    server.reset()
    assert client.take() == 0
    server.offer(3)
    assert client.take() == 3


@pytest.mark.parametrize(
    ("before", "kept", "definitions"),
    [
        ("", "", ""),
        ("-k --no-print-directory", "-k --no-print-directory ", ""),
        ("-j8 --jobserver-auth=3,4 -k", "-k ", ""),
        (" -j --jobserver-auth=fifo:/tmp/GMfifo12 -- CC=gcc", "", " -- CC=gcc"),
        ("k -- CC=gcc FLAGS=-a\\ -j4", "k ", " -- CC=gcc FLAGS=-a\\ -j4"),
        ("--jobserver-fds=3,4 -j", "", ""),
        ("kj --output-sync", "kj --output-sync ", ""),
    ],
)
def test_user_flags_stay_and_another_servers_flags_go(
    server: Jobserver, before: str, kept: str, definitions: str
) -> None:
    """Flags after the definitions of variables would be ignored."""
    flags = server.build_environment({"MAKEFLAGS": before}, 4)["MAKEFLAGS"]
    ours = rf"-j4 --jobserver-auth=fifo:/proc/{os.getpid()}/fd/\d+"
    assert re.fullmatch(re.escape(kept) + ours + re.escape(definitions), flags)


def observation(
    running: dict[float | None, int], waiting: dict[float | None, int], *, cores: float = 8.0
) -> LaneObservation:
    """A lane of tasks by their CPU demands."""

    def group(tasks: dict[float | None, int]) -> tuple[LoadGroup, ...]:
        return tuple(
            LoadGroup(load=Load(pool="commands", stage="a", cpu_demand=cpu_demand), count=count)
            for cpu_demand, count in tasks.items()
        )

    return LaneObservation(
        now=0.0,
        size=2,
        floor=1,
        ceiling=32,
        cores=cores,
        running=group(running),
        waiting=group(waiting),
    )


def test_cores_without_tasks_are_spare_slots() -> None:
    assert count_spare_slots(observation({1.0: 1}, {}), fixed=None) == 7
    assert count_spare_slots(observation({None: 2, 0.5: 1}, {}), fixed=None) == 5
    assert count_spare_slots(observation({4.0: 1}, {}, cores=2.5), fixed=None) == 2
    assert count_spare_slots(observation({4.0: 1}, {}, cores=2.4), fixed=None) == 1


def test_sleeping_tasks_leave_their_cores_to_jobs() -> None:
    assert count_spare_slots(observation({0.05: 5, 1.0: 1}, {}), fixed=None) == 7


def test_waiting_tasks_go_before_jobs() -> None:
    assert count_spare_slots(observation({1.0: 1}, {None: 3}), fixed=None) == 4
    assert count_spare_slots(observation({1.0: 1}, {1.0: 30}), fixed=None) == 0


def test_lane_without_a_running_task_has_no_spare_slots() -> None:
    """At its start a lane knows no tasks yet: make took the slots of those that started after it."""
    assert count_spare_slots(observation({}, {}), fixed=4) == 0
    assert count_spare_slots(observation({}, {}), fixed=None) == 0


def test_each_task_takes_one_of_the_fixed_slots() -> None:
    assert count_spare_slots(observation({0.0: 1}, {}, cores=2.0), fixed=4) == 3
    assert count_spare_slots(observation({0.0: 3}, {1.0: 3}, cores=2.0), fixed=4) == 0


def test_wide_task_takes_all_of_its_fixed_slots() -> None:
    wide = LoadGroup(load=Load(pool="commands", stage="a", cpu_demand=1.0, slots=3), count=1)
    assert count_spare_slots(replace(observation({}, {}), running=(wide,)), fixed=4) == 1


def refusal(folder: Path, version: str | None) -> str:
    """Return the refusal of a make that prints this version (None: there is no make); "" if it is accepted."""
    if version is not None:
        (folder / "make").write_text(f"#!/bin/sh\necho '{version}'\n")
        (folder / "make").chmod(0o755)
    try:
        require_make({"PATH": str(folder)})
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("version", ["4.3", "3.81"])
def test_make_before_4_4_is_refused(tmp_path: Path, version: str) -> None:
    said = refusal(tmp_path, f"GNU Make {version}")
    assert f"is GNU make {version}, which fails " in said
    assert ": put make 4.4 or later first on PATH" in said


@pytest.mark.parametrize("version", ["GNU Make 4.4", "GNU Make 5.0", "bmake", None])
def test_newer_make_another_make_and_no_make_are_accepted(tmp_path: Path, version: str | None) -> None:
    assert refusal(tmp_path, version) == ""
