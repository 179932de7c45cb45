"""Memory and load of a worker process."""

import psutil
import torch


def process_usage(device: torch.device) -> dict[str, float]:
    """Measure memory and load of this process and its machine.

    `worker_memory_mib` excludes shared memory, that is, the patches that all workers of a node map.
    MLflow shows metrics whose names start with `system/` as system metrics.
    """
    memory = psutil.Process().memory_info()
    # psutil reports shared memory on Linux only.
    shared = getattr(memory, "shared", 0)
    usage = {
        "worker_memory_mib": (memory.rss - shared) / 2**20,
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": psutil.virtual_memory().percent,
    }
    if device.type == "cuda":
        usage["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return usage
