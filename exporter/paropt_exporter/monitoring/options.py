"""The options of generated files, and their checks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from paropt_exporter.config.units import parse_duration
from paropt_exporter.errors import UsageError
from paropt_exporter.families import FAMILIES, PROJECT

# PromQL's matchers; of Go's escapes only the simple ones, which suffice for label values.
_MATCHER = r"""([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\\n]|\\[abfnrtv\\"])*)\""""
_SELECTOR = re.compile(rf"(?:\s*{_MATCHER}\s*(?:,\s*{_MATCHER}\s*)*)?")
_URL = re.compile(r"https?://[^\s\"'{}]+")
_LABELS_OF_SOME = {label for family in FAMILIES for label in family.labels} | {"__name__", "le"}
_UID = re.compile(r"[a-zA-Z0-9_-]{0,40}")
# Error budgets are sums of windows whose rules are evaluated each minute, so windows must be whole minutes: others
# would overlap or leave gaps. Tests evaluate the rules more often.
_MINUTE_SECONDS = 60.0
# A window can't be longer than the shortest pair's.
_LONGEST_WINDOW_SECONDS = 1800.0


class Format(StrEnum):
    """The format of generated files.

    grafana: plain dashboards and rule files · provisioning: dashboards with Grafana's provider file · configmap:
    Kubernetes ConfigMaps · prometheus-operator: PrometheusRule objects, dashboards as ConfigMaps.
    """

    GRAFANA = "grafana"
    PROVISIONING = "provisioning"
    CONFIGMAP = "configmap"
    PROMETHEUS_OPERATOR = "prometheus-operator"


class Options(Struct, frozen=True, kw_only=True):
    """The options of `generate`; this repository's own files have the defaults.

    `selector`: label matchers for each query, without braces. `rate_window`: a Prometheus duration; by default `5m` in
    rules and Grafana's `$__rate_interval` in panels. `datasource_uid`: by default a variable of the dashboard.
    `sla_target`: the ratio of checks that must keep their limit, above 0 and below 1. `runbook_url`, `grafana_url`: the
    addresses that alerts link to; by default alerts have no links. Raises UsageError for invalid values.
    """

    selector: str = ""
    rate_window: str | None = None
    datasource_uid: str | None = None
    runbook_url: str | None = None
    grafana_url: str | None = None
    sla_target: float = 0.99
    format: Format = Format.GRAFANA

    def __post_init__(self) -> None:
        _check_selector(self.selector)
        for flag, url in (("--runbook-url", self.runbook_url), ("--grafana-url", self.grafana_url)):
            if url is not None and not _URL.fullmatch(url):
                raise UsageError(f"{flag}: expected an address that begins with http:// or https://, found {url!r}")
        if not _UID.fullmatch(self.datasource_uid or ""):
            raise UsageError(
                f"--datasource-uid: expected up to 40 letters, digits, - and _, found {self.datasource_uid!r}"
            )
        if not 0.0 < self.sla_target < 1.0:
            raise UsageError(f"--sla-target: expected a ratio above 0 and below 1, like 0.99, found {self.sla_target}")
        _check_window(self.rate_window)

    @property
    def matchers(self) -> tuple[tuple[str, str], ...]:
        """The selector's matchers as (label, whole matcher)."""
        return tuple((found[1], found[0]) for found in re.finditer(_MATCHER, self.selector))


PARAMETERS = Options.__struct_fields__


def parse_options(given: Mapping[str, str]) -> Options:
    """Parse the options of a command line, text by parameter; missing ones have their defaults."""
    typed: dict[str, str | float | Format] = dict(given)
    if "sla_target" in given:
        typed["sla_target"] = _parse_share(given["sla_target"])
    if "format" in given:
        typed["format"] = _parse_format(given["format"])
    return Options(**typed)  # type: ignore[arg-type]  # each parameter has been given its type above


def require_whole_minutes(options: Options) -> None:
    """Raise UsageError for a window that rules can't have: they record its sums each minute."""
    if options.rate_window is not None and parse_duration(options.rate_window) % _MINUTE_SECONDS:
        raise UsageError(
            f"--rate-window: expected whole minutes, like 5m, for rules, which Prometheus evaluates each minute; found "
            f"{options.rate_window}"
        )


def _parse_share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--sla-target: expected a ratio like 0.99, found {text!r}") from None


def _parse_format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise UsageError(f"--format: expected {', '.join(Format)}, found {text!r}") from None


def _check_selector(selector: str) -> None:
    if not _SELECTOR.fullmatch(selector):
        raise UsageError(f'--selector: expected matchers like \'job="x",env=~"a|b"\', found {selector!r}')
    for label, operator, value in re.findall(_MATCHER, selector):
        if label in _LABELS_OF_SOME:
            raise UsageError(
                f"--selector: expected labels that every metric has (job, instance, {PROJECT}, your targets' own), "
                f"found {label!r}: rules about other metrics would match no series"
            )
        if operator in ("=~", "!~") and not _is_pattern(value):
            raise UsageError(f"--selector: expected a regular expression, found {value!r} for {label}")


def _is_pattern(escaped: str) -> bool:
    """Return whether Prometheus accepts the regular expression: Python's syntax without the parts that RE2 lacks."""
    pattern = escaped.replace(r"\\", "\\")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about [[:alpha:]], which RE2 has
            re.compile(pattern)
    except re.error:
        return False
    return not re.search(r"\(\?(?:[=!<>#(]|P=)|\\[1-9Zu]", pattern)


def _check_window(window: str | None) -> None:
    if window is None:
        return
    if not window or window.isdecimal():
        raise UsageError(f"--rate-window: expected a Prometheus duration like 5m, found {window!r}")
    try:
        seconds = parse_duration(window)
    except ValueError as error:
        raise UsageError(f"--rate-window: {error}") from None
    if not 1.0 <= seconds <= _LONGEST_WINDOW_SECONDS:
        raise UsageError(f"--rate-window: expected 1s to 30m, found {window}")
