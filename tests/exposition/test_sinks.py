"""Final values reach every target that accepts them."""

from __future__ import annotations

import pytest

from paropt_exporter.errors import DeliveryError
from paropt_exporter.exposition.deliveries import Sinks


def refuse(_: bytes) -> None:
    raise DeliveryError("no space")


def test_a_failing_target_is_logged_counted_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages: list[bytes] = []
    deliveries = Sinks({"textfile": refuse, "pushgateway": pages.append})
    assert deliveries.deliver(lambda: b"page") == {"textfile"}
    assert pages == [b"page"]
    assert [record.__dict__["err"] for record in caplog.records] == ["no space"]
    assert deliveries.count_deliveries() == {
        ("textfile", "success"): 0,
        ("textfile", "failure"): 1,
        ("pushgateway", "success"): 1,
        ("pushgateway", "failure"): 0,
    }


def test_without_targets_no_page_is_rendered() -> None:
    def never() -> bytes:
        raise AssertionError

    assert Sinks({}).deliver(never) == frozenset()
