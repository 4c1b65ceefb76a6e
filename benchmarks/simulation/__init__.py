"""Simulated pools and lanes for the real controllers, on a clock that jumps from event to event."""
