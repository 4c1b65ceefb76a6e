"""Rules with one fault each, and whether promtool's tests notice it: what the stories are worth.

Usage: python -m alert_stories.mutants   prints how many are noticed, by kind, and each one that is not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alert_stories import files
from alert_stories.model import OPTIONS
from paropt_exporter.monitoring.alerts import rule_files as alerts
from paropt_exporter.monitoring.alerts.rule_files import RECORDING_FILE
from support.real_servers import program

Rule = Mapping[str, Any]
_AT_ONCE = 4  # promtool uses more than a core, for moments only
_UNCOLLECTED = {**os.environ, "GOGC": "off"}  # it ends before its garbage matters; to collect it is a third of its time

_OTHER_OPERATOR = {
    "==": "!=", "!=": "==", ">": "<", "<": ">", ">=": "<=", "<=": ">=", "+": "-", "-": "+", "*": "/", "/": "*",
    "and": "unless", "unless": "and", "or": "and",
}  # fmt: skip
_OTHER_SEVERITY = {"critical": "warning", "warning": "info", "info": "critical"}
# What is no operator or number of the query itself is passed over: names, strings, matchers, label lists.
_TOKEN = re.compile(
    r"""(?P<skip>"[^"]*"|\{[^}]*\}|(?:without|by|on|ignoring|group_left)\s*\([^)]*\)|[a-zA-Z_:][\w:]*\s*(?=[({\[]))
      |(?P<window>\[[^\]]+\])
      |(?P<operator>==|!=|>=|<=|[<>*/+-]|\b(?:and|or|unless)\b)
      |(?P<number>\b\d+(?:\.\d+)?\b)
      |(?P<word>[a-zA-Z_:][\w:]*)""",
    re.VERBOSE,
)
_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A rule with one fault. `kind`: what was changed; `fault`: how, in words; `sound`: the rule without it."""

    kind: str
    fault: str
    sound: Rule
    rule: Rule

    @property
    def name(self) -> str:
        return str(self.rule.get("alert") or self.rule["record"])


def rules() -> tuple[Rule, ...]:
    """Return every rule as the generated files have it, in their order."""
    texts = alerts.render_rules(OPTIONS).values()
    return tuple(rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"])


def mutants_of(rule: Rule) -> tuple[Mutant, ...]:
    """Return every mutant of a rule."""
    return (*_of_query(rule), *_of_frame(rule))


class Bench:
    """Plays the stories to one rule at a time: only those about it, with only the recordings that it is built on."""

    def __init__(self) -> None:
        self._rules = rules()
        self._recordings = {rule["record"]: rule for rule in self._rules if "record" in rule}
        self._frames = tuple(files.frames().values())

    def survivors(self, chosen: Iterable[Mutant]) -> tuple[Mutant, ...]:
        """Return those that no story notices; some at a time."""
        chosen = tuple(chosen)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return tuple(
                mutant for mutant, seen in zip(chosen, pool.map(self.notices, chosen), strict=True) if not seen
            )

    def notices(self, mutant: Mutant) -> bool:
        """Say whether a story fails. Raises AssertionError if there is none, or if promtool cannot read the rule."""
        stories = [story for frame in self._frames for story in _about(mutant, frame)]
        assert stories, f"no story is about {mutant.name}"
        return any(self._fails(mutant, story) for story in stories)

    def _fails(self, mutant: Mutant, frame: files.Frame) -> bool:
        raw = any(RECORDING_FILE in path for path in frame["rule_files"])  # else the story tells what was recorded
        groups = [
            {"name": "recordings", "rules": self._needed(mutant) if raw else []},
            {"name": "mutant", "rules": self._beside(mutant)},
        ]
        order = {"group_eval_order": ["recordings", "mutant"], "rule_files": ["rules.yml"]}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "rules.yml").write_text(json.dumps({"groups": groups}))  # JSON is YAML
            (Path(folder) / "tests.yml").write_text(json.dumps({**frame, **order}))
            command = [program("promtool"), "test", "rules", "tests.yml"]
            ran = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=_UNCOLLECTED
            )
        assert (ran.returncode == 0) != ("exp:" in ran.stdout + ran.stderr), ran.stdout + ran.stderr
        return ran.returncode != 0

    def _beside(self, mutant: Mutant) -> list[Rule]:
        """Return the mutant among the other conditions of its alert: the stories tell of all of them."""
        named = [rule for rule in self._rules if rule.get("alert", rule.get("record")) == mutant.name]
        return [mutant.rule if rule == mutant.sound else rule for rule in named]

    def _needed(self, mutant: Mutant) -> list[Rule]:
        """Return the recordings that the mutant's query is built on, each after what it is built on itself."""
        needed: set[str] = set()
        waiting = [rule["expr"] for rule in self._beside(mutant)]
        while waiting:
            expr = waiting.pop()
            found = {name for name in self._recordings if name in expr} - needed - {mutant.name}
            needed |= found
            waiting += [self._recordings[name]["expr"] for name in found]
        return [rule for name, rule in self._recordings.items() if name in needed]


