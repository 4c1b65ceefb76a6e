"""Pools while the system refuses threads, processes or descriptors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import paropt_exporter
from support.pool_tasks import HANG_SECONDS

PACKAGE = str(Path(paropt_exporter.__file__).parents[1])

THREADS = """
import logging, resource, sys, threading
from paropt_exporter.executors import ThreadPool
from support.pool_tasks import eventually
logging.basicConfig(format="%(levelname)s %(message)s: %(err)s", stream=sys.stdout)
with open("/proc/self/statm") as statm:
    size_bytes = int(statm.read().split()[0]) * resource.getpagesize()
threading.stack_size(256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size_bytes + (700 << 20), resource.RLIM_INFINITY))
pool = ThreadPool(8, initializer=int)  # so that all threads start at once
assert 1 <= pool.live <= 2 and pool.target == 8, pool
assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
{work}
assert eventually(lambda: pool.live == 8), pool.statistics()
pool.shutdown(cancel_futures=True)
print("all there")
"""


DESCRIPTORS = """
import logging, os, resource, sys
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import eventually
logging.basicConfig(format="%(levelname)s %(message)s: %(err)s", stream=sys.stdout)
with ProcessPool(1) as pool:
    pool.submit(abs, 1).result()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 14, most))
    {before}
    pool.resize(20)
    {after}
    assert eventually(lambda: pool.live > 1)
    assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert 1 < pool.live < 20, pool.statistics()
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert eventually(lambda: pool.live == 20), pool.statistics()
print("all there")
"""

SHRINK = """
import logging, os, resource, sys
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import eventually
logging.basicConfig(stream=sys.stdout)
with ProcessPool(3) as pool:
    assert eventually(lambda: pool.live == 3)
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, most))
    pool.resize(1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
"""

# The socket's two ends and the claims have descriptors, the results pipe has none.
CONNECT = """
import os, resource, warnings
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.processes.transport import WorkerConnection
warnings.simplefilter("always")
lowest_free = os.dup(0)
os.close(lowest_free)
resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
try:
    WorkerConnection(lifetime.FORK_SERVERS)
except OSError as error:
    print(error)
"""

# Creates every worker handle, with its one descriptor, before the first worker gets its own five.
HOLD = """
    import threading
    from paropt_exporter.executors.processes import transport
    resized, init = threading.Event(), transport.WorkerConnection.__init__
    transport.WorkerConnection.__init__ = lambda self, forkservers: (resized.wait(), init(self, forkservers))[1]
"""

# Lets fork() fail as at the process limit, as long as a file named `full` exists, and notes it in another one.
NO_FORKS = """
import errno, os, sys
if "forkserver" in "".join(sys.orig_argv):
    real_fork = os.fork
    def fork():
        if os.path.exists({full!r}):
            open({full!r} + ".refused", "w").close()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real_fork()
    os.fork = fork
"""

PROCESSES = """
import logging, os, sys
from paropt_exporter.executors import ProcessPool
from support.pool_tasks import eventually
logging.basicConfig(format="%(levelname)s %(message)s: %(err)s", stream=sys.stdout)
with ProcessPool(1) as pool:
    pool.submit(abs, 1).result()
    open({full!r}, "w").close()
    pool.resize(3)
    assert eventually(lambda: os.path.exists({full!r} + ".refused"))
    assert list(pool.map(abs, range(-100, 0))) == list(range(100, 0, -1))
    assert pool.live == 1, pool.statistics()
    os.unlink({full!r})
    assert eventually(lambda: pool.live == 3), pool.statistics()
    assert not pool.statistics().deaths
print("all there")
"""

# Workers that always exit before they are ready.
STILLBORN = """
import os, sys
if "forkserver" in "".join(sys.orig_argv):
    real_fork = os.fork
    def fork():
        pid = real_fork()
        if not pid:
            os._exit(9)
        return pid
    os.fork = fork
"""

HOPELESS = """
import logging
from paropt_exporter.errors import InitializerFailed
from paropt_exporter.executors import AdaptivePool, ProcessPool
from paropt_exporter.events import Strategy
from support.pool_tasks import double
logging.disable()
for pool in (ProcessPool(2), AdaptivePool(Strategy.PROCESS, 2)):
    with pool:
        errors = []
        for number in range(300):
            try:
                errors.append(pool.submit(double, number).exception(30))
            except InitializerFailed as error:
                errors.append(error)
    assert {type(error) for error in errors} == {InitializerFailed}, errors
    print(errors[-1])
"""


MEMORY = """
import resource
from paropt_exporter.errors import UnpicklableError
from paropt_exporter.executors import ProcessPool
with open("/proc/self/statm") as statm:
    size_bytes = int(statm.read().split()[0]) * resource.getpagesize()
def filled(size):
    return b"x" * size
with ProcessPool(1) as pool:
    pool.submit(abs, 1).result()
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes + (300 << 20), resource.RLIM_INFINITY))
    error = pool.submit(filled, 400_000_000).exception(30)
    assert isinstance(error, UnpicklableError), error
    print(error)
    assert len(pool.submit(filled, 50_000_000).result(30)) == 50_000_000
    assert pool.live == 1
