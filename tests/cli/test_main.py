"""The parser, and the boundary where errors end."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
from pathlib import Path

import pytest

from paropt_exporter._version import __version__
from paropt_exporter.cli import commands, flags, main, streams
from paropt_exporter.errors import ConfigError, HistoryError, NothingFailed, UsageError


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr(commands, "run", run)


@pytest.mark.parametrize("arguments", [["--version"], ["--log.level", "debug", "--version"]])
def test_version_is_the_packages(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main.main(arguments)
    except SystemExit as ended:  # argparse's own way to end
        code = ended.code
    assert code == 0
    assert capsys.readouterr().out == f"paropt-exporter {__version__}\n"


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_other_system_than_linux_is_refused_in_one_line(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert main.main(["--once"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"paropt-exporter: needs Linux, and this is {system}: ")


def test_python_without_the_gil_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert main.main(["--once"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paropt-exporter: needs the GIL, ")
    assert line.endswith(": set PYTHON_GIL=1")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_kernel_without_process_descriptors_is_refused_in_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise each command would fail with "Function not implemented"."""

    def refuse(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert main.main(["--once"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paropt-exporter: needs Linux 5.3 or later, ")


def test_python_without_process_descriptors_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that was built on an older Linux has no `os.pidfd_open`, whatever the kernel is now."""
    monkeypatch.delattr(os, "pidfd_open")
    assert main.main(["--once"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paropt-exporter: needs a Python that was built on Linux 5.3 or later, ")


def test_wrong_choice_is_worded_alike_if_argparse_suggests_another(capsys: pytest.CaptureFixture[str]) -> None:
    """It does from Python 3.15 on."""
    with pytest.raises(SystemExit):
        flags.build_parser().error("argument --x: invalid choice: 'ab', maybe you meant 'aa'? (choose from aa, bb)")
    assert capsys.readouterr().err.startswith("paropt-exporter: --x: expected one of aa, bb, found 'ab' (see ")


@pytest.mark.parametrize("arguments", [["--nope"], ["--strategy", "x"], ["history", "--limit", "x"]])
def test_usage_error_is_one_line_that_names_the_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paropt-exporter: ")
    assert "--help" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--strategy", "dask"],
            "--strategy: expected one of thread, process, hybrid, adaptive, sequential, not dask: "
            "only a lane of paropt.yml can set it",
        ),
        (["--strategy", "x"], "--strategy: expected one of thread, process, hybrid, adaptive, sequential, found 'x'"),
        (["completion", "ksh"], "expected bash|zsh|tcsh|fish, found 'ksh'"),
        (["--web.listen-adress", ":1"], "there is no flag --web.listen-adress: did you mean --web.listen-address?"),
        (["--lane", "docs", "--zzz=1"], "there is no flag --zzz"),
        (["history", "--zzz"], "there is no flag --zzz"),
        (["plan", "--lnae", "docs"], "there is no flag --lnae: did you mean --lane?"),
        (
            ["plan", "--affected"],
            "plan has no --affected: `paropt-exporter --dry-run --affected …` shows the plan of such a run",
        ),
        (["history", "--whatif", "2"], "there is no flag --whatif: did you mean --what-if?"),
        (["-once"], "there is no flag -once: did you mean --once?"),
        (["--jobs=4"], "there is no flag --jobs: did you mean -j?"),
        (["--exclude", "lint"], "there is no flag --exclude: did you mean --skip?"),
        (["--lf"], "there is no flag --lf: did you mean --failed?"),
        (
            ["unit_tests", "-k", "x"],
            "there is no flag -k: did you mean --keep-going? Otherwise write arguments for the stages' commands after "
            "--",
        ),
        (["unit_tests", "-d"], "there is no flag -d: write arguments for the stages' commands after --"),
        (["--json"], "there is no flag --json: did you mean --output json?"),
        (["--junit", "x.xml"], "there is no flag --junit: did you mean --report junit=FILE?"),
        (["--all"], "there is no flag --all"),
        (["-j"], "-j/--workers needs a value: N|auto"),
        (["--stage=--"], "--stage needs a value: STAGE"),
        (["-s=--"], "-s needs a value: STAGE"),
        (["-qs--"], "-s needs a value: STAGE"),
        (["history", "--stage=--"], "--stage needs a value: STAGE"),
        (["--color"], "--color needs a value: auto|always|never"),
        (["history", "-n", "3"], "there is no flag -n"),
        (["log", "-f"], "there is no flag -f: did you mean --follow?"),
        (["init", "-f"], "there is no flag -f: did you mean --force?"),
        (["check", "x.yml"], "did you mean --config.file x.yml?"),
        (["plan", "-f", "x.yml"], "there is no flag -f: did you mean --config.file?"),
        (
            ["plan", "unit tests"],
            "plan takes no stage: `paropt-exporter --dry-run 'unit tests'` shows the plan of such a run",
        ),
        (
            ["plan", "unit_tests"],
            "plan takes no stage: `paropt-exporter --dry-run unit_tests` shows the plan of such a run",
        ),
    ],
)
def test_unknown_flag_is_named_instead_of_its_value(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.main(arguments)
    assert capsys.readouterr().err.startswith(f"paropt-exporter: {said} (")


@pytest.mark.parametrize(
    "arguments",
    [["--log.format", "json", "--nope"], ["--nope", "--log.format=json"], ["plan", "--log.format=json", "-j"]],
)
def test_usage_error_is_an_object_among_json_logs(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(arguments)
    printed = json.loads(capsys.readouterr().err)
    assert printed["level"] == "error" and "--help" in printed["msg"]


@pytest.mark.parametrize("arguments", [["--lnae", "docs"], ["--config.file", "no-such-file-in-this-folder.yml"]])
def test_error_breaks_between_words_on_a_terminal(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams.LineStream, "columns", 50)
    with contextlib.suppress(SystemExit):
        main.main(arguments)
    first, *others = capsys.readouterr().err.splitlines()
    assert len(first) <= 50
    assert others and all(line.startswith("  ") and len(line) <= 50 for line in others)


@pytest.mark.parametrize(
    "arguments", [["plan", "unit_tests"], ["history", "--zzz"], ["history", "merge", "a", "--zzz"]]
)
def test_unknown_argument_points_to_the_help_of_its_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main.main(arguments)
    command = " ".join(word for word in arguments if word in {"plan", "history", "merge"})
    assert capsys.readouterr().err.endswith(f" (see paropt-exporter {command} --help)\n")


def test_system_without_a_null_device_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback."""
    monkeypatch.setattr(os, "devnull", str(tmp_path / "null"))
    assert main.main(["--version"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"paropt-exporter: needs {os.devnull}, which all users may read and write: No such file or directory"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("unknown lane"), 2, "paropt-exporter: unknown lane\n"),
        (ConfigError(("paropt.yml:1:1: a: b",)), 2, "paropt.yml:1:1: a: b\n"),
        (ConfigError(("f:1:1: a", "f:2:1: b")), 2, "f:1:1: a\nf:2:1: b\n"),
        (HistoryError("no space"), 3, "paropt-exporter: no space\n"),
        (
            BlockingIOError(errno.EAGAIN, "full"),
            3,
            "paropt-exporter: internal error: BlockingIOError: [Errno 11] full (--log.level debug shows where)\n",
        ),
        (RuntimeError("oh"), 3, "paropt-exporter: internal error: RuntimeError: oh (--log.level debug shows where)\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_error_ends_with_one_line_and_its_exit_code(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error, monkeypatch)
    assert main.main([]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (RuntimeError("can't start new thread"), "raise its limit (ulimit -u, or a cgroup's pids.max)"),
        (OSError(errno.EMFILE, "too many"), "raise the limit (ulimit -n)"),
        (MemoryError(), "raise the limit (ulimit -v, or a cgroup's memory.max)"),
    ],
)
def test_shortage_ends_with_one_line_that_names_the_limit(
    error: Exception, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error, monkeypatch)
    assert main.main([]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(advice)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("unknown lane"), ["unknown lane"]),
        (ConfigError(("f:1:1: a", "f:2:1: b")), ["f:1:1: a", "f:2:1: b"]),
        (RuntimeError("oh"), ["internal error: RuntimeError: oh (--log.level debug shows where)"]),
    ],
)
def test_error_is_an_object_where_logs_are_json(
    error: BaseException, said: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(error, monkeypatch)
    main.main(["--log.format", "json"])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["msg"]) for line in lines] == [("error", text) for text in said]


def test_nothing_to_run_is_no_error_in_json_logs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raising(NothingFailed("nothing to run"), monkeypatch)
    assert main.main(["--log.format", "json"]) == 0
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["msg"]) == ("info", "nothing to run")


