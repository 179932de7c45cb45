"""Following the registry, and the networks of a replica, with a registry of files."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from unit.serving_support import untrained
from unit.support import random_photo

from degrain.errors import JobFailedError, NoModelError, UserError
from degrain.inference.config import InferenceConfig
from degrain.registry.files import manifest_digest, write_model
from degrain.registry.versions import DownloadedModel, ModelVersion
from degrain.serving import follower as module
from degrain.serving.follower import ModelFiles, RegistryFollower
from degrain.serving.loaded_models import MOST, LoadedModels, UnknownModelError
from degrain.serving.messages import Models
from degrain.storage.location import Storage
from degrain.tracking.config import TrackingConfig

PHOTO = random_photo(16, 16)


class Registry:
    """Aliases, and a model folder for each version, in place of MLflow."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.aliases: dict[str, str] = {}
        self.error: Exception | None = None
        self.downloads: list[str] = []
        self.lost: str | None = None
        self._folder = folder
        monkeypatch.setattr(module, "connect", self._connect)
        monkeypatch.setattr(module, "alias_holders", self._holders)
        monkeypatch.setattr(module, "lost_champion", lambda *_: self.lost)
        monkeypatch.setattr(module, "download_registered", self._download)

    def _connect(self, *_: object, **__: object) -> object:
        if self.error is not None:
            raise self.error
        return object()

    def _holders(self, *_: object) -> Mapping[str, ModelVersion]:
        if self.error is not None:
            raise self.error
        return {alias: ModelVersion("m", version) for alias, version in self.aliases.items()}

    def _download(self, _: object, uri: str, folder: Path) -> DownloadedModel:
        version = uri.rpartition("/")[2]
        self.downloads.append(version)
        place = folder / "model"
        place.mkdir()
        weights, card = untrained(int(version))
        write_model(place, weights, card)
        return DownloadedModel(place, f"m v{version}", manifest_digest(place))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(tmp_path, monkeypatch)


@pytest.fixture
def follower(registry: Registry, tmp_path: Path) -> RegistryFollower:
    return RegistryFollower(TrackingConfig(), Storage(), tmp_path)


def labels(models: Models | None) -> list[tuple[str, str]]:
    assert models is not None
    return [(model.id, model.label) for model in models.models]


def test_without_a_champion_the_starter_serves(
    registry: Registry, follower: RegistryFollower
) -> None:
    registry.aliases = {"best-ssim": "1"}
    models = follower.look()
    assert labels(models) == [("starter", "starter"), ("best-ssim", "m v1")]
    assert models is not None
    assert models.is_starter
    assert models.find("champion") == models.models[0]


def test_an_empty_store_is_a_registry_without_champion(
    registry: Registry, follower: RegistryFollower
) -> None:
    registry.error = NoModelError("there are no models yet")
    assert labels(follower.look()) == [("starter", "starter")]


def test_the_champion_is_first_and_every_version_is_downloaded_once(
    registry: Registry, follower: RegistryFollower
) -> None:
    registry.aliases = {"best-psnr": "1", "champion": "1", "best-ssim": "2"}
    for _ in range(3):
        models = follower.look()
    assert labels(models)[0] == ("champion", "m v1")
    assert labels(models)[-1] == ("starter", "starter")
    assert sorted(registry.downloads) == ["1", "2"]
    assert models is not None
    assert models.champion.card["model"] == "red10"


@pytest.mark.parametrize("error", [JobFailedError("the MLflow store failed"), NoModelError("gone")])
def test_while_the_registry_is_away_the_last_models_stay(
    registry: Registry, follower: RegistryFollower, tmp_path: Path, error: Exception
) -> None:
    registry.aliases = {"champion": "1"}
    follower.look()
    registry.error = error
    models = follower.look()
    assert models is not None
    assert (labels(models)[0], models.registry) == (("champion", "m v1"), str(error))
    assert follower.files("m v1") is not None
    registry.error, registry.aliases = None, {"champion": "2"}
    models = follower.look()
    assert models is not None
    assert (labels(models)[0], models.registry) == (("champion", "m v2"), "reachable")
    assert follower.files("m v1") is None
    assert {path.parents[1] for path in tmp_path.rglob("*.safetensors")} == {tmp_path / "2"}


