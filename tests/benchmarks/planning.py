"""Planning an ingest of ten million pairs: names only, no photo is read and no Ray is started.

    python tests/benchmarks/run.py planning            # 10,000,000 pairs, about half an hour
    python tests/benchmarks/planning.py 1000000        # another number

The names are those of SIDD: scenes in folders, a noisy and a clean photo of a megabyte each. Real
code lists, pairs, sorts, splits, compares with the previous patch set and divides what is left into
shards; the listing and the folder of shards are generated instead of read. Two plans are measured,
each in a process of its own: a first ingest, and one of the same corpus a week later, in which a
hundredth of the folders is new and a hundredth has changed.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("platform", "models")]

from table import Settings, Table, progress  # noqa: E402

from degrain.corpora.record import PairRecord  # noqa: E402
from degrain.patchsets.catalog import SCHEMA, record_table  # noqa: E402
from degrain.patchsets.ingest.assign import split_by_name, with_splits  # noqa: E402
from degrain.patchsets.ingest.config import IngestConfig  # noqa: E402
from degrain.patchsets.ingest.memory import SplitMemory  # noqa: E402
from degrain.patchsets.ingest.parallel import chunk_numbers  # noqa: E402
from degrain.patchsets.ingest.previous import Previous  # noqa: E402
from degrain.patchsets.ingest.publish import point_to  # noqa: E402
from degrain.patchsets.listing import list_corpora  # noqa: E402
from degrain.patchsets.manifest import Manifest, Shard, cutter  # noqa: E402
from degrain.patchsets.packed import PackedRecords  # noqa: E402
from degrain.patchsets.reading import catalog_file  # noqa: E402
from degrain.storage.listing import FileStamp  # noqa: E402
from degrain.storage.location import Location, Storage  # noqa: E402
from degrain.storage.sealed import FileDigest  # noqa: E402

PAIRS = 10_000_000
PAIRS_OF_FOLDER = 200
FOLDERS_OF_SCENE = 10
FILE_BYTES = 1_000_000
CHANGED = 100
"""Every such folder has changed, and as many are new."""
CAMERAS = ("GP", "IP", "S6", "N6", "G4")
CORPUS = "/corpus"
VERSION = "previous"


def folders(pairs: int, *, again: bool) -> Iterator[dict[str, FileStamp]]:
    """The files of each folder, as `Location.files_by_folder` yields them."""
    count = -(-pairs // PAIRS_OF_FOLDER)
    for number in range(count + (count // CHANGED if again else 0)):
        scene, camera = number // FOLDERS_OF_SCENE, CAMERAS[number % len(CAMERAS)]
        iso = 100 << (number % 6)
        folder = f"Data/{number:06}_{scene:05}_{camera}_{iso:05}_00060_3200_N"
        changed = 1 if again and number % CHANGED == 0 else 0
        yield {
            f"{folder}/{kind}_SRGB_{shot:03}.PNG": FileStamp(
                FILE_BYTES + shot, 1_700_000_000_000_000_000 + 1_000_003 * (number + shot) + changed
            )
            for kind in ("GT", "NOISY")
            for shot in range(min(PAIRS_OF_FOLDER, pairs))
        }


def generate(pairs: int, root: Path, *, again: bool) -> None:
    """Let corpus and shards be generated instead of read from disk."""

    def files(folder: Location) -> dict[str, FileStamp]:
        sizes: dict[str, int] = json.loads((root / "sizes.json").read_text())
        return {name: FileStamp(size, 0) for name, size in sizes.items()}

    setattr(Location, "files_by_folder", lambda _: folders(pairs, again=again))  # noqa: B010
    setattr(Location, "is_folder", lambda _: True)  # noqa: B010
    setattr(Location, "files", files)  # noqa: B010


class Stages:
    """Seconds of each stage, with a line of progress."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def run(self, name: str, stage: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Run a stage and return its result."""
        began = time.perf_counter()
        result = stage()
        self.seconds[name] = time.perf_counter() - began
        progress(f"  {name}: {self.seconds[name]:.1f} s, peak {peak_gib():.2f} GiB")
        return result


def peak_gib() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plan(pairs: int, root: Path, *, again: bool) -> dict[str, Any]:
    """Plan an ingest as `ingest` does; returns seconds by stage, memory and counts."""
    generate(pairs, root, again=again)
    stages, storage, began = Stages(), Storage(), time.process_time()
    config = IngestConfig(corpus=[f"sidd={CORPUS}"], out=str(root))
    out = storage.locate(config.out)
    listed, unplaced = stages.run(
        "list, pair, sort", lambda: list_corpora(config.corpus, config.options, storage)
    )
    previous = stages.run("read the previous catalog", lambda: Previous.read(out))
    memory = stages.run("read the splits", lambda: SplitMemory.read(out))
    split = stages.run("split", lambda: with_splits(listed, split_by_name(listed, config, memory)))
    reuse = stages.run(
        "compare with the previous set", lambda: previous.find_reuse(split, config, out)
    )
    numbers = stages.run("divide into shards", lambda: chunk_numbers(reuse.pending, reuse.together))
    assert not unplaced
    found = {
        "stages": stages.seconds,
        "seconds": sum(stages.seconds.values()),
        "cpu": time.process_time() - began,
        "peak_gib": peak_gib(),
        "pairs": len(split),
        "reused": len(reuse.pairs),
        "read": len(reuse.pending),
        "shards": int(numbers.max(initial=-1)) + 1,
        "packed_bytes": split.nbytes if isinstance(split, PackedRecords) else 0,
    }
    if not again:
        publish_first(split, numbers, root)
    return found


