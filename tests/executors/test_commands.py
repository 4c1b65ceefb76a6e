"""CommandPool: any end of a command is an outcome."""

from __future__ import annotations

import errno
import gc
import os
import stat
import sys
import threading
from collections import UserDict
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from paropt_exporter.events import Result
from paropt_exporter.executors.commands.command_pool import CommandPool, classify_result
from paropt_exporter.executors.commands.command_task import (
    CommandTask,
    StepResult,
    build_refusal,
)
from paropt_exporter.executors.commands.output import OutputFile
from paropt_exporter.executors.commands.supervisor_client import SUPERVISOR
from support.command_scripts import HANG_SECONDS, make_fifo, open_fifo, python, read_fifo, run, shell
from support.environment import removed_while_copied
from support.pool_tasks import eventually
from support.processes import open_descriptors


@pytest.fixture
def pool() -> Iterator[CommandPool]:
    with CommandPool(2) as pool:
        yield pool


def test_successful_command_has_an_empty_message(pool: CommandPool) -> None:
    outcome = run(pool, ["true"])
    assert (outcome.result, outcome.message, outcome.exit_code, outcome.signal) == (Result.SUCCESS, "", 0, None)
    assert not outcome.stopped


def test_task_is_queued_while_another_thread_removes_a_variable(
    pool: CommandPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with removed_while_copied(monkeypatch):
        future = pool.submit_commands("task", [["true"]], cwd="/")
    assert future.result(HANG_SECONDS).result is Result.SUCCESS


def test_stdout_and_stderr_keep_their_order(pool: CommandPool) -> None:
    outcome = run(pool, shell("echo one; echo two >&2; echo three"))
    assert outcome.output == "one\ntwo\nthree\n"


def test_failed_command_has_its_exit_code(pool: CommandPool) -> None:
    outcome = run(pool, shell("exit 3"))
    assert (outcome.result, outcome.message, outcome.exit_code) == (Result.FAILURE, "exit 3", 3)


def test_signal_exit_137_and_stop_have_different_results(pool: CommandPool, tmp_path: Path) -> None:
    killed = run(pool, shell("kill -KILL $$"))
    coded = run(pool, shell("exit 137"))
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell("echo > $1; exec sleep 600", fifo)], cwd="/")
    read_fifo(fifo)
    assert pool.stop(future, grace_seconds=0)
    stopped = future.result(HANG_SECONDS)

    assert (killed.result, killed.exit_code, killed.signal) == (Result.ERROR, None, 9)
    assert killed.message == "killed by SIGKILL (9), perhaps by the out-of-memory killer"
    assert (coded.result, coded.exit_code, coded.signal) == (Result.FAILURE, 137, None)
    assert coded.message.startswith("exit 137: something that it ran was killed by SIGKILL (9)")
    assert (stopped.result, stopped.stopped, stopped.signal) == (Result.CANCELLATION, True, 9)
    assert not killed.stopped


@pytest.mark.parametrize("number", [35, 63])
def test_real_time_signal_is_named_by_its_number(pool: CommandPool, number: int) -> None:
    outcome = run(pool, shell(f"kill -{number} $$"))
    assert (outcome.result, outcome.signal, outcome.message) == (Result.ERROR, number, f"killed by signal {number}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (126, "exit 126: a command could not be executed"),
        (127, "exit 127: a command was not found"),
        (139, "exit 139: something that it ran was killed by SIGSEGV (11)"),
        (200, "exit 200"),
        (255, "exit 255"),
    ],
)
def test_shell_exit_codes_are_explained(code: int, message: str) -> None:
    assert classify_result(StepResult(code=code), stopped=False) == (Result.FAILURE, message)


def test_steps_run_in_order_and_share_their_output(pool: CommandPool, tmp_path: Path) -> None:
    outcome = run(pool, shell("echo first > made; echo one"), shell("cat made"), cwd=tmp_path)
    assert outcome.output == "one\nfirst\n"


