"""Reading of published checkpoints: wrappers, prefixes, and files that would run code."""

import pickle
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.inference.weights_file import read_weights

WEIGHTS = {"model.0.weight": torch.arange(6.0).reshape(2, 3), "model.0.bias": torch.ones(2)}
OTHER = {key: value + 1 for key, value in WEIGHTS.items()}


def saved(folder: Path, content: object) -> Path:
    file = folder / "weights.pth"
    torch.save(content, file)
    return file


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(got) == list(expected)
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"params": WEIGHTS},
        {"params_ema": WEIGHTS, "params": OTHER},
        {"params": OTHER, "params_ema": WEIGHTS},
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"lr": 0.1}},
        {"model": WEIGHTS},
        {"net": WEIGHTS},
        {"model_state_dict": WEIGHTS, "loss": 0.5},
        {"model": {"state_dict": WEIGHTS}},
        {f"module.{key}": value for key, value in WEIGHTS.items()},
        {"state_dict": {f"module.{key}": value for key, value in WEIGHTS.items()}},
    ],
    ids=lambda content: "-".join(content)[:30],
)
def test_wrappers_and_prefixes_are_removed(tmp_path: Path, content: object) -> None:
    assert_same(read_weights(saved(tmp_path, content)), WEIGHTS)


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({f"module.{k}": v for k, v in WEIGHTS.items()}, file)
    got = read_weights(file)
    assert_same(dict(sorted(got.items())), dict(sorted(WEIGHTS.items())))


def test_a_prefix_that_not_all_names_have_is_kept(tmp_path: Path) -> None:
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(read_weights(saved(tmp_path, mixed))) == ["module.a", "b"]


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["top", "inside", "beside"])
def test_pickled_objects_are_refused_and_do_not_run(
    tmp_path: Path, place: str, legacy: bool
) -> None:
    target = tmp_path / "it ran"
    bomb = Bomb(target)
    content = {
        "top": bomb,
        "inside": {"params": {**WEIGHTS, "x": bomb}},
        "beside": {"params": WEIGHTS, "options": bomb},
    }[place]
    file = tmp_path / "bomb.pth"
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="contains pickled objects, not tensors alone; loading"):
        read_weights(file)
    assert not target.exists()
    torch.load(file, weights_only=False)
    assert target.exists()


def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pkl"
    file.write_bytes(pickle.dumps(Bomb(tmp_path / "it ran")))
    with pytest.raises(UserError):
        read_weights(file)
    assert not (tmp_path / "it ran").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"store its weights with torch\.save\(model\.state_dict"):
        read_weights(saved(tmp_path, nn.Linear(2, 2)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 damaged", b"\x80\x02}q\x00."])
def test_other_files_are_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"file{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_weights(file)
    assert re.match(r"'.*' (is not a PyTorch checkpoint|contains no weights)", str(error.value))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.pth' does not exist; name a file with weights"):
        read_weights(tmp_path / "missing.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains no weights by name"),
        ([1, 2], "contains no weights by name"),
        (torch.ones(3), "contains no weights by name"),
        ({"generator": WEIGHTS}, "contains 'generator', which is not a tensor"),
        ({"a.weight": torch.tensor([1.0, float("nan")])}, "'a.weight' has values that are not fin"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_weights(saved(tmp_path, content))
