"""Pools in simulated time: the real controller's decisions on queues that take no time to run."""
