"""The registration of an exporter with the `serve` of its user."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from paropt_exporter.app import parts
from paropt_exporter.app.request import Request
from paropt_exporter.clock import Clock
from paropt_exporter.config import Config
from paropt_exporter.plan import Plan

if TYPE_CHECKING:
    from paropt_exporter.serve.link import Link, LiveSeries


class ServeLink:
    """Registers a process at its start, or before a later run if `serve` has started since.

    ```
    alone (link None) --register: serve answers--> registered (link)
       ^--'  serve refuses: each reason is said once
    ```
    """

    def __init__(self, request: Request, config: Config, clock: Clock, say: Callable[[str], None]) -> None:
        self.link: Link | None = None
        self._request = request
        self._config = config
        self._clock = clock
        self._say = say
        self._refusal = ""  # the last one that was said

    @property
    def serves_page(self) -> bool:
        """Whether `serve` serves the page of this process, which then has no port."""
        return self.link is not None and parts.leaves_port(self._request, self._config)

    def register(self, plan: Plan) -> Link | None:
        """Return the link, or None if there is no `serve`, or if it refuses."""
        self.link = parts.register_with_serve(
            self._request, self._config, plan, self._clock, self._say, self._say_refusal
        )
        return self.link

    def register_late(self, plan: Plan, collect: Callable[[], LiveSeries]) -> None:
        """Register with a `serve` that was not there when this process started, as at a boot, and keep the port."""
        if self.link is not None:
            return
        if (link := self.register(plan)) is not None:
            link.collect = collect
            if link.url:  # otherwise it has said that `serve` does not answer
                self._say("registered with a `paropt-exporter serve` that has started since")

    def reconfigure(self, config: Config, shape: Plan) -> None:
        """Tell `serve` the lane of a changed config."""
        self._config = config
        if self.link is not None:
            labels = parts.build_lane_labels(self._request, config, shape)
            self.link.reconfigure((labels,), parts.get_bounds(shape))

    def close(self) -> None:
        if self.link is not None:
            self.link.close()

    def _say_refusal(self, refusal: str) -> None:
        if refusal != self._refusal:
            self._refusal = refusal
            self._say(f"`paropt-exporter serve` refused this run, which goes on alone: {refusal}")
