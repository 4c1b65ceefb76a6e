"""Whatever stands in the file, reading it ends with a Config or with a ConfigError."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paropt_exporter import config, plan
from paropt_exporter.errors import ConfigError
from support import configs
from support.yaml_documents import load_yaml

BASE = """\
project: demo
lanes: {mine: {strategy: thread, workers: {min: 1, max: 4}, sla: {max: 5s, warn_at: 0.5}, total: 1m, stages: [one]}}
stages:
- {number: 1, name: one, run: "echo {item}", items: {list: [a, b]}, retries: {count: 1, backoff: 1s}, env: {A: b}}
- {number: 2, name: two, call: "a.b:c", needs: [one], timeout: 5m, memory: 1MiB, slots: 1, locks: [x], sla: 5}
- {number: 3, name: three, steps: [a b, [c]], cwd: x, file: y, exclusive: true}
feedback: {prometheus: {url: "http://a:1", headers: {X: y}}, signals: {s: {query: up, use: load, target: 5}}}
web: {listen_address: ":1", max_requests: 5}
history: {keep: 5}
"""
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5)
    | st.dates() | st.sampled_from(["one", "two", "no", "30s", "-1", "{item}", "'", "<<", "auto", "\0", "1e999"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4), max_leaves=12
)
QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def assert_read_or_refused(folder: Path, content: bytes) -> None:
    try:
        read = configs.read(folder, content)
    except ConfigError as error:
        for fault in error.faults:
            line, column, path, message = fault.removeprefix(f"{folder}/paropt.yml:").split(":", 3)
            assert int(line) >= 1, fault
            assert int(column) >= 1, fault
            assert path.strip(), fault
            assert message.strip(), fault
            assert "\n" not in fault
        config.read_valid_parts(folder / "paropt.yml", root=folder)  # raises nothing
        return
    for lane in read.lanes if read.stages else ():
        if all(stage.items is None or stage.items.command is None for stage in read.stages):
            plan.build_plan(read, lane)


@QUIET
@given(st.binary(max_size=200))
@example(b"? ? ?")
@example(b"%YAML 9.9\n--- a")
@example(b"a: !!binary '='")
@example(b"\xef\xbb\xbf\xff")
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    assert_read_or_refused(tmp_path, content)


@QUIET
@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 8), st.text(max_size=8)), min_size=1, max_size=4)
)
def test_good_file_with_cuts_and_insertions_is_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, int, str]]
) -> None:
    text = BASE
    for at, length, inserted in changes:
        text = text[:at] + inserted + text[at + length :]
    assert_read_or_refused(tmp_path, text.encode(errors="replace"))


@QUIET
@given(st.data())
def test_good_file_with_any_value_in_any_place_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    root = load_yaml(BASE)
    node = root
    while True:
        keys = [*node] if isinstance(node, dict) else [*range(len(node))]
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(VALUES)
            break
        node = node[key]
    assert_read_or_refused(tmp_path, yaml.dump(root, allow_unicode=True).encode(errors="replace"))


@pytest.mark.parametrize("name", ["[]", "{}", "5", "~", "1.5"])
def test_name_of_any_type_is_read_or_refused(tmp_path: Path, name: str) -> None:
    assert_read_or_refused(tmp_path, BASE.replace("name: one", f"name: {name}").encode())


def test_file_that_is_changed_is_good(tmp_path: Path) -> None:
    assert len(configs.read(tmp_path, BASE).stages) == 3
