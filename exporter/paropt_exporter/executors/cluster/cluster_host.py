"""Host a Dask cluster in a separate process, and execute commands from standard input.

```
in   {"scale": 4} | {"scale_down": ["name", ...]}          end of input: close the cluster and exit
out  {"address": ..., "security": base64 or null, "can_scale_down": true} once, or {"error": ...}
```
In their own process and session, workers don't get a terminal's Ctrl-C, and don't look like processes that calls have
left.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import logging
import os
import pickle
import sys
from typing import Any

from paropt_exporter.executors.cluster.dask_client import silence_logs


def main() -> None:
    """Host the cluster that the first argument names, or a local one, until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a cluster prints must not mix with the answers
    silence_logs()
    try:
        cluster = _make_cluster(json.loads(sys.argv[1]))
    except BaseException as error:  # noqa: BLE001 -- a user's factory may raise anything
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        return
    try:
        security = getattr(cluster, "security", None)
        print(
            json.dumps(
                {
                    "address": cluster.scheduler_address,
                    "security": base64.b64encode(pickle.dumps(security)).decode() if security is not None else None,
                    "can_scale_down": callable(getattr(cluster, "scale_down", None)),
                    "adapts": getattr(cluster, "_adaptive", None) is not None,
                }
            ),
            file=answers,
        )
        for line in sys.stdin:
            try:
                _obey(cluster, json.loads(line))
            except Exception as error:  # noqa: BLE001 -- a server that can't be reached now; the workers there go on
                sys.stderr.write(f"the cluster can't obey {line.strip()}: {type(error).__name__}: {error}\n")
    finally:
        with contextlib.suppress(Exception):
            cluster.close()


def _make_cluster(options: dict[str, Any]) -> Any:
    if options["factory"]:
        sys.path.insert(0, options["root"])
        module, _, name = options["factory"].partition(":")
        return getattr(importlib.import_module(module), name)()
    import dask
    from distributed import LocalCluster

    # Dask serves pages about its workers and tasks over plain HTTP, to every user of this host.
    dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []})
    make: Any = LocalCluster
    return make(
        n_workers=0,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        host="127.0.0.1",
        security=True,  # a certificate of its own: every user of this host can connect to the port
        memory_limit=None,
        silence_logs=logging.CRITICAL,
    )


def _obey(cluster: Any, order: dict[str, Any]) -> None:
    if "scale" in order:
        cluster.scale(order["scale"])
    elif "scale_down" in order:
        cluster.sync(cluster.scale_down, order["scale_down"])


if __name__ == "__main__":
    main()
