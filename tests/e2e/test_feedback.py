"""A real lane sized by query results of a real Prometheus and a real VictoriaMetrics, and by a broken server."""

from __future__ import annotations

import math
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from paropt_exporter.autoscaling.feedback import build_past_durations_query, build_past_size_query
from support.real_servers import Prometheus, eventually, free_port, get, prometheus, run, serving, victoria_metrics
from support.signal_server import SignalServer, signal_server

SERVERS: dict[str, tuple[Callable[[Path, Sequence[str]], AbstractContextManager[Prometheus]], str]] = {
    "prometheus": (prometheus, "/-/ready"),
    "victoria_metrics": (victoria_metrics, "/health"),
}
SIGNALS = """
project: signals
lanes: {{standard: {{workers: {{min: 1, max: 16, start: 2}}}}}}
stages: [{{number: 1, name: quick, run: "true"}}]
feedback:
  prometheus: {{url: "{url}", timeout: 1s}}
  interval: 500ms
  window: 2s
  stabilization: 2s
  signals:
    broker: {{query: sum(broker_messages), use: load, target: 20}}
    database: {{query: database_busy_ratio, use: limit, target: 0.8}}
"""
# Two waiting tasks, then thirty: more than ten times the load.
ALONE = """
project: alone
lanes: {{standard: {{workers: {{min: 1, max: 40, start: 2}}}}}}
stages:
  - {{number: 1, name: few, run: "sleep {{item}}", items: {{list: ["4", "4.1"]}}}}
  - {{number: 2, name: many, run: "sleep 9{{item}}", items: {{command: "seq -f .%02g 30"}}, needs: [few]}}
feedback:
  prometheus: {{url: "{url}", timeout: 1s}}
  source: prometheus
  interval: 500ms
  window: 2s
"""


@dataclass
class World:
    """A server that scrapes two lanes, and the file behind the signals."""

    server: Prometheus
    ready: str
    signals: SignalServer
    ports: tuple[int, int]
    folder: Path


class Page:
    """An exporter's own page, read without the server."""

    def __init__(self, port: int) -> None:
        self._port = port

    def answers(self) -> bool:
        try:
            return get(f"http://127.0.0.1:{self._port}/metrics")[0] == 200
        except OSError:
            return False

    def value(self, name: str, **labels: str) -> float:
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in get(f"http://127.0.0.1:{self._port}/metrics")[1].splitlines():
            found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
            if found and found[1] == name and wanted <= set(found[2].split(",")):
                return float(found[3])
        return math.nan  # not there yet: equal to no value

    def band(self) -> tuple[float, float]:
        return self.value("paropt_control_floor"), self.value("paropt_control_ceiling")

    def held(self, reason: str) -> float:
        return self.value("paropt_control_decisions_total", action="hold", reason=reason)


