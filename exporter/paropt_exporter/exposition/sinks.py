"""Hand the final values of a run to those who can't scrape it in time, and count how that went."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from threading import Lock

from paropt_exporter import families
from paropt_exporter.config import Push
from paropt_exporter.config.model import Tls
from paropt_exporter.errors import DeliveryError
from paropt_exporter.exposition.push import Gateway, Secret, prepare, push

log = logging.getLogger(__name__)

PUSHGATEWAY, TEXTFILE = families.DELIVERY_TARGETS
_SUCCESS, _FAILURE = families.DELIVERY_RESULTS

Deliver = Callable[[bytes], None]


class Sinks:
    """The targets that get each run's final page; each is a name of the catalogue and what delivers to it.

    Guarantees: a target that fails is logged and counted, and keeps no other from being served.
    """

    def __init__(self, targets: Mapping[str, Deliver]) -> None:
        self._targets = dict(targets)
        self._lock = Lock()  # guards: _counts, which a scrape reads
        self._counts = dict.fromkeys(product(targets, families.DELIVERY_RESULTS), 0)

    def deliver(self, page: Callable[[], bytes]) -> frozenset[str]:
        """Hand out one page in text format, and return the targets that failed; blocks as long as they may take."""
        if not self._targets:
            return frozenset()
        final = page()
        failed = frozenset(target for target in self._targets if not self._reached(target, final))
        for target in self._targets:
            with self._lock:
                self._counts[target, _FAILURE if target in failed else _SUCCESS] += 1
        return failed

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return how often each target was served and missed, by (target, result)."""
        with self._lock:
            return dict(self._counts)

    def _reached(self, target: str, page: bytes) -> bool:
        try:
            self._targets[target](page)
        except DeliveryError as error:
            log.warning("the final values were not delivered", extra={"target": target, "err": str(error)})
            return False
        return True


def pusher(settings: Push, *, url: str, instance: str | None, project: str, lane: str, root: Path) -> Deliver:
    """Return what pushes a page to the group of this project, lane and instance; paths start from `root`.

    Raises UsageError if the URL can't be one.
    """
    prepare()
    grouping = {
        "project": project,
        "lane": lane,
        "instance": instance or settings.instance or socket.gethostname(),
    }
    return partial(push, gateway=_gateway(settings, url, root), job=settings.job, grouping=grouping)


def _gateway(settings: Push, url: str, root: Path) -> Gateway:
    def file(name: str | None) -> Path | None:
        return None if name is None else root / name

    def secret(name: str | None, variable: str | None) -> Secret:
        return Secret(file=file(name), variable=variable)

    basic, tls = settings.basic_auth, settings.tls or Tls()
    token = secret(settings.bearer_token_file, settings.bearer_token_env)
    certificate = file(tls.cert_file)
    return Gateway(
        url=url,
        timeout_seconds=settings.timeout,
        username=basic.username if basic else None,
        password=secret(basic.password_file, basic.password_env) if basic else Secret(),
        token=token if token != Secret() else None,
        ca_file=file(tls.ca_file),
        certificate=(str(certificate), str(file(tls.key_file) or certificate)) if certificate else None,
        headers=settings.headers,
        secret_headers={header: secret(name, None) for header, name in settings.header_files.items()},
    )
