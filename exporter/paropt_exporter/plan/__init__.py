"""Build the plan of a run before it starts: stages with their tasks, limits and order."""

from paropt_exporter.executors.base import COMMANDS as COMMANDS
from paropt_exporter.executors.base import DASK as DASK
from paropt_exporter.executors.base import PROCESSES as PROCESSES
from paropt_exporter.executors.base import THREADS as THREADS
from paropt_exporter.plan.building import NOTHING_TO_RUN as NOTHING_TO_RUN
from paropt_exporter.plan.building import build_plan as build_plan
from paropt_exporter.plan.building import choose_stages as choose_stages
from paropt_exporter.plan.building import parse_bounds as parse_bounds
from paropt_exporter.plan.building import require_lane as require_lane
from paropt_exporter.plan.flakiness import Flakiness as Flakiness
from paropt_exporter.plan.flakiness import OpenFailures as OpenFailures
from paropt_exporter.plan.selection import Selection as Selection
from paropt_exporter.plan.stage_builder import choose_pool as choose_pool
from paropt_exporter.plan.stage_builder import is_cached as is_cached
from paropt_exporter.plan.stage_graph import order_stages as order_stages
from paropt_exporter.plan.structure import Bounds as Bounds
from paropt_exporter.plan.structure import Call as Call
from paropt_exporter.plan.structure import Commands as Commands
from paropt_exporter.plan.structure import KnownItems as KnownItems
from paropt_exporter.plan.structure import Plan as Plan
from paropt_exporter.plan.structure import PlannedStage as PlannedStage
from paropt_exporter.plan.structure import PlannedTask as PlannedTask
from paropt_exporter.plan.structure import Split as Split
from paropt_exporter.plan.structure import Work as Work
