"""Run the commands of one task through the supervisor: find and start each, read its output and usage, and stop it.

If a command can't run, one line explains why and how to fix it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from paropt_exporter.cpu_demand import NO_TIME, CoreTime
from paropt_exporter.descriptors import check_reserve
from paropt_exporter.errors import NO_PROCESSES, explain_shortage
from paropt_exporter.executors.commands.output import Capture, OutputReader, drain_output
from paropt_exporter.executors.commands.supervisor_client import (
    Channel,
    SharedSupervisor,
    SupervisorProcess,
    describe_death,
    kill_leftovers,
)
from paropt_exporter.executors.frames import build_frame
from paropt_exporter.signal_numbers import signal

if TYPE_CHECKING:
    from paropt_exporter.executors.commands.traces import Trace

log = logging.getLogger(__name__)

_MAX_SILENCE_SECONDS = 5.0
_MAX_OVERDUE_PERIODS = 2  # of silence, in a row, after SIGKILL was due; the supervisor itself gives up after 5 s
_NO_FILE = "no such file"
_SHELL_WORDS = frozenset(
    {".", "export", "set", "unset", "ulimit", "umask", "eval", "exec", "exit", "trap", "wait", "read", "shift", "alias"}
    | {"type", "if", "for", "while", "until", "case", "!", "{"}
)
_BASH_WORDS = frozenset({"[[", "pushd", "popd", "shopt", "declare", "typeset", "let", "mapfile", "readarray"})
_ENVIRONMENTS = 16  # in the caches: the tasks of a stage share one environment
_MOST_SAMPLES = 512  # of a command; after two minutes, older samples are thinned out
_PROGRAMS = 256  # programs whose possible paths are cached


class Usage(Struct, frozen=True, kw_only=True):
    """The resource usage of a command's processes so far. `memory_bytes` is current, `memory_peak_bytes` the highest.

    `core_time` includes current waits for a core, `run_delay_seconds` only waits that have ended. `sampled_seconds`:
    the monotonic time of the supervisor's sample; 0: no sample yet.
    """

    cpu_seconds: float = 0.0
    run_delay_seconds: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    core_time: CoreTime = NO_TIME
    sampled_seconds: float = 0.0

    def add_to(self, earlier: Usage) -> Usage:
        """Return the sum of this usage and that of earlier steps."""
        return Usage(
            cpu_seconds=earlier.cpu_seconds + self.cpu_seconds,
            run_delay_seconds=earlier.run_delay_seconds + self.run_delay_seconds,
            memory_bytes=self.memory_bytes,
            memory_peak_bytes=max(earlier.memory_peak_bytes, self.memory_peak_bytes),
            core_time=earlier.core_time + self.core_time,
            sampled_seconds=self.sampled_seconds or earlier.sampled_seconds,
        )


class StepResult(Struct, frozen=True, kw_only=True):
    """How a step ended: its exit code as in `subprocess` (negative for a signal), or the problem if there is none."""

    code: int | None = None
    problem: str = ""


class CommandTask:
    """One task: its steps in order, ended by the first failure.

        queued -> step 1 -> step 2 -> ... -> ended
                    ^ stop goes to the running step, and no step follows

    Guarantee: no stop is lost. `stop` notes it under the lock, then sends it if there is a channel; a step publishes
    its channel, then checks for a stop, under the same lock. A thread of the pool calls `run` once; any thread may
    call the other methods.
    """

    def __init__(
        self,
        supervisor: SharedSupervisor,
        shortage: ResourceShortage,
        label: str,
        steps: Sequence[Sequence[str]],
        *,
        mark: str,
        cwd: Path,
        env: Mapping[str, str],
        traced: bool = False,
    ) -> None:
        """`traced`: record the files that the steps use; `trace` has them."""
        self._traced = traced
        self._traces: list[Trace] = []
        self.label = label
        self.pid = 0  # of the current or last step
        self.worker = ""  # the pool sets these two
        self.started_seconds = self.ended_seconds = 0.0
        self._supervisor = supervisor
        self._shortage = shortage
        self._is_running = False  # whether the supervisor has reported the start of the current step
        self._steps = tuple(tuple(step) for step in steps)
        self._mark = mark
        self._limit = int.from_bytes(os.urandom(7), "little") | 1  # a value of RLIMIT_LOCKS that no other command has
        self._cwd = cwd
        self._env = env
        self._lock = threading.Lock()  # guards: _stopped, _grace, _channel, _ended, _earlier, _latest, _samples
        self._stopped = False
        self._grace = 0.0
        self._channel: Channel | None = None
        self._kill_at = math.inf  # when the supervisor kills a stopped step
        self._ended = False
        self._earlier = Usage()
        self._latest = Usage()
        self._samples: list[tuple[float, CoreTime]] = []  # of the current or last step

    def run(self, capture: Capture) -> StepResult:
        """Run the steps and return how the last one ended. Blocks until then. Output goes to `capture`."""
        step_result = StepResult(problem="stopped before its first step")
        for step in self._steps:
            if self.stopped:
                break
            try:
                step_result = self._run_step(step, capture)
            except CannotRun as problem:
                step_result = StepResult(problem=str(problem))
            except OSError as error:
                step_result = StepResult(problem=f"cannot run {step[0]!r}: {_explain_failed_start(error)}")
            if step_result.code != 0:
                break
        with self._lock:
            self._ended = True
        return step_result

    def stop(self, grace_seconds: float) -> bool:
        """Send SIGTERM to the running step now, SIGKILL after the grace; return False if the task has ended."""
        with self._lock:
            if self._ended:
                return False
            self._grace = min(self._grace, grace_seconds) if self._stopped else grace_seconds
            self._stopped = True
            self._kill_at = min(self._kill_at, time.monotonic() + grace_seconds)
            if self._channel is not None:
                self._send_stop(self._channel)
        self._shortage.wake_all()
        return True

    @property
    def stopped(self) -> bool:
        """Whether it was stopped before it ended."""
        with self._lock:
            return self._stopped

    @property
    def trace(self) -> Trace | None:
        """The trace of the steps that have ended; None: it was not to be traced."""
        if not self._traces:
            return None
        from paropt_exporter.executors.commands.traces import merge_traces

        return merge_traces(self._traces)

    def usage(self) -> Usage:
        """Return the task's usage so far, as last reported by the supervisor."""
        with self._lock:
            return self._latest.add_to(self._earlier)

    def list_samples(self) -> tuple[tuple[float, CoreTime], ...]:
        """Return the monotonic times of the last step's samples, with its core time until then."""
        with self._lock:
            return tuple(self._samples)

    def _run_step(self, step: Sequence[str], capture: Capture) -> StepResult:
        """Run a step. If the system is short of a resource, wait until another command ends, and retry."""
        program = find_program(step, cwd=self._cwd, env=self._env)
        attempts, changes = 0, 0  # since another command has started or ended
        while not self.stopped:
            try:
                return self._try_step(step, program, capture)
            except OSError as error:
                self._supervisor.close_idle_channels()
                attempts = attempts + 1 if changes == self._shortage.changes else 1
                changes = self._shortage.changes
                self._shortage.wait(error, attempts)
        return StepResult(problem="stopped before its first step")

    def _try_step(self, step: Sequence[str], program: str, capture: Capture) -> StepResult:
        self.pid = 0
        with contextlib.ExitStack() as stack:
            output, write_end = os.pipe()
            stack.callback(os.close, output)
            try:
                trace = self._open_trace(stack)
                check_reserve(output, write_end)
                environment, request = self._build_request(step, program)
                channel = self._supervisor.start_command(environment, request, write_end, trace)
            finally:
                os.close(write_end)
            try:
                result, untraced = self._await_end(channel, output, step, program, capture)
            except ConnectionError:
                result, untraced = self._build_death_result(channel.supervisor, step), "the supervisor of commands died"
            if trace is None:
                return result
            if (why := self._add_trace(trace, result, untraced)) and not self.stopped:
                self._traced = False
                log.warning("a traced command failed: it runs again untraced", extra={"command": step[0], "why": why})
                return self._try_step(step, program, capture)
            return result

    def _open_trace(self, stack: contextlib.ExitStack) -> int | None:
        if not self._traced:
            return None
        descriptor = os.memfd_create("paropt-trace")
        stack.callback(os.close, descriptor)
        return descriptor

    def _add_trace(self, descriptor: int, result: StepResult, untraced: str) -> str:
        """Add the trace of a step. Return why the step may have failed because it was traced, or ""."""
        from paropt_exporter.executors.commands.traces import Trace, read_trace  # here: few commands are traced

        trace = Trace(problems=(untraced,)) if untraced else read_trace(descriptor)
        self._traces.append(trace)
        if result.code is None:
            return untraced
        return (
            f"{trace.privileged} has no rights of its own while it is traced"
            if result.code and trace.privileged
            else ""
        )

    def _await_end(
        self, channel: Channel, output: int, step: Sequence[str], program: str, capture: Capture
    ) -> tuple[StepResult, str]:
        """Return the step's result, and why it was not traced although it should have been; otherwise ""."""
        frame: dict[str, Any] | None = None
        try:
            self._publish_channel(channel)
            frame = self._read_until_end(channel, output, capture)
        finally:
            drain_output(output, capture)
            self._on_step_end()
            if frame is None:
                channel.close()
            else:
                self._supervisor.reuse(channel)
        if frame.get("failed") in _SHORTAGES:
            raise OSError(frame["failed"], os.strerror(frame["failed"]))
        if "failed" in frame:
            raise build_refusal(step, frame["failed"], program=self._cwd / program, entered=frame["entered"])
        status = frame["ended"]
        self._store_times(*frame["times"])
        if frame["left"]:
            end = "they do not end on KILL" if frame["unended"] else "ended with their stage"
            log.warning(
                f"a command left processes behind: {end}",
                extra={"task": self.label, "command": step[0], "processes": frame["unended"] or frame["left"]},
            )
        if status is None:
            problem = f"{step[0]!r} (pid {self.pid}) does not end on KILL: it waits in the kernel, or is not ours"
            return StepResult(problem=problem), ""
        return StepResult(code=os.waitstatus_to_exitcode(status)), frame.get("untraced", "")

    def _read_until_end(self, channel: Channel, output: int, capture: Capture) -> dict[str, Any]:  # Any: a frame
        """Read output and frames until the last frame; raise ConnectionError if the supervisor dies first.

        A supervisor that reports nothing is continued, or killed if it has not ended a step that it should have ended.
        """
        poll = select.poll()
        reader = OutputReader(output, capture, poll)
        frames, supervisor = channel.connection.fileno(), channel.supervisor
        for descriptor in (frames, supervisor.handle):  # a forked child of this process may keep the channel open
            poll.register(descriptor, select.POLLIN)
        watch = SilenceWatch(supervisor, time.monotonic())
        while True:
            timeout = min(_MAX_SILENCE_SECONDS, reader.get_pause_left_seconds())
            events = [descriptor for descriptor, _ in poll.poll(timeout * 1000)]
            if frames in events:
                watch.note_report(time.monotonic())
            elif supervisor.handle in events:
                raise ConnectionResetError
            else:
                watch.check(time.monotonic(), self._get_kill_time())
            reader.resume_if_due()
            for descriptor in events:
                if descriptor == output:
                    reader.read()
                    continue
                if descriptor == supervisor.handle:
                    continue  # it has ended; its last frames are in the channel
                for frame in channel.receive():
                    self._store_usage(frame)
                    if "ended" in frame or "failed" in frame:
                        return frame

    def _get_kill_time(self) -> float:
        with self._lock:
            return self._kill_at

    def _store_times(self, began_seconds: float, ended_seconds: float) -> None:
        """Store the supervisor's times of a step: they leave out the delay between the supervisor and this thread."""
        if not self.ended_seconds:
            self.started_seconds = began_seconds
        self.ended_seconds = ended_seconds

    def _store_usage(self, frame: dict[str, Any]) -> None:  # Any: a frame
        if "usage" in frame:
            self.pid, cpu, delay, memory, peak = frame["usage"]
            sampled, run, wait = frame["sampled"]
            usage = Usage(
                cpu_seconds=cpu,
                run_delay_seconds=delay,
                memory_bytes=memory,
                memory_peak_bytes=peak,
                core_time=CoreTime(run, wait),
                sampled_seconds=sampled,
            )
            with self._lock:
                self._latest = usage
                self._samples.append((sampled, usage.core_time))
                if len(self._samples) > _MOST_SAMPLES:
                    del self._samples[:-1:2]  # not the last one, which may have the complete core time
            if not self._is_running:  # of a short command, this is its last frame
                self._is_running = True
                self._shortage.note_start()

    def _build_request(self, step: Sequence[str], program: str) -> tuple[bytes, bytes]:
        """Return the frames of the environment and of the command."""
        frame = {
            "program": _encode_text(program),
            "argv": [_encode_text(argument) for argument in step],
            "cwd": _encode_text(str(self._cwd)),
            "mark": self._mark,
            "limit": self._limit,
        }
        return _encode_environment(tuple(self._env.items())), build_frame(frame)

    def _publish_channel(self, channel: Channel) -> None:
        with self._lock:
            self._channel = channel
            self._samples.clear()
            if self._stopped:
                self._send_stop(channel)

    def _send_stop(self, channel: Channel) -> None:
        channel.supervisor.resume()  # a task may have stopped the supervisor
        try:
            channel.connection.sendall(build_frame({"stop": self._grace, "mark": self._mark}))
        except OSError:
            return  # the supervisor died: the thread in `run` notices it too, and kills the processes

    def _on_step_end(self) -> None:
        if self._is_running:
            self._is_running = False
            self._shortage.note_end()
        with self._lock:
            self._channel = None
            self._earlier = self._latest.add_to(self._earlier)
            self._latest = Usage()

    def _build_death_result(self, supervisor: SupervisorProcess, step: Sequence[str]) -> StepResult:
        cause = describe_death(supervisor)
        if not supervisor.is_ending and not self.pid:  # it had no descriptors left to receive the step's
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        killed = kill_leftovers(self.pid, self._mark, self._limit)
        log.error("the supervisor of commands died", extra={"cause": cause, "command": step[0], "killed": killed})
        return StepResult(
            problem=f"the supervisor of commands died ({cause}) while {step[0]!r} ran, which was killed: run it again"
        )


