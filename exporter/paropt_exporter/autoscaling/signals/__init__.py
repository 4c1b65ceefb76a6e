"""Read signals from Prometheus and from the process's own counters, and reject invalid ones."""
