"""Reference implementations as facts: the names and shapes of their weights, and what they compute.

The forward passes are written from the papers with `torch.nn.functional`, without `denoisenets`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Published:
    """A small network in the layout of its reference."""

    network: str
    shapes: Shapes
    forward: Callable[[Weights, Tensor], Tensor]
    arguments: Mapping[str, Any]
    """Arguments of our network that follow from the file."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that the user gives."""
    noise_level: bool = False
    """Whether the network takes a noise level."""


def random_weights(shapes: Shapes, seed: int = 0) -> Weights:
    """Weights of about the scale that preserves variance; biases, scales and statistics too."""
    generator = torch.Generator().manual_seed(seed)

    def one(name: str, shape: tuple[int, ...]) -> Tensor:
        value = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            return torch.tensor(7)
        if name.endswith(("running_var", "temperature")):
            return 0.5 + value.abs()
        if len(shape) == 4 and not name.endswith(("beta", "gamma")):
            # Kernels whose output is added to a skip are smaller, as in trained networks.
            scale = 0.3 if re.search(r"project_out|conv[35]\.|res\.2|output", name) else 1
            return scale * value / (shape[1] * shape[2] * shape[3]) ** 0.5
        return 1 + 0.2 * value if ".norm" in name and name.endswith("weight") else 0.2 * value

    return {name: one(name, shape) for name, shape in shapes.items()}


def conv_shapes(name: str, outputs: int, inputs: int, side: int = 3, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs, side, side)}
    return {**shapes, f"{name}.bias": (outputs,)} if bias else shapes


