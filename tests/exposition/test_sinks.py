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
    counts = {key: count for key, count in deliveries.count_deliveries().items() if count}
    assert counts == {("textfile", "failure"): 1, ("pushgateway", "success"): 1}
    assert deliveries.find_failing() == {"textfile": True, "pushgateway": False}


def test_without_targets_no_page_is_rendered() -> None:
    def never() -> bytes:
        raise AssertionError

    assert Sinks({}).deliver(never) == frozenset()
