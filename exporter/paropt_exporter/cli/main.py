"""Run the command of the command line, and turn errors into one line and an exit code."""

from __future__ import annotations

import gc
import os
import sys

from paropt_exporter.cli import PROGRAM, format_version
from paropt_exporter.platform_check import find_unsuitable

# All other modules load within functions: by then `main` can handle a Ctrl-C, and garbage collection is off.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from paropt_exporter.cli.plain_flags import Flags

_GC_THRESHOLD = 10_000  # in a lane of 1,000 stages, CPython's 700 leads to 436 collections, this to 34
_EXIT_USAGE = 2  # `errors` is loaded later
_EXIT_INTERRUPTED = 130  # EXIT_SIGNAL_BASE + SIGINT: `errors` may be the module that was being loaded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. All errors are handled here.

    Without `arguments` it uses those of the process, and does not return if a call left threads running.
    """
    # First: on other systems the modules that follow can't be loaded.
    if (unsuitable := find_unsuitable()) is not None:
        print(f"{PROGRAM}: {unsuitable}", file=sys.stderr)
        return _EXIT_USAGE
    if arguments is None:
        gc.set_threshold(_GC_THRESHOLD)
        gc.disable()  # until all modules are loaded: a collection would find nothing
    try:
        code = _run_command(arguments)
    except KeyboardInterrupt:  # while modules are loaded, or flags are parsed
        code = _EXIT_INTERRUPTED
    if arguments is None and "threading" in sys.modules:
        from paropt_exporter.cli.exit_guard import end_process

        end_process(code)
    return code


def _run_command(arguments: Sequence[str] | None) -> int:
    from contextlib import suppress

    from paropt_exporter.cli import streams

    ours = streams.prepare_streams()
    given = sys.argv[1:] if arguments is None else [*arguments]
    if given == ["--version"]:
        with suppress(OSError):  # the line is still in the buffer, and the flush reports the error
            print(format_version())  # without the parser: build scripts call this often
        return _flush_output(ours[0], 0)
    if arguments is None:
        _reset_inherited_signals()
    try:
        flags = _parse_flags(given)
    except SystemExit as ended:  # argparse has printed its help or a usage error
        raise SystemExit(_flush_output(ours[0], int(ended.code or 0))) from None
    except OSError as error:  # argparse of some Python versions passes on an error of its help
        if code := _flush_output(ours[0], 0, error):
            raise SystemExit(code) from None
        raise
    return _run_guarded(flags, ours)


def _reset_inherited_signals() -> None:
    """Undo settings of the process that started this one, which survive its exec.

    If SIGCHLD is ignored, the kernel drops the exit codes of children, and `subprocess` reports 0 for a failed one. If
    signals are blocked, none ends a run.
    """
    from paropt_exporter.signal_numbers import signal  # here: `--version` does not need it

    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _parse_flags(given: Sequence[str]) -> Flags:
    from paropt_exporter.cli.plain_flags import parse_plain

    plain = parse_plain(given)
    if plain is not None:
        return plain
    from paropt_exporter.cli.flags import parse_command_line

    return parse_command_line(given)


def _run_guarded(flags: Flags, ours: tuple[TextIO, TextIO]) -> int:
    from paropt_exporter.cli import streams
    from paropt_exporter.cli.formatting import format_faults
    from paropt_exporter.errors import EXIT_BROKEN_PIPE, EXIT_INTERNAL, ConfigError, ParoptError, explain_shortage

    try:
        try:
            code = _dispatch(flags)
        finally:
            _restore_streams(ours)
        return _flush_output(ours[0], code)
    except ParoptError as error:
        if isinstance(error, ConfigError):
            _print_error(flags, *format_faults(error.faults), prefix="")
        else:
            _print_error(flags, str(error), failed=bool(error.exit_code))
        _flush_output(ours[0], error.exit_code)  # the output before the error; this error matters more than a full disk
        return error.exit_code
    except BrokenPipeError:
        streams.discard_output(ours[0])
        return EXIT_BROKEN_PIPE
    except Exception as error:  # the boundary: our own bugs give one line, or a traceback at level debug
        if isinstance(error, OSError) and (code := _flush_output(ours[0], 0, error)):
            return code
        if flags.log_level == "debug":
            raise
        internal = f"internal error: {type(error).__name__}: {error} (--log.level debug shows where)"
        # A stream that another program has made non-blocking raises EAGAIN, too, which of a start means no process.
        shortage = "" if isinstance(error, BlockingIOError) else explain_shortage(error)
        _print_error(flags, shortage or internal)
        return EXIT_INTERNAL


def _print_error(flags: Flags, *lines: str, prefix: str = f"{PROGRAM}: ", failed: bool = True) -> None:
    """Print lines to stderr; with JSON logs, each as an object, for collectors that parse all of stderr.

    `failed`: whether the command failed. If there was nothing to run, it did not.
    """
    if flags.log_format != "json":
        from paropt_exporter.cli import streams

        streams.print_message(prefix + "\n".join(lines))
        return
    import logging

    for line in lines:
        logging.getLogger("paropt_exporter").log(logging.ERROR if failed else logging.INFO, line)


def _restore_streams(ours: tuple[TextIO, TextIO]) -> None:
    """Restore our streams: a call may have replaced them, even with None. Abandoned calls keep printing to theirs."""
    calls = sys.modules.get("paropt_exporter.executors.calls")
    if calls is None or not calls.restore_capture():
        sys.stdout, sys.stderr = ours


def _dispatch(flags: Flags) -> int:
    from paropt_exporter import logs

    logs.configure(flags.log_level, flags.log_format)
    _require_current_folder()
    _import_msgspec()
    from paropt_exporter.cli import commands

    return commands.run(flags)


def _import_msgspec() -> None:
    """Import msgspec without two modules that it does not need.

    It imports typing_extensions if that is installed, but uses only names that `typing` has since Python 3.11; the
    import, with `inspect`, `ast` and `dis`, takes 8 of the 110 ms of a short run. Before Python 3.13 the standard
    library's `uuid` imports `platform`, for the system's name, which takes 2 ms to compile regular expressions.
    """
    from types import SimpleNamespace

    if sys.version_info < (3, 13):
        _import_with("uuid", "platform", SimpleNamespace(system=lambda: os.uname().sysname))
    _import_with("msgspec", "typing_extensions", None)  # None is how the import system marks a missing module


def _import_with(name: str, other: str, stand_in: object) -> None:
    """Import a module while another one, unless it is loaded already, is replaced by a stand-in."""
    if other in sys.modules:
        return
    from importlib import import_module

    sys.modules[other] = stand_in  # type: ignore[assignment]  # any object will do
    try:
        import_module(name)
    finally:
        del sys.modules[other]


def _require_current_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109 -- only whether it works
    except FileNotFoundError:
        from paropt_exporter.errors import UsageError

        raise UsageError("the current folder no longer exists: change to another one") from None


def _flush_output(stdout: TextIO, code: int, raised: OSError | None = None) -> int:
    """Flush standard output. Return the exit code, or another one if this fails, or if a write has `raised`."""
    from paropt_exporter.cli import streams

    try:
        if raised is not None and streams.is_write_error(raised, stdout):  # a write of more than the buffer can hold
            raise raised
        stdout.flush()
    except BrokenPipeError:
        from paropt_exporter.errors import EXIT_BROKEN_PIPE

        streams.discard_output(stdout)
        return EXIT_BROKEN_PIPE
    except OSError as error:
        from paropt_exporter.errors import EXIT_INTERNAL

        streams.discard_output(stdout)
        streams.print_message(f"{PROGRAM}: cannot write to standard output: {error.strerror}")
        return EXIT_INTERNAL
    return code
