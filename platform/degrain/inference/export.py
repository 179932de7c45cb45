"""Export a model as one file, ONNX or torch.export, with the input sizes that it accepts in the
file's metadata.

The input is `noisy`, (B, 3, H, W) float32 in [0, 1]; the output is `clean`, the same shape, not
clipped. B is dynamic, and so are H and W among the multiples that the network accepts. The metadata
is JSON, see `file_metadata`: under the key `degrain` of the ONNX metadata, in the extra file
`degrain.json` of a .pt2.

The program that loads the file pads, tiles and rounds. The file has no local statistics: global
means are over the whole input, whereas `NetworkDenoiser` uses windows as wide as the training
crops. FFDNet always estimates the noise level; its second input is left out.
"""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from degrain import __version__
from degrain.errors import JobFailedError, UserError
from denoisenets import SizeContract, create_model, full_arguments, model_contract

Format: TypeAlias = Literal["onnx", "pt2"]
LARGEST_DIFFERENCE = 1e-4
"""Largest accepted difference from PyTorch in float32, for values in [0, 1]: a fortieth of a step
of 8 bits.
"""
INPUT, OUTPUT = "noisy", "clean"
METADATA_KEY, METADATA_FILE = "degrain", "degrain.json"

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """The content of an exported file, and its difference from the network."""

    content: bytes
    metadata: Mapping[str, Any]
    """The file's metadata."""
    difference: float
    """The largest difference from PyTorch in float32."""


def check_format(file: str) -> Format:
    """The format of a file's suffix. Raises UserError for another suffix or a missing package."""
    suffix = Path(file).suffix.removeprefix(".")
    if suffix not in get_args(Format):
        raise UserError(f"cannot export to '{file}': name a file that ends in .onnx or .pt2")
    export_format: Format = suffix  # type: ignore[assignment]
    if export_format == "onnx":
        for package in _ONNX_PACKAGES:
            try:
                import_module(package)
            except ImportError:
                raise UserError(
                    f"writing ONNX needs the package {package}; install it: pip install "
                    "'degrain[onnx]', or name a .pt2 file"
                ) from None
    return export_format


def export_network(
    export_format: Format,
    name: str,
    arguments: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    crop: int,
) -> Exported:
    """Export the network `name` of `denoisenets` with these weights; `crop` is the side of
    the training crops in pixels.

    Raises JobFailedError if the output of the file differs from the network's by more than
    `LARGEST_DIFFERENCE`.
    """
    network = create_model(name, **arguments).eval()
    network.load_state_dict(dict(weights))
    size = file_size(export_format, model_contract(name, **arguments).size)
    metadata = file_metadata(name, arguments, size, crop)
    content = write(export_format, trace(network, size), metadata)
    return Exported(content, metadata, check(export_format, content, network, size))


def file_size(export_format: Format, size: SizeContract) -> SizeContract:
    """The sizes that a file accepts: those of the network, for a .pt2 at least twice the multiple.

    torch.export specialises a length of 1 as a constant, so no feature map inside a .pt2 may be a
    single pixel high or wide.
    """
    minimum = size.minimum if export_format == "onnx" else max(size.minimum, 2 * size.multiple)
    return SizeContract(minimum=minimum, multiple=size.multiple)


def file_metadata(
    name: str, arguments: Mapping[str, Any], size: SizeContract, crop: int
) -> dict[str, Any]:
    """A file's metadata; all lengths are in pixels.

    `minimum` and `multiple` constrain H and W. `halo` is the margin that a tile needs on each side.
    With `global_statistics` the output also depends on means over the whole input: tiles should
    then not be much larger than `crop`, the side of the training crops.
    """
    contract = model_contract(name, **arguments)
    return {
        "degrain": __version__,
        "network": name,
        "arguments": full_arguments(name, arguments),
        "minimum": size.minimum,
        "multiple": size.multiple,
        "halo": contract.receptive_radius,
        "global_statistics": contract.global_statistics,
        "crop": crop,
    }


