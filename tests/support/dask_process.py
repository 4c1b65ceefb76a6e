"""Dask schedulers and workers as processes: each prints its address, and runs until it is killed or loses its peer.

All are forks of one process, which has imported Dask: the import takes a second of CPU time. They end with it, and it
ends with the program that started it, also if that one is killed.

python dask_process.py fork DESCRIPTOR    for each message on this socket, fork one of the following (`ForkOrder`)
python dask_process.py scheduler HOST PORT TLS_FOLDER|-
python dask_process.py worker SCHEDULER NAME THREADS PORT TLS_FOLDER|- LOCAL_FOLDER HOST|-
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import dask
import msgspec
from distributed import Scheduler, Worker
from distributed.security import Security

from support.fork_orders import ForkOrder
from support.network_namespaces import enter

_PR_SET_PDEATHSIG = 1
_LONGEST_ORDER = 1 << 17  # bytes: an environment is part of it


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


async def serve_worker(scheduler: str, name: str, threads: str, port: str, tls: str, folder: str, host: str) -> None:
    make: Any = Worker
    if host == "-" and "127.0.0.1" in scheduler:
        host = "127.0.0.1"
    worker = await make(
        scheduler, name=name, nthreads=int(threads), port=int(port), local_directory=folder, dashboard=False,
        memory_limit=0, security=build_security(tls), death_timeout=20, **({} if host == "-" else {"host": host}),
    )  # fmt: skip
    print(worker.address, flush=True)
    await worker.finished()


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def serve_forks(descriptor: int) -> None:
    """Fork until the other end closes the socket."""
    signal.signal(signal.SIGCHLD, lambda *_: reap_children())
    with socket.socket(fileno=descriptor) as orders:
        while True:
            message, streams, _, _ = socket.recv_fds(orders, _LONGEST_ORDER, 2)
            if not message:
                return
            pid, handle = fork(msgspec.json.decode(message, type=ForkOrder), streams)
            socket.send_fds(orders, [str(pid).encode()], [handle])
            for each in (*streams, handle):
                os.close(each)


def reap_children() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def fork(order: ForkOrder, streams: Sequence[int]) -> tuple[int, int]:
    """Return the process id of a new process, and a handle of it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # it is not reaped before it has a handle
    try:
        pid = os.fork()
        if not pid:
            run_fork(order, streams)
        return pid, os.pidfd_open(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def run_fork(order: ForkOrder, streams: Sequence[int]) -> NoReturn:
    """Be the process of an order, as if it had been started as a program."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        end_with_parent()
        os.setsid()
        for target, stream in enumerate(streams, 1):
            os.dup2(stream, target)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(order.environ)
        if order.namespace:
            enter(order.namespace)
        if order.prefix:
            os.execvp(order.prefix[0], [*order.prefix, sys.executable, __file__, *order.words])
        dask.config.refresh()  # it is read from the environment
        run_program(*order.words)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def run_program(kind: str, *words: str) -> None:
    end_with_parent()
    dask.config.set({"distributed.worker.memory.spill": False})
    serve: Any = {"scheduler": serve_scheduler, "worker": serve_worker}[kind]
    asyncio.run(serve(*words))


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        end_with_parent()
        serve_forks(int(sys.argv[2]))
    else:
        run_program(*sys.argv[1:])
