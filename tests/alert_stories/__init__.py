"""What each alert does, as stories that promtool plays: `make generate` writes `alerts/tests/*.yml` from them."""
