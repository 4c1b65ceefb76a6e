"""Each key of a stage in paropt.yml counts for its cached results, or can't change them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter import plan
from paropt_exporter.cache.file_states import FileStates
from paropt_exporter.cache.stage_keys import StageReader
from paropt_exporter.config.values import Stage
from support import configs

STAGE: dict[str, Any] = {"number": 1, "name": "lint", "run": "cat a.txt", "inputs": ["a.txt"]}
OF_ITEMS = {**STAGE, "run": "cat {item}", "items": {"list": ["a.txt", "b.txt"]}}
OTHER: dict[str, Any] = {"number": 2, "name": "other", "run": "true", "cache": "never"}
ENVIRON = {"PATH": os.defpath, "LEVEL": "2"}

# By key: a stage with another value of it, whose earlier results must not count.
COUNTS: dict[str, dict[str, Any]] = {
    "run": {**STAGE, "run": "cat -n a.txt"},
    "steps": {**STAGE, "run": None, "steps": ["cat a.txt", "true"]},
    "items": {**STAGE, "run": "cat {item}", "items": {"list": ["b.txt"]}},
    "env": {**STAGE, "env": {"LEVEL": "1"}},
    "cwd": {**STAGE, "cwd": "inner", "inputs": ["../a.txt"]},
    "shell": {**STAGE, "shell": True},
    "file": {**STAGE, "file": "out.txt"},
    "inputs": {**STAGE, "inputs": ["*.txt"]},
    "outputs": {**STAGE, "outputs": ["dist"]},
    "pass_env": {**STAGE, "pass_env": ["LEVEL"]},
}
# By key: two stages with different values of it, which run the same commands on the same files.
DOES_NOT_COUNT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    key: (STAGE, {**STAGE, key: value})
    for key, value in {
        "number": 7,
        "name": "style",
        "description": "finds typing errors",
        "needs": ["other"],
        "retries": 2,
        "timeout": "5m",
        "cache": True,
        "sla": "30s",
        "locks": ["port"],
        "exclusive": True,
        "memory": "1MiB",
        "slots": 2,
        "local": True,
    }.items()
} | {"quarantine": (OF_ITEMS, {**OF_ITEMS, "quarantine": [{"item": "a.txt", "owner": "anna", "until": "2099-12-24"}]})}
NEVER_CACHED = {"call"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    return tmp_path


def read_digests(folder: Path, stage: dict[str, Any]) -> list[str]:
    """Return the keys of a stage's tasks, with the config in a file and the files as they are."""
    content = json.dumps({"stages": [{key: value for key, value in stage.items() if value is not None}, OTHER]})
    planned = plan.build_plan(configs.read(folder, content), "standard").stages
    (built,) = (each for each in planned if each.name == stage["name"])
    assert built.cached
    return StageReader(folder, FileStates(str(folder)), ENVIRON, b"secret").read(built).list_digests()


def test_each_key_counts_or_does_not() -> None:
    known = {*COUNTS, *DOES_NOT_COUNT, *NEVER_CACHED}
    assert {*Stage.__struct_fields__} == known, (
        "if a key can change what a command does, cache/keys.py needs it: add it to COUNTS, otherwise to DOES_NOT_COUNT"
    )


@pytest.mark.parametrize("key", COUNTS)
def test_result_with_another_value_does_not_count(folder: Path, key: str) -> None:
    assert set(read_digests(folder, STAGE)).isdisjoint(read_digests(folder, COUNTS[key]))


@pytest.mark.parametrize("key", DOES_NOT_COUNT)
def test_result_with_another_value_counts(folder: Path, key: str) -> None:
    one, other = DOES_NOT_COUNT[key]
    assert read_digests(folder, one) == read_digests(folder, other)
