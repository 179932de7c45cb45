"""Durations as users write them: `90s`, `15m`, `2h`, `1h30m`, `30d`."""

import math
import re
from typing import ClassVar, Self

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class Duration(float):
    """Seconds, read from and printed as `90s`, `15m`, `1h30m`."""

    METAVAR: ClassVar[str] = "DURATION"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `90s`, `15m`, `2h`, `30d` or a sum such as `1h30m`.

        Raises ValueError for other texts.
        """
        parts = re.fullmatch(
            r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip()
        )
        try:
            values = [float(part or 0) for part in parts.groups()] if parts and text else []
        except ValueError:
            values = []
        seconds = sum(v * unit for v, unit in zip(values, _UNITS.values(), strict=False))
        if not 0 < seconds < math.inf:
            raise ValueError(f"'{text}' is not a duration; write e.g. 90s, 15m, 2h or 1h30m")
        return cls(seconds)

    def __str__(self) -> str:
        left, text = round(self), ""
        for letter, unit in _UNITS.items():
            count, left = divmod(left, unit)
            text += f"{count}{letter}" if count else ""
        return text or "0s"
