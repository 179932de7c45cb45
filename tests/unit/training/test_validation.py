"""Validation on patches, and its sample crops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.training_support import CONFIG, CPU, OneOfMany, session

from degrain.imaging.codecs import decode
from degrain.imaging.metrics import score_photo, to_eight_bits, to_float
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.loading.patches import ResidentPatches
from degrain.spacing import evenly_spaced
from degrain.training.loop import train
from degrain.training.step import TrainingState
from degrain.training.validation import sample_crops, validate


def test_sample_crops_show_noisy_denoised_and_clean_side_by_side() -> None:
    host = session()
    state = TrainingState.create(CONFIG, CPU)
    picture = decode(sample_crops(state, host))
    assert picture.shape == (4 * 20, 3 * 20, 3)
    for row, index in enumerate(evenly_spaced(5, 4)):
        noisy, clean = host.val[index]
        assert np.array_equal(picture[20 * row : 20 * row + 20, :20], noisy)
        assert np.array_equal(picture[20 * row : 20 * row + 20, 40:], clean)


def test_infinite_psnr_is_capped() -> None:
    black = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    host = session()
    host.val = ResidentPatches([(black, black)])
    state = TrainingState.create(CONFIG, CPU)
    with torch.no_grad():
        for parameter in state.ema.network.parameters():
            parameter.zero_()
    assert validate(state, host).psnr == 99


def test_patches_of_unsupported_size_are_padded() -> None:
    """The network takes multiples of 8 pixels: crops of 16 fit, val patches of 20 are padded."""
    host = session()
    arguments = {"width": 4, "depth": 1}
    state = train(replace(CONFIG, model="mwcnn", arguments=arguments), host)
    denoiser = NetworkDenoiser(
        "mwcnn",
        arguments,
        state.ema.network.state_dict(),
        config=InferenceConfig(precision="float32"),
    )
    scores = [
        score_photo(denoiser(noisy), clean)
        for noisy, clean in (host.val[i] for i in range(len(host.val)))
    ]
    assert host.history[-1]["val_psnr"] == pytest.approx(
        np.mean([s.psnr for s in scores]), abs=1e-3
    )
    assert host.history[-1]["val_ssim"] == pytest.approx(
        np.mean([s.ssim for s in scores]), abs=1e-4
    )


def test_the_score_equals_the_mean_of_single_patch_scores() -> None:
    host = session(11)
    config = replace(CONFIG, validation_patches=11)
    state = train(config, host)
    scores = []
    for i in range(11):
        noisy, clean = host.val[i]
        with torch.no_grad():
            output = state.ema.network(to_float(torch.from_numpy(noisy).permute(2, 0, 1)[None]))
        scores.append(score_photo(to_eight_bits(output)[0].permute(1, 2, 0).numpy(), clean))
    got = validate(state, host)
    assert got.psnr == pytest.approx(np.mean([s.psnr for s in scores]), abs=1e-3)
    assert got.ssim == pytest.approx(np.mean([s.ssim for s in scores]), abs=1e-4)
    assert (host.history[-1]["val_psnr"], host.history[-1]["val_ssim"]) == (got.psnr, got.ssim)


def test_validation_patches_are_split_between_the_workers() -> None:
    state = TrainingState.create(replace(CONFIG, validation_patches=20), CPU)
    workers = [OneOfMany(rank, 3, 11) for rank in range(3)]
    alone = OneOfMany(0, 1, 11)
    for worker in (*workers, alone):
        validate(state, worker)
    together = sum(worker.sums[0] for worker in workers)
    assert torch.allclose(together, alone.sums[0], atol=1e-3)
    assert [int(worker.sums[0][2]) for worker in workers] == [4, 4, 3]
