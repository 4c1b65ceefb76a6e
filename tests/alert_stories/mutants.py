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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

from alert_stories import files
from paropt_exporter.monitoring.alerts.rule_files import RECORDING_FILE
from support.generated import load_rule_groups
from support.real_servers import RARE_COLLECTION, program

Rule = Mapping[str, Any]
_FAILED_QUESTION = re.compile(r'^ *(?:alertname: |expr: ")([\w:]+)', re.MULTILINE)  # in promtool's report

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
        return _find_name(self.rule)


def load_rules() -> tuple[Rule, ...]:
    """Return all rules of the generated files, in order."""
    return tuple(rule for rules in load_rule_groups().values() for rule in rules)


def build_mutants(rule: Rule) -> tuple[Mutant, ...]:
    """Return all mutants of a rule."""
    return (*_iter_query_mutants(rule), *_iter_frame_mutants(rule))


class MutantTester:
    """Run the stories about each rule, with only the recordings that it uses.

    A rule's mutants run together, each under a name of its own, beside the sound rule: promtool then reads a story and
    builds its database once for all of them.
    """

    def __init__(self) -> None:
        self._rules = load_rules()
        self._recordings = {rule["record"]: rule for rule in self._rules if "record" in rule}
        self._frames = tuple(files.build_frames().values())

    def find_survivors(self, rules: Iterable[Rule]) -> tuple[Mutant, ...]:
        """Run all stories about the rules. Return the mutants that none detects.

        Raises AssertionError if a rule has no story or fails its own.
        """
        alive: defaultdict[str, list[Mutant]] = defaultdict(list)
        for rule in rules:
            alive[_find_name(rule)] += build_mutants(rule)
        waiting = {name: self._find_stories(name) for name in alive}
        while any(waiting.values()):
            runs = [run for name, stories in waiting.items() for run in _take_runs(name, alive[name], stories)]
            for run, survivors in zip(runs, self._run_stories(runs), strict=True):
                alive[run.rule_name] = survivors
        return tuple(mutant for group in alive.values() for mutant in group)

    def _find_stories(self, name: str) -> list[files.Frame]:
        stories = [story for frame in self._frames for story in _iter_frames_about(name, frame)]
        assert stories, f"no story is about {name}"
        return sorted(stories, key=_count_evaluations)  # the quickest first: they detect most mutants

    def _run_stories(self, runs: Sequence[_Run]) -> list[list[Mutant]]:
        """Run one promtool on a test file for each run. Return the mutants that pass, for each."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [self._write_test(Path(folder, str(number)), run) for number, run in enumerate(runs)]
            command = [program("promtool"), "test", "rules", *map(str, paths)]
            ran = subprocess.run(
                command, stdout=PIPE, stderr=STDOUT, text=True, timeout=300, check=False, env=RARE_COLLECTION
            )
        reports = ran.stdout.split("Unit Testing:")[1:]
        assert len(reports) == len(runs), ran.stdout
        return [run.find_survivors(report) for run, report in zip(runs, reports, strict=True)]

    def _write_test(self, folder: Path, run: _Run) -> Path:
        # Without the recording file, the story contains the recorded series.
        raw = any(RECORDING_FILE in path for path in run.story["rule_files"])
        mutants = [
            _rename_rule(rule, name)
            for name, mutant in run.mutants_by_name.items()
            for rule in self._build_rule_group(mutant)
        ]
        sound = [rule for rule in self._rules if _find_name(rule) == run.rule_name]
        groups = [
            {"name": "recordings", "rules": self._find_needed_recordings(run) if raw else []},
            {"name": "mutants", "rules": [*sound, *mutants]},
        ]
        order = {"group_eval_order": ["recordings", "mutants"], "rule_files": ["rules.yml"]}
        folder.mkdir()
        (folder / "rules.yml").write_text(json.dumps({"groups": groups}))  # JSON is YAML
        path = folder / "tests.yml"
        path.write_text(json.dumps({**run.ask_about_each(), **order}))
        return path

    def _build_rule_group(self, mutant: Mutant) -> list[Rule]:
        """Return a recording's mutant with the others of its name; conditions of an alert differ in their labels."""
        if "alert" in mutant.rule:
            return [mutant.rule]
        own_rules = [rule for rule in self._rules if _find_name(rule) == mutant.name]
        return [mutant.rule if rule == mutant.sound else rule for rule in own_rules]

    def _find_needed_recordings(self, run: _Run) -> list[Rule]:
        """Return the recordings that the run's queries use, directly or indirectly, each after its inputs."""
        needed: set[str] = set()
        waiting = [mutant.rule["expr"] for mutant in run.mutants]
        waiting += [rule["expr"] for rule in self._rules if _find_name(rule) == run.rule_name]
        while waiting:
            expr = waiting.pop()
            found = {name for name in self._recordings if name in expr} - needed - {run.rule_name}
            needed |= found
            waiting += [self._recordings[name]["expr"] for name in found]
        return [rule for name, rule in self._recordings.items() if name in needed]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One story with a sound rule and those of its mutants that earlier stories have not detected."""

    rule_name: str
    mutants: list[Mutant]
    story: files.Frame

    @property
    def mutants_by_name(self) -> dict[str, Mutant]:
        return {f"{self.rule_name}_mutant{number}": mutant for number, mutant in enumerate(self.mutants)}

    def ask_about_each(self) -> files.Frame:
        """Return the story with its questions about the sound rule and about each mutant."""
        (test,) = self.story["tests"]
        if "alert_rule_test" in test:
            return {**self.story, "tests": [{**test, "alert_rule_test": list(self._ask_about_alerts(test))}]}
        return {**self.story, "tests": [{**test, "promql_expr_test": list(self._ask_about_recordings(test))}]}

    def _ask_about_alerts(self, test: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        for question in test["alert_rule_test"]:
            yield question
            for name, mutant in self.mutants_by_name.items():
                own = [one for one in question["exp_alerts"] if _belongs_to(one, mutant.sound)]
                yield {**question, "alertname": name, "exp_alerts": own}

    def _ask_about_recordings(self, test: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Yield the questions under each name, which the samples contain too."""
        for question in test["promql_expr_test"]:
            yield question
            for name in self.mutants_by_name:
                samples = [
                    {**one, "labels": name + one["labels"].removeprefix(self.rule_name)}
                    for one in question["exp_samples"]
                ]
                yield {**question, "expr": name, "exp_samples": samples}

    def find_survivors(self, report: str) -> list[Mutant]:
        """Return the mutants whose questions all have the expected answers, by promtool's report."""
        failed = set(_FAILED_QUESTION.findall(report))
        assert ("SUCCESS" in report) == (not failed), report
        assert self.rule_name not in failed, report
        return [mutant for name, mutant in self.mutants_by_name.items() if name not in failed]


