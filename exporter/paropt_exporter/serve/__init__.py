"""One exporter for a host: projects register with it, their runs leave the port to it and share its cores.

Modules are imported where they are used: a run that finds no exporter loads only `runtime_folder`.
"""
