"""Denoisers by name: the noisy input, filters, and models of any origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from degrain.errors import UserError
from degrain.imaging.filters import create_filter, list_filters
from degrain.inference.config import STARTER
from degrain.inference.denoiser import Denoiser, Identity, NetworkDenoiser
from degrain.storage.location import Storage
from degrain.tracking.registry import load_model
from degrain.tracking.training_photos import TrainingPhotos


@dataclass(frozen=True)
class Named:
    """A denoiser, and the photos that it was trained on; None where they are not known."""

    denoiser: Denoiser
    photos: TrainingPhotos | None


def find_baselines(names: Sequence[str], storage: Storage) -> list[Named]:
    """What a study's models are compared with: `noisy`, `nlm`, `starter`, and filters by name.

    Raises UserError for a name that is none of these.
    """
    known = ("noisy", STARTER, *list_filters())
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"promotion.must_beat names '{unknown[0]}', which no comparison has; name some of "
            f"{', '.join(known)}"
        )
    return find_denoisers(list(dict.fromkeys(("nlm", STARTER, *names))), None, storage)


def find_denoisers(names: Sequence[str], mlflow: Path | None, storage: Storage) -> list[Named]:
    """The denoisers of an evaluation, `noisy` first: filters by name, `starter`, models:/ and
    runs:/ URIs, and folders.

    Raises UserError for a name that is none of these, or twice the same denoiser.
    """
    found = [Named(Identity(), TrainingPhotos())]
    seen = {"noisy"}
    for name in names:
        if name == "noisy":
            continue
        one = _find(name, mlflow, storage)
        if one.denoiser.name in seen and isinstance(one.denoiser, NetworkDenoiser):
            # Of folders with one name, the others are called by their paths.
            one.denoiser.name = name
        if one.denoiser.name in seen:
            raise UserError(f"`models` names {one.denoiser.name} twice; name each model once")
        seen.add(one.denoiser.name)
        found.append(one)
    return found


def folder_name(folder: str) -> str:
    """The folder's own name; of `runs/train/NAME/model`, as training writes it, the run's."""
    path = Path(folder).expanduser().absolute()
    return path.parent.name if path.name == "model" else path.name


def _find(name: str, mlflow: Path | None, storage: Storage) -> Named:
    if name in list_filters():
        return Named(create_filter(name), TrainingPhotos())
    if ":/" not in name and name != STARTER and not Path(name).expanduser().is_dir():
        raise UserError(
            f"`models`: '{name}' is no filter ({', '.join(list_filters())}), not `starter`, no "
            "models:/ or runs:/ URI and no folder"
        )
    denoiser, card = load_model(name, mlflow, storage)
    if isinstance(denoiser, NetworkDenoiser) and denoiser.name == card.model:
        # Two models of one network in one table need names of their own.
        denoiser.name = name if ":/" in name else folder_name(name)
    return Named(denoiser, card.photos)
