"""A pool whose workers are those of a Dask cluster. The extra `dask` installs `distributed`.

```
 ours       ClusterPool ── Coordinator (a thread with an event loop) ── scheduler
 a worker   run_batch, in a thread of the Dask worker ── Agent ── CommandPool, ProcessPool
```
Nothing imports this package unless a lane has `strategy: dask`.
"""
