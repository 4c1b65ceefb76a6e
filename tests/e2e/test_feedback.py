"""Query results of a real Prometheus set floor and ceiling of a real lane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from real_servers import Prometheus, eventually, free_port, get, prometheus, serving
from signal_server import SignalServer, signal_server

CONFIG = """
project: demo
lanes:
  standard: {{workers: {{min: 1, max: 16, start: 2}}}}
stages:
  - {{number: 1, name: quick, run: "true"}}
feedback:
  prometheus: {{url: "{url}"}}
  interval: 500ms
  window: 2s
  stabilization: 2s
  signals:
    broker: {{query: sum(broker_messages), use: load, target: 20}}
    database: {{query: database_busy_ratio, use: limit, target: 0.8}}
"""


@dataclass
class Steered:
    """A lane that is steered by a Prometheus which scrapes it and what the signals are of."""

    real: Prometheus
    signals: SignalServer
    port: int

    def value(self, name: str) -> float:
        """What the exporter's own page says of its pool, past Prometheus."""
        page = get(f"http://127.0.0.1:{self.port}/metrics")[1]
        line = next(line for line in page.splitlines() if line.startswith(f'{name}{{pool="commands"'))
        return float(line.rpartition(" ")[2])


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steered]:
    tmp_path, port = tmp_path_factory.mktemp("feedback"), free_port()
    with (
        signal_server(broker_messages=60.0, database_busy_ratio=0.5) as signals,
        prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}", signals.address]) as real,
    ):
        (tmp_path / "paropt.yml").write_text(CONFIG.format(url=real.url))
        with serving(tmp_path, f"--web.listen-address=127.0.0.1:{port}") as command:
            assert "standard succeeded" in command.summary(), (tmp_path / "stderr.log").read_text()
            yield Steered(real, signals, port)


def test_a_load_signal_that_triples_raises_the_floor_and_its_end_lowers_it(steered: Steered) -> None:
    eventually("60 messages are worth 3 workers", lambda: steered.value("paropt_control_floor") == 3)
    steered.signals.values["broker_messages"] = 180.0
    eventually("180 messages are worth 9 workers", lambda: steered.value("paropt_control_floor") == 9)
    steered.signals.values["broker_messages"] = 10.0
    eventually("10 messages are worth 1 worker", lambda: steered.value("paropt_control_floor") == 1)


def test_a_limit_signal_over_its_target_brings_the_ceiling_down(steered: Steered) -> None:
    assert steered.value("paropt_control_ceiling") == 16
    steered.signals.values["database_busy_ratio"] = 1.6
    eventually("the ceiling is down", lambda: steered.value("paropt_control_ceiling") < 16)
    steered.signals.values["database_busy_ratio"] = 0.2
    eventually("the ceiling is back", lambda: steered.value("paropt_control_ceiling") == 16)
