"""Text for terminals: escape control characters in foreign text, and colour the lines of a summary."""

from __future__ import annotations

from itertools import takewhile

from paropt_exporter.lazy_patterns import compile_later

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

# Control characters but newline and tab, marks that change the direction of text, line separators. The stream's
# encoding replaces lone surrogates.
_CONTROLS = compile_later("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]")
# A runner executes `::name::` at the start of a line, and `##[name]` anywhere in it (ActionCommand.cs of
# actions/runner).
_WORKFLOW_COMMAND = compile_later(r"(?m)^([^\S\n]*):(?=:)|#(?=#\[)")
_DELETE = 0x7F  # JSON allows this and later control characters unescaped, and has no escape \x
_RESET = "\x1b[0m"
RED, YELLOW, GREEN = "\x1b[31m", "\x1b[33m", "\x1b[32m"


def visible(text: str) -> str:
    r"""Return the text with its control characters written as escapes: \x1b, \u202e. JSON stays JSON."""
    if text.replace("\n", "").isprintable():
        return text  # most lines
    return _CONTROLS.sub(_escape, text)


def to_unicode(text: str) -> str:
    r"""Return the text as valid Unicode: bytes of a file name that are not UTF-8 become escapes."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def disarm_commands(text: str) -> str:
    r"""Return the text with GitHub's workflow commands written as escapes: \u003a:error::, \u0023#[error].

    JSON stays JSON.
    """
    return _WORKFLOW_COMMAND.sub(_escape_command, text)


def _escape_command(match: re.Match[str]) -> str:
    return r"\u0023" if match[1] is None else f"{match[1]}\\u003a"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < _DELETE else f"\\u{code:04x}"


def wants_color(choice: str, environ: Mapping[str, str], *, terminal: bool) -> bool:
    """Return whether to colour: by --color, then $NO_COLOR, then $FORCE_COLOR, then by the stream's kind.

    An empty variable counts as unset (no-color.org, force-color.org).
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or (terminal and environ.get("TERM") != "dumb")


def paint(text: str, color: str) -> str:
    """Return the text in a colour, with its own control characters escaped."""
    return f"{color}{visible(text)}{_RESET}" if color else visible(text)


def paint_summary(text: str) -> str:
    """Return a summary with coloured lines, by its headline and the marks of its stages."""
    first, *rest = text.split("\n")
    color = RED if " failed" in first else GREEN if " succeeded" in first else YELLOW
    # The headline may be wrapped. Lines of stages begin with a mark, or with spaces instead.
    headline = [first, *takewhile(lambda line: line[3:4] not in " ", rest if any(map(_is_stage, rest)) else ())]
    others = rest[len(headline) - 1 :]
    return "\n".join(
        [*(paint(line, color) for line in headline), *(paint(line, _choose_color(line)) for line in others)]
    )


def _is_stage(line: str) -> bool:
    return line[:2] == "  " and line[3:4] == " "


def _choose_color(line: str) -> str:
    return {"  x ": RED, "  ! ": YELLOW}.get(line[:4], "")