@pytest.mark.parametrize("command", [[], ["check"], ["history"], ["generate"]])
def test_removed_current_folder_is_one_clear_error(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main.main(command) == 2
    assert capsys.readouterr().err == "paropt-exporter: the current folder no longer exists: change to another one\n"


def test_internal_error_has_its_traceback_at_level_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(RuntimeError("oh"), monkeypatch)
    with pytest.raises(RuntimeError, match="oh"):
        main.main(["--log.level", "debug"])


@pytest.mark.parametrize("command", [[], ["check"], ["plan"], ["generate"], ["history"], ["init"]])
def test_global_flags_mean_the_same_before_and_after_a_command(command: list[str]) -> None:
    given = ["--config.file", "x.yml", "--log.level", "debug", "--log.format", "json"]
    before, after = (
        flags.build_parser().parse_args([*given, *command]),
        flags.build_parser().parse_args([*command, *given]),
    )
    assert before == after
    assert (after.config_file, after.log_level, after.log_format) == ("x.yml", "debug", "json")


def test_flags_are_not_abbreviated() -> None:
    with pytest.raises(SystemExit):
        flags.build_parser().parse_args(["--verb"])


def test_many_faults_of_a_config_are_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raising(ConfigError(tuple(f"paropt.yml:{line}:1: wrong" for line in range(100_000))), monkeypatch)
    assert main.main(["check"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2:] == ["paropt.yml:99:1: wrong", "… and 99900 more faults"]
