"""File names of the public corpora."""

from degrain.corpora.config import CorpusOptions

ANY = CorpusOptions()
FOLDER = "0001_001_S6_00100_00060_3200_L"


def sidd(
    prefix: str = "", number: str = "010", suffix: str = "PNG", folder: str = FOLDER
) -> list[str]:
    return [f"{folder}/{prefix}{kind}_SRGB_{number}.{suffix}" for kind in ("GT", "NOISY")]


def renoir(
    camera: str = "Mi3", batch: str = "001", kinds: tuple[str, ...] = ("Noisy", "Reference")
) -> list[str]:
    return [
        f"{camera}_Aligned/Batch_{batch}/IMG_20160202_0152{i}{kind}.bmp"
        for i, kind in enumerate(kinds)
    ]


def polyu(*stems: str, suffix: str = "JPG") -> list[str]:
    return [f"CroppedImages/{stem}_{kind}.{suffix}" for stem in stems for kind in ("mean", "real")]
