"""Files that are derived from the code: the config schema, the metrics reference."""
