"""A real Alertmanager with the routing example of `deploy/`, and its receivers, for end-to-end tests of alerts."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import yaml

from support.http_servers import QuietHandler, run_http_server
from support.real_servers import HANG_SECONDS, free_port, server
from support.yaml_documents import load_yaml

ROOT = Path(__file__).parents[2]
ROUTING = ROOT / "deploy/alertmanager/alertmanager.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A notification of a webhook, with its time: `body` is in Alertmanager's version 4."""

    receiver: str
    body: dict[str, Any]
    arrived_timestamp_seconds: float

    @property
    def alerts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the alerts by name and stage."""
        return {
            (alert["labels"]["alertname"], alert["labels"].get("stage", "")): alert for alert in self.body["alerts"]
        }


class Alertmanager:
    """`next` waits for a notification; `states` returns active and suppressed alerts."""

    def __init__(self, address: str, arrived: Queue[Notification]) -> None:
        self.address = address
        self._arrived = arrived

    def next(self, within_seconds: float = HANG_SECONDS) -> Notification:
        return self._arrived.get(timeout=within_seconds)

    def nothing_arrived(self) -> bool:
        try:
            self._arrived.get_nowait()
        except Empty:
            return True
        return False

    def post(self, *alerts: Mapping[str, object]) -> None:
        """Send alerts, as Prometheus does."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.address}/api/v2/alerts", json.dumps(alerts).encode(), headers)
        with urllib.request.urlopen(request, timeout=HANG_SECONDS):
            pass

    def states(self) -> dict[str, str]:
        with urllib.request.urlopen(f"http://{self.address}/api/v2/alerts", timeout=HANG_SECONDS) as answer:
            return {alert["labels"]["alertname"]: alert["status"]["state"] for alert in json.load(answer)}


@contextmanager
def alertmanager(folder: Path, *, own_receivers: bool = False, **times: str) -> Iterator[Alertmanager]:
    """Run it on the routing example, with webhooks for receivers; `times` replaces `group_wait` and similar keys.

    With `own_receivers` the bodies of notifications are those for PagerDuty and Slack.
    """
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    with _webhook() as (url, arrived):
        config = _build_config(times)
        config["receivers"] = (_redirect if own_receivers else _replace)(config["receivers"], url, folder)
        (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
        with server(
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            log=folder / "alertmanager.log",
            healthy=f"http://{address}/-/ready",
        ):
            yield Alertmanager(address, arrived)


def told_by(address: str, rules: Path) -> dict[str, object]:
    """Return the part of Prometheus' config with rule files and an Alertmanager."""
    managers = [{"static_configs": [{"targets": [address]}]}]
    return {"rule_files": [str(rules)], "alerting": {"alertmanagers": managers}}


def _build_config(times: dict[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = load_yaml(ROUTING.read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route.update({key: value for key, value in times.items() if key in route})
    return config


def _replace(receivers: list[dict[str, Any]], url: str, _: Path) -> list[dict[str, Any]]:
    """Return webhooks in place of receivers."""
    return [
        {"name": one["name"], **({"webhook_configs": [{"url": f"{url}/{one['name']}"}]} if len(one) > 1 else {})}
        for one in receivers
    ]


def _redirect(receivers: list[dict[str, Any]], url: str, folder: Path) -> list[dict[str, Any]]:
    """Return the receivers with our address and key."""
    (folder / "key").write_text("0" * 32)
    for receiver in receivers:
        for pager in receiver.get("pagerduty_configs", ()):
            pager |= {"routing_key_file": str(folder / "key"), "url": f"{url}/{receiver['name']}"}
        for chat in receiver.get("slack_configs", ()):
            del chat["api_url_file"]
            chat["api_url"] = f"{url}/{receiver['name']}"
    return receivers


@contextmanager
def _webhook() -> Iterator[tuple[str, Queue[Notification]]]:
    arrived: Queue[Notification] = Queue()

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            arrived.put(Notification(receiver=self.path.strip("/"), body=body, arrived_timestamp_seconds=time.time()))
            self.reply(status=202 if "event_action" in body else 200)  # PagerDuty's answer

    with run_http_server(Handler) as port:
        yield f"http://127.0.0.1:{port}", arrived
