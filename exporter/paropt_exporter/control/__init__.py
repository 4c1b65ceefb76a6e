"""Size a running lane by what its tasks are measured to do."""

from paropt_exporter.control.loop import InnerLoop

__all__ = ["InnerLoop"]
