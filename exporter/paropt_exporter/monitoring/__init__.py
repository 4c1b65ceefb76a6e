"""Generate files: alert rules, dashboards, the config schema, the metrics reference and the runbook."""
