"""Turns of small photos, large ones and jobs at one network, and the end of abandoned work."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.serving_support import untrained
from unit.support import random_photo

from degrain.imaging.pixels import Photo
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.serving import turns as module
from degrain.serving.turns import AbandonedError, Abandonment, InTurns, Rank, Turns

SMALL, LARGE = random_photo(24, 32), random_photo(192, 192)


class Stepwise(NetworkDenoiser):
    """A network whose passes wait for the test."""

    def __init__(self) -> None:
        weights, card = untrained(0)
        config = InferenceConfig(precision="float32")
        super().__init__(card.model, card.arguments, weights, crop=card.crop, config=config)
        self.passes = threading.Semaphore(0)
        """Passes that may run."""
        self.running = threading.Semaphore(0)
        """Passes that have begun and were not seen yet."""
        self.pixels: list[int] = []
        """What each pass has read."""

        self._compute, self._forward_pass = self._forward_pass, self._wait

    def _wait(self, tiles: Tensor) -> Tensor:
        self.pixels.append(tiles.shape[-1] * tiles.shape[-2])
        self.running.release()
        assert self.passes.acquire(timeout=600)
        return self._compute(tiles)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Stepwise:
    monkeypatch.setattr(module, "PASS_PIXELS", 96 * 96)
    return Stepwise()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def denoiser(
    network: NetworkDenoiser, turns: Turns, rank: Rank, abandonment: Abandonment | None = None
) -> InTurns:
    return InTurns(network, turns, abandonment or Abandonment(), rank)


def finished(work: Future[Photo], network: Stepwise) -> Photo:
    """The result of work whose passes no longer wait."""
    for _ in range(100):
        network.passes.release()
    return work.result(60)


@pytest.mark.parametrize("rank", list(Rank))
def test_turns_do_not_change_the_result(network: Stepwise, rank: Rank) -> None:
    turned = denoiser(network, Turns(exclusive=False), rank)
    for _ in range(200):
        network.passes.release()
    difference = network(LARGE).astype(int) - turned(LARGE)
    assert np.abs(difference).max() <= 1
    assert turned.name == network.name


@pytest.mark.parametrize("rank", [Rank.LARGE, Rank.JOB])
def test_what_gives_way_computes_in_small_passes(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank
) -> None:
    work = pool.submit(denoiser(network, Turns(exclusive=False), rank), LARGE)
    finished(work, network)
    assert max(network.pixels) <= 96 * 96
    assert len(network.pixels) > 4


@pytest.mark.parametrize("rank", [Rank.LARGE, Rank.JOB])
def test_a_photo_does_not_wait_for_what_gives_way(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank
) -> None:
    turns = Turns(exclusive=False)
    job = pool.submit(denoiser(network, turns, rank), LARGE)
    assert network.running.acquire(timeout=600)
    photo = pool.submit(denoiser(network, turns, Rank.SMALL), SMALL)
    # Both passes run at one time: this one has begun while the job's waits for the test.
    assert network.running.acquire(timeout=600)
    assert not job.done()
    finished(photo, network)
    finished(job, network)


@pytest.mark.parametrize("rank", [Rank.LARGE, Rank.JOB])
def test_on_an_accelerator_a_photo_waits_for_one_pass_of_what_gives_way(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    turns = Turns(exclusive=True, patience=3600)
    job = pool.submit(denoiser(network, turns, rank), LARGE)
    assert network.running.acquire(timeout=600)
    photo = pool.submit(denoiser(network, turns, Rank.SMALL), SMALL)
    wait_for_photos(turns, 2)
    network.passes.release()
    assert network.running.acquire(timeout=600)
    # The second pass is that of the photo.
    assert network.pixels[1] == SMALL.shape[0] * SMALL.shape[1]
    finished(photo, network)
    finished(job, network)


def wait_for_photos(turns: Turns, count: int) -> None:
    with turns._changed:
        assert turns._changed.wait_for(lambda: turns._photos.total() == count, 60)


@pytest.mark.parametrize("rank", [Rank.LARGE, Rank.JOB])
def test_what_gives_way_waits_while_a_photo_is_in_work(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank
) -> None:
    turns, abandonment = Turns(exclusive=False, patience=3600), Abandonment()
    photo = pool.submit(denoiser(network, turns, Rank.SMALL), SMALL)
    assert network.running.acquire(timeout=600)
    job = pool.submit(denoiser(network, turns, rank, abandonment=abandonment), LARGE)
    turns.abandon(abandonment)
    with pytest.raises(AbandonedError):
        job.result(60)
    assert len(network.pixels) == 1
    finished(photo, network)


@pytest.mark.parametrize("rank", [Rank.LARGE, Rank.JOB])
def test_what_gives_way_is_not_starved(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank
) -> None:
    turns = Turns(exclusive=False, patience=0)
    photo = pool.submit(denoiser(network, turns, Rank.SMALL), SMALL)
    assert network.running.acquire(timeout=600)
    job = pool.submit(denoiser(network, turns, rank), LARGE)
    assert network.running.acquire(timeout=600)
    assert not photo.done()
    finished(photo, network)
    finished(job, network)


@pytest.mark.parametrize("rank", list(Rank))
def test_abandoned_work_ends_before_its_next_pass(
    network: Stepwise, pool: ThreadPoolExecutor, rank: Rank
) -> None:
    network.config = InferenceConfig(tile=32)
    turns, abandonment = Turns(exclusive=False), Abandonment()
    work = pool.submit(
        denoiser(network, turns, rank, abandonment=abandonment), random_photo(400, 400)
    )
    assert network.running.acquire(timeout=600)
    turns.abandon(abandonment)
    network.passes.release()
    with pytest.raises(AbandonedError):
        work.result(60)
    assert len(network.pixels) == 1


def test_an_abandoned_photo_that_waits_for_another_ends_at_once(
    network: Stepwise, pool: ThreadPoolExecutor
) -> None:
    turns, abandonment = Turns(exclusive=False), Abandonment()
    first = pool.submit(denoiser(network, turns, Rank.SMALL), SMALL)
    assert network.running.acquire(timeout=600)
    second = pool.submit(denoiser(network, turns, Rank.SMALL, abandonment=abandonment), SMALL)
    wait_for_photos(turns, 2)
    turns.abandon(abandonment)
    with pytest.raises(AbandonedError):
        second.result(60)
    assert not first.done()
    finished(first, network)


def test_a_job_waits_while_a_large_photo_is_in_work(
    network: Stepwise, pool: ThreadPoolExecutor
) -> None:
    turns, abandonment = Turns(exclusive=False, patience=3600), Abandonment()
    photo = pool.submit(denoiser(network, turns, Rank.LARGE), LARGE)
    assert network.running.acquire(timeout=600)
    job = pool.submit(denoiser(network, turns, Rank.JOB, abandonment), LARGE)
    wait_for_photos(turns, 2)
    turns.abandon(abandonment)
    with pytest.raises(AbandonedError):
        job.result(60)
    assert len(network.pixels) == 1
    finished(photo, network)


def test_after_an_error_the_next_photo_has_its_turn(
    network: Stepwise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    turns = Turns(exclusive=True)
    with contextlib.suppress(RuntimeError), turns.photo(Rank.SMALL, Abandonment()):
        raise RuntimeError
    with contextlib.suppress(RuntimeError), turns.in_pass(Rank.JOB, Abandonment()):
        raise RuntimeError
    network.passes.release()
    assert denoiser(network, turns, Rank.SMALL)(SMALL).shape == SMALL.shape
