"""How long from a broken limit to the notification, with the intervals that are shipped: scrapes and rules each 15 s.

Each round starts a new lane, Prometheus and Alertmanager, breaks a limit at a random moment of the scrape interval and
waits for the webhook. Usage: python benchmarks/alerting.py [ROUNDS]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from threading import Event

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support import projects  # noqa: E402  # the tests' real servers, once the path to them is known
from support.alertmanagers import alertmanager, told_by  # noqa: E402
from support.real_servers import eventually, prometheus, serving  # noqa: E402

ROUNDS = 5
INTERVAL_SECONDS = 15
_LONGEST_SECONDS = 180  # a scrape, an evaluation and the group's wait take 60
_STAGE = "name: scan, run: \"sh -c 'test ! -e slow || sleep 1'\", sla: {{max: 500ms, critical: {critical}}}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    moments = random.Random(rounds)
    for level, critical in (("warning", "false"), ("critical", "true")):
        seconds = [_seconds_to_notification(critical, moments.uniform(0, INTERVAL_SECONDS)) for _ in range(rounds)]
        print(
            f"{level:9} {min(seconds):5.1f} s at least, {statistics.median(seconds):5.1f} s in the middle, "
            f"{max(seconds):5.1f} s at most, of {rounds}",
            flush=True,
        )


def _seconds_to_notification(critical: str, pause_seconds: float) -> float:
    with tempfile.TemporaryDirectory() as temporary:
        folder = projects.write(Path(temporary), _STAGE.format(critical=critical))
        every = {"scrape_interval": f"{INTERVAL_SECONDS}s", "evaluation_interval": f"{INTERVAL_SECONDS}s"}
        with serving(folder, projects.ANY_PORT, "--every=1s"), alertmanager(folder / "alertmanager") as told:
            page = projects.url(folder)
            target = page.removeprefix("http://").removesuffix("/metrics")
            config = {**told_by(told.address, ROOT / "alerts/*.yml"), "global": every}
            with prometheus(folder / "prometheus", [target], alerting=config):
                Event().wait(pause_seconds)
                (folder / "slow").touch()
                eventually("the limit is broken", lambda: 1.0 in _breached(page))
                broken = time.time()
                return told.next(_LONGEST_SECONDS).arrived_timestamp_seconds - broken


def _breached(page: str) -> set[float]:
    return {value for (name, *_), value in projects.scraped(page).items() if name == "paropt_sla_breached"}


if __name__ == "__main__":
    main()