"""


def run(code: str, folder: Path) -> list[str]:
    """Run a script in a process of its own, since limits apply to a process; return its output."""
    path = os.pathsep.join((str(folder), PACKAGE, str(Path(__file__).parents[1])))
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * HANG_SECONDS,
    )
    assert found.returncode == 0, found.stdout
    return found.stdout.splitlines()


def test_thread_pool_continues_and_retries_after_a_refused_thread(tmp_path: Path) -> None:
    said = run(THREADS.format(work=""), tmp_path)
    assert said[0] == "WARNING the system starts no more threads: can't start new thread"
    assert said[-1] == "all there"


def test_busy_thread_pool_retries_missing_threads(tmp_path: Path) -> None:
    work = "from support.pool_tasks import spin\nfor _ in range(200):\n    pool.submit(spin, 0.01)"
    assert run(THREADS.format(work=work), tmp_path)[-1] == "all there"


@pytest.mark.parametrize("at_once", [False, True])
def test_process_pool_survives_used_up_descriptors_and_grows_later(tmp_path: Path, *, at_once: bool) -> None:
    holding = {"before": HOLD if at_once else "", "after": "resized.set()" if at_once else ""}
    said = run(DESCRIPTORS.format(**holding), tmp_path)
    assert any("Too many open files" in line for line in said)
    assert len(said) <= 3, "a line for each refusal"
    assert said[-1] == "all there"


def test_process_pool_needs_no_descriptor_to_shrink(tmp_path: Path) -> None:
    assert run(SHRINK, tmp_path) == []


def test_connection_without_descriptors_leaves_no_socket_open(tmp_path: Path) -> None:
    assert run(CONNECT, tmp_path) == ["[Errno 24] Too many open files"]


def test_process_pool_survives_refused_processes_and_grows_later(tmp_path: Path) -> None:
    full = str(tmp_path / "full")
    (tmp_path / "sitecustomize.py").write_text(NO_FORKS.format(full=full))
    said = run(PROCESSES.format(full=full), tmp_path)
    expected = "WARNING a worker could not be started: [Errno 11] Resource temporarily unavailable"
    assert said[0] == expected
    assert said[-1] == "all there"


def test_result_too_large_for_memory_fails_only_its_task(tmp_path: Path) -> None:
    (said,) = run(MEMORY, tmp_path)
    assert said == "filled: its result could not be read from its worker: [Errno 12] Cannot allocate memory"


def test_tasks_fail_with_the_cause_if_no_worker_starts(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STILLBORN)
    said = run(HOPELESS, tmp_path)
    assert len(said) == 2
    for line in said:
        assert "workers of pool 'processes' can't start" in line
        assert "exited with code 9" in line
