"""`--list` shows lanes and stages."""

from __future__ import annotations

import io
from pathlib import Path

from paropt_exporter.cli import listing
from support import configs

CONFIG = """
project: shop
lanes:
  standard: {sla: 30s}
  quick: {strategy: thread, stages: [lint, unit], description: "without\\n the rest"}
stages:
  - {name: lint, steps: [[ruff, check, "a b", "{args}"], mypy .]}
  - {name: unit, run: "pytest {items}", items: {list: [a, b]}, needs: [lint]}
  - {name: deploy, call: "steps:deploy", description: "copies\\n files"}
"""


def print_list(folder: Path, lane: str | None, items: dict[str, int] | None = None) -> str:
    printed = io.StringIO()
    config = configs.read(folder, CONFIG)
    assert listing.run(config, lane=lane, output="text", names_only=False, stdout=printed, items=items) == 0
    return printed.getvalue().replace(str(folder), "")


def test_list_has_lanes_and_stages_with_their_work_or_description(tmp_path: Path) -> None:
    assert (
        print_list(tmp_path, None)
        == """\
shop: /paropt.yml

lane      stages  description
docs      all     thread, sla 10s, total 5m
standard  all     adaptive, sla 30s, total 15m
heavy     all     process, sla 1m, total 20m
quick     2       without the rest

number  stage   needs  description
1       lint    -      ruff check 'a b' {args} && mypy .
2       unit    lint   pytest {items}
3       deploy  -      copies files
"""
    )


def test_list_of_a_lane_has_the_items_that_would_run(tmp_path: Path) -> None:
    assert (
        print_list(tmp_path, "quick", {"lint": 0, "unit": 2})
        == """\
shop: /paropt.yml

lane   stages  description
quick  2       without the rest

number  stage  needs  description
1       lint   -      ruff check 'a b' {args} && mypy .
2       unit   lint   2 items: pytest {items}
"""
    )
