"""The supervisor: one small process that starts, measures and ends commands. It imports little else of the package."""
