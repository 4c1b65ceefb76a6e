"""The supervisor leaves no process behind and sleeps while nothing runs."""

from __future__ import annotations

import errno
import itertools
import math
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import paropt_exporter
from paropt_exporter.events import Result
from paropt_exporter.executors.commands import supervisor_client
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.executors.commands.command_task import CommandTask, ResourceShortage, SilenceWatch
from paropt_exporter.executors.commands.output import Capture
from paropt_exporter.executors.commands.supervisor_client import Channel, SharedSupervisor, SupervisorProcess
from paropt_exporter.executors.frames import build_frame
from paropt_exporter.executors.supervisor import event_loop
from paropt_exporter.executors.supervisor.event_loop import Command, SamplingPace
from paropt_exporter.executors.supervisor.process_tree import ProcessTable, Tree, kill_all
from support.command_scripts import (
    HANG_SECONDS,
    make_fifo,
    open_fifo,
    python,
    run,
    shell,
    told_pids,
    wait_until_gone,
    write_fifo,
)
from support.namespaces import WITHOUT_PROC, skip_unless_allowed
from support.pool_tasks import eventually
from support.processes import is_asleep, open_descriptors, run_python, switches

PACKAGE_ROOT = str(Path(paropt_exporter.__file__).parent.parent)
MEGABYTE = 1 << 20


@pytest.fixture
def supervisor() -> Iterator[SharedSupervisor]:
    supervisor = SharedSupervisor()
    supervisor.lease()
    yield supervisor
    supervisor.release()


def supervisor_of(pool: CommandPool) -> int:
    """Return the pid of the supervisor, the parent of a command."""
    return int(run(pool, shell("echo $PPID")).output)


# An exporter with one command that has a child in its session and one in another; they write their pids.
EXPORTER = """
import sys
sys.path.insert(0, sys.argv[1])
from paropt_exporter.executors.commands.command_pool import CommandPool
pool = CommandPool(1)
script = "trap '' TERM HUP; (setsid sleep 600 >&- & echo $!; sleep 600 >&- & echo $! $$ $PPID) > $1; sleep 600"
pool.submit_commands("task", [["sh", "-c", script, "sh", sys.argv[2]]], cwd="/")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_killed_exporter(tmp_path: Path, number: signal.Signals) -> None:
    fifo = make_fifo(tmp_path)
    exporter = subprocess.Popen([sys.executable, "-c", EXPORTER, PACKAGE_ROOT, str(fifo)])
    pids = told_pids(fifo)
    assert len(pids) == 4  # two children, the command and the supervisor
    exporter.send_signal(number)
    exporter.wait(HANG_SECONDS)
    assert wait_until_gone(pids) == []


def test_command_ends_with_a_killed_exporter_without_proc(tmp_path: Path) -> None:
    skip_unless_allowed(WITHOUT_PROC)
    fifo = make_fifo(tmp_path)
    script = EXPORTER.replace("(setsid sleep 600 >&- & echo $!; sleep 600 >&- & echo $! $$ $PPID)", "echo $$ $PPID")
    exporter = subprocess.Popen([*WITHOUT_PROC, sys.executable, "-c", script, PACKAGE_ROOT, str(fifo)])
    pids = told_pids(fifo)
    exporter.kill()
    exporter.wait(HANG_SECONDS)
    assert wait_until_gone(pids) == []


def test_forked_copy_of_the_exporter_keeps_no_command_alive(tmp_path: Path) -> None:
    fifo, copy_ends = make_fifo(tmp_path), make_fifo(tmp_path, "copy")
    fork = f"\nimport os\nif not os.fork():\n    open({str(copy_ends)!r}).read()\n    os._exit(0)\n"
    # The fork happens after the command has written its pids: the copy has all descriptors of a running command.
    wait = f"\nopen({str(tmp_path / 'go')!r}).read()\n"
    os.mkfifo(tmp_path / "go")
    exporter = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", EXPORTER + wait + fork + wait, PACKAGE_ROOT, str(fifo)]
    )
    pids = told_pids(fifo)
    write_fifo(tmp_path / "go", "")
    with open_fifo(copy_ends):  # the copy lives
        exporter.kill()
        exporter.wait(HANG_SECONDS)
        assert wait_until_gone(pids) == []


INHERITED = """
import os
from paropt_exporter.executors.commands.command_pool import CommandPool
inherited = CommandPool(1)
with CommandPool(1) as pool:
    pool.submit_commands("task", [["true"]], cwd="/").result()  # starts a supervisor
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
inherited.shutdown()
with CommandPool(1) as pool:
    for _ in range(2):
        print(pool.submit_commands("task", [["sh", "-c", "echo $PPID"]], cwd="/").result().output, end="", flush=True)
