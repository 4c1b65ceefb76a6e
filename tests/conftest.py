"""For every test: hypothesis finds the same examples each time, no machine is too slow, and no failure hangs."""

from __future__ import annotations

import faulthandler
import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings
from pytest_timeout import Settings

TEARDOWN_SECONDS = 60
EXIT_SECONDS = 60
STDERR = 2  # `sys.stderr` may be closed or replaced by then

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """Limit the teardown of a failed test: pytest-timeout ends its own timer at the failure."""
    if isinstance(node, pytest.Item):
        limit = Settings(TEARDOWN_SECONDS, "signal", func_only=False, disable_debugger_detection=False)
        node.ihook.pytest_timeout_set_timer(item=node, settings=limit)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Limit the end of the interpreter, which waits for threads that tests have left."""
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=STDERR)


@pytest.fixture
def logger_as_before() -> Iterator[None]:
    """The package's logger is the process's: it goes back to what other tests expect."""
    ours = logging.getLogger("paropt_exporter")
    handlers, level, propagate = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = handlers, propagate
    ours.setLevel(level)
