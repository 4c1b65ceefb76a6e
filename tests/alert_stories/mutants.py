"""Mutation tests of the rules: each mutant is a rule with one fault, which a story must detect.

Usage: python -m alert_stories.mutants   prints how many mutants are detected, by kind, and the others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import yaml

from alert_stories import files
from alert_stories.model import OPTIONS
from paropt_exporter.monitoring.alerts import rule_files as alerts
from paropt_exporter.monitoring.alerts.rule_files import RECORDING_FILE
from support.real_servers import RARE_COLLECTION, program

Rule = Mapping[str, Any]
_PROCESSES = 4  # promtool uses more than a core, for moments only

_OTHER_OPERATOR = {
    "==": "!=", "!=": "==", ">": "<", "<": ">", ">=": "<=", "<=": ">=", "+": "-", "-": "+", "*": "/", "/": "*",
    "and": "unless", "unless": "and", "or": "and",
}  # fmt: skip
_OTHER_SEVERITY = {"critical": "warning", "warning": "info", "info": "critical"}
# Skipped, since they are neither operators nor numbers: names, strings, matchers, label lists.
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
    """A rule with one fault. `kind`: the changed part; `fault`: the change; `sound`: the original rule."""

    kind: str
    fault: str
    sound: Rule
    rule: Rule

    @property
    def name(self) -> str:
        return str(self.rule.get("alert") or self.rule["record"])


def load_rules() -> tuple[Rule, ...]:
    """Return all rules of the generated files, in order."""
    texts = alerts.render_rules(OPTIONS).values()
    return tuple(rule for text in texts for group in yaml.safe_load(text)["groups"] for rule in group["rules"])


def build_mutants(rule: Rule) -> tuple[Mutant, ...]:
    """Return all mutants of a rule."""
    return (*_iter_query_mutants(rule), *_iter_frame_mutants(rule))


class MutantTester:
    """Run the stories about one rule at a time, with only the recordings that it uses."""

    def __init__(self) -> None:
        self._rules = load_rules()
        self._recordings = {rule["record"]: rule for rule in self._rules if "record" in rule}
        self._frames = tuple(files.build_frames().values())

    def find_survivors(self, mutants: Iterable[Mutant]) -> tuple[Mutant, ...]:
        """Return the mutants that no story detects. Raises AssertionError if a rule has no story."""
        by_rule: defaultdict[str, list[Mutant]] = defaultdict(list)
        for mutant in mutants:
            by_rule[mutant.name].append(mutant)
        with ThreadPoolExecutor(_PROCESSES) as pool:
            return tuple(survivor for alive in pool.map(self._run_stories, by_rule.values()) for survivor in alive)

    def _run_stories(self, alive: list[Mutant]) -> list[Mutant]:
        """Run the stories about a rule, each with all mutants that the earlier ones have not detected."""
        stories = [story for frame in self._frames for story in _iter_frames_about(alive[0], frame)]
        stories.sort(key=_count_evaluations)  # the quickest first: they detect most mutants
        assert stories, f"no story is about {alive[0].name}"
        for story in stories:
            alive = [mutant for mutant, passes in zip(alive, self._run_story(alive, story), strict=True) if passes]
            if not alive:
                break
        return alive

    def _run_story(self, mutants: list[Mutant], frame: files.Frame) -> list[bool]:
        """Run one promtool on a test file for each mutant: it takes longer to start than for most tests.

        Return whether each one passes. Raises AssertionError if promtool cannot read a rule.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = [self._write_test(Path(folder, str(number)), one, frame) for number, one in enumerate(mutants)]
            command = [program("promtool"), "test", "rules", *map(str, paths)]
            ran = subprocess.run(
                command, stdout=PIPE, stderr=STDOUT, text=True, timeout=300, check=False, env=RARE_COLLECTION
            )
        reports = ran.stdout.split("Unit Testing:")[1:]
        assert len(reports) == len(mutants), ran.stdout
        passes = ["SUCCESS" in report for report in reports]
        for report, success in zip(reports, passes, strict=True):
            assert success != ("exp:" in report), report
        return passes

    def _write_test(self, folder: Path, mutant: Mutant, frame: files.Frame) -> Path:
        # Without the recording file, the story contains the recorded series.
        raw = any(RECORDING_FILE in path for path in frame["rule_files"])
        groups = [
            {"name": "recordings", "rules": self._find_needed_recordings(mutant) if raw else []},
            {"name": "mutant", "rules": self._build_rule_group(mutant)},
        ]
        order = {"group_eval_order": ["recordings", "mutant"], "rule_files": ["rules.yml"]}
        folder.mkdir()
        (folder / "rules.yml").write_text(json.dumps({"groups": groups}))  # JSON is YAML
        path = folder / "tests.yml"
        path.write_text(json.dumps({**frame, **order}))
        return path

    def _build_rule_group(self, mutant: Mutant) -> list[Rule]:
        """Return the mutant with the other conditions of its alert, since stories cover all of them."""
        own_rules = [rule for rule in self._rules if rule.get("alert", rule.get("record")) == mutant.name]
        return [mutant.rule if rule == mutant.sound else rule for rule in own_rules]

    def _find_needed_recordings(self, mutant: Mutant) -> list[Rule]:
        """Return the recordings that the mutant's query uses, directly or indirectly, each after its inputs."""
        needed: set[str] = set()
        waiting = [rule["expr"] for rule in self._build_rule_group(mutant)]
        while waiting:
            expr = waiting.pop()
            found = {name for name in self._recordings if name in expr} - needed - {mutant.name}
            needed |= found
            waiting += [self._recordings[name]["expr"] for name in found]
        return [rule for name, rule in self._recordings.items() if name in needed]