"""


def test_end_of_an_inherited_pool_takes_no_lease_of_a_forked_child() -> None:
    ended = run_python(INHERITED)
    first, second = ended.stdout.split()
    assert first == second, ended.stderr  # the supervisor continues between the tasks of a pool


def test_child_that_is_forked_before_the_first_start_inherits_no_lease() -> None:
    """Its supervisor ran on after the child's last pool had ended."""
    code = """
import os
from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.executors.commands.supervisor_client import SUPERVISOR
inherited = CommandPool(1)
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
with CommandPool(1) as pool:
    pool.submit_commands("task", [["true"]], cwd="/").result()
print(SUPERVISOR.pid)
"""
    ended = run_python(code)
    assert ended.stdout == "None\n", ended.stderr


def test_killed_supervisor_fails_its_commands_and_is_replaced(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    with CommandPool(2) as pool:
        script = "trap '' TERM; (setsid sleep 600 >&- & echo $!; sleep 600 >&- & echo $! $$ $PPID) > $1; sleep 600"
        future = pool.submit_commands("task", [shell(script, fifo)], cwd="/")
        *pids, supervisor = told_pids(fifo)
        os.kill(supervisor, signal.SIGKILL)
        outcome = future.result(HANG_SECONDS)
        assert outcome.result is Result.ERROR
        assert outcome.message == (
            "the supervisor of commands died (killed by signal 9) while 'sh' ran, which was killed: run it again"
        )
        assert wait_until_gone(pids) == []
        assert run(pool, ["true"]).result is Result.SUCCESS
        assert supervisor_of(pool) != supervisor


# Each generation starts the next one and exits.
CHAIN = """
import os, sys
told = os.open(sys.argv[1], os.O_WRONLY)
while True:
    if os.fork():
        os._exit(0)
    os.write(told, b".")
"""


def test_processes_that_start_others_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    with CommandPool(2) as pool:
        future = pool.submit_commands("task", [shell('"$@" & exec sleep 600', *python(CHAIN, fifo))], cwd="/")
        supervisor = supervisor_of(pool)
        with fifo.open("rb", buffering=0) as generations:
            generations.read(1)
            os.kill(supervisor, signal.SIGKILL)
            assert future.result(HANG_SECONDS).result is Result.ERROR
            generations.readall()  # until the last one has exited


@pytest.mark.parametrize("script", ["exec env -i $0", "env -i setsid $0 & exec sleep 600"])
def test_processes_without_an_environment_end_with_a_killed_supervisor(tmp_path: Path, script: str) -> None:
    fifo = make_fifo(tmp_path)
    (tmp_path / "tell").write_text(f"#!/bin/sh\necho $$ > {fifo}\nexec sleep 600\n")
    (tmp_path / "tell").chmod(0o755)
    with CommandPool(2) as pool:
        supervisor = supervisor_of(pool)
        future = pool.submit_commands("task", [["sh", "-c", script, str(tmp_path / "tell")]], cwd="/")
        pids = told_pids(fifo)
        os.kill(supervisor, signal.SIGKILL)
        assert future.result(HANG_SECONDS).result is Result.ERROR
        assert wait_until_gone(pids) == []


def test_idle_killed_supervisor_is_replaced() -> None:
    with CommandPool(1) as pool:
        supervisor = supervisor_of(pool)
        os.kill(supervisor, signal.SIGKILL)
        assert run(pool, ["true"]).result in (Result.SUCCESS, Result.ERROR)  # it may be dying, not dead
        assert run(pool, ["true"]).result is Result.SUCCESS


def test_supervisor_survives_the_signals_of_terminals_and_of_orphans() -> None:
    with CommandPool(1) as pool:
        supervisor = supervisor_of(pool)
        others = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN, signal.SIGRTMAX)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, *others):
            os.kill(supervisor, number)
        assert supervisor_of(pool) == supervisor
        assert os.getsid(supervisor) == supervisor  # Ctrl-C at the terminal does not reach it


def test_pools_share_one_supervisor_until_the_last_shutdown() -> None:
    with CommandPool(1) as one, CommandPool(1) as two:
        supervisor = supervisor_of(one)
        assert supervisor_of(two) == supervisor
    assert wait_until_gone([supervisor], 0) == []


def test_supervisor_ends_with_the_last_task_of_a_closed_pool() -> None:
    pool = CommandPool(1)
    futures = [pool.submit_commands(str(number), [shell("echo $PPID")], cwd="/") for number in range(2)]
    pool.shutdown(wait=False)
    supervisor, other = (int(future.result(HANG_SECONDS).output) for future in futures)
    assert wait_until_gone([supervisor, other], HANG_SECONDS) == []


def test_supervisor_can_start_before_its_first_command() -> None:
    supervisor = SharedSupervisor()
    with supervisor.keep_running():
        pid = supervisor.pid
        assert pid is not None
    assert supervisor.pid is None
    assert wait_until_gone([pid], 0) == []


