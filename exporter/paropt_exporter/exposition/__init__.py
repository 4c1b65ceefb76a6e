"""Hand the metrics page to whoever asks for it."""
