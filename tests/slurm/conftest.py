"""A SLURM cluster for each test."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing, two_nodes


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.fail(reason)
    with two_nodes(tmp_path_factory.mktemp("slurm") / "cluster") as cluster:
        yield cluster
