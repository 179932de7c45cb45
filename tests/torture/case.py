"""A file that is odd but allowed, or damaged, and what denoising it must give."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Outcome: TypeAlias = Literal["exact", "close", "refused"]


@dataclass(frozen=True)
class Case:
    """A file of one kind."""

    name: str
    content: bytes
    suffix: str
    """`.png` and the like."""
    outcome: Outcome = "exact"
    """With strength 0: the same pixels to the bit, those of a lossy type encoded anew, or none."""
