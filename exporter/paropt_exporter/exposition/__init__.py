"""Serve the metrics page over HTTP and deliver final values to sinks."""
