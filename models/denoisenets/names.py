"""The names of all registered networks, without importing torch."""

MODEL_NAMES: tuple[str, ...] = (
    "dncnn",
    "drunet",
    "fast16",
    "fast24",
    "fast32",
    "fast64",
    "ffdnet",
    "mwcnn",
    "mwcnn_article",
    "nafnet16",
    "nafnet32",
    "pridnet",
    "pridnet_article",
    "red10",
    "red20",
    "red30",
    "red_article",
    "restormer",
    "unet",
)
"""The keys of `factory.MODELS`, sorted."""
