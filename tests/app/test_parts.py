"""Settings of an exporter's parts that both a flag and `paropt.yml` may give."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.app import parts
from paropt_exporter.app.request import Request
from paropt_exporter.exposition import listeners
from support import configs


@pytest.mark.parametrize(("flag", "limit"), [(None, 3), (0, sys.maxsize), (5000, 5000)])
def test_flag_for_requests_wins_over_the_config(
    tmp_path: Path, flag: int | None, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(parts, "Endpoint", lambda *_, **settings: given.update(settings))
    monkeypatch.setattr(listeners, "open_listeners", lambda *_, **__: ())
    config = configs.read(tmp_path, "web: {max_requests: 3}\n" + configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", once=True, max_requests=flag)
    unused: Any = None
    parts.start_endpoint(request, config, unused, unused, say=unused)
    assert given["max_requests"] == limit
