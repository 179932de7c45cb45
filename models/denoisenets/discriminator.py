"""A patch discriminator, for adversarial training (Isola et al., 2017, "Image-to-image translation", arXiv:1611.07004).

It looks at squares of 70x70 pixels and says of each whether it is a clean photo or a network's output: 4x4
convolutions, three of stride 2 and two of stride 1, with leaky ReLUs of slope 0.2 between them. It is no denoiser and
stands in no registry.
Shapes: B batch, H W pixels.

Differs from the paper: spectral normalisation (Miyato et al., 2018, arXiv:1802.05957) in place of batch normalisation,
which would make the gradient depend on how a batch is spread over workers.

Checked against: a receptive field of 70 pixels, 2.76 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from denoisenets.contract import check_positive

MINIMUM_SIDE = 24
"""Smallest height and width, in pixels, that leave at least one square to judge."""


class PatchDiscriminator(nn.Module):
    """`width` features after the first convolution, doubling with each up to eight times as many."""

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        check_positive(width=width)
        features = [3, width, 2 * width, 4 * width, 8 * width, 1]
        strides = [2, 2, 2, 1, 1]
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            convolution = nn.Conv2d(features[i], features[i + 1], kernel_size=4, stride=stride, padding=1)
            nn.init.kaiming_normal_(convolution.weight, a=0.2)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers[:-1])
        self.train()

    def train(self, mode: bool = True) -> "PatchDiscriminator":
        """As of any module, but that a forward pass leaves the normalisation as it is: `renormalise` renews it."""
        super().train(mode)
        for layer in self._normalised():
            layer.get_submodule("parametrizations").eval()
        return self

    @torch.no_grad()
    def renormalise(self) -> None:
        """Follow the weights by one power iteration: to be called once a step.

        In each forward pass, as PyTorch has it, it would make the gradient depend on how many passes a batch is cut into.
        """
        for layer in self._normalised():
            layer.get_submodule("parametrizations").train()
            _ = layer.weight
            layer.get_submodule("parametrizations").eval()

    def _normalised(self) -> list[nn.Conv2d]:
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, photos: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 1, about H/8 - 2, about W/8 - 2) logits, above zero for clean.

        Raises ValueError for photos smaller than 24x24 pixels.
        """
        if min(photos.shape[-2:]) < MINIMUM_SIDE:
            height, width = photos.shape[-2:]
            raise ValueError(f"the discriminator needs at least {MINIMUM_SIDE}x{MINIMUM_SIDE} pixels, got {height}x{width}")
        logits: Tensor = self.layers(photos)
        return logits
