"""An executor of worker processes that can be resized while it runs and survives the death of workers.

    thread                     runs
    a caller's                 executor ──> manager.dispatch ──> scheduler ──> transport (sends)
    one for each worker        process_handler ──> manager, scheduler ──> transport (sends, reads)
                                   └──> results ──> callbacks of futures
    any that asks              usage_sampler
    the interpreter's, a fork  executors.lifetime ──> manager.close, manager.reset_after_fork

    module                     owns
    scheduler                  the queue, the list of workers, and the lock of both
    workers                    the state of a worker, of its process and of the tasks that the process holds
    worker_threads             the threads of the workers and the descriptors that wake them
    transport                  the descriptors of one process
    forkservers                the fork server

Locks, in the order in which one thread may take them: `Scheduler.lock`, then that of a `ThreadGroup` or of the
`ForkServers`, neither of which is taken inside the other. No future's lock is taken inside these: `wait` locks all its
futures, and a signal handler that interrupts it may need a pool's lock. The callbacks of futures run without any.
"""