def test_before_the_first_answer_nothing_is_known(
    registry: Registry, follower: RegistryFollower
) -> None:
    registry.error = JobFailedError("away")
    assert follower.look() is None


def test_a_champion_that_was_changed_in_the_store_does_not_replace_the_present_one(
    registry: Registry, follower: RegistryFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.aliases = {"champion": "1"}
    follower.look()
    registry.aliases = {"champion": "2"}

    def changed(*_: object) -> None:
        raise UserError("model 'm v2' was changed")

    monkeypatch.setattr(module, "check_manifest", changed)
    models = follower.look()
    assert models is not None
    assert labels(models)[0] == ("champion", "m v1")
    assert "was changed" in models.registry


class LocalSource:
    def __init__(self, follower: RegistryFollower) -> None:
        self.follower = follower

    async def current(self) -> Models | None:
        return self.follower.current

    async def files(self, label: str) -> ModelFiles | None:
        return self.follower.files(label)


def loaded(follower: RegistryFollower) -> LoadedModels:
    return LoadedModels(LocalSource(follower), InferenceConfig(precision="float32"))


def test_a_promotion_swaps_and_photos_in_work_keep_their_network(
    registry: Registry, follower: RegistryFollower
) -> None:
    async def story() -> None:
        registry.aliases = {"champion": "1"}
        follower.look()
        models = loaded(follower)
        await models.follow()
        old = await models.get("champion")
        before = old(PHOTO)
        registry.aliases = {"champion": "2", "previous": "1"}
        follower.look()
        assert (await models.get("champion")).name == "m v1"
        await models.follow()
        new = await models.get("champion")
        assert new.name == "m v2"
        assert (old(PHOTO) == before).all()
        assert (new(PHOTO) != before).any()
        assert await models.get("previous") is old

    asyncio.run(story())


def test_named_models_are_loaded_and_the_least_used_is_dropped(
    registry: Registry, follower: RegistryFollower
) -> None:
    async def story() -> None:
        registry.aliases = {"champion": "1", "a": "2", "b": "3", "c": "4"}
        follower.look()
        models = loaded(follower)
        await models.follow()
        champion = await models.get("champion")
        for name in ("a", "b", "c", "starter"):
            await models.get(name)
        assert await models.get("champion") is champion
        assert len(models._networks) == MOST
        with pytest.raises(UnknownModelError):
            await models.get("nobody")

    asyncio.run(story())


def test_a_file_outside_its_folder_is_refused(
    registry: Registry, follower: RegistryFollower
) -> None:
    class Wrong(LocalSource):
        async def files(self, label: str) -> ModelFiles | None:
            return ModelFiles({"../escaped": b"content"}, None)

    async def story() -> None:
        follower.look()
        with pytest.raises(UserError, match="outside its folder"):
            await LoadedModels(Wrong(follower), InferenceConfig()).follow()

    asyncio.run(story())


def test_a_champion_that_was_deleted_is_not_taken_for_none(
    registry: Registry, follower: RegistryFollower, caplog: pytest.LogCaptureFixture
) -> None:
    registry.aliases = {"champion": "1"}
    follower.look()
    registry.aliases, registry.lost = {}, "the champion was m v1, which was deleted"
    for _ in range(2):
        models = follower.look()
        assert models is not None
        assert (models.is_starter, models.lost_champion) == (True, registry.lost)
    assert [record.getMessage() for record in caplog.records] == [
        "the starter model serves: the champion was m v1, which was deleted"
    ]
    registry.aliases = {"champion": "2"}
    models = follower.look()
    assert models is not None
    assert models.lost_champion is None
