"""The Accept header chooses the format."""

from __future__ import annotations

import pytest

from paropt_exporter.metrics.formats import Format, negotiate

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format.TEXT_0),
        ("*/*", Format.TEXT_0),
        ("text/plain", Format.TEXT_0),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Format.TEXT_0),
        ("text/plain;version=0.0.4", Format.TEXT_0),
        ("text/plain; version=1.0.0", Format.TEXT_1),
        ("application/openmetrics-text; version=1.0.0", Format.OPENMETRICS),
        ("application/openmetrics-text", Format.OPENMETRICS),
        (PROMETHEUS_2, Format.OPENMETRICS),
        (PROMETHEUS_3, Format.OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4;q=0.9", Format.TEXT_0),
        ("application/openmetrics-text;version=1.0.0;q=0", Format.TEXT_0),
        ('APPLICATION/OpenMetrics-Text; Version="1.0.0"', Format.OPENMETRICS),
    ],
)
def test_the_known_format_with_the_highest_weight_wins(accept: str, expected: Format) -> None:
    assert negotiate(accept).format is expected


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=99",
        "application/openmetrics-text;version=nonsense",
        "application/openmetrics-text;version=0.0.1",
        "text/plain;version=",
        "text/plain;version=9.9.9;q=nan",
        "application/openmetrics-text;version=1.0.0;q=inf",
        ";;;,,,===",
        "\xff\xfe",
        "a" * 100_000,
    ],
)
def test_an_invalid_accept_header_gets_plain_text(accept: str) -> None:
    assert negotiate(accept).content_type == Format.TEXT_0.value


def test_the_requested_escaping_is_confirmed() -> None:
    assert negotiate(PROMETHEUS_3).content_type.endswith("; charset=utf-8; escaping=allow-utf-8")
    assert negotiate(PROMETHEUS_2).content_type == Format.OPENMETRICS.value


def test_an_unknown_escaping_is_not_echoed() -> None:
    assert negotiate("text/plain;version=1.0.0;escaping=evil").content_type == Format.TEXT_1.value
