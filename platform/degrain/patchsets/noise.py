"""The noise of a patch set's pairs, one fit per camera and ISO."""

from degrain.corpora.record import PairRecord
from degrain.imaging.noise_statistics import NoiseFit, fit_noise
from degrain.patchsets.patch_set import PatchSet


def fit_noises(patch_set: PatchSet, split: str | None = None) -> list[NoiseFit]:
    """Fit the noise of one real pair of each camera and ISO, of a split or of all."""
    examples: dict[tuple[str, str | None, int | None], PairRecord] = {}
    for row in patch_set.catalog:
        real = row.refused is None and row.noise is None and not row.unpaired
        if real and split in (None, row.split):
            examples.setdefault((row.corpus, row.camera, row.iso), row)
    return [fit_noise(*patch_set.source.load(row)) for row in examples.values()]


def noise_values(fit: NoiseFit) -> str:
    """Gain, read noise and correlation as the noises `fitted` and `near` take them."""
    return f"{fit.gain:.5g},{fit.read:.5g},{max(fit.correlation, 0):.3g}"
