"""Run the command by `python -m paropt_exporter`."""

import sys

from paropt_exporter.cli.main import main

sys.exit(main())