def test_supervisor_can_end_before_its_last_release() -> None:
    supervisor = SharedSupervisor()
    with supervisor.keep_running():
        pids = [supervisor.pid]
        supervisor.lease()
        supervisor.end_early()
        pids.append(supervisor.pid)  # the other holder may start commands
        supervisor.release()
        supervisor.end_early()
        pids.append(supervisor.pid)
    assert pids[0] is not None
    assert pids == [pids[0], pids[0], None]
    assert wait_until_gone([pids[0]], 0) == []


def test_idle_supervisor_sleeps() -> None:
    with CommandPool(1) as pool:
        supervisor = supervisor_of(pool)
        run(pool, ["true"])
        assert eventually(lambda: is_asleep(supervisor))
        before = switches(supervisor)
        # A second in which the supervisor could do something: a command outside the pool that takes so long.
        subprocess.run(["sleep", "1"], check=True)
        assert switches(supervisor) == before


def read_kilobytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def test_supervisor_memory_stays_small() -> None:
    with CommandPool(1) as pool:
        peak = read_kilobytes(supervisor_of(pool), "VmHWM")
    assert peak < 16 * 1024  # 12 MB with Python 3.11, 13 with 3.13; an import of typing or dataclasses shows here


def test_supervisor_imports_only_its_own_modules() -> None:
    """Start it as the client does: with stand-ins for the packages, whose own modules would import more."""
    program = (
        "import sys\nfolder = sys.argv[1]\n"
        "for name, place in (('paropt_exporter', folder), ('paropt_exporter.executors', folder + '/executors')):\n"
        "    sys.modules[name] = type(sys)(name)\n    sys.modules[name].__path__ = [place]\n"
        "import paropt_exporter.executors.supervisor.event_loop\n"
        "print(*sorted(name for name in sys.modules if name.startswith('paropt_exporter.executors.')))\n"
        "print(*sorted({'typing', 'dataclasses', 'subprocess', 'threading', 'logging', 'json', 're', 'enum',"
        " 'collections', 'functools', 'socket', 'signal', 'ctypes'} & set(sys.modules)))\n"
    )
    answer = subprocess.run(python(program, PACKAGE_ROOT + "/paropt_exporter"), capture_output=True, text=True)
    assert answer.stdout.splitlines() == [
        "paropt_exporter.executors.core_time paropt_exporter.executors.frames paropt_exporter.executors.procfs"
        " paropt_exporter.executors.supervisor"
        " paropt_exporter.executors.supervisor.event_loop"
        " paropt_exporter.executors.supervisor.parent_process"
        " paropt_exporter.executors.supervisor.process_tree",
        "",
    ]


# A supervisor's view of two commands: one ends, and then a process appears that belongs to none.
ENDED_COMMAND = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from paropt_exporter.executors.supervisor.process_tree import ProcessTable, Tree
table, trees = ProcessTable(), []
for argv in (["true"], ["sleep", "600"]):
    root = os.posix_spawnp(argv[0], argv, os.environ)
    trees.append(Tree(root, "mark", 0.0))
    table.add(trees[-1], 0.0)
