"""A patch discriminator for adversarial training (Isola et al., 2017, "Image-to-image translation",
arXiv:1611.07004).

It classifies 70x70-pixel squares as clean photo or network output: 4x4 convolutions, three of
stride 2 and two of stride 1, with leaky ReLUs of slope 0.2 between them. It is not a denoiser and
therefore not in the registry. Layers are named as in junyanz/pytorch-CycleGAN-and-pix2pix. Shapes:
B batch, H W pixels.

Differs from the paper: spectral normalisation (Miyato et al., 2018, arXiv:1802.05957) replaces
batch normalisation, whose statistics would make the gradient depend on how a batch is distributed
over workers.

Checked against: a receptive field of 70 pixels, 2.76 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from denoisenets.contract import check_positive

MINIMUM_SIDE = 24
"""Smallest height and width, in pixels, with at least one logit."""


class PatchDiscriminator(nn.Module):
    """`width` features after the first convolution, doubled by each of the next three."""

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        check_positive(width=width)
        features = [3, width, 2 * width, 4 * width, 8 * width, 1]
        strides = [2, 2, 2, 1, 1]
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            convolution = nn.Conv2d(
                features[i], features[i + 1], kernel_size=4, stride=stride, padding=1
            )
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2, inplace=True)]
        self.model = nn.Sequential(*layers[:-1])
        self.train()

    def train(self, mode: bool = True) -> "PatchDiscriminator":
        """Set the training mode, but keep forward passes from updating the spectral norms.

        `update_spectral_norms` updates them.
        """
        super().train(mode)
        for layer in self._convolutions():
            layer.get_submodule("parametrizations").eval()
        return self

    @torch.no_grad()
    def update_spectral_norms(self) -> None:
        """Run one power iteration of each spectral norm; call it once per optimizer step.

        PyTorch runs one per forward pass, which would make the gradient depend on the number of
        passes that a batch is divided into.
        """
        for layer in self._convolutions():
            layer.get_submodule("parametrizations").train()
            _ = layer.weight
            layer.get_submodule("parametrizations").eval()

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.model if isinstance(layer, nn.Conv2d)]

    def forward(self, photos: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1, about H/8 - 2, about W/8 - 2) logits, positive for
        clean.

        Raises ValueError for photos smaller than 24x24 pixels.
        """
        if min(photos.shape[-2:]) < MINIMUM_SIDE:
            height, width = photos.shape[-2:]
            raise ValueError(
                f"the discriminator needs at least {MINIMUM_SIDE}x{MINIMUM_SIDE} pixels, "
                f"got {height}x{width}"
            )
        logits: Tensor = self.model(photos)
        return logits