def test_measurement_has_the_samples_of_the_last_step(pool: CommandPool) -> None:
    outcome = run(pool, shell("exit 0"), python("while __import__('time').process_time() < 0.3: pass"))
    times = [at for at, _ in outcome.measurement.samples]
    assert times == sorted(times)
    assert outcome.measurement.started_seconds < times[0] < times[-1]
    _, core_time = outcome.measurement.samples[-1]
    assert 0.3 <= core_time.run_seconds <= outcome.measurement.cpu_seconds


def test_first_failed_step_ends_the_task(pool: CommandPool) -> None:
    outcome = run(pool, ["echo", "one"], ["false"], ["echo", "never"])
    assert (outcome.message, outcome.output) == ("exit 1", "one\n")


def test_environment_is_as_given_plus_one_mark(pool: CommandPool) -> None:
    future = pool.submit_commands("task", [["env"]], cwd="/", env={"PATH": os.defpath, "LETTER": "é\n=x"})
    lines = future.result(HANG_SECONDS).output.splitlines()
    assert [line for line in lines if not line.startswith(("PATH=", "PAROPT_COMMAND="))] == ["LETTER=é", "=x"]


class VanishingVariables(UserDict[str, str]):
    """An environment from which another thread removes a variable while it is copied."""

    def __iter__(self) -> Iterator[str]:
        yield "REMOVED"
        yield from self.data


def test_variable_that_another_thread_removes_fails_no_task(pool: CommandPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", VanishingVariables(os.environ))
    assert run(pool, ["true"]).result is Result.SUCCESS


def test_non_utf8_arguments_arrive_unchanged(pool: CommandPool) -> None:
    outcome = run(pool, python("import sys; print(ascii(sys.argv[1].encode('utf-8', 'surrogateescape')))", "caf\udce9"))
    assert outcome.output == "b'caf\\xe9'\n"


def test_program_is_found_on_the_path_of_the_commands_environment(pool: CommandPool, tmp_path: Path) -> None:
    tool = tmp_path / "only-here"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    future = pool.submit_commands("task", [["only-here"]], cwd="/", env={"PATH": f"/nowhere:{tmp_path}"})
    assert future.result(HANG_SECONDS).output == "found\n"


def test_relative_program_is_found_in_the_commands_folder(pool: CommandPool, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\npwd\n")
    tool.chmod(0o755)
    assert run(pool, ["./tool"], cwd=tmp_path).output == f"{tmp_path.resolve()}\n"


def test_missing_program_is_reported_with_a_remedy(pool: CommandPool) -> None:
    outcome = run(pool, ["no-such-tool", "check"])
    assert outcome.result is Result.ERROR
    assert outcome.message == "cannot run 'no-such-tool': not found on PATH: install it or correct the stage's run"
    assert (outcome.exit_code, outcome.signal) == (None, None)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["A=1", "true"], "set variables under `env`, or add `shell: true`"),
        (["cd", "docs"], "name the folder with `cwd`, or add `shell: true`"),
        (["export", "A=1"], "only a shell knows it: add `shell: true`"),
        (["source", ".venv/bin/activate"], "only bash knows it: write `.` instead, and add `shell: true`"),
        (["[[", "-n", "a", "]]"], "only bash knows it: write [bash, -c, '…']"),
    ],
)
def test_word_of_a_shell_is_reported_with_its_own_remedy(pool: CommandPool, words: list[str], remedy: str) -> None:
    found_nowhere = pool.submit_commands("task", [words], cwd="/", env={"PATH": "/nowhere"})  # some systems have a cd
    assert found_nowhere.result(HANG_SECONDS).message == f"cannot run {words[0]!r}: not found on PATH: {remedy}"


def test_missing_file_is_reported_with_its_path(pool: CommandPool, tmp_path: Path) -> None:
    outcome = run(pool, ["./run.sh"], cwd=tmp_path)
    assert outcome.message == f"cannot run './run.sh': no such file {tmp_path}/run.sh: correct the stage's run"


