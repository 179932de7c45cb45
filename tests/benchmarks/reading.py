"""Speed of reading patches back: raw bytes in Parquet against a list column and PNG files."""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from skimage import data as skimage_data
from table import Settings, Table

from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.shards import binary_column, column_patches, cut
from degrain.storage.sealed import content_digest

SIDE = 128


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """The median time of `work`, after two calls that are not counted."""
    work()
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(settings: Settings) -> list[Table]:
    """MP/s of one process that reads patches of 128 pixels in three formats."""
    few, many = (1, 1) if settings.quick else (3, 7)
    photo, geometry = skimage_data.retina(), PatchGeometry(patch_size=SIDE, stride=SIDE // 2)
    patches = cut(photo, geometry.starts(photo.shape[0]), geometry)
    megapixels = len(patches) * SIDE * SIDE / 1e6
    with tempfile.TemporaryDirectory() as folder:
        raw, nested = Path(folder) / "raw.parquet", Path(folder) / "list.parquet"
        lists = pa.FixedSizeListArray.from_arrays(pa.array(patches.reshape(-1)), SIDE * SIDE * 3)
        for file, column in ((raw, binary_column(patches)), (nested, lists)):
            table = pa.table({"x": column})
            pq.write_table(table, file, compression="none", use_dictionary=False)
        files = [encode_by_pillow(patch) for patch in patches]
        # The sum touches every page, because memory-mapped pages that are not read cost nothing.
        with_sum = median_seconds(
            lambda: column_patches(pq.read_table(raw)["x"], SIDE, 8).sum(), many
        )
        ours = max(with_sum - median_seconds(patches.sum, many), 1e-9)
        content = raw.read_bytes()
        checked = ours + median_seconds(lambda: content_digest(content), many)
        png = median_seconds(lambda: [np.asarray(Image.open(io.BytesIO(f))) for f in files], few)
        by_list = median_seconds(lambda: pq.read_table(nested)["x"].combine_chunks(), few)
    rows = [("degrain: raw bytes in Parquet", f"{megapixels / ours:.0f}", "")]
    for name, seconds in (
        ("the same, checked at the first reading", checked),
        ("list column in Parquet", by_list),
        ("PNG in memory, Pillow", png),
    ):
        rows.append((name, f"{megapixels / seconds:.0f}", f"{seconds / ours:.1f}"))
    return [Table(("reading 128x128 patches, one process", "MP/s", "degrain is faster by"), rows)]


def encode_by_pillow(patch: np.ndarray) -> bytes:
    """A patch as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, format="PNG")
    return buffer.getvalue()
