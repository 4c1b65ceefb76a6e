"""Take a picture of each dashboard: the demo runs under a real Prometheus, and Grafana's libraries draw its answers.

make screenshots        (needs node and chromium; writes docs/images/*.png)
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from paropt_exporter import families  # noqa: E402
from paropt_exporter.config.units import parse_duration  # noqa: E402
from paropt_exporter.monitoring import dashboards  # noqa: E402
from support.demo import RULES, demo  # noqa: E402  # the tests' own demo: what is drawn is what is tested
from support.real_servers import Prometheus, get  # noqa: E402

IMAGES = ROOT / "docs/images"
WIDTH_PIXELS, ROW_PIXELS, HEAD_PIXELS = 1600, 38, 64
DRAWING_MILLISECONDS = 20_000  # of Chromium's virtual time
SHOWN_SECONDS = 100.0
STEP_SECONDS, TICK_SECONDS = 1.0, 30.0
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="draw.css"><style>body{{margin:0}}</style>
<div id="picture"></div><script>window.PICTURE = {picture};</script><script src="draw.js"></script>
"""
# What Grafana would put in, with everything chosen.
VALUES = {
    "$__range": f"{SHOWN_SECONDS:.0f}s",
    "$__interval": RULES.rate_window or "",
    "$job": ".+",
    "$instance": ".+",
    "$project": ".*",
    '="$project"': '="demo"',  # of a variable that has one value
    "$lane": "standard",
    "$stage": ".*",
    "$pool": ".*",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="keep the pages and their answers in this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bundle(folder / "draw.js")
        pages = ask(folder)
        IMAGES.mkdir(exist_ok=True)
        for name, (page, rows) in pages.items():
            shoot(page, rows, IMAGES / f"dashboard-{name}.png", folder / "profile")


def bundle(target: Path) -> None:
    esbuild = HERE / "node_modules/.bin/esbuild"
    command = [
        str(esbuild), str(HERE / "draw.jsx"), "--bundle", "--minify", "--format=iife", "--jsx=automatic",
        f"--outfile={target}", "--define:process.env.NODE_ENV=\"production\"", "--loader:.svg=dataurl",
        "--loader:.ttf=dataurl", "--loader:.woff=dataurl", "--loader:.woff2=dataurl", "--log-level=error",
    ]  # fmt: skip
    subprocess.run(command, check=True)


def ask(folder: Path) -> dict[str, tuple[Path, int]]:
    """Run the demo, ask every query of every dashboard, and write a page for each; return its grid's rows, too."""
    with tempfile.TemporaryDirectory() as project, demo(Path(project)) as server:
        time.sleep(SHOWN_SECONDS)  # a picture of so long a time takes so long
        now = time.time() // TICK_SECONDS * TICK_SECONDS - TICK_SECONDS / 4  # no tick's label is cut by the edge
        pages = {}
        for path, text in dashboards.render_dashboards(RULES).items():
            dashboard, name = json.loads(text), Path(path).stem
            dashboard["panels"] = [*repeated(server, dashboard["panels"])]
            picture = {
                "dashboard": dashboard,
                "answers": {panel["id"]: answers(server, panel, now) for panel in dashboard["panels"]},
                "range": {"from": now - SHOWN_SECONDS, "to": now, "step": STEP_SECONDS},
                "width": WIDTH_PIXELS,
                "chosen": {"Project": "demo", "Lane": VALUES["$lane"]},
            }
            page = folder / f"{name}.html"
            page.write_text(PAGE.format(picture=json.dumps(picture).replace("</", "<\\/")))
            pages[name] = (page, max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in dashboard["panels"]))
        return pages


def repeated(server: Prometheus, panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the panels as Grafana shows them: one that is repeated once for each pool of the time shown."""
    pools = sorted(server.by("pool", f"max_over_time({families.POOL_SIZE.name}[{VALUES['$__range']}])"))
    for panel in panels:
        if "repeat" not in panel:
            yield panel
            continue
        assert panel["repeat"] == "pool"
        width = panel["gridPos"]["w"] // len(pools)
        for index, pool in enumerate(pools):
            one = json.loads(json.dumps(panel).replace("$pool", pool))
            one["id"] = f"{panel['id']}-{pool}"
            one["gridPos"] |= {"w": width, "x": index * width}
            yield one


def answers(server: Prometheus, panel: dict[str, Any], now: float) -> list[list[dict[str, Any]]]:
    """Return the series of each of the panel's queries, all with `values`; note the panel's step for the drawing."""
    panel["step"] = parse_duration(panel["interval"]) if panel.get("interval") else STEP_SECONDS
    return [answer(server, target, panel["step"], now) for target in panel.get("targets", ())]


def answer(server: Prometheus, target: dict[str, Any], step: float, now: float) -> list[dict[str, Any]]:
    expression = target["expr"]
    for name in sorted(VALUES, key=len, reverse=True):
        expression = expression.replace(name, VALUES[name])
    if target["instant"]:
        asked = {"query": expression, "time": now}
        found = json.loads(get(f"{server.url}/api/v1/query?{urllib.parse.urlencode(asked)}")[1])["data"]["result"]
        return [{"metric": series["metric"], "values": [series["value"]]} for series in found]
    start, end = (at // step * step for at in (now - SHOWN_SECONDS, now))  # as Grafana does
    asked = {"query": expression, "start": start, "end": end, "step": step}
    found = json.loads(get(f"{server.url}/api/v1/query_range?{urllib.parse.urlencode(asked)}")[1])
    return list(found["data"]["result"])


def shoot(page: Path, rows: int, image: Path, profile: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("take.py: chromium is missing: apt-get install chromium")
    height = HEAD_PIXELS + rows * ROW_PIXELS
    command = [
        chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}",
        f"--window-size={WIDTH_PIXELS},{height}", f"--virtual-time-budget={DRAWING_MILLISECONDS}",
        "--enable-logging=stderr", f"--screenshot={image}", page.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    faults = [line for line in ended.stderr.splitlines() if ":CONSOLE" in line and "ncaught" in line]
    if faults:
        sys.exit("\n".join([f"take.py: {page.name} could not be drawn", *faults]))
    print(image)  # noqa: T201  # the result


if __name__ == "__main__":
    main()
