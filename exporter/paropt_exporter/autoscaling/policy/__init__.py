"""How many workers: pure functions from what was read to a size, each with the source of its formula.

`closed` for a run, whose tasks are known; `streams` for an executor, to which tasks may come at any time; `moving`
for when to follow; `reading` for what may be believed; `band` for what query results allow; `target` for a size by
query results alone; `effect` for whether more workers helped; `budget` for several pools of one machine.
"""

from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup, Sizing, compute_fixed_workload_size

__all__ = ["Load", "LoadGroup", "Sizing", "compute_fixed_workload_size"]
