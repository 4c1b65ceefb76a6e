"""Scaling policies: pure functions from an observation to a decision, each with the source of its formula.

`lane_size` sizes a run, whose tasks are known (`fixed_workload`, `memory`, `stage_concurrency`); `pool_size` sizes a
pool whose tasks may arrive at any time (`queueing`, `budget`, `scaling_effectiveness`); `size_bounds` and
`query_size` decide from query results, which `query_validity` accepts or rejects; `stabilization` decides for all
of them when to follow a wanted size.
"""
