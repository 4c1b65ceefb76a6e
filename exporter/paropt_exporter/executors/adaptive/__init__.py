"""An executor over threads and processes that measures which pool suits each function."""
