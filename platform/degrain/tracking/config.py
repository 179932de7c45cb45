"""`mlflow.yaml`: tracking server, experiment, name of the model, and promotion rules."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from degrain.errors import UserError
from degrain.storage.yaml_file import read_yaml
from denoisenets.suggestions import unknown_name

DEFAULT_FILE = "mlflow.yaml"
BASELINES = ("noisy", "nlm")
"""Rows of the comparison that a model must beat unless others are named."""
Metric: TypeAlias = Literal["psnr", "ssim"]


@dataclass(frozen=True, kw_only=True)
class PromotionRules:
    """Gates on a model's scores on whole test photos, all of which a new champion passes."""

    must_beat: tuple[str, ...] = BASELINES
    """Rows of the comparison that the model must beat on both metrics: noisy, starter, or filters
    by name."""
    beat_starter: bool = True
    """Whether the starter is the champion as long as there is none."""
    confidence: float = 0.95
    """Confidence of the interval over test scenes that the gain is taken from; 0: the mean alone
    counts."""
    min_psnr_improvement_db: float = 0.0
    """Where the champion follows PSNR, its gain must be above, dB."""
    min_ssim_improvement: float = 0.0
    """Where the champion follows SSIM, its gain must be above."""
    few_scenes_psnr_gain_db: float = 0.3
    """The least gain of PSNR with too few test scenes for an interval, dB."""
    few_scenes_ssim_gain: float = 0.01
    """The least gain of SSIM with too few test scenes for an interval."""
    max_psnr_loss_db: float = 0.05
    """Where the champion follows SSIM, most loss of PSNR, dB."""
    max_ssim_loss: float = 0.002
    """Where the champion follows PSNR, most loss of SSIM."""
    max_slice_loss_db: float = 0.5
    """Most loss of PSNR on the photos of one camera or one range of ISO, dB."""
    max_seconds_per_megapixel: float = math.inf
    """Of one core."""
    max_model_megabytes: float = math.inf
    """Size of the weights in single precision."""
    max_memory_megabytes: float = math.inf
    """Memory of activations for a tile of one megapixel."""
    max_colour_shift: float = 0.5
    """By how much more than the champion's the mean of a channel may be off, of 255."""
    max_colour_cast: float = 2.0
    """Most change of the mean of a channel, of 255, in clean photos with noise of zero mean."""
    min_clean_psnr_db: float = 0.0
    """Least PSNR of the output for a clean photo as input, dB."""
    fastest_within_db: float = 0.3
    """`fastest-within` is the fastest model at most this much below the best PSNR, dB."""
    approval: bool = False
    """Whether a person has the last word, with `degrain promote`."""

    def __post_init__(self) -> None:
        if models := [name for name in self.must_beat if set(name) & set("/:")]:
            raise ValueError(
                f"must_beat: '{models[0]}' is a model, and the champion is to be beaten anyway; "
                "name noisy, starter or filters"
            )
        no_numbers = ("must_beat", "beat_starter", "approval")
        for name in (f.name for f in fields(self) if f.name not in no_numbers):
            value = getattr(self, name)
            if not value >= 0 or (math.isinf(value) and not name.startswith("max")):
                raise ValueError(
                    f"promotion.{name} must be a number that is not negative, got {value}"
                )
        if self.confidence >= 1:
            raise ValueError(f"promotion.confidence must be below 1, got {self.confidence}")

    def least_improvement(self, metric: Metric) -> float:
        """What the gain on the champion's metric must be above."""
        return {"psnr": self.min_psnr_improvement_db, "ssim": self.min_ssim_improvement}[metric]

    def least_gain_of_few_scenes(self, metric: Metric) -> float:
        """What the mean gain must reach where there are too few test scenes for an interval."""
        return {"psnr": self.few_scenes_psnr_gain_db, "ssim": self.few_scenes_ssim_gain}[metric]

    def most_loss(self, metric: Metric) -> float:
        """How much the metric may lose that the champion does not follow."""
        return {"psnr": self.max_psnr_loss_db, "ssim": self.max_ssim_loss}[metric]


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The content of `mlflow.yaml`, with `MLFLOW_TRACKING_URI` applied."""

    tracking_uri: str = field(default="sqlite:///mlflow.db", repr=False)
    """MLflow tracking server or database."""
    artifacts: str = "mlartifacts"
    """Artifacts of an embedded store: a folder or an s3:// URI."""
    experiment: str = "degrain"
    """Name of the MLflow experiment."""
    model: str = "degrain-denoiser"
    """Name of the registered model."""
    champion: Metric = "psnr"
    """The metric that the alias `champion` follows."""
    promotion: PromotionRules = field(default_factory=PromotionRules)
    """Conditions under which an alias moves."""

    def __post_init__(self) -> None:
        if self.champion not in ("psnr", "ssim"):
            raise ValueError(f"champion must be psnr or ssim, got '{self.champion}'")
        for name in ("tracking_uri", "artifacts", "experiment", "model"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if set(self.model) & set("/:@"):
            raise ValueError(f"model must not contain '/', ':' or '@', got '{self.model}'")

    @property
    def embedded(self) -> bool:
        """Whether the tracking store is a local database, not a server."""
        return self.tracking_uri.startswith("sqlite:")

    @property
    def shown_uri(self) -> str:
        """The address of the store for messages."""
        return without_passwords(self.tracking_uri)


def without_passwords(text: str) -> str:
    """The text with `***` in place of the passwords of its URIs."""
    return re.sub(r"(://[^/\s:@]*):[^/\s]*@", r"\1:***@", text)


def load_tracking_config(path: Path | None = None) -> TrackingConfig:
    """Read `mlflow.yaml`; MLFLOW_TRACKING_URI overrides its `tracking_uri`.

    Paths are relative to the file's folder. Without `path` the file in the working folder is read;
    if it does not exist, the defaults apply. Raises UserError for a missing file, an unknown key
    (suggesting the closest one) or a value of the wrong type.
    """
    if path is None and not Path(DEFAULT_FILE).exists():
        return _resolved(TrackingConfig(), Path.cwd())
    file = Path(DEFAULT_FILE) if path is None else path
    if file.parts and file.parts[0] in ("http:", "https:"):
        raise UserError(
            f"`mlflow` is a file, and '{file}' is the address of a server; set MLFLOW_TRACKING_URI "
            "to it, or write it into the file as tracking_uri"
        )
    try:
        raw = read_yaml(file.read_text()) or {}
    except FileNotFoundError:
        raise UserError(
            f"'{file}' does not exist; leave `mlflow` out, or name an existing file"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read '{file}': {error.strerror}; name another file with `mlflow`"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"'{file}' is not valid YAML: {' '.join(str(error).split())}; correct it"
        ) from None
    try:
        values = _checked(TrackingConfig, raw, "")
        if "promotion" in values:
            rules = _checked(PromotionRules, values["promotion"], "promotion.")
            values["promotion"] = PromotionRules(**rules)
        config = TrackingConfig(**values)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None
    return _resolved(config, file.absolute().parent)


def _checked(owner: type, raw: object, prefix: str) -> dict[str, Any]:
    """Return the mapping. Raises ValueError unless its keys and types match `owner`'s fields."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} must be a mapping of keys to values")
    known: dict[str, Field[Any]] = {f.name: f for f in fields(owner)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            raise ValueError(unknown_name("key", str(key), known, prefix=prefix))
        values[str(key)] = _converted(f"{prefix}{key}", value, known[key].default)
    return values


def _converted(name: str, value: object, default: object) -> object:
    """Convert a value to the type of its field's default."""
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    if isinstance(default, str) and not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r}")
    if isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{name} must be a number, got {value!r}")
        return float(value)
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(f"{name} must be a list of names, got {value!r}")
        return tuple(value)
    return value


def _resolved(config: TrackingConfig, folder: Path) -> TrackingConfig:
    """Apply the environment and make paths absolute."""
    from_environment = os.environ.get("MLFLOW_TRACKING_URI")
    # As for MLflow itself, a path in the environment is relative to the working directory.
    base = Path.cwd() if from_environment else folder
    uri = from_environment or config.tracking_uri
    relative = uri.removeprefix("sqlite:///")
    if uri.startswith("sqlite:///") and not relative.startswith("/"):
        uri = f"sqlite:///{base / relative}"
    artifacts = config.artifacts if "://" in config.artifacts else str(folder / config.artifacts)
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    return TrackingConfig(**{**values, "tracking_uri": uri, "artifacts": artifacts})
