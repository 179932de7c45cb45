"""Changes of the learning rate during a run: `0.25:1.25,0.5:0.8`.

Only the standard library is imported here: the command line builds its options from these fields.
"""

import math
from typing import ClassVar, Self

from degrain.errors import InvalidFieldError

_FIELD = "rate_changes"


class RateChanges(str):
    """Shares of the run and factors: from each share on, the schedule's learning rate is multiplied
    by its factor too.

    It is a text, so that configurations remain plain values.
    """

    METAVAR: ClassVar[str] = "SHARE:FACTOR,..."
    __slots__ = ("pairs",)

    pairs: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0.25:1.25,0.5:0.8`, or nothing. Raises InvalidFieldError for other texts."""
        pairs = []
        for part in filter(None, text.split(",")):
            share, colon, factor = part.partition(":")
            try:
                pair = (float(share), float(factor))
            except ValueError:
                colon = ""
            if not colon or not (0 <= pair[0] < 1 and 0 < pair[1] < math.inf):
                raise InvalidFieldError(
                    _FIELD,
                    f"must be shares of the run below 1 with positive factors, e.g. "
                    f"0.25:1.25,0.5:0.8, got '{text}'",
                )
            pairs.append(pair)
        return cls.of(pairs)

    @classmethod
    def of(cls, pairs: list[tuple[float, float]]) -> Self:
        """The changes in the order of their shares."""
        ordered = tuple(sorted(pairs))
        found = cls(",".join(f"{share:g}:{factor:g}" for share, factor in ordered))
        found.pairs = ordered
        return found

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the text."""
        return type(self).parse, (str(self),)

    def and_from(self, share: float, factor: float) -> Self:
        """These changes, and one more."""
        return self.of([*self.pairs, (share, factor)])

    def factor(self, progress: float) -> float:
        """Product of the factors that apply at a progress between 0 and 1."""
        return math.prod(factor for share, factor in self.pairs if share <= progress)


NO_CHANGES = RateChanges.parse("")
