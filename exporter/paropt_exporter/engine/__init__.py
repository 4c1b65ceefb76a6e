"""Run a plan's stages as a graph on pools, and emit events."""