ended, running = trees
os.waitpid(int(ended.root), 0)
table.settle(int(ended.root), 0.0, 0.0)
print(table.has_left_processes(ended))
orphan = subprocess.Popen(["sleep", "600"])
print(table.has_left_processes(ended))
orphan.kill()
orphan.wait()
os.kill(int(running.root), 9)
os.waitpid(int(running.root), 0)
table.settle(int(running.root), 0.0, 0.0)
print(table.has_left_processes(running))
"""


def test_command_without_children_leaves_no_processes() -> None:
    answer = subprocess.run(python(ENDED_COMMAND, PACKAGE_ROOT), capture_output=True, text=True, timeout=HANG_SECONDS)
    assert answer.stdout.split() == ["False", "True", "False"], answer.stderr


class Conversation:
    """The channel of a command, as a task uses it."""

    def __init__(
        self,
        supervisor: SharedSupervisor,
        argv: list[str],
        *,
        mark: str = "m",
        environment: Mapping[bytes, bytes] = MappingProxyType({}),
    ) -> None:
        argv_bytes = [os.fsencode(argument) for argument in argv]
        request = {"program": argv_bytes[0], "argv": argv_bytes, "cwd": b"/", "mark": mark, "limit": 1}
        output = os.open(os.devnull, os.O_WRONLY)
        try:
            self.channel = supervisor.start_command(
                build_frame({"env": dict(environment)}), build_frame(request), output
            )
        finally:
            os.close(output)
        self.channel.connection.settimeout(HANG_SECONDS)

    def frames(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from self.channel.receive()

    def read_end(self) -> dict[str, Any]:
        return next(frame for frame in self.frames() if "ended" in frame)

    def stop(self, mark: str) -> None:
        self.channel.connection.sendall(build_frame({"stop": 0.0, "mark": mark}))


class PatientSupervisor(SharedSupervisor):
    """Starts a command and returns only when it has ended, as on a machine on which the caller gets no core."""

    def __init__(self, runs: Path) -> None:
        super().__init__()
        self._runs = runs  # a file that grows with each run

    def start_command(self, environment: bytes, request: bytes, output: int, trace: int | None = None) -> Channel:
        size = self._runs.stat().st_size
        before = math.inf if self.pid is None else open_descriptors(self.pid)
        channel = super().start_command(environment, request, output, trace)
        assert eventually(
            lambda: self._runs.stat().st_size > size and open_descriptors(channel.supervisor.pid) <= before
        )
        return channel


def test_command_that_ends_before_its_caller_goes_on_runs_once(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.touch()
    supervisor = PatientSupervisor(runs)
    supervisor.lease()
    for _ in range(3):  # the first one starts the supervisor
        task = CommandTask(
            supervisor, ResourceShortage(), "task", [shell("echo >> $1", runs)], mark="m", cwd=tmp_path, env=os.environ
        )
        with Capture() as capture:
            assert task.run(capture).code == 0
    supervisor.release()
    assert runs.read_text() == "\n" * 3


class EndingProcess(SupervisorProcess):
    """A killed supervisor that has closed its descriptors but is not a zombie yet."""

    def poll(self) -> int | None:
        return None

    def wait(self, timeout_seconds: float) -> int:
        raise TimeoutError


class DyingSupervisor(SharedSupervisor):
    """A supervisor that is killed once each command has started, before it has reported anything."""

    def __init__(self, runs: Path) -> None:
        super().__init__()
        self._runs = runs

    def start_command(self, environment: bytes, request: bytes, output: int, trace: int | None = None) -> Channel:
        size = self._runs.stat().st_size
        channel = super().start_command(environment, request, output, trace)
        assert eventually(lambda: self._runs.stat().st_size > size)
        channel.supervisor.send(signal.SIGKILL)
        while channel.connection.recv(MEGABYTE):
            pass
        os.waitid(os.P_PID, channel.supervisor.pid, os.WEXITED | os.WNOWAIT)
        channel.supervisor = EndingProcess(channel.supervisor.pid)
        return channel


def test_command_of_a_supervisor_that_takes_long_to_die_runs_once(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.touch()
    supervisor = DyingSupervisor(runs)
    supervisor.lease()
    steps = [shell("echo >> $1; exec sleep 600", runs)]
    task = CommandTask(supervisor, ResourceShortage(), "task", steps, mark="m", cwd=tmp_path, env=os.environ)
    with Capture() as capture:
        assert task.run(capture).problem == (
            "the supervisor of commands died (it is exiting) while 'sh' ran, which was killed: run it again"
        )
    supervisor.release()
    assert runs.read_text() == "\n"


def test_stopped_supervisor_is_continued_for_a_request_that_its_socket_can_not_hold(
    supervisor: SharedSupervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_client, "_MAX_BLOCKED_SECONDS", 0.01)
    variables = {**os.environ, **{f"LARGE_{number}": "x" * 100_000 for number in range(10)}}
    results = []
    for env in (os.environ, variables):  # the first one starts the supervisor
        task = CommandTask(supervisor, ResourceShortage(), "task", [["true"]], mark="m", cwd=tmp_path, env=env)
        with Capture() as capture:
            results.append(task.run(capture).code)
        assert supervisor.pid is not None
        os.kill(supervisor.pid, signal.SIGSTOP)
    assert results == [0, 0]


class Signalled(SupervisorProcess):
    """A supervisor that notes the signals that it is sent."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send(self, number: int) -> None:
        self.signals.append(number)


def test_silent_supervisor_is_killed_once_it_is_long_overdue() -> None:
    supervisor = Signalled()
    watch = SilenceWatch(supervisor, 0.0)
    for now in (4.9, 5.0, 10.0, 15.0, 20.0):
        watch.check(now, 10.0)
    assert supervisor.signals == [signal.SIGCONT] * 3 + [signal.SIGKILL]


def test_supervisor_that_was_frozen_with_its_exporter_is_not_killed() -> None:
    supervisor = Signalled()
    watch = SilenceWatch(supervisor, 0.0)
    watch.check(3600.0, 10.0)
    watch.note_report(3601.0)
    watch.check(3607.0, 10.0)
    assert supervisor.signals == [signal.SIGCONT] * 2


