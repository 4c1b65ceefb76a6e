"""A Dask cluster for the tests of this folder: a scheduler and two workers that no test kills."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.executors.cluster.cluster_pool import ClusterPool
from support.dask_clusters import DaskCluster, open_pool

# Dask's own objects are collected late, and its sockets with them.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")  # its three processes take 7 % of a core while they rest
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.start_scheduler()
        cluster.start_worker("a")
        cluster.start_worker("b")
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    cluster = DaskCluster(tmp_path)
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def pool(shared_cluster: DaskCluster, tmp_path: Path) -> Iterator[ClusterPool]:
    made = open_pool(shared_cluster, tmp_path)
    try:
        yield made
    finally:
        made.close_within(0.0)
