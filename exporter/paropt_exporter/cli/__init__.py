"""The command `paropt-exporter`: one module for each sub-command, each a thin layer over the parts."""
