"""Denoise photo files on a Ray cluster: Ray Data hands out the files to a pool of actors.

Each actor loads the network once and writes its outputs one by one, as a run in one process does,
so that both give the same files and both can be resumed.
"""

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from degrain import cluster
from degrain.errors import JobFailedError
from degrain.inference.bulk import DenoisedFile, denoise_files
from degrain.inference.config import Device, OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_list import PhotoTask
from degrain.storage.location import Storage

_LARGEST_BLOCK = 64
"""Photos that an actor takes at a time."""
_BLOCKS_PER_ACTOR = 16
_RESULTS = pa.schema(
    [
        ("source", pa.string()),
        ("target", pa.string()),
        ("megapixels", pa.float64()),
        ("seconds", pa.float64()),
        ("notes", pa.list_(pa.string())),
        ("error", pa.string()),
        ("fatal", pa.string()),
    ]
)


def denoise_on_cluster(
    denoiser: Denoiser,
    tasks: Sequence[PhotoTask],
    *,
    output: OutputConfig,
    reading: ReadingConfig,
    device: Device = "auto",
) -> Iterator[list[DenoisedFile]]:
    """Denoise each photo; yields the results of each block of photos, in any order.

    Starts Ray. Raises JobFailedError if no photo can be written.
    """
    if not tasks:
        return
    cluster.start_ray()
    import ray.data

    resources = ray.cluster_resources()
    on_gpus = "GPU" in resources if device == "auto" else device != "cpu"
    actors = max(int(resources.get("GPU" if on_gpus else "CPU", 1)), 1)
    dataset = ray.data.from_arrow(_blocks(tasks, actors)).map_batches(
        _DenoisingActor,
        fn_constructor_args=(ray.put(denoiser), tasks[0].target.storage, output, reading),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=1,
        num_gpus=1 if on_gpus else None,
        concurrency=(1, min(actors, len(tasks))),
    )
    tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    # Closed at once after Ctrl-C, whose traceback would else keep the actors running.
    with contextlib.closing(tables):
        for table in tables:
            done, fatal = _read_results(table)
            yield done
            if fatal:
                raise JobFailedError(
                    f"no photo can be written: {fatal}; what was finished is kept, run it again"
                )


def _read_results(table: pa.Table) -> tuple[list[DenoisedFile], str | None]:
    """The photos of a block, and why no more can be written, if so."""
    done: list[DenoisedFile] = []
    fatal: str | None = None
    for row in table.to_pylist():
        if reason := row.pop("fatal"):
            fatal = reason
        else:
            done.append(DenoisedFile(**row | {"notes": tuple(row["notes"])}))
    return done, fatal


def _blocks(tasks: Sequence[PhotoTask], actors: int) -> list[pa.Table]:
    size = min(max(len(tasks) // (actors * _BLOCKS_PER_ACTOR), 1), _LARGEST_BLOCK)
    blocks = [tasks[first : first + size] for first in range(0, len(tasks), size)]
    return [
        pa.table({name: [getattr(t, name).uri for t in block] for name in ("source", "target")})
        for block in blocks
    ]


class _DenoisingActor:
    """Denoises blocks of photos with one network."""

    def __init__(
        self,
        denoiser: object,
        storage: Storage,
        output: OutputConfig,
        reading: ReadingConfig,
    ) -> None:
        import ray

        self.denoiser: Denoiser = ray.get(denoiser)
        self.storage, self.output, self.reading = storage, output, reading

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Denoise the photos of one block."""
        tasks = [
            PhotoTask(self.storage.locate(row["source"]), self.storage.locate(row["target"]))
            for row in block.to_pylist()
        ]
        files = denoise_files(self.denoiser, tasks, output=self.output, reading=self.reading)
        rows: list[dict[str, object]] = []
        try:
            rows.extend({**vars(file), "notes": list(file.notes), "fatal": None} for file in files)
        except OSError as error:
            # Of an exception Ray Data keeps only the text; as a value it stays whole.
            blank = DenoisedFile("", "")
            rows.append({**vars(blank), "notes": [], "fatal": str(error)})
        yield pa.Table.from_pylist(rows, schema=_RESULTS)
