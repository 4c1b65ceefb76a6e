"""Stories of alerts, which promtool confirms: `make generate` writes `alerts/tests/*.yml` from them."""
