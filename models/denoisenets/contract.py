"""What a network promises about sizes and sight, as data beside it; padding, cropping and tiling read it."""

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SizeContract:
    """Which heights and widths a network takes, in pixels."""

    minimum: int = 1
    """Smallest height and width."""
    multiple: int = 1
    """Height and width must be multiples of this."""

    def padded(self, side: int) -> int:
        """The smallest allowed side, in pixels, that is at least `side`."""
        at_least = max(side, self.minimum)
        return -(-at_least // self.multiple) * self.multiple


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a network takes and how far it sees."""

    size: SizeContract = field(default_factory=SizeContract)
    """The sides it takes."""
    receptive_radius: int
    """How far, in pixels, an output pixel sees through convolutions and pooling; tiles need a halo of this."""
    global_statistics: bool = False
    """Whether an output pixel also depends on means over the whole frame; see `layers.FrameMean`."""

    @property
    def receptive_field(self) -> str:
        """The side of what an output pixel sees, in pixels, or `global`."""
        return "global" if self.global_statistics else str(2 * self.receptive_radius + 1)


@dataclass(frozen=True)
class FrameCheck:
    """A forward pre-hook that refuses what the network `model` does not take, before a layer fails in words of its own.

    Raises ValueError for another shape than (B, 3, H, W), numbers that are not floats, and sides against the contract.
    """

    model: str
    size: SizeContract

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Look at the first input's shape and type; its values would cost time."""
        noisy = inputs[0]
        if noisy.ndim != 4 or noisy.shape[1] != 3:
            raise ValueError(f"model '{self.model}' takes (B, 3, H, W), got the shape {tuple(noisy.shape)}")
        if not noisy.is_floating_point():
            raise ValueError(
                f"model '{self.model}' takes floats in [0, 1], got {noisy.dtype}; divide 8 bits by 255 and 16 bits by 65535"
            )
        height, width = noisy.shape[-2:]
        least, multiple = self.size.minimum, self.size.multiple
        if height < least or width < least or height % multiple or width % multiple:
            raise ValueError(
                f"model '{self.model}' takes sides that are multiples of {multiple} and at least {least} pixels, got "
                f"{height}x{width}; pad the photo and crop the result (degrain.imaging.tiling.pad_to_contract)"
            )


def check_positive(**arguments: int) -> None:
    """Raise ValueError, naming the argument, unless all are whole numbers of at least 1."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def pyramid_contract(*, levels: int, fine: int, deepest: int) -> Contract:
    """The contract of a U-shaped network that halves its sides `levels` times.

    `fine` is how many 3x3 convolutions a path meets at each level above the deepest, on both ways together, and
    `deepest` how many at the deepest one; one at level k sees 2 ** k pixels further, and going down and up misplaces by
    up to 2 ** levels.
    """
    side = 2**levels
    radius = sum(fine * 2**k for k in range(levels)) + deepest * side + side
    return Contract(size=SizeContract(minimum=side, multiple=side), receptive_radius=radius)
