"""What a network promises about sizes and sight, as data beside it; padding, cropping and tiling read it."""

from dataclasses import dataclass, field


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
