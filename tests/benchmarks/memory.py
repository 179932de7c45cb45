"""Peak memory of a forward pass against the limit that was set, for every network.

The network runs as on a photo of 24 megapixels: the largest batch of tiles of the chosen tiling,
with local statistics, in float32 and under bfloat16 autocast. Tensors are fake, so that sums of
their bytes are exact and nothing is computed. A network of which the smallest tile exceeds the
limit says so in a line of the log; its ratio is in brackets.
"""

import torch
from table import Settings, Table, progress
from torch._subclasses.fake_tensor import FakeTensorMode

from degrain.inference.tiling import largest_tiling, smallest_tiling
from denoisenets import (
    bytes_per_pixel,
    create_model,
    list_models,
    model_contract,
    use_local_statistics,
)
from denoisenets.memory import PeakMemory

LIMITS = (64, 128, 256, 512, 1024)
HEIGHT, WIDTH = 4000, 6000


def run(settings: Settings) -> list[Table]:
    """One table for each precision."""
    limits = LIMITS[:1] if settings.quick else LIMITS
    names = settings.models or (("fast24",) if settings.quick else tuple(list_models()))
    tables = []
    for dtype in (torch.float32, torch.bfloat16):
        rows = []
        for name in names:
            progress(f"{name} {dtype}")
            rows.append([name, *(_ratio(name, limit, dtype) for limit in limits)])
        precision = str(dtype).removeprefix("torch.")
        caption = f"Peak of live activations over the limit, {precision}."
        tables.append(Table([precision, *(f"{limit} MiB" for limit in limits)], rows, caption))
    return tables


def _ratio(name: str, limit: int, dtype: torch.dtype) -> str:
    per_pixel = bytes_per_pixel(name, dtype=dtype)
    with FakeTensorMode(), torch.inference_mode():
        network = create_model(name).eval()
        smallest = smallest_tiling(model_contract(name), use_local_statistics(network, 128))
        tiling = largest_tiling(smallest, HEIGHT, WIDTH, limit * 2**20 / per_pixel)
        shape = (tiling.batch, 3, tiling.reads(HEIGHT), tiling.reads(WIDTH))
        autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
        with PeakMemory() as memory, autocast:
            network(torch.empty(shape))
    ratio = memory.peak / (limit * 2**20)
    exceeds = shape[0] * shape[2] * shape[3] * per_pixel > limit * 2**20
    return f"({ratio:.2f})" if exceeds else f"{ratio:.2f}"
