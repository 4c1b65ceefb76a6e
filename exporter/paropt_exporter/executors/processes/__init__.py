"""An executor of processes, as its parent process runs it; `executors.worker` is the code of the worker processes."""
