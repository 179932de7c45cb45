"""Distillation: a trained network gives targets for a smaller one (Hinton et al., 2015,
arXiv:1503.02531).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from degrain.inference.execution import choose_execution
from degrain.inference.tiling import pad_to_contract
from degrain.training.config import TrainingConfig
from denoisenets import create_model, model_contract


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The network whose outputs are targets."""

    model: str
    """Its name, see `denoisenets.create_model`."""
    arguments: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def on(self, device: torch.device, config: TrainingConfig) -> Callable[[Tensor], Tensor]:
        """Place the network on a device; returns the function of noisy patches, (B, 3, S, S) in
        [0, 1], to its outputs, clipped to [0, 1], without gradients.
        """
        execution = choose_execution(device, config.precision, config.compiled)
        network = create_model(self.model, **self.arguments)
        network.load_state_dict(dict(self.weights))
        execution.place(network.eval().requires_grad_(requires_grad=False))
        forward = execution.compile(network)
        size = model_contract(self.model, **self.arguments).size

        def outputs(noisy: Tensor) -> Tensor:
            height, width = noisy.shape[-2:]
            with torch.no_grad(), execution.autocast():
                output = forward(pad_to_contract(noisy, size))[..., :height, :width]
            return output.float().clamp(0, 1)

        return outputs
