"""Run a lane and export it: `exporter` has the flow, `parts` builds the objects that it connects."""

from paropt_exporter.app.exporter import READER_SECONDS as READER_SECONDS
from paropt_exporter.app.exporter import run_lane as run_lane
from paropt_exporter.app.request import Request as Request
from paropt_exporter.app.request import Screen as Screen
