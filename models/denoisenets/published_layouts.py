"""The reference implementations whose weights `published.convert` converts, as data."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

LISTED = 4
"""Names that a message lists."""


def listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


class Weights(dict[str, Tensor]):
    """Tensors by name, with the look-ups from which arguments are inferred."""

    def side(self, name: str, dimension: int = 0) -> int:
        """Length of one dimension of a tensor. Raises ValueError if there is no such tensor."""
        if name not in self:
            raise ValueError(f"it has no tensor '{name}', but {listed(list(self))}")
        return self[name].shape[dimension] if self[name].ndim > dimension else 0

    def count(self, pattern: str) -> int:
        """Number of tensors whose whole name matches."""
        return sum(re.fullmatch(pattern, name) is not None for name in self)

    def convolutions(self) -> list[str]:
        """The convolutions of the sequence `model`, in its order."""
        kernels = [re.fullmatch(r"model\.(\d+)\.weight", n) for n, t in self.items() if t.ndim == 4]
        return [f"model.{number}" for number in sorted(int(k[1]) for k in kernels if k)]


def _same_layers(_: Weights) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A reference implementation, compared with the network here."""

    reference: str
    """Its repository, and the class in it."""
    inferred: Callable[[Weights], dict[str, int | bool]]
    """Arguments of the network that follow from names and shapes."""
    assumed: Mapping[str, int | bool] = field(default_factory=dict)
    """Arguments that do not follow from them; the user may give others."""
    layers: Callable[[Weights], Mapping[str, str]] = _same_layers
    """Our name of each layer of the reference that has another one there."""
    batch_norm_epsilon: float = 1e-5
    """The epsilon of its batch normalisation."""
    transposed: str = r"(?!)"
    """Names of its transposed convolutions of stride 1, as a pattern."""


def _nafnet(weights: Weights) -> dict[str, int | bool]:
    return {
        "width": weights.side("intro.weight"),
        "depth": weights.count(r"decoders\.0\.\d+\.norm1\.weight"),
        "levels": weights.count(r"downs\.\d+\.weight"),
    }


def _restormer(weights: Weights) -> dict[str, int | bool]:
    return {
        "width": weights.side("patch_embed.proj.weight"),
        "depth": weights.count(r"latent\.\d+\.norm1\.body\.weight") // 4,
        "bias_free": weights.count(r".*\.norm1\.body\.bias") == 0,
    }


def _plain_stack(weights: Weights) -> dict[str, int | bool]:
    return {"width": weights.side("model.0.weight"), "depth": len(weights.convolutions())}


def _plain_stack_layers(weights: Weights) -> dict[str, str]:
    """Without batch normalisation each convolution is followed by a ReLU alone."""
    return {layer: f"model.{2 * i}" for i, layer in enumerate(weights.convolutions())}


def _drunet(weights: Weights) -> dict[str, int | bool]:
    return {
        "width": weights.side("m_head.weight"),
        "depth": weights.count(r"m_body\.\d+\.res\.0\.weight"),
        "levels": weights.count(r"m_down\d+\.0\.res\.0\.weight"),
    }


def _rednet(weights: Weights) -> dict[str, int | bool]:
    return {
        "width": weights.side("conv_layers.0.0.weight"),
        "depth": weights.count(r"conv_layers\.\d+\.0\.weight"),
    }


def _mwcnn(weights: Weights) -> dict[str, int | bool]:
    return {
        "width": weights.side("head.0.body.0.weight"),
        "depth": weights.count(r"d_l1\.\d+\.body\.0\.weight") + 1,
        "levels": 3,
        "per_channel": weights.side("head.0.body.0.weight", 1) == 4,
    }


def _mwcnn_layers(weights: Weights) -> dict[str, str]:
    depth = int(_mwcnn(weights)["depth"])
    encoder, decoder = range(depth), range(depth, 2 * depth)
    # Layer of the reference, our stage, what is added to the reference's number, its numbers.
    stages = [
        ("d_l1.{}.body.0", "encoders.0", 1, encoder[:-1]),
        ("d_l2.{}.body.0", "encoders.1", 0, encoder),
        ("pro_l3.{}.body.0", "encoders.2", 0, encoder),
        ("pro_l3.{}.body.0", "decoders.2", -depth, decoder),
        ("i_l2.{}.body.0", "decoders.1", 0, encoder),
        ("i_l1.{}.body.0", "decoders.0", 0, encoder[:-1]),
    ]
    return {
        "head.0.body.0": "encoders.0.0",
        "tail.0": f"decoders.0.{2 * (depth - 1)}",
        **{
            layer.format(number): f"{stage}.{2 * (number + added)}"
            for layer, stage, added, numbers in stages
            for number in numbers
        },
    }


_DNCNN = Layout(
    reference="cszn/KAIR (DnCNN)",
    inferred=_plain_stack,
    layers=_plain_stack_layers,
    batch_norm_epsilon=1e-4,
)
_FFDNET = Layout(
    reference="cszn/KAIR (FFDNet)",
    inferred=_plain_stack,
    assumed={"residual": False},
    layers=_plain_stack_layers,
    batch_norm_epsilon=1e-4,
)
_DRUNET = Layout(reference="cszn/KAIR (UNetRes)", inferred=_drunet, assumed={"residual": False})
_MWCNN = Layout(
    reference="lpj0/MWCNN_PyTorch (BSR)",
    inferred=_mwcnn,
    assumed={"decoder_relu": True},
    layers=_mwcnn_layers,
)
_NAFNET = Layout(reference="megvii-research/NAFNet (NAFNet)", inferred=_nafnet)
_REDNET = Layout(
    reference="yjn870/REDNet-pytorch (REDNet10, REDNet20, REDNet30)",
    inferred=_rednet,
    assumed={"strided": True},
    transposed=r"deconv_layers\..*\.weight",
)
_RESTORMER = Layout(
    reference="swz30/Restormer (Restormer)",
    inferred=_restormer,
    assumed={"norm_epsilon_millionths": 10},
)
LAYOUTS: dict[str, Layout] = {
    "dncnn": _DNCNN,
    "drunet": _DRUNET,
    "ffdnet": _FFDNET,
    "mwcnn": _MWCNN,
    "nafnet16": _NAFNET,
    "nafnet32": _NAFNET,
    "red10": _REDNET,
    "red20": _REDNET,
    "red30": _REDNET,
    "restormer": _RESTORMER,
}
"""The reference of each network whose published weights can be converted."""
EXCLUDED = {
    "pridnet": "its authors published TensorFlow code for raw photos, and PyTorch ports of it have "
    "other layers (leaky ReLUs, normalisation, one U-Net for all scales)",
    "unet": "there are no published weights of it for denoising",
}
"""Why there is no layout for some networks."""
