"""Parse the usual command lines without argparse, which takes 15 ms to load and to build its parsers.

`flags` defines the command line. This module knows only the defaults and the common flags for running a lane; `flags`
parses command lines with anything else: sub-commands, help, faults, rare flags. A test compares the two on all flags.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import TypeAlias

    Flags: TypeAlias = argparse.Namespace | SimpleNamespace

COMMANDS = (
    "init", "check", "plan", "log", "history", "sla", "profile", "explain", "replay", "pin", "pause", "resume", "cache",
    "serve", "generate", "completion",
)  # fmt: skip
DEFAULTS: dict[str, object] = {
    "affected": None,
    "arguments": None,
    "color": "auto",
    "command": None,
    "config_file": None,
    "deadline": None,
    "dry_run": False,
    "every": None,
    "fail_fast": False,
    "failed": False,
    "keep_going": False,
    "lane": None,
    "list": False,
    "no_cache": False,
    "log_format": "logfmt",
    "log_level": "info",
    "once": None,
    "only": False,
    "output": "text",
    "push_fail": False,
    "push_instance": None,
    "push_url": None,
    "quiet": False,
    "report": None,
    "shard": None,
    "skip": (),
    "stages": (),
    "strategy": None,
    "textfile": None,
    "verbose": False,
    "watch": False,
    "web_config_file": None,
    "web_disable_exporter_metrics": False,
    "web_linger": None,
    "web_listen_address": None,
    "web_max_requests": None,
    "web_systemd_socket": False,
    "web_telemetry_path": None,
    "workers": None,
}
_SWITCHES = {
    "--once": ("once", True),
    "--no-once": ("once", False),
    "--only": ("only", True),
    "--list": ("list", True),
    "--dry-run": ("dry_run", True),
    "--failed": ("failed", True),
    "--no-cache": ("no_cache", True),
    "--fail-fast": ("fail_fast", True),
    "--keep-going": ("keep_going", True),
    "-v": ("verbose", True),
    "--verbose": ("verbose", True),
    "-q": ("quiet", True),
    "--quiet": ("quiet", True),
}
_VALUES = {
    "--config.file": "config_file",
    "--every": "every",
    "--lane": "lane",
    "-j": "workers",
    "--workers": "workers",
    "--push.url": "push_url",
    "--shard": "shard",
    "--textfile": "textfile",
    "--web.linger": "web_linger",
}
_LISTS = {
    "-s": "stages",
    "--stage": "stages",
    "--skip": "skip",
    "--report": "report",
    "--web.listen-address": "web_listen_address",
}
_EXCLUSIVE = (("fail_fast", "keep_going"), ("verbose", "quiet"))


def parse_plain(words: Sequence[str]) -> SimpleNamespace | None:
    """Return the flags of a command line, as `flags.parse_command_line` does, or None if argparse has to read it."""
    found, lists = dict(DEFAULTS), {name: list[str]() for name in _LISTS.values()}
    positional: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            found["arguments"] = tuple(rest)
        elif not word.startswith("-"):
            positional.append(word)
        elif word in _SWITCHES:
            name, setting = _SWITCHES[word]
            found[name] = setting
        else:
            flag, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            if not equals:
                value = next(rest, "")
            if not value or value.startswith("-"):
                return None
            if flag in _VALUES:
                found[_VALUES[flag]] = value
            elif flag in _LISTS:
                lists[_LISTS[flag]].append(value)
            else:
                return None
    if (positional[:1] and positional[0] in COMMANDS) or any(found[one] and found[other] for one, other in _EXCLUSIVE):
        return None
    found.update((name, values) for name, values in lists.items() if values)
    found["stages"] = [*lists["stages"], *positional]
    found["skip"] = lists["skip"]
    return SimpleNamespace(**found)
