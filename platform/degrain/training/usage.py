"""What a worker takes of its machine."""

import psutil
import torch


def process_usage(device: torch.device) -> dict[str, float]:
    """Memory and load of this process and its machine; MLflow shows what begins with `system/` under system metrics.

    Memory in MiB is that of this process alone: the patches that all workers of a node map are not counted.
    """
    memory = psutil.Process().memory_info()
    # Not all systems tell what is shared.
    shared = getattr(memory, "shared", 0)
    usage = {
        "worker_memory_mib": (memory.rss - shared) / 2**20,
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": psutil.virtual_memory().percent,
    }
    if device.type == "cuda":
        usage["gpu_memory_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return usage
