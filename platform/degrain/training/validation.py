"""Validation on patches of the val split, and sample crops of its outputs."""

from collections.abc import Sequence

import numpy as np
import torch

from degrain.imaging.metrics import HIGHEST_PSNR, Score, psnr, ssim, to_eight_bits, to_float
from degrain.inference.tiling import pad_to_contract
from degrain.loading.patches import Patches
from degrain.spacing import evenly_spaced
from degrain.training.session import Session
from degrain.training.step import TrainingState
from denoisenets import model_contract

_BATCH = 8
_SAMPLES = 4


@torch.inference_mode()
def validate(state: TrainingState, session: Session) -> Score:
    """Score the averaged weights on patches of the val split, shared out among the workers.

    The protocol is `rgb8-patches`; the score is the mean over patches.
    """
    chosen = evenly_spaced(len(session.val), state.config.validation_patches)
    chosen = chosen[session.rank :: session.world_size]
    totals = torch.zeros(3, dtype=torch.float64)
    size = min(state.config.micro_batch or _BATCH, _BATCH)
    for start in range(0, len(chosen), size):
        _, output, clean = denoise_patches(state, session, chosen[start : start + size])
        sums = [
            psnr(output, clean).clamp(max=HIGHEST_PSNR).sum(),
            ssim(output, clean).sum(),
            torch.tensor(len(clean), dtype=torch.float64),
        ]
        totals += torch.stack([value.cpu() for value in sums])
    sum_psnr, sum_ssim, count = session.sum(totals).tolist()
    return Score(sum_psnr / count, sum_ssim / count)


@torch.inference_mode()
def sample_crops(state: TrainingState, session: Session) -> bytes:
    """Encode a few val patches as a PNG: one row per patch, with noisy, denoised and clean."""
    from degrain.imaging.codecs import encode_png

    shown = denoise_patches(state, session, evenly_spaced(len(session.val), _SAMPLES))
    rows = torch.cat([image.permute(0, 2, 3, 1) for image in shown], dim=2)
    return encode_png(rows.reshape(-1, *rows.shape[2:]).cpu().numpy())


def denoise_patches(
    state: TrainingState, session: Session, indices: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Denoise val patches; returns noisy, denoised and clean, each (B, 3, P, P) uint8."""
    size = model_contract(state.config.model, **state.config.arguments).size
    noisy, clean = (to_float(pixels) for pixels in stack(session.val, indices, session.device))
    height, width = noisy.shape[-2:]
    with state.execution.autocast():
        output = state.ema.network(pad_to_contract(noisy, size))[..., :height, :width]
    return to_eight_bits(noisy), to_eight_bits(output), to_eight_bits(clean)


def stack(
    patches: Patches, indices: Sequence[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack noisy and clean patches, each (B, 3, P, P) uint8 or uint16 on the device."""
    pairs = [patches[i] for i in indices]
    noisy, clean = (
        torch.from_numpy(np.stack([p[k] for p in pairs])).to(device).permute(0, 3, 1, 2)
        for k in (0, 1)
    )
    return noisy, clean