of_both = pytest.mark.parametrize("world", SERVERS, indirect=True, scope="module")
of_prometheus = pytest.mark.parametrize("world", ["prometheus"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    make, ready = SERVERS[request.param]
    folder, ports = tmp_path_factory.mktemp(request.param), (free_port(), free_port())
    with ExitStack() as stack:
        signals = stack.enter_context(signal_server(broker_messages=60.0, database_busy_ratio=0.5))
        targets = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", signals.address]
        server = stack.enter_context(make(folder / "server", targets))
        yield World(server, ready, signals, ports, folder)


@pytest.fixture(scope="module")
def steered(world: World) -> Iterator[Page]:
    """A lane that runs each second, sized by signals."""
    folder = world.folder / "signals"
    folder.mkdir()
    (folder / "paropt.yml").write_text(SIGNALS.format(url=world.server.url))
    with serving(folder, f"--web.listen-address=127.0.0.1:{world.ports[0]}", "--every", "1s") as command:
        assert "standard succeeded" in command.summary(), (folder / "stderr.log").read_text()
        yield Page(world.ports[0])


@of_both
def test_tripled_load_signal_raises_the_floor_and_its_end_lowers_it(world: World, steered: Page) -> None:
    eventually("60 messages are worth 3 workers", lambda: steered.value("paropt_control_floor") == 3)
    world.signals.values["broker_messages"] = 180.0
    eventually("180 messages are worth 9 workers", lambda: steered.value("paropt_control_floor") == 9)
    world.signals.values["broker_messages"] = 10.0
    eventually("10 messages are worth 1 worker", lambda: steered.value("paropt_control_floor") == 1)


@of_prometheus
def test_limit_signal_over_its_target_lowers_the_ceiling(world: World, steered: Page) -> None:
    assert steered.value("paropt_control_ceiling") == 16
    world.signals.values["database_busy_ratio"] = 1.6
    eventually("the ceiling is down", lambda: steered.value("paropt_control_ceiling") <= 8)
    world.signals.values["database_busy_ratio"] = 0.2
    eventually("the ceiling is back", lambda: steered.value("paropt_control_ceiling") == 16)


@of_prometheus
def test_lost_signal_changes_nothing_and_is_named(world: World, steered: Page) -> None:
    world.signals.values["broker_messages"] = 100.0
    eventually("100 messages are worth 5 workers", lambda: steered.value("paropt_control_floor") == 5)
    before = steered.held("no_data")
    del world.signals.values["broker_messages"]
    eventually("the empty answer is named", lambda: steered.held("no_data") >= before + 2)
    assert steered.value("paropt_control_floor") == 5
    world.signals.values["broker_messages"] = 140.0
    eventually("the signal is believed again", lambda: steered.value("paropt_control_floor") == 7)


@of_prometheus
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_broken_server_changes_nothing_and_is_queried_again(
    world: World, steered: Page, number: signal.Signals
) -> None:
    world.signals.values["broker_messages"] = 140.0
    eventually("140 messages are worth 7 workers", lambda: steered.value("paropt_control_floor") == 7)
    bounds, held = steered.band(), steered.held("query_failed")
    world.server.signal(number)
    runs = steered.value("paropt_runs_total", result="success")
    eventually("the failed query is named", lambda: steered.held("query_failed") >= held + 2)
    assert steered.band() == bounds
    eventually("the lane runs on", lambda: steered.value("paropt_runs_total", result="success") >= runs + 2)
    world.signals.values["broker_messages"] = 200.0
    if number == signal.SIGSTOP:
        world.server.signal(signal.SIGCONT)
    else:
        world.server.start(world.ready)
    eventually("the floor follows again", lambda: steered.value("paropt_control_floor") == 10)


@of_both
def test_query_results_follow_a_step_and_hold_when_they_cease(
    world: World,
) -> None:
    folder, page = world.folder / "alone", Page(world.ports[1])
    folder.mkdir()
    (folder / "paropt.yml").write_text(ALONE.format(url=world.server.url))
    with serving(folder, f"--web.listen-address=127.0.0.1:{world.ports[1]}", "--every", "1h") as command:
        eventually("the page is there", page.answers)
        eventually("ten times the workers", lambda: page.value("paropt_pool_size_target") >= 20)
        size = page.value("paropt_control_recommended_size")
        assert page.value("paropt_control_decisions_total", action="down", reason="demand") == 0
        world.server.signal(signal.SIGSTOP)
        eventually("the loop is blind", lambda: page.value("paropt_control_blind") == 1)
        assert page.value("paropt_control_recommended_size") == size
        assert "standard succeeded" in command.summary(), (folder / "stderr.log").read_text()
        world.server.signal(signal.SIGCONT)
        eventually("it sees again", lambda: page.value("paropt_control_blind") == 0)


PAST = """
project: past
lanes: {{standard: {{workers: {{min: 1, max: {most}}}}}}}
stages:
  - {{number: 1, name: short, run: sleep 0.4}}
  - {{number: 2, name: middle, run: sleep 0.7}}
  - {{number: 3, name: long, run: "sleep 1.{{item}}", items: {{list: ["1", "2", "3", "4", "5"]}}}}
feedback: {{prometheus: {{url: "{url}"}}}}
"""


@of_prometheus
def test_lane_without_a_history_starts_with_the_weeks_size(world: World) -> None:
    for name in ("first", "second"):
        (world.folder / name).mkdir()
    first, second = world.folder / "first", world.folder / "second"
    (first / "paropt.yml").write_text(PAST.format(url=world.server.url, most=16))
    with serving(first, f"--web.listen-address=127.0.0.1:{world.ports[1]}", "--every", "1h") as command:
        assert "standard succeeded" in command.summary(), (first / "stderr.log").read_text()
        asked = build_past_size_query("past", "standard")
        eventually("the week knows a size", lambda: world.server.by("pool", asked).get("commands", 0) > 2)
        size = round(world.server.value(asked))
        durations = build_past_durations_query("past", "standard")
        eventually("the week knows each stage", lambda: len(world.server.by("stage", durations)) == 3)
    # One worker at a time shows the order; the maximum shows the size.
    (second / "paropt.yml").write_text(PAST.format(url=world.server.url, most=1))
    assert run(second, "--once", "--web.listen-address=127.0.0.1:0").returncode == 0
    with closing(sqlite3.connect(second / ".paropt/history.db")) as history:
        order = [stage for (stage,) in history.execute("SELECT stage FROM stages ORDER BY started_ts")]
    assert order == ["long", "middle", "short"]
    (second / "paropt.yml").write_text(PAST.format(url=world.server.url, most=16))
    (second / ".paropt/history.db").unlink()
    again = run(second, "--once", "--web.listen-address=127.0.0.1:0")
    assert re.search(rf"^  pools +commands {size} ", again.stdout, re.MULTILINE), again.stdout + again.stderr
