"""Run a lane and export it: `start` reads its config, `exporter` has the flow, `parts` builds the objects in it."""

from paropt_exporter.app.request import READER_SECONDS as READER_SECONDS
from paropt_exporter.app.request import Request as Request
from paropt_exporter.app.request import Screen as Screen
from paropt_exporter.app.start import run_lane as run_lane
