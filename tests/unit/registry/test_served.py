"""A model folder in MLflow's own loading: the same pixels, and no code in the folder."""

from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import yaml
from mlflow.exceptions import MlflowException
from unit.small_networks import network, small
from unit.support import random_photo

from degrain.errors import UserError
from degrain.registry.card import ModelCard
from degrain.registry.files import read_model, write_model


@pytest.fixture(scope="module", params=["red10", "nafnet32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = request.param
    card = ModelCard(
        model=name,
        arguments=small(name),
        patch_set="0",
        training={},
        crop=32,
        size_multiple=1,
        halo=8,
    )
    made = tmp_path_factory.mktemp(name)
    write_model(made, network(name).state_dict(), card)
    return made


@pytest.mark.slow
def test_predict_gives_the_pixels_of_the_denoiser_bit_for_bit(folder: Path) -> None:
    photos = np.stack([random_photo(45, 67, seed) for seed in range(3)])
    denoiser, _ = read_model(folder)
    output = mlflow.pyfunc.load_model(str(folder)).predict(photos)
    assert output.dtype == np.uint8
    assert np.array_equal(output, np.stack([denoiser(photo) for photo in photos]))


def test_the_input_example_has_the_type_of_the_signature(folder: Path) -> None:
    model = mlflow.pyfunc.load_model(str(folder))
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert model.predict(model.input_example).shape == model.input_example.shape


@pytest.mark.parametrize(
    "photos",
    [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.float32)],
    ids=["one photo", "float"],
)
def test_another_shape_or_type_is_refused(folder: Path, photos: np.ndarray) -> None:
    with pytest.raises(MlflowException, match="Failed to enforce schema"):
        mlflow.pyfunc.load_model(str(folder)).predict(photos)


def test_the_folder_has_no_code_and_no_pickle(folder: Path) -> None:
    names = {path.name for path in folder.rglob("*")}
    assert names == {
        "MLmodel",
        "card.json",
        "input_example.json",
        "manifest.json",
        "python_env.yaml",
        "requirements.txt",
        "serving_input.json",
        "weights.safetensors",
    }
    flavor = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert flavor["loader_module"] == "degrain.registry.served"
    assert "code" not in flavor


def test_requirements_name_versions_without_build_suffixes(folder: Path) -> None:
    lines = (folder / "requirements.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines}
    assert names == {"degrain", "mlflow", "numpy", "safetensors", "torch"}
    assert not any("+" in line for line in lines)


def test_changed_weights_are_not_served(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = bytearray((tmp_path / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"'weights.safetensors' does not have the SHA-256"):
        mlflow.pyfunc.load_model(str(tmp_path))
