"""`mlflow.yaml`: where runs go, what the models are called, and what a model must show to be promoted."""

import difflib
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from degrain.errors import UserError

BASELINES = ("untouched", "nlm")


@dataclass(frozen=True, kw_only=True)
class PromotionRules:
    """What a model must show, on whole test photos, before an alias moves to it."""

    must_beat: tuple[str, ...] = BASELINES
    """Rows of the comparison that it must beat on both metrics."""
    min_psnr_improvement_db: float = 0.0
    """More PSNR than the present holder by at least this, and by anything at all."""
    min_ssim_improvement: float = 0.0
    """The same for SSIM."""

    def __post_init__(self) -> None:
        if unknown := set(self.must_beat) - set(BASELINES):
            raise ValueError(f"must_beat: unknown row '{min(unknown)}'; known: {', '.join(BASELINES)}")
        for name in ("min_psnr_improvement_db", "min_ssim_improvement"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"promotion.{name} must be a number that is not negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """The content of `mlflow.yaml`, with `MLFLOW_TRACKING_URI` applied."""

    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow tracking server or database."""
    artifacts: str = "mlartifacts"
    """Where artifacts of an embedded store go: a folder or an s3:// URI."""
    experiment: str = "degrain"
    """Name of the MLflow experiment."""
    model: str = "degrain-denoiser"
    """Name in the model registry."""
    champion: Literal["psnr", "ssim"] = "psnr"
    """The metric that the alias `champion` follows."""
    promotion: PromotionRules = field(default_factory=PromotionRules)
    """What a model must show before an alias moves to it."""

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
        """Whether runs go to a local database rather than to a server."""
        return self.tracking_uri.startswith("sqlite:")


def load_tracking_config(path: Path) -> TrackingConfig:
    """Read `mlflow.yaml`; relative paths in it are relative to its folder. `MLFLOW_TRACKING_URI` wins.

    Raises UserError for a missing file, an unknown key (suggesting the near one) or a value of the wrong type.
    """
    try:
        raw = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise UserError(f"there is no '{path}'; run from the folder that has it, or name it with --mlflow") from None
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}; name a file with --mlflow") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{path}': {' '.join(str(error).split())}") from None
    try:
        values = _checked(TrackingConfig, raw, "")
        if "promotion" in values:
            values["promotion"] = PromotionRules(**_checked(PromotionRules, values["promotion"], "promotion."))
        config = TrackingConfig(**values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return _resolved(config, path.absolute().parent)


def _checked(owner: type, raw: object, prefix: str) -> dict[str, Any]:
    """The mapping, if all its keys are fields of `owner` and its values have their types."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{prefix.rstrip('.') or 'the file'} must be a mapping of keys to values")
    known: dict[str, Field[Any]] = {f.name: f for f in fields(owner)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean '{prefix}{near[0]}'?" if near else "."
            raise ValueError(f"unknown key '{prefix}{key}'{hint} Known keys: {', '.join(known)}")
        default = known[key].default
        if isinstance(default, str) and not isinstance(value, str):
            raise ValueError(f"{prefix}{key} must be text, got {value!r}")
        if isinstance(default, float):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{prefix}{key} must be a number, got {value!r}")
            value = float(value)
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise ValueError(f"{prefix}{key} must be a list of names, got {value!r}")
            value = tuple(value)
        assert default is not MISSING or key == "promotion"
        values[str(key)] = value
    return values


def _resolved(config: TrackingConfig, folder: Path) -> TrackingConfig:
    """The configuration with the environment applied and paths made absolute."""
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
