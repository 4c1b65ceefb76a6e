"""Recording rules, alerts and their runbook: each alert is defined once, with all that is said about it."""