def _take_runs(name: str, mutants: list[Mutant], stories: list[files.Frame]) -> list[_Run]:
    """Take the next story, or all that are left if the rule has no mutant any more, and return their runs."""
    taken = stories[:1] if mutants else stories[:]
    del stories[: len(taken)]
    return [_Run(rule_name=name, mutants=mutants, story=story) for story in taken]


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


def _iter_frames_about(name: str, frame: files.Frame) -> Iterator[files.Frame]:
    """Yield a frame for each of its tests about the rule, reduced to that rule, so that most end at once."""
    for test in frame["tests"]:
        for kind, key in (("alert_rule_test", "alertname"), ("promql_expr_test", "expr")):
            questions = [question for question in test.get(kind, ()) if question[key] == name]
            if questions:
                yield {**frame, "tests": [{**test, kind: questions}]}


def _find_name(rule: Rule) -> str:
    return str(rule.get("alert") or rule["record"])


def _rename_rule(rule: Rule, name: str) -> Rule:
    """Return the rule with another name, by which it finds its own alerts, too."""
    expr = rule["expr"].replace(f'alertname="{_find_name(rule)}"', f'alertname="{name}"')
    return {**rule, "alert" if "alert" in rule else "record": name, "expr": expr}


def _belongs_to(expected: Mapping[str, Any], rule: Rule) -> bool:
    """Return whether an expected alert is of this condition of it: conditions have different labels."""
    return bool(rule["labels"].items() <= expected["exp_labels"].items())


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
    alive = MutantTester().find_survivors(load_rules())
    totals, left = Counter(mutant.kind for mutant in every), Counter(mutant.kind for mutant in alive)
    for kind, total in sorted(totals.items()):
        print(f"{kind:16} {total - left[kind]:4} of {total} noticed")
    print(f"{'all':16} {len(every) - len(alive):4} of {len(every)} noticed")
    for mutant in alive:
        print(f"  not noticed: {mutant.name}: {mutant.kind} {mutant.fault}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