def trace(network: nn.Module, size: SizeContract) -> ExportedProgram:
    """Export the network for every batch size, height and width that `size` accepts."""
    height, width = _traced_sides(size)
    # A side is a number of blocks of the multiple; with fewer than two a length inside may be 1,
    # see `file_size`.
    rows, columns = (Dim(f"{of}_blocks", min=2) * size.multiple for of in ("height", "width"))
    dynamic_shapes = ({0: Dim("batch"), 2: rows, 3: columns},)
    with torch.no_grad():
        program = torch.export.export(
            network, (torch.rand(2, 3, height, width),), dynamic_shapes=dynamic_shapes
        )
    # Stack traces would publish paths of this machine.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    # The example inputs would add megabytes to the file for a large multiple.
    program.example_inputs = None
    return program


def write(export_format: Format, program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """Serialise a program with its metadata."""
    return _onnx(program, metadata) if export_format == "onnx" else _pt2(program, metadata)


def check(export_format: Format, content: bytes, network: nn.Module, size: SizeContract) -> float:
    """The largest difference between the outputs of a file and of the network, for random inputs of
    several sizes.

    Raises JobFailedError if it is more than `LARGEST_DIFFERENCE`.
    """
    run = _onnx_runner(content) if export_format == "onnx" else _pt2_runner(content)
    height, width = _traced_sides(size)
    generator = torch.Generator().manual_seed(0)
    differences = []
    # The smallest accepted size and two others; none is the traced one.
    for shape in (
        (3, 3, size.minimum, size.minimum + size.multiple),
        (1, 3, width, height),
        (1, 3, height, 2 * width),
    ):
        noisy = torch.rand(shape, generator=generator)
        with torch.inference_mode():
            differences.append((run(noisy) - network(noisy)).abs().max())
    largest = float(torch.stack(differences).max())  # NaN if any is NaN
    if not largest <= LARGEST_DIFFERENCE:
        raise JobFailedError(
            f"the exported network differs from PyTorch by {largest:.2g}, more than "
            f"{LARGEST_DIFFERENCE:g}; nothing was written. Try the other format, and report it as "
            "a bug in degrain"
        )
    return largest


def _traced_sides(size: SizeContract) -> tuple[int, int]:
    """Height and width for tracing: small and different."""
    multiples = -(-23 // size.multiple)
    return 2 * multiples * size.multiple, 3 * multiples * size.multiple


def _pt2(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata)})
    return content.getvalue()


def _pt2_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    return torch.export.load(io.BytesIO(content)).module()


def _onnx(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    with _silence_exporter():
        onnx_program = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    assert onnx_program is not None
    # The exporter names dynamic lengths s64, 8*s30 and the like.
    for value in (onnx_program.model.graph.inputs[0], onnx_program.model.graph.outputs[0]):
        assert value.shape is not None
        value.shape[0], value.shape[2], value.shape[3] = "batch", "height", "width"
    onnx_program.model.metadata_props[METADATA_KEY] = json.dumps(metadata)
    content: bytes = onnx_program.model_proto.SerializeToString()
    return content


def _onnx_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda noisy: torch.from_numpy(session.run([OUTPUT], {INPUT: noisy.numpy()})[0])


@contextlib.contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress log messages and warnings of PyTorch's ONNX exporter."""

    def unrelated_to_torchvision(record: logging.LogRecord) -> bool:
        # It logs that torchvision is missing, whose operations no network uses.
        return "torchvision" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(unrelated_to_torchvision)
    try:
        with warnings.catch_warnings():
            # PyTorch 2.13 uses a class of its own that it has deprecated.
            warnings.filterwarnings(
                "ignore", message=r".isinstance\(treespec, LeafSpec\)", category=FutureWarning
            )
            yield
    finally:
        logger.removeFilter(unrelated_to_torchvision)
