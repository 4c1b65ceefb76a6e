"""Size pools by measurements of their tasks and by Prometheus queries."""
