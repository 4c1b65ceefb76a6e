"""A lane goes on while its Prometheus gives one wrong answer after another."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paropt_exporter.autoscaling.feedback import OWN_SIGNALS, SIGNAL
from support.fake_prometheus import (
    Asked,
    FakePrometheus,
    Reply,
    document,
    dripping,
    endless,
    fake_prometheus,
    hanging_up,
    http,
    number,
    silent,
    vector,
)
from support.real_servers import eventually, free_port, get, run, serving

CONFIG = """
project: demo
lanes: {{standard: {{workers: {{min: 1, max: 16, start: 3}}}}}}
stages: [{{number: 1, name: quick, run: "true"}}]
feedback:
  prometheus: {{url: "{url}", timeout: 300ms}}
  source: prometheus
  interval: 100ms
  window: 2s
  signals: {{broker: {{query: broker_messages + 0, use: load, target: 20}}}}
"""
FAULTS: tuple[tuple[str, Reply, str], ...] = (
    ("500", http(500, b"no"), "query_failed"),
    ("503", http(503, b"no"), "query_failed"),
    ("404", http(404, b"no"), "query_failed"),
    ("422", http(422, b'{"status":"error","error":"parse error"}'), "query_failed"),
    ("401", http(401, b""), "query_failed"),
    ("redirect", http(302, b"", "Location: http://203.0.113.1/"), "query_failed"),
    ("HTML", http(200, b"<html>"), "query_failed"),
    ("truncated", http(200, b'{"status":"succ'), "query_failed"),
    ("endless", endless(), "query_failed"),
    ("silent", silent(), "query_failed"),
    ("dripping", dripping(0.05), "query_failed"),
    ("hanging up", hanging_up(), "query_failed"),
    ("status: error", document({"status": "error", "error": "too many samples"}), "query_failed"),
    ("warnings", vector(({}, "1"), warnings=["store gone"]), "partial"),
    ("empty", vector(), "no_data"),
    ("NaN", number("NaN"), "not_finite"),
    ("+Inf", number("+Inf"), "not_finite"),
    ("-Inf", number("-Inf"), "not_finite"),
    ("a string", document({"status": "success", "data": {"resultType": "string", "result": [1, "x"]}}), "not_a_number"),
    ("a matrix", document({"status": "success", "data": {"resultType": "matrix", "result": []}}), "not_a_number"),
    ("two elements", vector(({"a": "1"}, "1"), ({"a": "2"}, "2")), "several_sources"),
    ("an old answer", vector(({}, "1"), at=time.time() - 3600), "stale"),
    ("an answer from the future", vector(({}, "1"), at=time.time() + 3600), "future"),
)


@dataclass
class Lane:
    """A lane that runs each second, and the server that it queries."""

    server: FakePrometheus
    port: int

    def value(self, name: str, **labels: str) -> float:
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in get(f"http://127.0.0.1:{self.port}/metrics")[1].splitlines():
            found = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line)
            if found and found[1] == name and wanted <= set(found[2].split(",")):
                return float(found[3])
        return math.nan

    def sizes(self) -> tuple[float, ...]:
        names = ("paropt_control_floor", "paropt_control_ceiling", "paropt_control_recommended_size")
        return tuple(map(self.value, names))

    def held(self, reason: str) -> float:
        return self.value("paropt_control_decisions_total", action="hold", reason=reason)

    def runs(self) -> float:
        return self.value("paropt_runs_total", result="success")


def healthy(load: float) -> Reply:
    """Answer with a load, and with the pools' values of an idle lane of size three."""
    own = {**dict.fromkeys(OWN_SIGNALS, 0.0), "matches": 1.0, "scrapes": 8.0, "epochs": 1.0, "size": 3.0}

    def reply(connection: object, asked: Asked) -> None:
        now = time.time()
        parts = [({SIGNAL: name}, str(now if name == "sampled" else value)) for name, value in own.items()]
        good = vector(*parts) if SIGNAL in asked.fields["query"] else number(str(load))
        good(connection, asked)  # type: ignore[arg-type]  # a socket

    return reply


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    folder, port = tmp_path_factory.mktemp("faults"), free_port()
    with fake_prometheus(healthy(100.0)) as server:
        (folder / "paropt.yml").write_text(CONFIG.format(url=server.url))
        with serving(folder, f"--web.listen-address=127.0.0.1:{port}", "--every", "1s") as command:
            assert "standard succeeded" in command.summary(), (folder / "stderr.log").read_text()
            running = Lane(server, port)
            eventually("100 messages are worth 5 workers", lambda: running.value("paropt_control_floor") == 5)
            yield running


@pytest.mark.parametrize(("reply", "reason"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_wrong_answer_moves_no_bound_and_is_named(lane: Lane, reply: Reply, reason: str) -> None:
    well, before, held = lane.server.reply, lane.sizes(), lane.held(reason)
    lane.server.reply = reply
    eventually(f"{reason} is named", lambda: lane.held(reason) >= held + 2)
    assert lane.sizes() == before
    lane.server.reply = well
    good = lane.held("load")
    eventually("the next good answer is believed", lambda: lane.held("load") > good)


def test_lane_runs_on_meanwhile(lane: Lane) -> None:
    runs = lane.runs()
    lane.server.reply = silent()
    eventually("the lane runs on", lambda: lane.runs() >= runs + 2)
    assert lane.value("paropt_runs_total", result="failure") == 0
    lane.server.reply = healthy(200.0)
    eventually("the floor follows again", lambda: lane.value("paropt_control_floor") == 10)


def test_lane_does_not_wait_for_a_hanging_server(tmp_path: Path) -> None:
    with fake_prometheus(silent()) as server:
        (tmp_path / "paropt.yml").write_text(CONFIG.format(url=server.url).replace("300ms", "1h"))
        ended = run(tmp_path, "--once", "--web.listen-address=127.0.0.1:0")
    assert "standard succeeded" in ended.stdout