def publish_first(split: Sequence[PairRecord], numbers: NDArray[np.int64], root: Path) -> None:
    """Write the catalog and the manifest that this ingest would leave; not measured."""
    config = IngestConfig(corpus=[f"sidd={CORPUS}"], out=str(root))
    count = int(numbers.max()) + 1
    keys = [f"{number:032x}" for number in np.random.default_rng(0).permutation(count)]
    folder = root / VERSION
    folder.mkdir(parents=True)
    place, random = 0, np.random.default_rng(1)
    with pq.ParquetWriter(folder / "catalog", SCHEMA, compression="zstd") as writer:
        for table in tables(split):
            rows = table.num_rows
            shards = [keys[n] for n in numbers[place : place + rows].tolist()]
            writer.write_table(measured(table, shards, random).select(SCHEMA.names))
            place += rows
    place_of_version = Storage().locate(folder)
    catalog = FileDigest.read(place_of_version / "catalog")
    (folder / "catalog").rename(catalog_file(place_of_version, catalog.digest).path)
    manifest = Manifest(
        version=VERSION,
        cutter=cutter(),
        geometry=config.geometry,
        rules=config.rules,
        corpora=[["sidd", CORPUS]],
        shards=[
            Shard(key=key, split="train", patches=2048, bits=8, bytes=50_000_000) for key in keys
        ],
        catalog=catalog,
        pairs=len(split),
        refused=0,
        covered=1.0,
        overlap=1.0,
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    sizes = {f"{key}.{kind}": 50_000_000 for key in keys for kind in ("parquet", "json")}
    (root / "sizes.json").write_text(json.dumps(sizes))
    (root / "shards").mkdir()
    point_to(Storage().locate(root), VERSION)


def tables(records: Sequence[PairRecord]) -> Iterator[pa.Table]:
    """The records as tables."""
    if isinstance(records, PackedRecords):
        return records.tables()
    return iter([record_table(records)])


def measured(table: pa.Table, shards: list[str], random: np.random.Generator) -> pa.Table:
    """Rows with hashes and measurements, as the cutter fills them in."""
    rows = table.num_rows
    values: dict[str, Any] = {
        "noisy_hash": [random.bytes(16).hex() for _ in range(rows)],
        "clean_hash": [random.bytes(16).hex() for _ in range(rows)],
        "height": [1000] * rows,
        "width": [1000] * rows,
        "bit_depth": [8] * rows,
        "shift_y": random.normal(0, 0.1, rows),
        "shift_x": random.normal(0, 0.1, rows),
        "shift_gain": random.random(rows),
        "move_y": [0] * rows,
        "move_x": [0] * rows,
        "exposure": random.normal(1, 0.01, rows),
        "clipped": random.random(rows),
        "patches": [64] * rows,
        "shard": shards,
    }
    for name, column in values.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(column, field.type))
    return table


def measure(pairs: int) -> dict[str, dict[str, Any]]:
    """Both plans, each in a process of its own."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for step in ("first", "again"):
            progress(f"{step}, {pairs} pairs")
            done = subprocess.run(
                [sys.executable, __file__, str(pairs), step, folder],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found[step] = json.loads(done.stdout)
    return found


def run(settings: Settings) -> list[Table]:
    """Both plans, by stage."""
    pairs = 20_000 if settings.quick else PAIRS
    return [summary(pairs, measure(pairs))]


def summary(pairs: int, found: dict[str, dict[str, Any]]) -> Table:
    """The result as a table."""
    first, again = found["first"], found["again"]
    rows = [
        (name, f"{seconds:.1f}", f"{again['stages'][name]:.1f}")
        for name, seconds in first["stages"].items()
    ]
    rows += [
        (label, form(first[key]), form(again[key]))
        for label, key, form in (
            ("all, seconds", "seconds", "{:.0f}".format),
            ("all, CPU seconds", "cpu", "{:.0f}".format),
            ("peak memory, GiB", "peak_gib", "{:.2f}".format),
            ("pairs", "pairs", "{:,}".format),
            ("of these read", "read", "{:,}".format),
            ("shards to write", "shards", "{:,}".format),
            ("bytes of a packed pair", "packed_bytes", lambda b: f"{b / pairs:.0f}"),
        )
    ]
    return Table(("planning, seconds", "first ingest", "a week later"), rows)


if __name__ == "__main__":
    number = int(sys.argv[1])
    if len(sys.argv) == 2:
        from table import print_tables

        print_tables([summary(number, measure(number))])
    else:
        step, place = sys.argv[2], Path(sys.argv[3])
        steps: dict[str, Callable[[int, Path], dict[str, Any]]] = {
            "first": partial(plan, again=False),
            "again": partial(plan, again=True),
        }
        print(json.dumps(steps[step](number, place)))
