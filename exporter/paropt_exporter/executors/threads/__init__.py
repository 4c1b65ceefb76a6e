"""An executor of threads: `thread_pool`, on the state in `pool_state`, which the pool of commands uses, too."""