# A supervisor whose exporter is gone, with a process to kill that never ends. Its clock moves only while it waits.
UNKILLABLE = """
import os, select, socket, sys
from paropt_exporter.executors.supervisor import event_loop
from paropt_exporter.executors.supervisor.parent_process import ParentProcess

class Clock:
    now, kills = 0.0, 0
    def monotonic(self):
        return self.now

class Poll:
    def __init__(self):
        self._poll = select.poll()
        self.register = self._poll.register
    def poll(self, milliseconds):
        ready = self._poll.poll(0)
        clock.now += 0 if ready else milliseconds / 1000
        return ready

def kill_all(pids):
    clock.kills += 1
    if clock.kills > 1000:
        sys.exit("it does not pause")
    return True

clock = event_loop.time = Clock()
event_loop.select = type(select)("select")
event_loop.select.POLLIN, event_loop.select.poll = select.POLLIN, Poll
event_loop.kill_all = kill_all
ours, theirs = socket.socketpair()
ours.close()
supervisor = event_loop.Supervisor(theirs, ParentProcess(os.getpid()))
if not os.fork():
    os._exit(0)
supervisor.run()
"""


def test_supervisor_pauses_while_a_process_does_not_end() -> None:
    ended = run_python(UNKILLABLE)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("script", ["true", "sleep 0.1"])
def test_ended_command_frees_no_more_resources(supervisor: SharedSupervisor, script: str) -> None:
    """Once no command runs, a shortage is an error: no end of a command is left to wait for."""
    shortage = ResourceShortage()
    steps = [shell(script)] * 2
    task = CommandTask(supervisor, shortage, "task", steps, mark="m", cwd=Path("/"), env=os.environ)
    with Capture() as capture:
        assert task.run(capture).code == 0
    with pytest.raises(OSError, match="none left"):
        shortage.wait(OSError(errno.EMFILE, "none left"), attempts=100)


def test_usage_is_reported_while_a_command_runs(supervisor: SharedSupervisor) -> None:
    script = "held = b'x' * (80 << 20)\nwhile True: pass"
    conversation = Conversation(supervisor, python(script))
    for frame in conversation.frames():
        pid, cpu, _, memory, peak = frame["usage"]
        if cpu >= 0.3 and memory >= 80 * MEGABYTE:
            break
    assert peak >= memory
    conversation.stop("m")
    ended = conversation.read_end()
    assert ended["ended"] == signal.SIGKILL
    assert ended["usage"][0] == pid
    conversation.channel.close()


def test_command_with_a_closed_channel_is_killed(supervisor: SharedSupervisor) -> None:
    conversation = Conversation(supervisor, ["/bin/sleep", "600"])
    pid = next(frame["usage"][0] for frame in conversation.frames())
    conversation.channel.close()
    assert wait_until_gone([pid], HANG_SECONDS) == []


def test_closed_idle_channels_are_harmless(supervisor: SharedSupervisor) -> None:
    for _ in range(20):
        conversation = Conversation(supervisor, ["/bin/true"])
        assert conversation.read_end()["ended"] == 0
        conversation.channel.close()


def test_one_channel_runs_one_command_after_another(supervisor: SharedSupervisor) -> None:
    first = Conversation(supervisor, ["/bin/true"])
    assert first.read_end()["ended"] == 0
    supervisor.reuse(first.channel)
    for argv, status in ((["/bin/false"], 1 << 8), (["/bin/true"], 0)):
        later = Conversation(supervisor, argv)
        assert later.channel is first.channel
        assert later.read_end()["ended"] == status
        supervisor.reuse(later.channel)
    supervisor.close_idle_channels()
    assert later.channel.connection.fileno() == -1


def test_channels_share_equal_environments(supervisor: SharedSupervisor) -> None:
    """Each copy would add to the least memory that a command can show."""
    environment = {b"VARIABLE_%d" % number: b"x" * 100_000 for number in range(10)}
    conversations, kilobytes = [], []
    for _ in range(9):
        conversations.append(Conversation(supervisor, ["/bin/true"], environment=environment))
        assert conversations[-1].read_end()["ended"] == 0
        kilobytes.append(read_kilobytes(conversations[-1].channel.supervisor.pid, "VmRSS"))
    assert kilobytes[-1] < kilobytes[0] + 4_000  # eight copies would be 8,000
    for conversation in conversations:
        conversation.channel.close()


def test_late_stop_of_a_command_does_not_stop_the_next_one(supervisor: SharedSupervisor) -> None:
    """A task's stop and the end of its command may cross each other on the channel."""
    first = Conversation(supervisor, ["/bin/true"], mark="first")
    assert first.read_end()["ended"] == 0
    first.stop("first")
    supervisor.reuse(first.channel)
    second = Conversation(supervisor, ["/bin/sleep", "600"], mark="second")
    assert second.channel is first.channel
    assert "usage" in next(second.frames())
    second.stop("first")
    assert "ended" not in next(second.frames())
    second.stop("second")
    assert second.read_end()["ended"] == signal.SIGKILL
    second.channel.close()


