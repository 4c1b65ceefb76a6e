"""The composition root: `exporter` reads as the flow, `parts` makes what it is put together from."""

from paropt_exporter.app.exporter import READER_SECONDS as READER_SECONDS
from paropt_exporter.app.exporter import run_lane as run_lane
from paropt_exporter.app.request import Request as Request
from paropt_exporter.app.request import Screen as Screen
