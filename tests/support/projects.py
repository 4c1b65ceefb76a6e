"""Projects for end-to-end tests: write one in a line, and read the results of its runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from paropt_exporter.config import load_config
from paropt_exporter.errors import ConfigError
from support.in_process import call_command
from support.real_servers import Serving, eventually, get, serving

ANY_PORT = "--web.listen-address=127.0.0.1:0"


def write(folder: Path, stages: str, *, project: str = "demo", lanes: str = "", **modules: str) -> Path:
    """Write a paropt.yml of one stage a line (without numbers), and Python modules beside it."""
    lines = [line.strip() for line in stages.strip().splitlines()]
    numbered = "\n".join(f"  - {{number: {number}, {line}}}" for number, line in enumerate(lines, 1))
    (folder / "paropt.yml").write_text(f"project: {project}\n{textwrap.dedent(lanes)}\nstages:\n{numbered}\n")
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    keep_config(folder)
    return folder


def keep_config(folder: Path) -> None:
    """Check the config and keep its values as a first run does: this takes half of a started command's CPU seconds.

    `tests/e2e/test_start_up.py` and configs that tests write themselves have the check in the command.
    """
    with suppress(ConfigError):  # many tests are about faults
        load_config(folder / "paropt.yml", root=folder, environ=os.environ)


def copy(folder: Path, to: Path) -> Path:
    """Return a copy of a project with its history, like the checkout of another machine."""
    shutil.copytree(folder, to)
    keep_config(to)
    return to


def runs(folder: Path) -> list[dict[str, Any]]:
    """Return the runs in the project's history, oldest first, as the command lists them."""
    listed = call_command(folder, "history", "--output", "json")
    assert listed.returncode == 0, listed.stderr
    return list(json.loads(listed.stdout))


def stages(one: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the result and message of each stage of a run."""
    return {stage["stage_name"]: (stage["result"], stage["message"]) for stage in one["stage_metrics"]}


def messages(folder: Path) -> str:
    """Return the serving command's stderr so far."""
    return (folder / "stderr.log").read_text()


def url(folder: Path) -> str:
    """Return the URL of the metrics, from the serving command's output."""
    found = eventually("the command tells its address", lambda: re.search(r"metrics at (http://\S+)", messages(folder)))
    return str(found[1])


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """Run the project and keep serving; yield the URL of its metrics once the first run has ended."""
    with serving(folder, ANY_PORT, *arguments) as command:
        whole_summary(command)
        yield url(folder)
        command.stop()


def whole_summary(command: Serving) -> str:
    """Return the next whole summary on the serving command's stdout."""
    assert command.process.stdout is not None
    lines = [command.process.stdout.readline()]
    last = "  metrics " if "succeeded" in lines[0] else "  again "
    while not lines[-1].startswith(last):
        lines.append(command.process.stdout.readline())
        assert lines[-1], lines
    return "".join(lines)


def scraped(address: str) -> dict[tuple[str, ...], float]:
    """Return the samples of the page: (name, label values in order of their names) -> value, without the project."""
    status, page = get(address)
    assert status == 200
    return samples(page)


def samples(page: str) -> dict[tuple[str, ...], float]:
    """Return every sample of a page in text format."""
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "project")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def pid_in(path: Path) -> int:
    """Wait until a stage has written its process id into a file, and return it."""
    return int(eventually(f"a process id in {path.name}", lambda: path.exists() and path.read_text().strip()))
