"""Draw docs/images/terminal-*.svg: what a terminal of 80 and of 200 columns shows of a lane.

Usage: python docs/terminal_pictures.py [FOLDER]

A small project with real tools runs in tmux: while it runs, after a failure, after Ctrl-C, and without a terminal as in
CI. rich turns tmux's captures into SVG. Needs tmux, and ruff, mypy and pytest beside the Python that runs this.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

_ROOT = Path(__file__).resolve().parents[1]
_HANG_SECONDS = 60.0
_ROWS = 60
_COLUMNS = (80, 200)
_END = r"  again .*\n"  # the summary's last line
_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # rich's SVG would load fonts from the network
_CLIP = re.compile(r'(-clip-terminal">\s*<rect [^>]*height=")([\d.]+)')
_DESCENT = 6.0  # of the last line, which rich's clip cuts off: an underscore would look like a space

CONFIG = """\
lanes:
  standard: {workers: 3, sla: null}
stages:
  - {number: 2, name: quality_gates, run: "ruff check --quiet ."}
  - {number: 3, name: type_checking, run: mypy .}
  - number: 4
    name: unit_tests
    run: "pytest -q {item}"
    items: {list: [test_cart.py, test_price.py, test_stock.py, test_tax.py]}
    sla: 20s
  - {number: 5, name: integration_tests, run: pytest -q integration, needs: [type_checking]}
  - {number: 6, name: security_scan, run: sleep 4}
"""
TEST = """\
import time


def test_total() -> None:
    time.sleep(1)
    assert sum([1, 2]) == 3
"""
FILES = {
    "paropt.yml": CONFIG,
    "shop.py": 'def price(item: str) -> int:\n    return f"{item}: 3"\n',
    "test_cart.py": TEST,
    "test_price.py": "from shop import price\n\n\ndef test_price() -> None:\n    assert price('tea') == 3\n",
    "test_stock.py": TEST,
    "test_tax.py": TEST,
}
COMMAND = "paropt-exporter --lane standard --once"


def main(folder: Path) -> None:
    pictures: dict[str, Callable[[int], str]] = {
        "running": capture_running,
        "failed": capture_failed,
        "interrupted": capture_interrupted,
        "ci": capture_ci,
    }
    for name, capture in pictures.items():
        for columns in _COLUMNS:
            path = folder / f"terminal-{name}-{columns}.svg"
            path.write_text(draw(capture(columns), columns, path.stem))


def capture_running(columns: int) -> str:
    with open_terminal(columns) as terminal:
        terminal.run(COMMAND)
        screen = terminal.wait_for(r"unit_tests\s.*[23]/4")
        terminal.press("C-c")
        terminal.wait_for(_END)
        return screen


def capture_failed(columns: int) -> str:
    with open_terminal(columns) as terminal:
        terminal.run(COMMAND)
        return terminal.wait_for(_END)


def capture_interrupted(columns: int) -> str:
    with open_terminal(columns) as terminal:
        terminal.run(COMMAND)
        terminal.wait_for(r"unit_tests")
        terminal.press("C-c")
        return terminal.wait_for(_END)


def capture_ci(columns: int) -> str:
    with open_terminal(columns) as terminal:
        terminal.run(COMMAND, behind="CI=true ", before=" 2>&1 | cat")
        return terminal.wait_for(_END)


class Terminal:
    """A tmux session with a server of its own."""

    def __init__(self, folder: Path, columns: int) -> None:
        self._socket = str(folder / "tmux")
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(_ROWS), "sh")

    def run(self, command: str, *, behind: str = "", before: str = "") -> None:
        """Run a command, whose line is shown without what the picture needs apart from it."""
        shown = f"clear; echo {shlex.quote('$ ' + behind + command)}"
        self._tmux("send-keys", f"{shown}; {behind}{command} --web.listen-address 127.0.0.1:0{before}", "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", key)

    def wait_for(self, pattern: str) -> str:
        """Return the screen with its colours as soon as it matches."""
        deadline = time.monotonic() + _HANG_SECONDS
        while not re.search(pattern, plain := self._tmux("capture-pane", "-p")):
            if time.monotonic() > deadline:
                raise SystemExit(f"the screen shows no {pattern} after {_HANG_SECONDS:g} s:\n{plain}")
            time.sleep(0.05)
        return self._tmux("capture-pane", "-p", "-e").rstrip().removesuffix("#").rstrip()

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=build_environment()).stdout


@contextmanager
def open_terminal(columns: int) -> Iterator[Terminal]:
    """Open a terminal in a new copy of the project."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name, "shop")
        folder.mkdir()
        for file, text in FILES.items():
            (folder / file).write_text(text)
        before = Path.cwd()
        os.chdir(folder)
        terminal = Terminal(Path(name), columns)
        try:
            yield terminal
        finally:
            terminal.close()
            os.chdir(before)


def build_environment() -> dict[str, str]:
    dropped = ("CI", "TMUX", "NO_COLOR", "FORCE_COLOR", "VIRTUAL_ENV", "GITHUB_ACTIONS")
    env = {key: value for key, value in os.environ.items() if key not in dropped}
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"])
    return {**env, "PATH": path, "PS1": "# ", "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


def draw(captured: str, columns: int, name: str) -> str:
    """Return the SVG of a screen."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(captured), soft_wrap=True)
    svg = _FONT.sub("", console.export_svg(title="", unique_id=name))
    return _CLIP.sub(lambda match: f"{match[1]}{float(match[2]) + _DESCENT:.1f}", svg)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT / "docs/images")
