"""The networks by name, without importing torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """Where a network is built, and with which arguments."""

    family: str
    """The module of this package. Its function `contract` tells, from all arguments, which sizes
    the network takes and how far its output depends on its input."""
    network: str
    """The class in that module, an `nn.Module` that maps noisy to clean, (B, 3, H, W) float in
    [0, 1] to the same shape. Callers pad, crop and tile by the contract."""
    arguments: Mapping[str, bool | int] = field(default_factory=dict)
    """Arguments that differ from the class's own defaults."""


NETWORKS: Mapping[str, Entry] = {
    "dncnn": Entry("dncnn", "DnCNN"),
    "drunet": Entry("drunet", "DRUNet"),
    "fast16": Entry("fast", "Fast", {"width": 16}),
    "fast24": Entry("fast", "Fast"),
    "fast32": Entry("fast", "Fast", {"width": 32}),
    "fast64": Entry("fast", "Fast", {"width": 64, "depth": 4}),
    "ffdnet": Entry("ffdnet", "FFDNet"),
    "mwcnn": Entry("mwcnn", "MWCNN"),
    "mwcnn_article": Entry("mwcnn", "MWCNN", {"levels": 4}),
    "nafnet16": Entry("nafnet", "NAFNet", {"width": 16}),
    "nafnet32": Entry("nafnet", "NAFNet", {"width": 32}),
    "pridnet": Entry("pridnet", "PRIDNet"),
    "pridnet_article": Entry("pridnet", "PRIDNet", {"width": 64}),
    "red10": Entry("rednet", "REDNet", {"depth": 5, "skips": False}),
    "red20": Entry("rednet", "REDNet", {"depth": 10}),
    "red30": Entry("rednet", "REDNet", {"depth": 15}),
    "red_article": Entry("rednet", "REDNet", {"depth": 5, "skips": True}),
    "restormer": Entry("restormer", "Restormer"),
    "unet": Entry("unet", "UNet"),
}
"""Sorted by name."""
