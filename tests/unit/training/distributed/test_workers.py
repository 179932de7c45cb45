"""The CPUs of the workers of a run."""

import pytest

from degrain.training.distributed.workers import WorkerRange, Workers


@pytest.mark.parametrize(
    ("workers", "nodes", "cpus"),
    [
        (1, [2], 2),
        (2, [2], 1),
        (3, [2], 1),
        (2, [8, 4], 4),
        (3, [8, 8], 4),
        (1, [2.5], 2),
        (1, [], 1),
    ],
)
def test_workers_of_a_node_share_its_cpus(workers: int, nodes: list[float], cpus: int) -> None:
    made = Workers(workers=WorkerRange(workers, workers)).fit_to(nodes)
    assert made.cpus_per_worker == cpus


def test_elastic_workers_share_for_their_largest_number() -> None:
    assert Workers(workers=WorkerRange(1, 4)).fit_to([8]).cpus_per_worker == 2


def test_a_given_number_of_cpus_is_kept() -> None:
    assert Workers(cpus_per_worker=0.5).fit_to([8]).cpus_per_worker == 0.5