def _iter_query_mutants(rule: Rule) -> Iterator[Mutant]:
    expr = rule["expr"]
    for token in _TOKEN.finditer(expr):
        kind, text = token.lastgroup or "", token[0]
        for other in _choose_replacements(kind, text):
            changed = {**rule, "expr": expr[: token.start()] + other + expr[token.end() :]}
            yield Mutant(kind=kind, fault=f"{text} -> {other} at {token.start()}", sound=rule, rule=changed)


def _choose_replacements(kind: str, text: str) -> tuple[str, ...]:
    match kind:
        case "operator":
            return (_OTHER_OPERATOR[text],)
        case "number":
            return (f"{float(text) * 10:g}", f"{float(text) / 10:g}") if float(text) else ("1",)
        case "window":
            return (_scale_span(text, 10), _scale_span(text, 1 / 10))
        case _:
            return ()


def _scale_span(window: str, factor: float) -> str:
    """Return the window with a scaled span: the first of a subquery's two durations."""
    return _DURATION.sub(lambda found: f"{_parse_seconds(found[0]) * factor:.0f}s", window, count=1)


def _iter_frame_mutants(rule: Rule) -> Iterator[Mutant]:
    if "alert" not in rule:
        return
    for key in ("for", "keep_firing_for"):
        if key in rule:
            seconds = _parse_seconds(rule[key])
            for other in (f"{seconds * 10}s", f"{seconds // 10}s", "0s"):
                yield Mutant(kind=key, fault=f"{rule[key]} -> {other}", sound=rule, rule={**rule, key: other})
        elif key == "for":
            yield Mutant(kind=key, fault="none -> 5m", sound=rule, rule={**rule, key: "5m"})
    severity = rule["labels"]["severity"]
    labels = {**rule["labels"], "severity": _OTHER_SEVERITY[severity]}
    yield Mutant(
        kind="severity", fault=f"{severity} -> {labels['severity']}", sound=rule, rule={**rule, "labels": labels}
    )


def _parse_seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(count) * units[unit] for count, unit in _DURATION.findall(duration))


def _iter_frames_about(mutant: Mutant, frame: files.Frame) -> Iterator[files.Frame]:
    """Yield a frame for each of its tests about the rule, reduced to that rule, so that most end at once."""
    kind, key = ("alert_rule_test", "alertname") if "alert" in mutant.rule else ("promql_expr_test", "expr")
    for test in frame["tests"]:
        questions = [question for question in test.get(kind, ()) if question[key] == mutant.name]
        if questions:
            yield {**frame, "tests": [{**test, kind: questions}]}


def _count_evaluations(frame: files.Frame) -> float:
    """Return how often promtool evaluates the rules of a frame, whose questions have the times until which it does."""
    ends = [
        _parse_seconds(question["eval_time"])
        for test in frame["tests"]
        for kind in ("alert_rule_test", "promql_expr_test")
        for question in test.get(kind, ())
    ]
    return max(ends) / _parse_seconds(frame["evaluation_interval"])


def main() -> int:
    every = [mutant for rule in load_rules() for mutant in build_mutants(rule)]
    alive = MutantTester().find_survivors(every)
    totals, left = Counter(mutant.kind for mutant in every), Counter(mutant.kind for mutant in alive)
    for kind, total in sorted(totals.items()):
        print(f"{kind:16} {total - left[kind]:4} of {total} noticed")
    print(f"{'all':16} {len(every) - len(alive):4} of {len(every)} noticed")
    for mutant in alive:
        print(f"  not noticed: {mutant.name}: {mutant.kind} {mutant.fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