def batch_norm_shapes(name: str, channels: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{n}": (channels,) for n in names}, f"{name}.num_batches_tracked": ()}


def conv(w: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    kernel = w[f"{name}.weight"]
    padding = (kernel.shape[-1] - 1) // 2
    return F.conv2d(x, kernel, w.get(f"{name}.bias"), padding=padding, **options)


def batch_norm(w: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"], eps=epsilon)


def layer_norm(w: Weights, name: str, x: Tensor, epsilon: float) -> Tensor:
    """Over channels; without a bias the mean is not subtracted."""
    centred = x - x.mean(1, keepdim=True)
    deviation = (centred.square().mean(1, keepdim=True) + epsilon).sqrt()
    weight = w[f"{name}.weight"][:, None, None]
    if f"{name}.bias" in w:
        return centred / deviation * weight + w[f"{name}.bias"][:, None, None]
    return x / deviation * weight


# NAFNet: SIDD's 2, 2, 4, 8 blocks, 12 in the middle, 2 in each decoder.


def nafnet_shapes(width: int, depth: int) -> Shapes:
    blocks = [
        *((f"encoders.{i}", width * 2**i, n * depth) for i, n in enumerate((1, 1, 2, 4))),
        ("middle_blks", 16 * width, 6 * depth),
        *((f"decoders.{i}", width * 2 ** (3 - i), depth) for i in range(4)),
    ]
    shapes = conv_shapes("intro", width, 3) | conv_shapes("ending", 3, width)
    for i in range(4):
        shapes |= conv_shapes(f"downs.{i}", width * 2 ** (i + 1), width * 2**i, side=2)
        shapes |= conv_shapes(f"ups.{i}.0", width * 2 ** (5 - i), width * 2 ** (4 - i), 1, False)
    for prefix, c, count in blocks:
        for name in (f"{prefix}.{i}" for i in range(count)):
            shapes |= {f"{name}.beta": (1, c, 1, 1), f"{name}.gamma": (1, c, 1, 1)}
            for norm in ("norm1", "norm2"):
                shapes |= {f"{name}.{norm}.weight": (c,), f"{name}.{norm}.bias": (c,)}
            shapes |= conv_shapes(f"{name}.conv1", 2 * c, c, 1)
            shapes |= conv_shapes(f"{name}.conv2", 2 * c, 1)
            shapes |= conv_shapes(f"{name}.sca.1", c, c, 1) | conv_shapes(f"{name}.conv3", c, c, 1)
            shapes |= conv_shapes(f"{name}.conv4", 2 * c, c, 1)
            shapes |= conv_shapes(f"{name}.conv5", c, c, 1)
    return shapes


def nafnet(w: Weights, noisy: Tensor) -> Tensor:
    def gate(x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return x[:, :half] * x[:, half:]

    def blocks(prefix: str, x: Tensor) -> Tensor:
        count = len([name for name in w if name.startswith(prefix) and name.endswith(".beta")])
        for name in (f"{prefix}{i}" for i in range(count)):
            y = conv(w, f"{name}.conv1", layer_norm(w, f"{name}.norm1", x, 1e-6))
            y = gate(conv(w, f"{name}.conv2", y, groups=y.shape[1]))
            y = y * conv(w, f"{name}.sca.1", F.adaptive_avg_pool2d(y, 1))
            x = x + conv(w, f"{name}.conv3", y) * w[f"{name}.beta"]
            y = gate(conv(w, f"{name}.conv4", layer_norm(w, f"{name}.norm2", x, 1e-6)))
            x = x + conv(w, f"{name}.conv5", y) * w[f"{name}.gamma"]
        return x

    x, skips = conv(w, "intro", noisy), []
    for i in range(4):
        skips.append(blocks(f"encoders.{i}.", x))
        x = conv(w, f"downs.{i}", skips[-1], stride=2)
    x = blocks("middle_blks.", x)
    for i in range(4):
        x = F.pixel_shuffle(conv(w, f"ups.{i}.0", x), 2) + skips.pop()
        x = blocks(f"decoders.{i}.", x)
    return noisy + conv(w, "ending", x)


# Restormer: 4, 6, 6, 8 blocks, 4 for refinement; heads 1, 2, 4, 8.

RESTORMER_LEVELS = {
    "encoder_level1": (1, 1, 4),
    "encoder_level2": (2, 2, 6),
    "encoder_level3": (4, 4, 6),
    "latent": (8, 8, 8),
    "decoder_level3": (4, 4, 6),
    "decoder_level2": (2, 2, 6),
    "decoder_level1": (2, 1, 4),
    "refinement": (2, 1, 4),
}
"""Width as a multiple of the first, heads, blocks."""


def restormer_shapes(width: int, norm_bias: bool) -> Shapes:
    shapes = conv_shapes("patch_embed.proj", width, 3, bias=False)
    shapes |= conv_shapes("output", 3, 2 * width, bias=False)
    for fine, coarse in ((1, 2), (2, 3), (3, 4)):
        c = width * 2 ** (fine - 1)
        shapes |= conv_shapes(f"down{fine}_{coarse}.body.0", c // 2, c, bias=False)
        shapes |= conv_shapes(f"up{coarse}_{fine}.body.0", 4 * c, 2 * c, bias=False)
    shapes |= conv_shapes("reduce_chan_level2", 2 * width, 4 * width, 1, bias=False)
    shapes |= conv_shapes("reduce_chan_level3", 4 * width, 8 * width, 1, bias=False)
    for level, (times, heads, count) in RESTORMER_LEVELS.items():
        c, hidden = width * times, int(width * times * 2.66)
        for name in (f"{level}.{i}" for i in range(count)):
            for norm in ("norm1.body", "norm2.body"):
                shapes[f"{name}.{norm}.weight"] = (c,)
                if norm_bias:
                    shapes[f"{name}.{norm}.bias"] = (c,)
            shapes[f"{name}.attn.temperature"] = (heads, 1, 1)
            shapes |= conv_shapes(f"{name}.attn.qkv", 3 * c, c, 1, bias=False)
            shapes |= conv_shapes(f"{name}.attn.qkv_dwconv", 3 * c, 1, bias=False)
            shapes |= conv_shapes(f"{name}.attn.project_out", c, c, 1, bias=False)
            shapes |= conv_shapes(f"{name}.ffn.project_in", 2 * hidden, c, 1, bias=False)
            shapes |= conv_shapes(f"{name}.ffn.dwconv", 2 * hidden, 1, bias=False)
            shapes |= conv_shapes(f"{name}.ffn.project_out", c, hidden, 1, bias=False)
    return shapes


def restormer(w: Weights, noisy: Tensor) -> Tensor:
    def attention(name: str, x: Tensor, heads: int) -> Tensor:
        qkv = conv(w, f"{name}.qkv", x)
        qkv = conv(w, f"{name}.qkv_dwconv", qkv, groups=qkv.shape[1])
        q, k, v = qkv.reshape(len(x), 3, heads, -1, x.shape[2] * x.shape[3]).unbind(1)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * w[f"{name}.temperature"]
        return conv(w, f"{name}.project_out", (weights.softmax(-1) @ v).reshape(x.shape))

    def level(prefix: str, x: Tensor) -> Tensor:
        _, heads, count = RESTORMER_LEVELS[prefix]
        for name in (f"{prefix}.{i}" for i in range(count)):
            x = x + attention(f"{name}.attn", layer_norm(w, f"{name}.norm1.body", x, 1e-5), heads)
            y = conv(w, f"{name}.ffn.project_in", layer_norm(w, f"{name}.norm2.body", x, 1e-5))
            a, b = conv(w, f"{name}.ffn.dwconv", y, groups=y.shape[1]).chunk(2, dim=1)
            x = x + conv(w, f"{name}.ffn.project_out", F.gelu(a) * b)
        return x

    def down(name: str, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(conv(w, f"{name}.body.0", x), 2)

    def up(name: str, x: Tensor) -> Tensor:
        return F.pixel_shuffle(conv(w, f"{name}.body.0", x), 2)

    one = level("encoder_level1", conv(w, "patch_embed.proj", noisy))
    two = level("encoder_level2", down("down1_2", one))
    three = level("encoder_level3", down("down2_3", two))
    x = level("latent", down("down3_4", three))
    x = conv(w, "reduce_chan_level3", torch.cat([up("up4_3", x), three], 1))
    x = up("up3_2", level("decoder_level3", x))
    x = up("up2_1", level("decoder_level2", conv(w, "reduce_chan_level2", torch.cat([x, two], 1))))
    x = level("refinement", level("decoder_level1", torch.cat([x, one], 1)))
    return noisy + conv(w, "output", x)


# DnCNN and FFDNet of KAIR: a sequence of convolution, batch normalisation (or not) and ReLU.


def stack_layers(depth: int, norm: bool) -> Iterator[tuple[str, str | None]]:
    """The name of each convolution in the sequence, and of the batch normalisation after it."""
    number = 0
    for i in range(depth):
        normalised = norm and 0 < i < depth - 1
        yield f"model.{number}", f"model.{number + 1}" if normalised else None
        number += 3 if normalised else 2


def stack_shapes(inputs: int, outputs: int, width: int, depth: int, norm: bool) -> Shapes:
    shapes: Shapes = {}
    for i, (layer, batch) in enumerate(stack_layers(depth, norm)):
        last = i == depth - 1
        shapes |= conv_shapes(layer, outputs if last else width, inputs if i == 0 else width)
        shapes |= batch_norm_shapes(batch, width) if batch else {}
    return shapes


def stack(w: Weights, x: Tensor) -> Tensor:
    norm = any("running_var" in name for name in w)
    depth = sum(value.ndim == 4 for value in w.values())
    for i, (layer, batch) in enumerate(stack_layers(depth, norm)):
        x = conv(w, layer, x)
        x = batch_norm(w, batch, x, 1e-4) if batch else x
        x = F.relu(x) if i < depth - 1 else x
    return x


def dncnn(w: Weights, noisy: Tensor) -> Tensor:
    return noisy - stack(w, noisy)


LEVEL = 0.1
"""The noise level of the tests."""


def ffdnet(w: Weights, noisy: Tensor) -> Tensor:
    small = torch.stack(
        [noisy[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1
    )
    level = torch.full_like(small[:, :1], LEVEL)
    return F.pixel_shuffle(stack(w, torch.cat([small, level], 1)), 2)


# DRUNet of KAIR.


def drunet_shapes(width: int, depth: int) -> Shapes:
    shapes = conv_shapes("m_head", width, 4, bias=False)
    shapes |= conv_shapes("m_tail", 3, width, bias=False)
    places = [(f"m_down{i}", width * 2 ** (i - 1), 0) for i in (1, 2, 3)]
    places += [(f"m_up{i}", width * 2 ** (i - 1), 1) for i in (1, 2, 3)]
    for name, c, first in [*places, ("m_body", 8 * width, 0)]:
        for i in range(first, first + depth):
            shapes |= conv_shapes(f"{name}.{i}.res.0", c, c, bias=False)
            shapes |= conv_shapes(f"{name}.{i}.res.2", c, c, bias=False)
    for i in (1, 2, 3):
        c = width * 2 ** (i - 1)
        shapes[f"m_down{i}.{depth}.weight"] = (2 * c, c, 2, 2)
        shapes[f"m_up{i}.0.weight"] = (2 * c, c, 2, 2)
    return shapes


def drunet(w: Weights, noisy: Tensor) -> Tensor:
    def blocks(x: Tensor, prefix: str) -> Tensor:
        numbers = sorted(
            int(name.split(".")[1])
            for name in w
            if name.startswith(f"{prefix}.") and ".res.0." in name
        )
        for name in (f"{prefix}.{i}.res" for i in numbers):
            x = x + conv(w, f"{name}.2", F.relu(conv(w, f"{name}.0", x)))
        return x

    depth = sum(name.startswith("m_body") for name in w) // 2
    skips = [conv(w, "m_head", torch.cat([noisy, torch.full_like(noisy[:, :1], LEVEL)], 1))]
    for i in (1, 2, 3):
        x = blocks(skips[-1], f"m_down{i}")
        skips.append(F.conv2d(x, w[f"m_down{i}.{depth}.weight"], stride=2))
    x = blocks(skips[-1], "m_body")
    for i in (3, 2, 1):
        x = F.conv_transpose2d(x + skips.pop(), w[f"m_up{i}.0.weight"], stride=2)
        x = blocks(x, f"m_up{i}")
    return conv(w, "m_tail", x + skips.pop())


# REDNet of yjn870: stride 2 at both ends, transposed convolutions in the second half.


def rednet_shapes(width: int, depth: int) -> Shapes:
    shapes = conv_shapes("conv_layers.0.0", width, 3)
    for i in range(1, depth):
        shapes |= conv_shapes(f"conv_layers.{i}.0", width, width)
    for i in range(depth - 1):
        shapes |= conv_shapes(f"deconv_layers.{i}.0", width, width)
    last = f"deconv_layers.{depth - 1}"
    return shapes | {f"{last}.weight": (width, 3, 3, 3), f"{last}.bias": (3,)}


def rednet(w: Weights, noisy: Tensor, *, skips: bool) -> Tensor:
    depth = sum(name.startswith("conv_layers") for name in w) // 2
    x, kept = noisy, {}
    for i in range(1, depth + 1):
        x = F.relu(conv(w, f"conv_layers.{i - 1}.0", x, stride=2 if i == 1 else 1))
        kept[i] = x
    for i in range(1, depth):
        name = f"deconv_layers.{i - 1}.0"
        x = F.relu(F.conv_transpose2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1))
        if skips and (depth - i) % 2 == 0:
            x = F.relu(x + kept[depth - i])
    name = f"deconv_layers.{depth - 1}"
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1, output_padding=1)
    return F.relu(noisy + x)


# MWCNN of lpj0, with or without batch normalisation.

MWCNN_STAGES = ("head", "d_l1", "d_l2", "pro_l3", "i_l2", "i_l1")


def mwcnn_shapes(width: int, colours: int, norm: bool) -> Shapes:
    w, v = width, 16 * width // 10
    channels = {
        "head": [4 * colours, w],
        "d_l1": [w] * 4,
        "d_l2": [4 * w, v, v, v, v],
        "pro_l3": [4 * v, *[v] * 7, 4 * v],
        "i_l2": [v, v, v, v, 4 * w],
        "i_l1": [w] * 4,
    }
    shapes = conv_shapes("tail.0", 4 * colours, w)
    for stage, sizes in channels.items():
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            shapes |= conv_shapes(f"{stage}.{i}.body.0", outputs, inputs)
            shapes |= batch_norm_shapes(f"{stage}.{i}.body.1", outputs) if norm else {}
    return shapes


def haar(x: Tensor) -> Tensor:
    """Bands LL HL LH HH by the signs of the four pixels of a block, in rows."""
    signs = torch.tensor([[1, 1, 1, 1], [-1, 1, -1, 1], [-1, -1, 1, 1], [1, -1, -1, 1]]) / 2
    batch, channels, height, width = x.shape
    pixels = F.pixel_unshuffle(x, 2).reshape(batch, channels, 4, height // 2, width // 2)
    return torch.einsum("kp,bcphw->bkchw", signs, pixels).flatten(1, 2)


def inverse_haar(x: Tensor) -> Tensor:
    """The transpose of `haar`, which is orthonormal."""
    batch, channels, height, width = x.shape
    given = torch.zeros(batch, channels // 4, 2 * height, 2 * width)
    return torch.autograd.functional.vjp(haar, given, x)[1]


def mwcnn(w: Weights, noisy: Tensor) -> Tensor:
    def stage(name: str, x: Tensor) -> Tensor:
        count = sum(key.startswith(f"{name}.") and key.endswith("body.0.weight") for key in w)
        for layer in (f"{name}.{i}.body" for i in range(count)):
            x = conv(w, f"{layer}.0", x)
            norm = f"{layer}.1.running_var" in w
            x = F.relu(batch_norm(w, f"{layer}.1", x, 1e-5) if norm else x)
        return x

    one = stage("d_l1", stage("head", haar(noisy)))
    two = stage("d_l2", haar(one))
    x = inverse_haar(stage("pro_l3", haar(two))) + two
    x = inverse_haar(stage("i_l2", x)) + one
    return noisy + inverse_haar(conv(w, "tail.0", stage("i_l1", x)))


def grey_mwcnn(w: Weights, noisy: Tensor) -> Tensor:
    return torch.cat([mwcnn(w, noisy[:, c : c + 1]) for c in range(3)], dim=1)


PUBLISHED = {
    "nafnet": Published(
        "nafnet32", nafnet_shapes(4, 2), nafnet, {"width": 4, "depth": 2, "levels": 4}
    ),
    "restormer-biasfree": Published(
        "restormer",
        restormer_shapes(4, norm_bias=False),
        restormer,
        {"width": 4, "depth": 2, "bias_free": True, "norm_epsilon_millionths": 10},
    ),
    "restormer-withbias": Published(
        "restormer",
        restormer_shapes(4, norm_bias=True),
        restormer,
        {"width": 4, "depth": 2, "bias_free": False, "norm_epsilon_millionths": 10},
    ),
    "dncnn": Published("dncnn", stack_shapes(3, 3, 8, 5, False), dncnn, {"width": 8, "depth": 5}),
    "dncnn-batchnorm": Published(
        "dncnn", stack_shapes(3, 3, 8, 5, True), dncnn, {"width": 8, "depth": 5}
    ),
    "ffdnet": Published(
        "ffdnet",
        stack_shapes(13, 12, 8, 4, False),
        ffdnet,
        {"width": 8, "depth": 4, "residual": False},
        noise_level=True,
    ),
    "ffdnet-batchnorm": Published(
        "ffdnet",
        stack_shapes(13, 12, 8, 4, True),
        ffdnet,
        {"width": 8, "depth": 4, "residual": False},
        noise_level=True,
    ),
    "drunet": Published(
        "drunet",
        drunet_shapes(4, 2),
        drunet,
        {"width": 4, "depth": 2, "levels": 3, "residual": False},
        noise_level=True,
    ),
    "red10": Published(
        "red10",
        rednet_shapes(8, 5),
        lambda w, x: rednet(w, x, skips=False),
        {"width": 8, "depth": 5, "skips": False, "strided": True, "residual": True},
    ),
    "red20": Published(
        "red20",
        rednet_shapes(8, 10),
        lambda w, x: rednet(w, x, skips=True),
        {"width": 8, "depth": 10, "skips": True, "strided": True, "residual": True},
    ),
    "red30": Published(
        "red30",
        rednet_shapes(8, 15),
        lambda w, x: rednet(w, x, skips=True),
        {"width": 8, "depth": 15, "skips": True, "strided": True, "residual": True},
    ),
    "mwcnn-grey": Published(
        "mwcnn",
        mwcnn_shapes(10, 1, norm=False),
        grey_mwcnn,
        {"width": 10, "depth": 4, "levels": 3, "per_channel": True, "decoder_relu": True},
    ),
    "mwcnn-colour-batchnorm": Published(
        "mwcnn",
        mwcnn_shapes(10, 3, norm=True),
        mwcnn,
        {"width": 10, "depth": 4, "levels": 3, "per_channel": False, "decoder_relu": True},
    ),
}
