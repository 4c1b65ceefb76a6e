"""Run the command that the command line names, and turn errors into one line and an exit code."""

from __future__ import annotations

import sys

from paropt_exporter.cli import streams
from paropt_exporter.cli.program import PROGRAM, version

TYPE_CHECKING = False  # typing alone would take as long to load as all else that --version needs
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_INTERNAL, EXIT_PIPE, EXIT_INTERRUPTED = 3, 141, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; the one place where errors end."""
    streams.prepare()
    if (sys.argv[1:] if arguments is None else list(arguments)) == ["--version"]:
        print(version())  # what build scripts ask again and again need not wait for the parser
        return 0
    from paropt_exporter.cli.flags import parser

    return _guarded(parser().parse_args(arguments))


def _guarded(flags: argparse.Namespace) -> int:
    from paropt_exporter.errors import ConfigError, ParoptError

    try:
        code = _dispatch(flags)
        _flush()
        return code
    except ParoptError as error:
        _complain(str(error) if isinstance(error, ConfigError) else f"{PROGRAM}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        streams.forget(sys.stdout)
        return EXIT_PIPE
    except Exception as error:  # the boundary: a fault of ours is one line, and a traceback where it was asked for
        if flags.log_level == "debug":
            raise
        _complain(f"{PROGRAM}: internal error: {type(error).__name__}: {error} (--log.level debug shows where)")
        return EXIT_INTERNAL


def _dispatch(flags: argparse.Namespace) -> int:
    from paropt_exporter import logs

    logs.configure(flags.log_level, flags.log_format)
    from paropt_exporter.cli import commands

    return commands.run(flags)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from paropt_exporter.errors import ParoptError

        streams.forget(sys.stdout)
        raise ParoptError(f"cannot write to standard output: {error.strerror}") from None


def _complain(text: str) -> None:
    """Say it on stderr if anybody can hear it; the exit code says it anyway."""
    streams.Sink(sys.stderr).line(text)
