"""The dashboard's row of Dask's own metrics asks for names that a real scheduler has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.processes import run_python

ROOT = Path(__file__).parents[3]
_PRINT_METRICS = """
import asyncio, urllib.request
from distributed import Scheduler

async def main():
    scheduler = await Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0", dashboard=False)
    url = f"http://127.0.0.1:{scheduler.http_server.port}/metrics"
    page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    print(page)
    await scheduler.close()

asyncio.run(main())
"""


def test_every_dask_metric_of_the_dashboards_exists() -> None:
    boards = [json.loads(path.read_text()) for path in (ROOT / "dashboards").glob("*.json")]
    asked = set(re.findall(r"\bdask_\w+", json.dumps(boards)))
    page = run_python(_PRINT_METRICS, check=True).stdout
    assert asked
    assert asked <= set(re.findall(r"^(dask_\w+)\{state=", page, re.MULTILINE))
