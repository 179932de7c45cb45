"""Exported files against the network, read as a consumer reads them, and errors."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from integration.support import ROOT, run_here, start_pipeline
from torch import Tensor, nn
from unit.small_networks import LARGE_LAST, network, small

from degrain import __version__
from degrain.errors import JobFailedError, UserError
from degrain.inference import export
from degrain.inference.export import (
    Format,
    check,
    check_format,
    export_network,
    file_metadata,
    file_size,
    trace,
    write,
)
from degrain.registry.card import ModelCard
from degrain.registry.files import write_model
from denoisenets import model_contract

CROP = 32
both = pytest.mark.parametrize("export_format", ["onnx", "pt2"])


@cache
def exported(export_format: Format, name: str) -> export.Exported:
    return export_network(export_format, name, small(name), network(name).state_dict(), CROP)


def model_folder(folder: Path, name: str) -> Path:
    """A model folder as `degrain train` writes it."""
    contract = model_contract(name, **small(name))
    card = ModelCard(
        model=name,
        arguments=small(name),
        patch_set="0",
        training={},
        crop=CROP,
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
    )
    folder.mkdir()
    write_model(folder, network(name).state_dict(), card)
    return folder


def read(file: Path, noisy: Tensor) -> tuple[dict[str, Any], Tensor]:
    """The metadata of a file and its output for a photo, read without degrain."""
    if file.suffix == ".onnx":
        onnx.checker.check_model(file, full_check=True)
        metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}["degrain"]
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return json.loads(metadata), torch.from_numpy(
            session.run(["clean"], {"noisy": noisy.numpy()})[0]
        )
    found = {"degrain.json": ""}
    program = torch.export.load(file, extra_files=found)
    with torch.no_grad():
        return json.loads(found["degrain.json"]), program.module()(noisy)


def reference(name: str, noisy: Tensor) -> Tensor:
    made = network(name)  # made outside: weights made in inference mode cannot be traced
    with torch.inference_mode():
        clean: Tensor = made(noisy)
    return clean


@pytest.mark.slow
@both
@pytest.mark.parametrize("name", ["red10", "ffdnet", "unet"])
def test_file_has_metadata_and_equals_the_network_for_all_sizes(
    tmp_path: Path, name: str, export_format: Format
) -> None:
    file = tmp_path / f"model.{export_format}"
    made = exported(export_format, name)
    file.write_bytes(made.content)
    metadata, _ = read(file, torch.rand(1, 3, 48, 48))
    contract = model_contract(name, **small(name))
    assert metadata == made.metadata
    assert (metadata["degrain"], metadata["network"], metadata["crop"]) == (__version__, name, CROP)
    assert metadata["arguments"].items() >= small(name).items()
    assert (metadata["halo"], metadata["global_statistics"]) == (
        contract.receptive_radius,
        contract.global_statistics,
    )
    assert metadata["multiple"] == contract.size.multiple
    assert contract.size.minimum <= metadata["minimum"] <= 2 * metadata["multiple"]
    least, step = metadata["minimum"], metadata["multiple"]
    for shape in (
        (1, 3, least, least),
        (5, 3, least, least + 7 * step),
        (1, 3, least + 13 * step, least + step),
    ):
        noisy = torch.rand(shape)
        _, clean = read(file, noisy)
        assert clean.shape == noisy.shape
        assert (clean - reference(name, noisy)).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_LAST)
def test_every_class_of_networks_exports_to_both_formats(name: str) -> None:
    size = model_contract(name, **small(name)).size
    program = trace(network(name), size)
    for export_format in ("onnx", "pt2"):
        allowed = file_size(export_format, size)
        content = write(export_format, program, file_metadata(name, small(name), allowed, CROP))
        assert check(export_format, content, network(name), allowed) < 1e-5


@pytest.mark.slow
def test_dynamic_axes_have_names_in_onnx() -> None:
    graph = onnx.load_from_string(exported("onnx", "unet").content).graph
    for value, name in ((graph.input[0], "noisy"), (graph.output[0], "clean")):
        assert value.name == name
        assert [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] == [
            "batch",
            3,
            "height",
            "width",
        ]


@pytest.mark.slow
@both
def test_file_has_no_paths_of_this_machine(export_format: Format) -> None:
    content = exported(export_format, "red10").content
    assert b"denoisenets.rednet" in content
    assert b"rednet.py" not in content


@pytest.mark.slow
def test_pt2_refuses_unsupported_sizes(tmp_path: Path) -> None:
    made = exported("pt2", "unet")
    file = tmp_path / "model.pt2"
    file.write_bytes(made.content)
    for side in (made.metadata["minimum"] // 2, made.metadata["minimum"] + 1):
        with pytest.raises((AssertionError, RuntimeError), match=r"Guard failed|Expected input"):
            read(file, torch.rand(1, 3, side, side))


def changed(made: nn.Module, by: float) -> nn.Module:
    """The network with one weight of its last layer changed."""
    with torch.no_grad():
        next(p for p in reversed(list(made.parameters())) if p.ndim > 1).view(-1)[0] += by
    return made


@both
@pytest.mark.parametrize("by", [2e-3, float("nan")])
def test_check_detects_a_different_output(export_format: Format, by: float) -> None:
    name = "red10"
    other = changed(export.create_model(name, **small(name)), 0)
    other.load_state_dict(network(name).state_dict())
    content = exported(export_format, name).content
    size = file_size(export_format, model_contract(name, **small(name)).size)
    assert check(export_format, content, other.eval(), size) < 1e-5
    with pytest.raises(
        JobFailedError, match=r"differs from PyTorch by \S+, more than 0.0001; nothing was written"
    ):
        check(export_format, content, changed(other, by), size)


@pytest.mark.slow
@both
def test_wrong_export_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_format: Format
) -> None:
    """A faulty exporter is simulated by changed weights; existing files are not overwritten."""
    model = model_folder(tmp_path / "model", "red10")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"old.{export_format}").write_bytes(b"before")

    def faulty(network: nn.Module, size: export.SizeContract) -> torch.export.ExportedProgram:
        other = export.create_model("red10", **small("red10"))
        other.load_state_dict(network.state_dict())
        return trace(changed(other, 0.1).eval(), size)

    monkeypatch.setattr(export, "trace", faulty)
    for name in (f"old.{export_format}", f"new.{export_format}"):
        done = run_here("export", [model, "--out", out / name], tmp_path)
        assert (done.status, len(done.err.splitlines())) == (1, 1), done.err
        assert "the exported network differs from PyTorch by" in done.err
    assert [(f.name, f.read_bytes()) for f in out.iterdir()] == [
        (f"old.{export_format}", b"before")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "export_format"),
    [("ffdnet", "pt2"), pytest.param("red10", "onnx", marks=pytest.mark.soak)],
)
def test_trained_model_exports_from_the_command_line(
    tmp_path: Path, name: str, export_format: Format
) -> None:
    """In a separate process, because PyTorch's exporters bypass Python's standard error."""
    file, summary = tmp_path / "made" / f"model.{export_format}", tmp_path / "summary.json"
    model = model_folder(tmp_path / "model", name)
    environment = {
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("platform", "models"))
    }
    process = start_pipeline(
        "export", [model, "--out", file, "--summary", summary], environment, cwd=tmp_path
    )
    said, complained = process.communicate(timeout=600)
    assert (process.returncode, complained) == (0, "")
    assert "input: height and width from" in said
    assert [f.name for f in file.parent.iterdir()] == [file.name]
    noisy = torch.rand(2, 3, 64, 96)
    metadata, clean = read(file, noisy)
    # FFDNet's noise level is the mean over all of the frame, not over windows as in a denoiser.
    assert (clean - reference(name, noisy)).abs().max() < 1e-5
    told = json.loads(summary.read_text())
    assert told.items() >= metadata.items()
    assert (told["bytes"], told["file"]) == (file.stat().st_size, str(file))
    assert 0 <= told["difference"] < 1e-5


def test_suffix_selects_the_format() -> None:
    assert [check_format(name) for name in ("a.onnx", "s3://b/c.pt2")] == ["onnx", "pt2"]
    for name in ("model", "model.pt", "onnx", "a.ONNX", "a.onnx/b"):
        with pytest.raises(
            UserError, match=f"cannot export to '{name}': name a file that ends in .onnx or .pt2"
        ):
            check_format(name)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_onnx_package_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def refuse(name: str) -> None:
        if name == package:
            raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(export, "import_module", refuse)
    with pytest.raises(
        UserError, match=rf"needs the package {package}; install it: pip install 'degrain\[onnx\]'"
    ) as caught:
        check_format("model.onnx")
    assert "\n" not in str(caught.value)
    assert check_format("model.pt2") == "pt2"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("model.txt", "name a file that ends in .onnx or .pt2"),
        ("file/model.pt2", "cannot write to '{tmp}/file': '{tmp}/file' is a file; name a folder"),
        ("folder.pt2", "cannot write '{tmp}/folder.pt2': it is a folder; name a file"),
        ("model.pt2", "there is no model '{tmp}/nothing'"),
    ],
)
def test_invalid_targets_and_models_are_refused(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.pt2").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run_here("export", [tmp_path / "nothing", "--out", tmp_path / out], tmp_path)
    assert (done.status, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert said.format(tmp=tmp_path) in done.err
    assert sorted(tmp_path.rglob("*")) == before