class SilenceWatch:
    """Signals a supervisor that reports nothing: it reports at least once a second unless a signal has stopped it.

    After each period of silence it gets SIGCONT, but SIGKILL once several periods in a row have ended after it should
    have killed a step. Seconds would not do: both processes may have been frozen, with their container, for an hour.
    """

    def __init__(self, supervisor: SupervisorProcess, now: float) -> None:
        self._supervisor = supervisor
        self.note_report(now)

    def note_report(self, now: float) -> None:
        """Note that the supervisor has reported."""
        self._silent_at = now + _MAX_SILENCE_SECONDS
        self._overdue_periods = 0

    def check(self, now: float, kill_at: float) -> None:
        """Send a signal if a period of silence has ended. `kill_at`: when the supervisor should kill the step."""
        if now < self._silent_at:
            return
        self._silent_at = now + _MAX_SILENCE_SECONDS
        self._overdue_periods += now >= kill_at
        hopeless = self._overdue_periods > _MAX_OVERDUE_PERIODS
        self._supervisor.send(signal.SIGKILL if hopeless else signal.SIGCONT)


class CannotRun(Exception):
    """A command can't be started. The message is one line: the fault, its place and the remedy."""


def find_program(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    """Return the path of the program that `argv` names; search like a shell in `cwd` with the PATH of `env`.

    Raises CannotRun if it is missing, not a file or not executable, or if `argv`, `cwd` or `env` is invalid.
    """
    _check_arguments(argv, cwd, env)
    name = argv[0]
    if "/" in name:
        problem = _find_problem(str(cwd / name))
        if problem:
            raise CannotRun(f"cannot run {name!r}: {problem}")
        return name
    candidates = _list_candidates(str(cwd), env.get("PATH") or os.defpath, name)
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and not _find_problem(candidate):  # cheaper than an exception in most folders
            return candidate
    refused = ""
    for candidate in candidates:
        problem = _find_problem(candidate)
        if not problem.startswith(_NO_FILE) and os.path.isfile(candidate):  # noqa: PTH113 -- likewise
            refused = problem
    remedy = suggest_shell(name) or "install it or correct the stage's run"
    raise CannotRun(f"cannot run {name!r}: {refused or f'not found on PATH: {remedy}'}")


def suggest_shell(program: str) -> str:
    """Return the remedy for a word that means something to a shell, but is no program; "" for any other."""
    variable, is_set, _ = program.partition("=")
    if is_set and variable.isidentifier():
        return "set variables under `env`, or add `shell: true`"
    if program == "cd":
        return "name the folder with `cwd`, or add `shell: true`"
    if program == "source":
        return "only bash knows it: write `.` instead, and add `shell: true`"
    if program in _BASH_WORDS:
        return "only bash knows it: write [bash, -c, '…']"
    return "only a shell knows it: add `shell: true`" if program in _SHELL_WORDS or program.startswith("(") else ""


@lru_cache(maxsize=_PROGRAMS)
def _list_candidates(cwd: str, path: str, name: str) -> tuple[str, ...]:
    """Return the paths where a program may be. Whether it is there is not cached, since files come and go in a run."""
    return tuple(os.path.join(cwd, folder, name) for folder in path.split(os.pathsep))  # noqa: PTH118 -- Path would drop "./"


def build_refusal(argv: Sequence[str], code: int, *, program: Path, entered: bool) -> CannotRun:
    """Explain why the system refused the command's folder or, if the folder was `entered`, its program."""
    name = argv[0]
    if not entered:
        return CannotRun(f"cannot run {name!r}: cannot enter its folder: {os.strerror(code)}: correct its cwd")
    meaning = {
        errno.ENOENT: _describe_interpreter(program),
        errno.EACCES: f"permission denied: chmod +x {program}, and see that its folder allows running programs",
        errno.ENOEXEC: "no program of this machine, and no script with a first line such as '#!/bin/sh': add one",
        errno.E2BIG: "its arguments and environment are too long for the system: pass fewer at once",
        errno.EAGAIN: NO_PROCESSES,
        errno.ENOMEM: "the system is out of memory: use fewer workers",
    }.get(code, os.strerror(code))
    return CannotRun(f"cannot run {name!r}: {meaning}")


@lru_cache(maxsize=_ENVIRONMENTS)  # the environment is most of a request
def _encode_environment(variables: tuple[tuple[str, str], ...]) -> bytes:
    return build_frame({"env": {_encode_text(key): _encode_text(value) for key, value in variables}})


def _encode_text(text: str) -> bytes:
    """Return the bytes that a program gets. Text that the locale can't encode came from the config, which is UTF-8."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_RETRY_SECONDS = 5.0
_RETRY_ALONE_SECONDS = 1.0  # clients of the endpoint may free descriptors too
_MAX_ATTEMPTS_ALONE = 5  # while no command is running that could free any


class ResourceShortage:
    """Counts running commands, so that a command can wait for the end of another if the system is short of resources.

    Guarantee: each command that ends, or starts after a wait, wakes one waiting command to retry.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards: all below
        self._running = 0
        self.changes = 0  # starts and ends so far

    def note_start(self) -> None:
        """Count a command that has started."""
        with self._changed:
            self._running += 1
            self.changes += 1
            self._changed.notify()

    def note_end(self) -> None:
        with self._changed:
            self._running -= 1
            self.changes += 1
            self._changed.notify()

    def wake_all(self) -> None:
        """Wake all waiting commands, since one of them was stopped."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, error: OSError, attempts: int) -> None:
        """Wait until a retry after `error` may succeed; raise `error` if none will.

        `attempts`: how many since `changes` last changed. A running command frees resources when it ends; if none runs,
        only other programs can. A command counts as running from its first report of usage on; a short one reports none
        before its end.
        """
        with self._changed:
            if error.errno not in _SHORTAGES or (not self._running and attempts >= _MAX_ATTEMPTS_ALONE):
                raise error
            self._changed.wait(_RETRY_SECONDS if self._running else _RETRY_ALONE_SECONDS)


def _explain_failed_start(error: OSError) -> str:
    """Return why a command can't start through the supervisor, and the remedy."""
    if shortage := explain_shortage(error):
        return shortage
    if error.filename == sys.executable:
        return (
            f"the exporter's Python, which starts all commands, can't be executed: {error.filename}: {error.strerror}: "
            "repair it and start the exporter again"
        )
    return f"{error.strerror or error}: check the limits of the system"


def _check_arguments(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
    if not argv or not argv[0]:
        raise CannotRun("cannot run '': the command is empty: correct the stage's run")
    problem = _find_bad_variable(tuple(env.items()))
    if "\0" in "".join(argv) or problem == _NUL:
        raise CannotRun(
            f"cannot run {argv[0]!r}: an argument or a variable holds a NUL character: no program can get one"
        )
    if problem:
        raise CannotRun(f"cannot run {argv[0]!r}: a variable's name is empty or holds '=': correct the stage's env")
    if not os.path.isdir(cwd):  # noqa: PTH112 -- for each command: a method of Path costs five times as much
        found = "is no folder" if os.path.exists(cwd) else "does not exist"  # noqa: PTH110 -- likewise
        raise CannotRun(f"cannot run {argv[0]!r}: its folder {str(cwd)!r} {found}: correct its cwd")


_NUL, _BAD_NAME = "nul", "name"


@lru_cache(maxsize=_ENVIRONMENTS)
def _find_bad_variable(variables: tuple[tuple[str, str], ...]) -> str:
    if any("\0" in text for variable in variables for text in variable):
        return _NUL
    return _BAD_NAME if any(not key or "=" in key for key, _ in variables) else ""


def _find_problem(path: str) -> str:
    """Return why a file can't run as a program; "" if it can."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 -- one system call for each folder of PATH
    except (FileNotFoundError, NotADirectoryError):
        return f"{_NO_FILE} {path}: correct the stage's run"
    except OSError as error:
        return f"{path}: {error.strerror}"
    if stat.S_ISDIR(mode):
        return f"{path} is a directory: name a program in it"
    return "" if os.access(path, os.X_OK) else f"permission denied: chmod +x {path}"


def _describe_interpreter(program: Path) -> str:
    """Explain why the system finds no interpreter for a script; it counts a carriage return as part of the name."""
    try:
        with program.open("rb") as file:
            line = file.readline(256)
    except OSError:
        line = b""
    if line.startswith(b"#!") and line.endswith(b"\r\n"):
        import shlex

        return f"its lines end as on Windows (CR LF): sed -i 's/\\r$//' {shlex.quote(str(program))}"
    named = f" ({line[2:].decode('utf-8', 'replace').strip()})" if line.startswith(b"#!") else ""
    return f"its first line names an interpreter that is missing{named}: install it"
