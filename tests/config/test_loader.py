"""The meaning of a valid config."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.config.values import Sla
from paropt_exporter.events import Strategy
from support import configs

DESIGN = """\
lanes:
  docs:     {strategy: thread,   workers: 2,    sla: 10s, total: 5m, fail_fast: true}
  mine:     {strategy: hybrid, workers: {min: 1, max: 16, start: 4}, sla: {max: 20, warn_at: 0.5, critical: true}}
stages:
  - {number: 2, name: quality_gates,     run: ruff check .}
  - {number: 3, name: type_checking,     run: [mypy, exporter]}
  - {number: 4, name: unit_tests,        run: "pytest {item}", items: {glob: tests/unit/test_*.py}}
  - {number: 5, name: integration_tests, call: mypkg.checks:integration, needs: [unit_tests], retries: 1, timeout: 5m}
  - {number: 6, name: security_scan,     run: bandit -q -r exporter, sla: {max: 45s, warn_at: 0.8, critical: true}}
feedback: {prometheus: {url: "http://127.0.0.1:9090"}, interval: 15s, mode: act}
"""


def test_config_of_the_design_is_read(tmp_path: Path) -> None:
    read = configs.read(tmp_path, DESIGN)
    assert [stage.name for stage in read.stages] == [
        "quality_gates", "type_checking", "unit_tests", "integration_tests", "security_scan",
    ]  # fmt: skip
    assert read.stages[3].timeout == 300
    assert read.stages[3].retries.count == 1
    assert read.stages[1].run == ("mypy", "exporter")
    mine = read.lanes["mine"]
    assert isinstance(mine.sla, Sla)
    assert (mine.strategy, mine.workers.max, mine.sla.to_limit().warn_seconds) == (Strategy.HYBRID, 16, 10)
    assert read.feedback.prometheus is not None


def test_lane_changes_the_default_of_its_name_and_the_others_stay(tmp_path: Path) -> None:
    read = configs.read(tmp_path, configs.stage() + "lanes: {docs: {strategy: adaptive}, mine: {}}\n")
    assert [*read.lanes] == ["docs", "standard", "heavy", "mine"]
    assert read.lanes["docs"].strategy is Strategy.ADAPTIVE
    assert read.lanes["docs"].fail_fast, "what the file does not say stays"
    assert (read.lanes["heavy"].strategy, read.lanes["heavy"].workers.max) == (Strategy.PROCESS, 8)


def test_default_lanes_have_the_limits_of_the_guide(tmp_path: Path) -> None:
    lanes = configs.read(tmp_path, configs.stage()).lanes
    limits = {
        name: (lane.sla.max, lane.total and lane.total.max, lane.fail_fast)
        for name, lane in lanes.items()
        if isinstance(lane.sla, Sla)
    }
    assert limits == {"docs": (10, 300, True), "standard": (30, 900, False), "heavy": (60, 1200, False)}


def test_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + configs.stage().replace("\n", "\r\n").encode()
    assert configs.read(tmp_path, content).stages[0].name == "one"


def test_anchors_and_merges_work_and_own_keys_win(tmp_path: Path) -> None:
    content = """\
x-slow: &slow {timeout: 10m, retries: 2, env: {A: x}}
stages:
- {<<: *slow, number: 1, name: one, run: a}
- {<<: [{retries: 5}, *slow], number: 2, name: two, run: b, timeout: 5s}
"""
    one, two = configs.read(tmp_path, content).stages
    assert (one.timeout, one.retries.count, one.env) == (600, 2, {"A": "x"})
    assert (two.timeout, two.retries.count) == (5, 5)


def test_stages_without_a_number_get_the_next_free_one(tmp_path: Path) -> None:
    names = ("plain", "seven", "after", "low", "next", "ten", "last")
    written = {"seven": 7, "low": 1, "ten": 10}
    lines = [f"- {{name: {name}, number: {written.get(name, 'null')}, run: x}}" for name in names]
    content = "lanes: {standard: {stages: [9]}}\nstages:\n" + "\n".join(lines).replace(", number: null", "")
    config = configs.read(tmp_path, content)
    assert [stage.number for stage in config.stages] == [2, 7, 8, 1, 9, 10, 11]
    assert config.lanes["standard"].stages == ("next",)


def test_words_stay_as_written(tmp_path: Path) -> None:
    content = configs.stage(
        run="[sleep, 1.10]", env="{PORT: 8080, MODE: 010, DAY: 2024-01-01}", items="{list: [1e3, 0x1f, 12:30]}"
    )
    one = configs.read(tmp_path, content).stages[0]
    assert one.run == ("sleep", "1.10")
    assert one.env == {"PORT": "8080", "MODE": "010", "DAY": "2024-01-01"}
    assert one.items is not None
    assert one.items.list == ("1e3", "0x1f", "12:30")


def test_booleans_have_yamls_spellings(tmp_path: Path) -> None:
    assert configs.read(tmp_path, configs.stage(shell="yes", exclusive="On")).stages[0].exclusive is True


def test_folder_of_the_file_is_the_root_and_gives_the_project_its_name(tmp_path: Path) -> None:
    folder = tmp_path / 'my "project"'
    folder.mkdir()
    read = configs.read(folder, configs.stage())
    assert read.root == folder
    assert read.project == "my__project_"
    assert read.history_path == folder / ".paropt/history.db"


def test_file_from_a_pipe_is_read_with_the_current_folder_as_root(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(configs.stage(),), name="writer", daemon=True)
    writer.start()
    root = tmp_path / "root"
    assert config.read_config(pipe, root=root).root == root
    writer.join(timeout=10)


def test_ten_thousand_stages_load(tmp_path: Path) -> None:
    lines = [
        f"- {{number: {n}, name: stage_{n}, run: echo {n}, needs: [{f'stage_{n - 1}' if n else ''}], sla: 30s}}"
        for n in range(10_000)
    ]
    assert len(configs.read(tmp_path, "stages:\n" + "\n".join(lines)).stages) == 10_000


def test_one_stage_more_than_the_most_is_a_fault(tmp_path: Path) -> None:
    lines = [f"- {{number: {n}, name: s{n}, run: x}}" for n in range(10_001)]
    assert configs.faults(tmp_path, "stages:\n" + "\n".join(lines)) == [
        "paropt.yml:2:1: stages: 10,001 stages are more than 10,000, the most allowed"
    ]


def test_keep_takes_a_number_of_runs_a_duration_or_both(tmp_path: Path) -> None:
    read = [
        configs.read(tmp_path, configs.stage() + f"history: {{keep: {keep}}}\n").history.keep
        for keep in ("50", "90d", "{runs: 5, age: 1h, size: 2MB}")
    ]
    assert [(keep.runs, keep.age) for keep in read] == [(50, None), (None, 90 * 86400), (5, 3600)]
    assert [keep.size for keep in read] == [512 << 20, 512 << 20, 2_000_000]


def test_faulty_size_of_the_history_is_rejected_at_its_place(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, configs.stage() + "history: {keep: {size: 90d}}\n")
    assert "history.keep.size: " in fault


@pytest.mark.parametrize("written", ["':9100'", "[':9100', '[::1]:9100']"])
def test_one_address_or_several_may_be_listened_on(tmp_path: Path, written: str) -> None:
    web = configs.read(tmp_path, configs.stage() + f"web: {{listen_address: {written}}}\n").web
    assert web.listen_address[0] == ":9100"
