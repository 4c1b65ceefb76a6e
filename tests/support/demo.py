"""The demo lane of `deploy/demo`, run repeatedly under a real Prometheus with this repository's rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paropt_exporter import families
from paropt_exporter.monitoring.alerts import rule_files
from paropt_exporter.monitoring.options import Options
from support.real_servers import HANG_SECONDS, RARE_COLLECTION, Prometheus, eventually, free_port, get, program, serving

ROOT = Path(__file__).parents[2]
_SOURCE = ROOT / "deploy/demo"
# Every fourth run breaks a critical limit, every third has a failure: runs 2 to 5 have everything at least once.
FIRST_RUN, RUNS = 2, 4
RULES = Options(rate_window="4s")
# On a machine that has much else to do each run may break a limit for a while.
_SUCCEEDED = families.RUN_LAST_SUCCESS.name
_RUNS_ENDED = f"sum({families.RUNS.name})"


def rules() -> dict[str, str]:
    """Return the rule files for a lane of seconds: no group waits for minutes, and no sum for a full hour."""
    every_time = re.compile(r"^ +interval: .*\n", re.MULTILINE)
    return {
        name: every_time.sub("", text).replace(":1h]", f":{RULES.rate_window}]")
        for name, text in rule_files.render_rules(RULES).items()
    }


@contextmanager
def demo(folder: Path) -> Iterator[Prometheus]:
    """Run the lane until all its states have occurred; it continues during the caller's checks."""
    project = folder / "demo"
    shutil.copytree(_SOURCE, project)
    target, port = free_port(), free_port()
    config = project / "paropt.yml"
    config.write_text(config.read_text().replace("http://127.0.0.1:9090", f"http://127.0.0.1:{port}"))
    work = project / "work.py"  # its calls compute for a shorter time: longer ones show no more
    work.write_text(work.read_text().replace("CRUNCH_SECONDS = 0.3", "CRUNCH_SECONDS = 0.1"))
    (project / "run-count").write_text(str(FIRST_RUN - 1))
    with (
        _prometheus(folder, port, target) as server,
        serving(
            project,
            "--lane=standard",
            "--every=4s",
            f"--web.listen-address=127.0.0.1:{target}",
            f"--textfile={folder}",
            XDG_CACHE_HOME=str(folder / "cache"),
        ) as command,
    ):
        # A bound for each: five took over a minute beside 40 other tasks.
        for count in range(1, RUNS + 1):
            eventually(f"run {count} has ended", lambda count=count: _runs_ended(server) >= count)
        eventually("a run has succeeded", lambda: server.query(_SUCCEEDED))
        yield server
        command.stop()


def _runs_ended(server: Prometheus) -> float:
    found = server.query(_RUNS_ENDED)
    return float(found[0]["value"][1]) if found else 0.0


@contextmanager
def _prometheus(folder: Path, port: int, target: int) -> Iterator[Prometheus]:
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(_rules(folder) / "*.yml")],
        "scrape_configs": [  # a Prometheus usually has targets of other programs, too
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{its_port}"]}]}
            for job, its_port in (("paropt", target), ("prometheus", port))
        ],
    }
    (folder / "prometheus.json").write_text(json.dumps(config))  # JSON is YAML
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=RARE_COLLECTION)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        eventually("Prometheus is ready", lambda: _answers(f"{server.url}/-/ready"))
        eventually("Prometheus scrapes", lambda: server.query("up"))
        yield server
    finally:
        process.terminate()
        process.wait(HANG_SECONDS)


def _rules(folder: Path) -> Path:
    written = folder / "rules"
    written.mkdir()
    for name, text in rules().items():
        (written / Path(name).name).write_text(text)
    return written


def _answers(url: str) -> bool:
    try:
        return get(url)[0] == 200
    except OSError:
        return False
