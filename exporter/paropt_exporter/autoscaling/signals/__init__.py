"""Get readings, and judge whether each may be believed: from Prometheus, and from the process's own counters."""
