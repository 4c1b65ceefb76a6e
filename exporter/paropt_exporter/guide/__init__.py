"""The Python API of the user's tuning guide, a thin layer over the other packages; `paropt_exporter` has its names."""
