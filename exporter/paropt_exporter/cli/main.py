"""Run the command that the command line names, and turn errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from paropt_exporter.cli import PROGRAM, format_version, streams

TYPE_CHECKING = False  # typing alone would take as long to load as all else that --version needs
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import TextIO

_NO_THREAD = "can't start new thread"  # as CPython words it
EXIT_INTERNAL, EXIT_PIPE, EXIT_INTERRUPTED = 3, 141, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the one place where errors end.

    Without `arguments`, those of the process, it does not return if a call left threads that would go on.
    """
    code = _run_command(arguments)
    if arguments is None and "threading" in sys.modules:
        from paropt_exporter.cli.exit_guard import end_process

        end_process(code)
    return code


def _run_command(arguments: Sequence[str] | None) -> int:
    ours = streams.prepare_streams()
    if (sys.argv[1:] if arguments is None else list(arguments)) == ["--version"]:
        with suppress(OSError):  # a lost line is still in the buffer: the flush tells
            print(format_version())  # what build scripts ask again and again need not wait for the parser
        return _flush_output(0)
    from paropt_exporter.cli.flags import parse_command_line

    try:
        flags = parse_command_line(arguments)
    except SystemExit as ended:  # argparse has told its help, or a usage error
        raise SystemExit(_flush_output(int(ended.code or 0))) from None
    return _run_guarded(flags, ours)


def _run_guarded(flags: argparse.Namespace, ours: tuple[TextIO, TextIO]) -> int:
    from paropt_exporter.cli.formatting import format_faults
    from paropt_exporter.errors import ConfigError, ParoptError

    try:
        try:
            code = _dispatch(flags)
        finally:
            sys.stdout, sys.stderr = ours  # a call may have put anything in their place, None too
        return _flush_output(code)
    except ParoptError as error:
        _print_error(
            "\n".join(format_faults(error.faults)) if isinstance(error, ConfigError) else f"{PROGRAM}: {error}"
        )
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        streams.discard_output(sys.stdout)
        return EXIT_PIPE
    except Exception as error:  # the boundary: a fault of ours is one line, and a traceback where it was asked for
        if isinstance(error, OSError) and (code := _flush_output(0)):
            return code
        if flags.log_level == "debug":
            raise
        if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
            _print_error(
                f"{PROGRAM}: the system has no thread left: raise its limit (ulimit -u, or a cgroup's pids.max)"
            )
            return EXIT_INTERNAL
        _print_error(f"{PROGRAM}: internal error: {type(error).__name__}: {error} (--log.level debug shows where)")
        return EXIT_INTERNAL


def _dispatch(flags: argparse.Namespace) -> int:
    from paropt_exporter import logs

    logs.configure(flags.log_level, flags.log_format)
    _require_current_folder()
    from paropt_exporter.cli import commands

    return commands.run(flags)


def _require_current_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109 -- only whether it works
    except FileNotFoundError:
        from paropt_exporter.errors import UsageError

        raise UsageError("the current folder is gone: change to one that is there") from None


def _flush_output(code: int) -> int:
    """Return the exit code once all is written, or another if it can't be: what a write lost is tried again here."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        streams.discard_output(sys.stdout)
        return EXIT_PIPE
    except OSError as error:
        streams.discard_output(sys.stdout)
        _print_error(f"{PROGRAM}: cannot write to standard output: {error.strerror}")
        return EXIT_INTERNAL
    return code


def _print_error(text: str) -> None:
    """Say it on stderr if anybody can hear it; the exit code says it anyway."""
    streams.LineStream(sys.stderr).write_line(text)