def test_file_that_is_not_executable_is_reported_with_chmod(pool: CommandPool, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(stat.S_IRUSR | stat.S_IWUSR)
    outcome = run(pool, ["./run.sh"], cwd=tmp_path)
    assert outcome.result is Result.ERROR
    assert outcome.message == f"cannot run './run.sh': permission denied: chmod +x {script}"


@pytest.mark.parametrize("reason", ["Permission denied", "No such file or directory"])
def test_python_of_the_exporter_that_cannot_start_is_named(
    pool: CommandPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    python = tmp_path / "python"
    if reason == "Permission denied":
        python.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    outcome = run(pool, ["sleep", "0"])
    assert outcome.result is Result.ERROR
    assert outcome.message == (
        "cannot run 'sleep': the exporter's Python, which starts all commands, can't be executed: "
        f"{python}: {reason}: repair it and start the exporter again"
    )
    monkeypatch.undo()
    assert run(pool, ["true"]).result is Result.SUCCESS


def test_directory_as_command_is_reported(pool: CommandPool, tmp_path: Path) -> None:
    outcome = run(pool, [str(tmp_path)])
    assert outcome.message == f"cannot run '{tmp_path}': {tmp_path} is a directory: name a program in it"


def test_missing_interpreter_is_reported(pool: CommandPool, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    outcome = run(pool, ["./run.sh"], cwd=tmp_path)
    assert "its first line names an interpreter that is missing (/no/such/interpreter)" in outcome.message


def test_script_with_line_ends_of_windows_is_reported(pool: CommandPool, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_bytes(b"#!/bin/sh\r\necho hi\r\n")
    script.chmod(0o755)
    outcome = run(pool, ["./run.sh"], cwd=tmp_path)
    assert outcome.message == f"cannot run './run.sh': its lines end as on Windows (CR LF): sed -i 's/\\r$//' {script}"
    run(pool, ["/bin/sh", "-c", outcome.message.partition("(CR LF): ")[2]])
    assert run(pool, ["./run.sh"], cwd=tmp_path).result is Result.SUCCESS


def test_file_that_is_no_program_is_reported(pool: CommandPool, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_bytes(b"\x01\x02\x03")
    script.chmod(0o755)
    assert "no script with a first line such as '#!/bin/sh'" in run(pool, ["./run.sh"], cwd=tmp_path).message


def test_missing_folder_is_reported(pool: CommandPool, tmp_path: Path) -> None:
    outcome = run(pool, ["true"], cwd=tmp_path / "gone")
    assert outcome.message == f"cannot run 'true': its folder '{tmp_path}/gone' does not exist: correct its cwd"


def test_too_long_arguments_fail_only_their_task(pool: CommandPool) -> None:
    outcome = run(pool, ["true", "x" * (1 << 20)])
    assert "too long for the system" in outcome.message
    assert run(pool, ["true"]).result is Result.SUCCESS


def test_megabyte_of_arguments_arrives(pool: CommandPool) -> None:
    arguments = ["x" * 1000] * 1000
    assert run(pool, python("import sys; print(sum(map(len, sys.argv[1:])))", *arguments)).output == "1000000\n"


@pytest.mark.parametrize("step", [[""], ["true", "nul\0"]])
def test_invalid_arguments_fail_only_their_task(pool: CommandPool, step: list[str]) -> None:
    outcome = run(pool, step)
    assert outcome.result is Result.ERROR
    assert outcome.message.startswith("cannot run ")


def test_message_is_one_line_for_any_program_name(pool: CommandPool) -> None:
    assert "\n" not in run(pool, ["two\nlines"]).message


def test_commands_as_strings_are_refused(pool: CommandPool) -> None:
    with pytest.raises(TypeError, match="argument vectors"):
        pool.submit_commands("task", ["echo hi"], cwd="/")
    with pytest.raises(ValueError, match="at least one"):
        pool.submit_commands("task", [], cwd="/")


def test_command_gets_only_the_first_three_descriptors(pool: CommandPool) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        outcome = run(pool, python("import os; print(sorted(os.listdir('/proc/self/fd')))"))
    finally:
        os.close(read_end)
        os.close(write_end)
    assert outcome.output == "['0', '1', '2', '3']\n"  # 3 is the descriptor of the listing


def test_command_reads_empty_stdin(pool: CommandPool) -> None:
    assert run(pool, ["cat"]).result is Result.SUCCESS


def test_command_starts_with_default_signal_handling(pool: CommandPool) -> None:
    _, blocked, _, ignored = run(pool, ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]).output.split()
    own = (1 << 31) | (1 << 32)  # the C library always ignores two signals of its own
    assert (int(blocked, 16), int(ignored, 16) & ~own) == (0, 0)


def test_whole_output_goes_to_a_file_on_request(pool: CommandPool, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "out.txt"
    script = "import sys\nfor number in range(30000): print('line', number)"
    future = pool.submit_commands("task", [python(script), ["echo", "end"]], cwd="/", output_file=OutputFile(path))
    outcome = future.result(HANG_SECONDS)
    assert outcome.output_path == str(path)
    assert path.read_text().splitlines() == [*(f"line {number}" for number in range(30000)), "end"]


def test_unwritable_output_file_does_not_fail_the_task(pool: CommandPool, tmp_path: Path) -> None:
    outcome = pool.submit_commands("task", [["echo", "hi"]], cwd="/", output_file=OutputFile(tmp_path)).result(
        HANG_SECONDS
    )
    assert (outcome.result, outcome.output, outcome.output_path) == (Result.SUCCESS, "hi\n", None)


def test_impossible_name_of_an_output_file_leaves_no_task_running(pool: CommandPool) -> None:
    future = pool.submit_commands("task", [["true"]], cwd="/", output_file=OutputFile(Path("a\0b")))
    assert isinstance(future.exception(HANG_SECONDS), ValueError)
    assert pool.running() == ()


def test_200_megabytes_of_output_stay_bounded(pool: CommandPool) -> None:
    run(pool, ["true"])
    before = peak_memory()
    outcome = run(pool, shell("yes 0123456789abcdef | head -c 200000000; echo; echo end"))
    assert outcome.output.endswith("0123456789abcde\nend\n")
    assert peak_memory() - before < 30e6


def test_line_of_20_megabytes_stays_bounded(pool: CommandPool) -> None:
    run(pool, ["true"])
    before = peak_memory()
    outcome = run(pool, shell("head -c 20000000 /dev/zero | tr '\\0' x"))
    assert outcome.output.endswith("x" * 1000)
    assert peak_memory() - before < 30e6


def peak_memory() -> int:
    """Return this process's highest memory since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def test_pool_size_limits_concurrent_commands(tmp_path: Path) -> None:
    fifos = [make_fifo(tmp_path, f"fifo{number}") for number in range(3)]
    with CommandPool(2) as pool:
        futures = [pool.submit_commands("task", [shell("echo > $1", fifo)], cwd="/") for fifo in fifos]
        for fifo in fifos[:2]:  # the third starts only when one of these has ended
            assert read_fifo(fifo) == "\n"
        assert read_fifo(fifos[2]) == "\n"
        assert [future.result(HANG_SECONDS).exit_code for future in futures] == [0, 0, 0]


def test_larger_pool_runs_more_commands_at_once(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    with CommandPool(1) as pool:
        pool.resize(2)
        reader = pool.submit_commands("reader", [["cat", str(fifo)]], cwd="/")
        # Ends only if the reader runs at the same time.
        writer = pool.submit_commands("writer", [shell("echo met > $1", fifo)], cwd="/")
        assert pool.target == 2
        assert reader.result(HANG_SECONDS).output == "met\n"
        assert writer.result(HANG_SECONDS).exit_code == 0


def test_running_lists_tasks_with_their_labels(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("unit_tests[3]", [["cat", str(fifo)]], cwd="/")
    with open_fifo(fifo):
        (task,) = pool.running()
        assert task.label == "unit_tests[3]"
        assert task.started_seconds > 0
    future.result(HANG_SECONDS)
    assert pool.running() == ()


def test_statistics_add_up_at_rest(tmp_path: Path) -> None:
    with CommandPool(1) as pool:
        fifo = make_fifo(tmp_path)
        blocker = pool.submit_commands("blocker", [shell("echo > $1; exec sleep 600", fifo)], cwd="/")
        queued = [pool.submit_commands("task", [step], cwd="/") for step in (["true"], ["false"], ["no-such-tool"])]
        cancelled = pool.submit_commands("never", [["true"]], cwd="/")
        read_fifo(fifo)
        assert pool.stop(cancelled)
        assert pool.stop(blocker, grace_seconds=0)
        outcomes = [future.result(HANG_SECONDS) for future in (blocker, *queued)]
        with pytest.raises(CancelledError):
            cancelled.result()
    statistics = pool.statistics()
    assert statistics.submitted == 5 == statistics.queued + statistics.busy + sum(statistics.finished.values())
    assert dict(statistics.finished) == {"cancellation": 2, "success": 1, "failure": 1, "error": 1}
    assert statistics.cpu_seconds == pytest.approx(sum(outcome.measurement.cpu_seconds for outcome in outcomes))


def test_thousand_commands_leak_no_descriptor(pool: CommandPool) -> None:
    supervisor = int(run(pool, shell("echo $PPID")).output)
    before = (open_descriptors(os.getpid()), open_descriptors(supervisor))  # with one channel
    futures = [pool.submit_commands("task", [["true"]], cwd="/") for _ in range(1000)]
    assert {future.result(HANG_SECONDS).result for future in futures} == {Result.SUCCESS}
    SUPERVISOR.close_idle_channels()
    assert open_descriptors(os.getpid()) < before[0]
    assert eventually(lambda: open_descriptors(supervisor) < before[1])


def test_command_without_memory_for_its_trace_leaves_no_descriptor(
    pool: CommandPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> int:
        raise OSError(errno.ENOMEM, f"no memory for {name}")

    run(pool, ["true"])  # starts the supervisor
    before = open_descriptors(os.getpid())
    monkeypatch.setattr(os, "memfd_create", refuse)
    outcome = pool.submit_commands("task", [["true"]], cwd="/", traced=True).result(HANG_SECONDS)
    assert outcome.result is Result.ERROR
    assert open_descriptors(os.getpid()) <= before


def test_commands_may_be_submitted_from_many_threads() -> None:
    results: list[Result] = []
    with CommandPool(4) as pool:
        threads = [
            threading.Thread(target=lambda: results.extend(run(pool, ["true"]).result for _ in range(10)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_SECONDS)
    assert results == [Result.SUCCESS] * 80


def test_closed_pool_refuses_commands() -> None:
    pool = CommandPool(1)
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit_commands("refused", [["true"]], cwd="/")
    gc.collect()
    # not isinstance: an object of another test may raise KeyboardInterrupt when asked for its class
    tasks = [each for each in gc.get_objects() if type(each) is CommandTask]
    assert "refused" not in [task.label for task in tasks]  # a refused task is not kept


def test_internal_error_fails_only_its_task(pool: CommandPool) -> None:
    environment = {"NUMBER": 1}
    future = pool.submit_commands("task", [["true"]], cwd="/", env=environment)  # type: ignore[arg-type]  # the fault
    outcome = future.result(HANG_SECONDS)
    assert outcome.result is Result.ERROR
    assert outcome.message.startswith("internal error: TypeError")
    assert run(pool, ["true"]).result is Result.SUCCESS


def test_lack_of_processes_names_the_limits_of_a_user_and_of_a_container() -> None:
    refusal = build_refusal(["sh"], errno.EAGAIN, program=Path("/bin/sh"), entered=True)
    assert "(ulimit -u, or a cgroup's pids.max)" in str(refusal)
