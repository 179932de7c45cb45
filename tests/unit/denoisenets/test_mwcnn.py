"""MWCNN's layers against the paper."""

import torch
from torch import nn
from unit.small_networks import state_shapes

from denoisenets import create_model


def test_layers_have_the_expected_names_and_shapes() -> None:
    shapes = state_shapes("mwcnn", width=10, depth=2, levels=2)
    assert {k: v for k, v in shapes.items() if k.endswith("weight")} == {
        "encoders.0.0.weight": (10, 12, 3, 3),
        "encoders.0.2.weight": (10, 10, 3, 3),
        "encoders.1.0.weight": (16, 40, 3, 3),
        "encoders.1.2.weight": (16, 16, 3, 3),
        "decoders.0.0.weight": (10, 10, 3, 3),
        "decoders.0.2.weight": (12, 10, 3, 3),
        "decoders.1.0.weight": (16, 16, 3, 3),
        "decoders.1.2.weight": (40, 16, 3, 3),
    }


def test_number_of_convolutions_equals_the_papers() -> None:
    def convolutions(name: str) -> int:
        with torch.device("meta"):
            return sum(isinstance(m, nn.Conv2d) for m in create_model(name).modules())

    assert (convolutions("mwcnn"), convolutions("mwcnn_article")) == (24, 32)
