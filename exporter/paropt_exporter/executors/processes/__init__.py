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

Locks: those of the scheduler and of the fork server. No thread takes one of them while it holds the other, nor a
future's inside them: `wait` locks all its futures, and a signal handler that interrupts it may need the scheduler's.
The callbacks of futures run without any lock.
"""