def _of_query(rule: Rule) -> Iterator[Mutant]:
    expr = rule["expr"]
    for token in _TOKEN.finditer(expr):
        kind, text = token.lastgroup or "", token[0]
        for other in _others(kind, text):
            changed = {**rule, "expr": expr[: token.start()] + other + expr[token.end() :]}
            yield Mutant(kind=kind, fault=f"{text} -> {other} at {token.start()}", sound=rule, rule=changed)


def _others(kind: str, text: str) -> tuple[str, ...]:
    match kind:
        case "operator":
            return (_OTHER_OPERATOR[text],)
        case "number":
            return (f"{float(text) * 10:g}", f"{float(text) / 10:g}") if float(text) else ("1",)
        case "window":
            return (_span(text, 10), _span(text, 1 / 10))
        case _:
            return ()


def _span(window: str, factor: float) -> str:
    """Return the window with a longer or shorter span; of a subquery's two durations the span is the first."""
    return _DURATION.sub(lambda found: f"{_seconds(found[0]) * factor:.0f}s", window, count=1)


def _of_frame(rule: Rule) -> Iterator[Mutant]:
    if "alert" not in rule:
        return
    for key in ("for", "keep_firing_for"):
        if key in rule:
            seconds = _seconds(rule[key])
            for other in (f"{seconds * 10}s", f"{seconds // 10}s", "0s"):
                yield Mutant(kind=key, fault=f"{rule[key]} -> {other}", sound=rule, rule={**rule, key: other})
        elif key == "for":
            yield Mutant(kind=key, fault="none -> 5m", sound=rule, rule={**rule, key: "5m"})
    severity = rule["labels"]["severity"]
    labels = {**rule["labels"], "severity": _OTHER_SEVERITY[severity]}
    yield Mutant(
        kind="severity", fault=f"{severity} -> {labels['severity']}", sound=rule, rule={**rule, "labels": labels}
    )


def _seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(count) * units[unit] for count, unit in _DURATION.findall(duration))


def _about(mutant: Mutant, frame: files.Frame) -> Iterator[files.Frame]:
    """Yield a file for each of its tests that asks for the rule, with only what it asks about it: most end at once."""
    kind, key = ("alert_rule_test", "alertname") if "alert" in mutant.rule else ("promql_expr_test", "expr")
    for test in frame["tests"]:
        questions = [question for question in test.get(kind, ()) if question[key] == mutant.name]
        if questions:
            yield {**frame, "tests": [{**test, kind: questions}]}


def main() -> int:
    every = [mutant for rule in rules() for mutant in mutants_of(rule)]
    alive = Bench().survivors(every)
    totals, left = Counter(mutant.kind for mutant in every), Counter(mutant.kind for mutant in alive)
    for kind, total in sorted(totals.items()):
        print(f"{kind:16} {total - left[kind]:4} of {total} noticed")
    print(f"{'all':16} {len(every) - len(alive):4} of {len(every)} noticed")
    for mutant in alive:
        print(f"  not noticed: {mutant.name}: {mutant.kind} {mutant.fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
