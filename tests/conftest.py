"""For every test: hypothesis finds the same examples each time, and every wait ends. For some: fixtures."""

from __future__ import annotations

import gc
import logging
import os
import signal
import venv
from collections.abc import Iterator

import pytest
from hypothesis import settings

from support.real_servers import SET_BY_CI

pytest_plugins = ["support.bounds"]

# A shell without job control starts background jobs with SIGINT ignored, and `nohup` starts its command with SIGHUP
# ignored, and so would every command of the tests.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


# Folders whose files take up to a minute each, since they wait for servers; the longest file is in the first.
_LONGEST = ("cluster", "e2e", "monitoring", "deploy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that parallel workers end at about the same time."""
    items.sort(key=_rank_folder)


def _rank_folder(item: pytest.Item) -> int:
    return next((rank for rank, folder in enumerate(_LONGEST) if folder in item.path.parts), len(_LONGEST))


def pytest_collection_finish() -> None:
    """Leave the thousands of collected tests out of garbage collections: they took a tenth of a worker's CPU time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep parsed configs apart from the user's, no host config, and no virtual environment active, as a lane sets.

    Runs don't register with the user's `serve`, and commands behave alike on a CI host and elsewhere: `python3` has no
    installed packages, whose .pth files it would read, and is no shim of pyenv. Both take more time than its start.
    """
    python = tmp_path_factory.mktemp("python")
    venv.create(python, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(python / "bin"), prepend=os.pathsep)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PAROPT_HOST_CONFIG", "")
        patch.delenv("PAROPT_ALLOW_CREDENTIALS", raising=False)
        for name in ("VIRTUAL_ENV", *SET_BY_CI):
            patch.delenv(name, raising=False)
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take half of a small suite's time
        patch.setenv("PAROPT_SERVE", "off")  # a `serve` of the user must not take part in tests
        yield


@pytest.fixture
def logger_as_before() -> Iterator[None]:
    """The package's logger is the process's: it goes back to what other tests expect."""
    ours = logging.getLogger("paropt_exporter")
    handlers, level, propagate = ours.handlers[:], ours.level, ours.propagate
    yield
    ours.handlers[:], ours.propagate = handlers, propagate
    ours.setLevel(level)


@pytest.fixture(scope="module")
def kept_supervisor() -> Iterator[None]:
    """Keep one supervisor of commands for all tests of a module: each pool alone starts and ends one."""
    from paropt_exporter.executors.commands.supervisor_client import SUPERVISOR

    with SUPERVISOR.keep_running():
        yield
