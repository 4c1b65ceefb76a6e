"""Lets `python -m paropt_exporter` stand for the command."""

import sys

from paropt_exporter.cli.main import main

sys.exit(main())
