"""A trained network as one file for other programs: ONNX, or a program of torch.export.

The file takes `noisy`, (B, 3, H, W) float32 in [0, 1], and gives `clean`, the same shape, not clipped. B is free, and so are
H and W among the multiples of the network's. What a consumer has to know to pad and to tile is JSON in the file, see
`metadata`: under the key `degrain` of the ONNX metadata, in the extra file `degrain.json` of a .pt2.

Padding, tiling and rounding stay with the consumer. So do local statistics: a network that takes means over the frame takes
them over all it is given, where `NetworkDenoiser` takes them over windows as wide as training's crops. FFDNet estimates the
noise level; its second input is left out.
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
"""From PyTorch in float32, for values in [0, 1]: a fortieth of a step of 8 bits."""
INPUT, OUTPUT = "noisy", "clean"
METADATA_KEY, METADATA_FILE = "degrain", "degrain.json"

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """A network as the content of a file, and how far it is from the network."""

    content: bytes
    metadata: Mapping[str, Any]
    """What the file says of itself."""
    difference: float
    """The largest difference from PyTorch in float32."""


def check_format(file: str) -> Format:
    """The format that a file's suffix names. Raises UserError for another suffix, or if packages for it are missing."""
    suffix = Path(file).suffix.removeprefix(".")
    if suffix not in get_args(Format):
        raise UserError(f"cannot export to '{file}': name a file that ends in .onnx or .pt2")
    kind: Format = suffix  # type: ignore[assignment]
    if kind == "onnx":
        for package in _ONNX_PACKAGES:
            try:
                import_module(package)
            except ImportError:
                raise UserError(
                    f"writing ONNX needs the package {package}; install it: pip install 'degrain[onnx]', or name a .pt2 file"
                ) from None
    return kind


def export_network(
    kind: Format, name: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor], crop: int
) -> Exported:
    """Export the network `name` of `denoisenets` with these weights; `crop` is the side in pixels of what it was trained on.

    Raises JobFailedError if what the file computes differs from the network by more than `LARGEST_DIFFERENCE`.
    """
    network = create_model(name, **arguments).eval()
    network.load_state_dict(dict(weights))
    size = file_size(kind, model_contract(name, **arguments).size)
    known = metadata(name, arguments, size, crop)
    content = write(kind, trace(network, size), known)
    return Exported(content, known, check(kind, content, network, size))


def file_size(kind: Format, size: SizeContract) -> SizeContract:
    """The sides that a file takes: those of the network, but a .pt2 at least twice the multiple.

    torch.export takes a length of 1 for a constant, so no map inside a .pt2 may be a single pixel high or wide.
    """
    minimum = size.minimum if kind == "onnx" else max(size.minimum, 2 * size.multiple)
    return SizeContract(minimum=minimum, multiple=size.multiple)


def metadata(name: str, arguments: Mapping[str, Any], size: SizeContract, crop: int) -> dict[str, Any]:
    """What a file says of itself. All lengths are in pixels.

    `minimum` and `multiple` are of H and W. `halo` is the context that a tile needs on each side. `means_over_frame` says
    that the output also depends on means over the whole input: such a network is best given tiles not much larger than
    `crop`, the side of what it was trained on.
    """
    contract = model_contract(name, **arguments)
    return {
        "degrain": __version__,
        "network": name,
        "arguments": full_arguments(name, arguments),
        "minimum": size.minimum,
        "multiple": size.multiple,
        "halo": contract.receptive_radius,
        "means_over_frame": contract.global_statistics,
        "crop": crop,
    }


def trace(network: nn.Module, size: SizeContract) -> ExportedProgram:
    """The network as a program for every batch, height and width that `size` allows."""
    height, width = _traced_sides(size)
    # A side is so many blocks of the multiple; with less than two of them a length inside may be 1, see `file_size`.
    rows, columns = (Dim(f"{of}_blocks", min=2) * size.multiple for of in ("height", "width"))
    free = ({0: Dim("batch"), 2: rows, 3: columns},)
    with torch.no_grad():
        program = torch.export.export(network, (torch.rand(2, 3, height, width),), dynamic_shapes=free)
    # Where the code lay on the machine that exported is nobody else's business.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    # Nor is the example any use in a file, of megabytes where the multiple is large.
    program.example_inputs = None
    return program


def write(kind: Format, program: ExportedProgram, known: Mapping[str, Any]) -> bytes:
    """The content of a file with a program and what is `known` of it."""
    return _onnx(program, known) if kind == "onnx" else _pt2(program, known)


def check(kind: Format, content: bytes, network: nn.Module, size: SizeContract) -> float:
    """The largest difference between what a file's content and a network give, over noise of several sizes.

    Raises JobFailedError if it is more than `LARGEST_DIFFERENCE`.
    """
    run = _onnx_runner(content) if kind == "onnx" else _pt2_runner(content)
    height, width = _traced_sides(size)
    generator = torch.Generator().manual_seed(0)
    differences = []
    # The least that the contract allows, and two other sizes; none is the one that was traced.
    for shape in ((3, 3, size.minimum, size.minimum + size.multiple), (1, 3, width, height), (1, 3, height, 2 * width)):
        noisy = torch.rand(shape, generator=generator)
        with torch.inference_mode():
            differences.append((run(noisy) - network(noisy)).abs().max())
    largest = float(torch.stack(differences).max())  # not a number if any is not
    if not largest <= LARGEST_DIFFERENCE:
        raise JobFailedError(
            f"the exported network differs from PyTorch by {largest:.2g}, more than {LARGEST_DIFFERENCE:g}; nothing was "
            "written. Try the other format, and report it as a bug in degrain"
        )
    return largest


def _traced_sides(size: SizeContract) -> tuple[int, int]:
    """Height and width to try a network with: small and different."""
    multiples = -(-23 // size.multiple)
    return 2 * multiples * size.multiple, 3 * multiples * size.multiple


def _pt2(program: ExportedProgram, known: Mapping[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(known)})
    return content.getvalue()


def _pt2_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    return torch.export.load(io.BytesIO(content)).module()


def _onnx(program: ExportedProgram, known: Mapping[str, Any]) -> bytes:
    with _exporter_quiet():
        made = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert made is not None
    # The exporter calls the free lengths s64, 8*s30 and the like.
    for value in (made.model.graph.inputs[0], made.model.graph.outputs[0]):
        assert value.shape is not None
        value.shape[0], value.shape[2], value.shape[3] = "batch", "height", "width"
    made.model.metadata_props[METADATA_KEY] = json.dumps(known)
    content: bytes = made.model_proto.SerializeToString()
    return content


def _onnx_runner(content: bytes) -> Callable[[Tensor], Tensor]:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda noisy: torch.from_numpy(session.run([OUTPUT], {INPUT: noisy.numpy()})[0])


@contextlib.contextmanager
def _exporter_quiet() -> Iterator[None]:
    """Keep from the user what PyTorch's exporter to ONNX says of itself."""

    def of_us(record: logging.LogRecord) -> bool:
        # That torchvision is not installed, whose operations no network has.
        return "torchvision" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(of_us)
    try:
        with warnings.catch_warnings():
            # PyTorch 2.13 copies the structure of the arguments, in which there is a class that it has deprecated itself.
            warnings.filterwarnings("ignore", message=r".isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            yield
    finally:
        logger.removeFilter(of_us)
