"""The sizes that a network accepts and its receptive field, as data that tiling uses."""

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class SizeContract:
    """The heights and widths that a network accepts, in pixels."""

    minimum: int = 1
    """Smallest height and width."""
    multiple: int = 1
    """Height and width must be multiples of this."""

    def padded(self, side: int) -> int:
        """The smallest accepted side, in pixels, that is at least `side`."""
        at_least = max(side, self.minimum)
        return -(-at_least // self.multiple) * self.multiple


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The sizes that a network accepts and its receptive field."""

    size: SizeContract = field(default_factory=SizeContract)
    """Accepted heights and widths."""
    receptive_radius: int
    """Radius in pixels of the receptive field of convolutions and pooling; the halo that tiles
    need.
    """
    global_statistics: bool = False
    """Whether an output pixel also depends on means over the whole image; see
    `layers.GlobalAveragePool`.
    """

    @property
    def receptive_field(self) -> str:
        """Side of the receptive field in pixels, or `global`."""
        return "global" if self.global_statistics else str(2 * self.receptive_radius + 1)


@dataclass(frozen=True)
class InputCheck:
    """A forward pre-hook that validates the input before a layer fails with a cryptic message.

    Raises ValueError for a shape other than (B, 3, H, W), a dtype that is not a float, and sides
    that the size contract excludes.
    """

    model: str
    size: SizeContract

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Check the shape and dtype of the first input, not its values, which would take time."""
        noisy = inputs[0]
        if noisy.ndim != 4 or noisy.shape[1] != 3:
            raise ValueError(
                f"model '{self.model}' takes (B, 3, H, W), got the shape {tuple(noisy.shape)}"
            )
        if not noisy.is_floating_point():
            raise ValueError(
                f"model '{self.model}' takes floats in [0, 1], got {noisy.dtype}; "
                "divide 8 bits by 255 and 16 bits by 65535"
            )
        height, width = noisy.shape[-2:]
        least, multiple = self.size.minimum, self.size.multiple
        if height < least or width < least or height % multiple or width % multiple:
            raise ValueError(
                f"model '{self.model}' takes sides that are multiples of {multiple} and at least "
                f"{least} pixels, got {height}x{width}; pad the photo and crop the result "
                "(degrain.inference.tiling.pad_to_contract)"
            )


def check_positive(**arguments: int) -> None:
    """Raise ValueError, with the argument's name, unless all are whole numbers of at least 1."""
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def pyramid_contract(*, levels: int, fine: int, deepest: int) -> Contract:
    """The contract of an encoder-decoder that halves its sides `levels` times.

    `fine` counts the 3x3 convolutions at each level above the deepest, encoder and decoder
    together, and `deepest` those at the deepest level. A 3x3 convolution at level k widens the
    receptive radius by 2 ** k pixels; downsampling and upsampling add up to 2 ** levels.
    """
    side = 2**levels
    radius = sum(fine * 2**k for k in range(levels)) + deepest * side + side
    return Contract(size=SizeContract(minimum=side, multiple=side), receptive_radius=radius)
