"""The record of one pair of photos, from its listing to its place in a patch set."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MOST_GAIN_ERROR = 0.005
"""Standard error of the gains of a pair, as a share, above which they are not believed, unless they
differ from 1 by ten errors.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairRecord:
    """A noisy photo and its clean one, if it has one; every stage of an ingest fills in more of it.

    A corpus lists a pair by its names, the split assignment decides its split, the cutter measures
    it and cuts its patches, the search for duplicates may refuse it. The catalog stores the record.
    """

    # From the names, when the corpus is listed.
    id: str
    """Unique over all corpora: `<corpus>/<...>`."""
    corpus: str
    scene: str
    """What was photographed, `<corpus>/<name>`; pairs of one scene stay in one split."""
    noisy: str
    """Noisy photo: a name below the corpus folder, a URI once the corpus is listed."""
    clean: str
    """Clean photo, the same way."""
    own: bool = False
    """Whether it is of the user's own photos, not of a published corpus; those keep their exposure.
    """
    noise: str | None = None
    """Noise that makes the noisy photo of the clean one, see `imaging.noise_synthesis`; None for a
    real pair."""
    camera: str | None = None
    """Of the names or the table; where they have none, of EXIF."""
    iso: int | None = None
    """The same way."""
    shutter: str | None = None
    """Seconds, such as `1/125` or `0.5`."""
    brightness: str | None = None
    encoded_bytes: int = 0
    """Size of both files; not in the catalog."""
    stamp: str = ""
    """Sizes and times of both files; while it stays the same they are not read again. Empty if
    unknown."""

    # From the split assignment.
    split: str = ""
    """`train`, `val` or `test`; before the assignment, the split that the corpus prescribes."""

    # From the cutter.
    noisy_hash: str = ""
    """SHA-256 of the file's bytes, 128 bits in hexadecimal; empty if it could not be read."""
    clean_hash: str = ""
    exif_camera: str | None = None
    """Model in the EXIF of the noisy photo, or else of the clean one; None for synthetic noise."""
    exif_iso: int | None = None
    """In the EXIF of the noisy photo."""
    noisy_pixels: str = ""
    """Digest of the decoded photo, see `imaging.looks`; empty if it was not decoded."""
    clean_pixels: str = ""
    look: str = ""
    """Thumbnail of the clean photo, by which copies are found; empty for a flat one, and for a
    noisy photo without a clean one."""
    height: int | None = None
    """Pixels, after alignment; None if refused before decoding."""
    width: int | None = None
    bit_depth: int | None = None
    """8 or 16: the larger of both photos'."""
    shift_y: float | None = None
    """Pixels by which the noisy photo must be shifted down to lie on the clean one; None if not
    measured."""
    shift_x: float | None = None
    """The same to the right."""
    shift_gain: float | None = None
    """What the shift would gain, see `checks.BELIEVED_GAIN`."""
    move_y: int | None = None
    """Integer shift that was applied."""
    move_x: int | None = None
    exposure: float | None = None
    """Mean brightness of the clean photo over that of the noisy one."""
    clipped: float | None = None
    """Share of the clean photo's values that are black or white."""
    gain_red: float | None = None
    """Gain in linear light by which the clean photo is given the exposure and white balance of the
    noisy one; None if it keeps its own."""
    gain_green: float | None = None
    gain_blue: float | None = None
    gain_error: float | None = None
    """Standard error of the gains, as a share, see `imaging.exposure`; None if they were not
    estimated."""
    refused: str | None = None
    """Why the pair is not in the patch set; None if it is."""
    patches: int = 0
    """Patch pairs that were cut from it."""
    shard: str | None = None
    """Key of the shard that holds them."""

    # From the search for duplicates.
    duplicate_of: str | None = None
    """Id of the pair whose photo this one repeats; such a pair is refused."""

    @property
    def unpaired(self) -> bool:
        """Whether the photo is noisy and has no clean partner: both names are its own."""
        return self.noisy == self.clean and self.noise is None

    @property
    def gains(self) -> tuple[float, float, float] | None:
        """Gains of red, green and blue that the clean photo is multiplied by; None without."""
        if self.gain_red is None or self.gain_green is None or self.gain_blue is None:
            return None
        return self.gain_red, self.gain_green, self.gain_blue

    @property
    def exposure_unknown(self) -> bool:
        """Whether gains were estimated, too uncertain to be used."""
        uncertain = self.gain_error is not None and self.gain_error > MOST_GAIN_ERROR
        return uncertain and self.gains is None

    def has_files_of(self, before: "PairRecord") -> bool:
        """Whether the files are those of an earlier record, by their names, sizes and times."""
        return (self.noisy, self.clean, self.stamp) == (before.noisy, before.clean, before.stamp)

    def fill(self, **values: str | int) -> None:
        """Set fields of a record that only its maker has yet; a copy would take as long as all else
        that is done to a pair of a listing.
        """
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def measurements(self) -> dict[str, Any]:
        """The fields that the cutter fills in."""
        return {name: getattr(self, name) for name in MEASUREMENTS}

    def measured(self, values: Mapping[str, Any]) -> "PairRecord":
        """This listing with measurements; camera and ISO are those of EXIF where it has none."""
        camera = self.camera or values["exif_camera"]
        iso = values["exif_iso"] if self.iso is None else self.iso
        return replace(self, **{**values, "camera": camera, "iso": iso})

    def listing(self) -> "PairRecord":
        """The record as it was before it was measured."""
        fresh = PairRecord(
            id=self.id, corpus=self.corpus, scene=self.scene, noisy=self.noisy, clean=self.clean
        )
        return self.with_measurements_of(fresh)

    def with_measurements_of(self, other: "PairRecord") -> "PairRecord":
        """This listing and split with all that a former ingest found out about the pair."""
        return self.measured({**other.measurements(), "duplicate_of": other.duplicate_of})


MEASUREMENTS = (
    "noisy_hash",
    "clean_hash",
    "exif_camera",
    "exif_iso",
    "noisy_pixels",
    "clean_pixels",
    "look",
    "height",
    "width",
    "bit_depth",
    "shift_y",
    "shift_x",
    "shift_gain",
    "move_y",
    "move_x",
    "exposure",
    "clipped",
    "gain_red",
    "gain_green",
    "gain_blue",
    "gain_error",
    "refused",
    "patches",
    "shard",
)
"""Names of the fields that the cutter fills in."""
