"""A Dask scheduler or worker as a program: it prints its address, and runs until it is killed or loses its peer.

It ends with the program that started it, also if that one is killed.

python dask_process.py scheduler HOST PORT TLS_FOLDER|-
python dask_process.py worker SCHEDULER NAME THREADS PORT TLS_FOLDER|- LOCAL_FOLDER
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler, Worker
from distributed.security import Security

_PR_SET_PDEATHSIG = 1


def build_security(folder: str) -> Any:
    if folder == "-":
        return None
    make: Any = Security
    files = {name: str(Path(folder) / f"{name}.pem") for name in ("ca", "cert", "key")}
    sides = {
        f"tls_{side}_{kind}": files[kind] for side in ("scheduler", "worker", "client") for kind in ("cert", "key")
    }
    return make(tls_ca_file=files["ca"], require_encryption=True, **sides)


async def serve_scheduler(host: str, port: str, tls: str) -> None:
    scheme = "tcp" if tls == "-" else "tls"
    make: Any = Scheduler
    scheduler = await make(
        host=f"{scheme}://{host}", port=int(port), dashboard_address=None, dashboard=False, security=build_security(tls)
    )
    print(scheduler.address, flush=True)
    await scheduler.finished()


async def serve_worker(scheduler: str, name: str, threads: str, port: str, tls: str, folder: str) -> None:
    make: Any = Worker
    host = {"host": scheduler.partition("://")[2].rpartition(":")[0]} if "127.0.0.1" in scheduler else {}
    worker = await make(
        scheduler, name=name, nthreads=int(threads), port=int(port), local_directory=folder, dashboard=False,
        memory_limit=0, security=build_security(tls), death_timeout=20, **host,
    )  # fmt: skip
    print(worker.address, flush=True)
    await worker.finished()


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    dask.config.set({"distributed.worker.memory.spill": False})
    serve: Any = {"scheduler": serve_scheduler, "worker": serve_worker}[sys.argv[1]]
    asyncio.run(serve(*sys.argv[2:]))