def test_channels_of_a_dead_supervisor_are_not_reused(supervisor: SharedSupervisor) -> None:
    first = Conversation(supervisor, ["/bin/true"])
    assert first.read_end()["ended"] == 0
    supervisor.reuse(first.channel)
    supervisor.kill()
    first.channel.supervisor.wait(HANG_SECONDS)
    second = Conversation(supervisor, ["/bin/true"])
    assert second.channel is not first.channel
    assert second.read_end()["ended"] == 0
    second.channel.close()


def test_channels_leave_reserved_descriptors_free(supervisor: SharedSupervisor) -> None:
    first = Conversation(supervisor, ["/bin/true"])
    assert first.read_end()["ended"] == 0
    held = [os.dup(0)]
    while held[-1] < 60:  # then no lower number is free
        held.append(os.dup(0))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] * 4 // 3, limits[1]))  # of which a quarter is reserved
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            Conversation(supervisor, ["/bin/true"])
        supervisor.reuse(first.channel)
        second = Conversation(supervisor, ["/bin/true"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)
    assert second.read_end()["ended"] == 0
    second.channel.close()


def test_supervisor_without_descriptors_for_a_channel_keeps_its_commands(
    supervisor: SharedSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor closes the channel that it can't receive, perhaps before the request has been sent."""
    send_request = Channel.send_request

    def send_late(channel: Channel, *request: Any) -> None:
        closed = select.poll()
        closed.register(channel.connection, select.POLLHUP)
        assert closed.poll(HANG_SECONDS * 1000)
        send_request(channel, *request)

    running = Conversation(supervisor, ["/bin/sleep", "600"])
    assert "usage" in next(running.frames())
    pid = running.channel.supervisor.pid
    used = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = next(number for number in itertools.count() if number not in used)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    with monkeypatch.context() as late, pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        late.setattr(Channel, "send_request", send_late)
        Conversation(supervisor, ["/bin/true"])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    running.stop("m")
    assert running.read_end()["ended"] == signal.SIGKILL
    running.channel.close()
    later = Conversation(supervisor, ["/bin/true"])
    assert later.channel.supervisor.pid == pid
    later.channel.close()


def test_sixty_fourth_command_is_measured_too() -> None:
    with CommandPool(64) as pool:
        futures = [pool.submit_commands("task", [["sleep", "0.5"]], cwd="/") for _ in range(64)]
        outcomes = [future.result(HANG_SECONDS) for future in futures]
    assert {outcome.result for outcome in outcomes} == {Result.SUCCESS}
    assert all(outcome.measurement.memory_peak_bytes > 0 for outcome in outcomes)
    assert all(outcome.measurement.cpu_seconds < 0.2 for outcome in outcomes)


class FakeProc:
    """A /proc with the given processes; before each read of a stat, the next of `changes` happens.

    `parents` has the parent of each process, `sessions` its session, `marks` its environment. No real pid is as high.
    """

    def __init__(self, changes: list[Callable[[FakeProc], None]]) -> None:
        self.parents: dict[str, str] = {}
        self.sessions: dict[str, str] = {}
        self.marks: dict[str, list[str]] = {}
        self.exiting: set[str] = set()
        self._changes = changes

    def list_pids(self) -> list[str]:
        return ["self", *self.parents]

    def read_stat(self, pid: str) -> list[str] | None:
        if self._changes:
            self._changes.pop(0)(self)
        if pid not in self.parents:
            return None
        flags = "4" if pid in self.exiting else "0"
        return ["S", self.parents[pid], pid, self.sessions[pid], "0", "0", flags, *["0"] * 10, "1", *["0"] * 4]

    def list_children(self, pid: str) -> list[str]:
        return [child for child, parent in self.parents.items() if parent == pid]

    def read_environment(self, pid: str) -> list[str]:
        return self.marks.get(pid, [])


def refreshed(proc: FakeProc) -> list[Tree]:
    """Refresh a table of two commands without live members, with the marks "first" and "second"."""
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    for root, mark in ((9000010, "first"), (9000020, "second")):
        table.add(Tree(root, mark, 0.0), 0.0)
    table.refresh(1.0)
    return table.trees


def add_daemon(proc: FakeProc) -> None:
    """Add a daemon, 9000012, in the session of its parent, 9000011, which exits: it has no environment any more."""
    proc.parents = {"9000001": "0", "9000011": str(os.getpid()), "9000012": "9000011"}
    proc.sessions = {"9000001": "9000001", "9000011": "9000011", "9000012": "9000011"}
    proc.marks = {"9000012": ["second"]}


def test_daemon_whose_parent_exits_during_a_sample_belongs_to_its_command() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    first, second = refreshed(proc)
    assert "9000012" in second.members
    assert not first.members


@pytest.mark.parametrize("reads_before", range(6))
def test_daemon_whose_parent_is_reaped_during_a_sample_belongs_to_its_command(reads_before: int) -> None:
    def reap(proc: FakeProc) -> None:
        if proc.parents.pop("9000011", None):
            proc.parents["9000012"] = str(os.getpid())

    proc = FakeProc([*[lambda _: None] * reads_before, reap])
    add_daemon(proc)
    proc.parents["9000011"] = "9000020"  # a child of the main process, which reaps it
    first, second = refreshed(proc)
    assert "9000012" in second.members
    assert not first.members


def test_exiting_process_of_an_unknown_command_may_have_left_another() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    del proc.parents["9000012"]  # not started yet
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment, proc.list_children)
    for root, mark in ((9000010, "first"), (9000020, "second")):
        table.add(Tree(root, mark, 0.0), 0.0)
    table.refresh(1.0)
    assert not table.has_unseen_children()  # it lives, without an environment
    proc.exiting.add("9000011")
    table.refresh(2.0)
    assert table.has_unseen_children()
    del proc.parents["9000011"]
    proc.parents["9000012"] = str(os.getpid())
    assert table.has_unseen_children()
    table.refresh(3.0)
    assert not table.has_unseen_children()
    assert "9000012" in table.trees[1].members


def test_daemon_without_an_environment_is_known_by_its_limit() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    proc.marks = {"9000012": ["second"]}  # it may have set this itself
    limits = {"9000012": 111}
    table = ProcessTable(
        proc.list_pids, proc.read_stat, proc.read_environment, read_limit=lambda pid: limits.get(pid, 0)
    )
    for root, mark, limit in ((9000010, "first", 111), (9000020, "second", 222)):
        table.add(Tree(root, mark, 0.0, limit=limit), 0.0)
    table.refresh(1.0)
    assert "9000012" in table.trees[0].members


def test_descendant_without_a_mark_is_looked_at_again() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    proc.marks = {}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    for root, mark in ((9000010, "first"), (9000020, "second")):
        table.add(Tree(root, mark, 0.0), 0.0)
    table.refresh(1.0)
    proc.marks = {"9000012": ["first"]}
    table.refresh(2.0)
    assert "9000012" in table.trees[0].members


def test_pid_of_a_foreign_process_may_be_used_again_by_a_later_command() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    proc.parents["9000012"], proc.sessions["9000012"] = "9000001", "9000001"
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    earlier = Tree(9000010, "first", 0.0)
    table.add(earlier, 0.0)
    table.refresh(1.0)
    assert "9000012" not in earlier.members
    table.remove(earlier)
    proc.parents["9000012"] = str(os.getpid())
    later = Tree(9000020, "second", 3.0)
    table.add(later, 3.0)
    table.refresh(4.0)
    assert "9000012" in later.members


def test_foreign_process_with_the_number_of_an_ended_session_belongs_to_no_command() -> None:
    proc = FakeProc([])
    proc.parents = {"9000001": "0", "9000010": str(os.getpid()), "9000011": "9000010"}
    proc.sessions = {"9000001": "9000001", "9000010": "9000010", "9000011": "9000011"}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    tree = Tree(9000010, "first", 0.0)
    table.add(tree, 0.0)
    table.refresh(1.0)
    assert tree.members.keys() == {"9000010", "9000011"}
    del proc.parents["9000011"]
    table.refresh(2.0)
    proc.parents["9000011"] = "9000001"
    table.refresh(3.0)
    assert tree.members.keys() == {"9000010"}


def test_foreign_processes_are_not_read_again_for_commands_that_follow_each_other() -> None:
    proc = FakeProc([])
    add_daemon(proc)
    reads: list[str] = []

    def read_stat(pid: str) -> list[str] | None:
        reads.append(pid)
        return proc.read_stat(pid)

    table = ProcessTable(proc.list_pids, read_stat, proc.read_environment)
    table.skip_present(0.0)
    proc.parents["9000030"], proc.sessions["9000030"] = "9000001", "9000030"
    for place in range(5):
        tree = Tree(9000010 + place, "first", 0.5 * place)
        table.add(tree, 0.5 * place)
        table.refresh(0.5 * place + 0.1)
        table.remove(tree)
    assert reads.count("9000001") == 0
    assert reads.count("9000030") == 1


def test_samples_are_rarer_while_the_process_tree_stays_the_same() -> None:
    pace, shape = SamplingPace(), ((1, 10),)
    pauses = [pace.get_pause(now=now, cost=0.0, young=now < 0.5, shape=shape) for now in (0.0, 1.0, 3.0)]
    assert pauses == [0.02, 0.1, 0.25]
    assert pace.get_pause(now=3.25, cost=0.0, young=False, shape=((1, 11),)) == 0.1  # more memory
    assert pace.get_pause(now=3.35, cost=0.0, young=False, shape=((2, 11),)) == 0.1  # a child
    assert pace.get_pause(now=9.0, cost=0.009, young=False, shape=((2, 11),)) == pytest.approx(0.6)  # a crowded machine


@pytest.mark.parametrize("shown_at_first", [True, False])
def test_command_that_proc_does_not_show_is_known_by_its_pid(shown_at_first: bool) -> None:
    proc = FakeProc([])
    if shown_at_first:  # it then starts a set-user-id program
        proc.parents, proc.sessions = {"9000010": str(os.getpid())}, {"9000010": "9000010"}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    tree = Tree(9000010, "first", 0.0)
    table.add(tree, 0.0)
    proc.parents.clear()
    table.refresh(1.0)
    assert table.find_owner(9000010, 2.0) is tree
    table.settle(9000010, 0.5, 2.0)
    assert tree.root_ended
    assert tree.get_cpu_seconds() == 0.5


def test_command_that_proc_shows_later_is_measured() -> None:
    proc = FakeProc([])
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    tree = Tree(9000010, "first", 0.0)
    table.add(tree, 0.0)
    proc.parents, proc.sessions = {"9000010": str(os.getpid())}, {"9000010": "9000010"}
    table.refresh(1.0)
    assert tree.members.keys() == {"9000010"}


def test_child_that_proc_never_shows_does_not_count_as_unseen() -> None:
    proc = FakeProc([])
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment, lambda _: ["9000010", "9000011"])
    table.add(Tree(9000010, "first", 0.0), 0.0)
    table.refresh(1.0)
    assert not table.has_unseen_children()


