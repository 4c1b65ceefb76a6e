"""A pool whose workers are those of a Dask cluster. The extra `dask` installs `distributed`.

```
 ours       ClusterPool ── Coordinator: Membership, Dispatcher ── ClusterSession (its thread) ── scheduler
 a worker   Agent, whose slots are threads of the Dask worker ── CommandPool, ProcessPool
```
Nothing imports this package unless a lane has `strategy: dask`.
"""
