"""Recording rules and alerts; each alert is defined once, together with its runbook entry."""