def test_process_that_was_not_killed_in_time_belongs_to_no_later_command() -> None:
    proc = FakeProc([])
    proc.parents = {"9000010": str(os.getpid()), "9000011": "9000010"}
    proc.sessions = {"9000010": "9000010", "9000011": "9000010"}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment, proc.list_children)
    earlier = Tree(9000010, "first", 0.0)
    table.add(earlier, 0.0)
    table.refresh(1.0)
    table.settle(9000010, 0.1, 1.0)
    table.remove(earlier)
    proc.parents = {"9000011": str(os.getpid()), "9000012": "9000011"}  # it has a child by now
    proc.sessions["9000012"] = "9000012"
    later = Tree(9000020, "second", 3.0)
    table.add(later, 3.0)
    table.refresh(4.0)
    assert not later.members
    assert not table.has_unseen_children()
    assert table.find_owner(9000011, 5.0) is None


def test_end_of_a_process_that_refuses_its_kill_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        if pid == 9000011:
            raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert kill_all([9000010, 9000011])
    assert not kill_all([9000011])


def test_signal_is_refused_if_only_processes_of_other_users_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def send(group: int, number: int) -> None:
        raise errors[group]

    monkeypatch.setattr(os, "killpg", send)
    proc = FakeProc([])
    proc.parents = {"9000010": str(os.getpid()), "9000011": "9000010"}
    proc.sessions = {"9000010": "9000010", "9000011": "9000010"}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    tree = Tree(9000010, "first", 0.0)
    table.add(tree, 0.0)
    table.refresh(1.0)
    errors: dict[int, OSError] = {9000010: PermissionError(), 9000011: PermissionError()}
    assert tree.send(signal.SIGKILL)
    errors[9000010] = ProcessLookupError()  # the next sample shows which processes it left
    assert not tree.send(signal.SIGKILL)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Command, list[int]]]:
    """Make a command whose main process has left another one behind, and the list of the signals that this gets."""
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append(number))
    proc = FakeProc([])
    proc.parents = {"9000010": str(os.getpid()), "9000011": "9000010"}
    proc.sessions = {"9000010": "9000010", "9000011": "9000010"}
    table = ProcessTable(proc.list_pids, proc.read_stat, proc.read_environment)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = Command(event_loop.Channel(ours), "first", -1)
        command.tree = Tree(9000010, "first", 0.0)
        table.add(command.tree, 0.0)
        table.refresh(1.0)
        table.settle(9000010, 0.1, 1.0)
        command.status = 0
        assert not command.advance(1.0, saw_all=True)
        assert sent == []
        yield command, sent


def test_left_process_keeps_its_grace_if_the_supervisor_stalls(left: tuple[Command, list[int]]) -> None:
    """On a busy machine, SIGKILL came without SIGTERM."""
    command, sent = left
    command.advance(60.0, saw_all=True)
    assert sent == [signal.SIGTERM, signal.SIGCONT]
    command.advance(61.9, saw_all=True)
    assert sent == [signal.SIGTERM, signal.SIGCONT]
    command.advance(62.0, saw_all=True)
    assert sent == [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL]


def test_stop_sends_sigterm_to_processes_that_may_still_exit_by_themselves(left: tuple[Command, list[int]]) -> None:
    """They got only SIGKILL, after the grace."""
    command, sent = left
    command.stop(10.0, 1.1)
    assert sent == [signal.SIGTERM, signal.SIGCONT]
    command.stop(5.0, 1.2)
    command.advance(2.0, saw_all=True)
    assert sent == [signal.SIGTERM, signal.SIGCONT]
