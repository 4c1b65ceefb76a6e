"""Reading threads and processes from /proc."""

from __future__ import annotations

import subprocess
import threading

from paropt_exporter.executors import procfs


def test_thread_children_are_those_of_this_thread() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as mine:
        theirs: list[subprocess.Popen[bytes]] = []
        found: list[tuple[int, ...]] = []

        def start_one() -> None:
            theirs.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
            found.append(procfs.list_thread_children(threading.get_native_id()))

        thread = threading.Thread(target=start_one)
        thread.start()
        thread.join()
        with theirs[0]:
            assert found == [(theirs[0].pid,)]
        assert mine.pid in procfs.list_thread_children(threading.get_native_id())


def test_exited_thread_has_no_children() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.native_id is not None
    assert procfs.list_thread_children(thread.native_id) == ()
