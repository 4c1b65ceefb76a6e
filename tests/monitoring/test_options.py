"""The options of generated files."""

from __future__ import annotations

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.monitoring.options import Format, Options, parse_options


def test_missing_options_have_their_defaults() -> None:
    assert parse_options({}) == Options()


def test_text_is_converted_to_the_parameters_type() -> None:
    options = parse_options({"sla_target": "0.999", "format": "configmap", "selector": 'job="x", env=~"a|b"'})
    assert options.sla_target == 0.999
    assert options.format is Format.CONFIGMAP
    assert options.selector == 'job="x", env=~"a|b"'


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        ("selector", "job=x"),
        ("selector", '{job="x"}'),
        ("selector", 'job="x",'),
        ("selector", 'job="x"} or up{job="y"'),
        ("selector", 'job="x",lane="standard"'),
        ("selector", '__name__="up"'),
        ("selector", r'job="\q"'),
        ("selector", 'job=~"(a"'),
        ("selector", 'job!~"*"'),
        ("selector", 'job=~"(?!a)b"'),
        ("selector", 'job=~"(?>a)b"'),
        ("selector", 'job=~"(?#a)b"'),
        ("selector", 'job=~"(?P<a>b)(?P=a)"'),
        ("selector", 'job=~"(?P<a>b)(?(a)c|d)"'),
        ("selector", r'job=~"a\\Z"'),
        ("selector", r'job=~"\\u0041"'),
        ("rate_window", "5"),
        ("rate_window", ""),
        ("rate_window", "soon"),
        ("rate_window", "500ms"),
        ("rate_window", "2h"),
        ("datasource_uid", "a b"),
        ("runbook_url", "runbook.md"),
        ("grafana_url", "javascript:alert(1)"),
        ("sla_target", "99"),
        ("sla_target", "1"),
        ("sla_target", "nan"),
        ("sla_target", "most"),
        ("format", "helm"),
    ],
)
def test_an_invalid_value_is_one_line_with_the_flag(parameter: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"^--{parameter.replace('_', '-')}: expected") as raised:
        parse_options({parameter: text})
    assert len(str(raised.value).splitlines()) == 1
