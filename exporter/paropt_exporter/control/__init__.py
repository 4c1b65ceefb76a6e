"""Size a running lane by what its tasks are measured to do."""

from paropt_exporter.control.loop import InnerLoop
from paropt_exporter.control.standing import Band, Order, Standing

__all__ = ["Band", "InnerLoop", "Order", "Standing"]
