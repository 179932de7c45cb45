"""PRIDNet's stages against the paper."""

import torch
from unit.small_networks import photo, recorded, state_shapes

from denoisenets import create_model


def test_layers_have_the_expected_names_and_shapes() -> None:
    shapes = state_shapes("pridnet", width=4, depth=1, levels=1, scales=1)
    assert {k: v for k, v in shapes.items() if k.endswith("weight")} == {
        "noise_estimation.0.0.weight": (32, 3, 3, 3),
        "noise_estimation.0.2.weight": (32, 32, 3, 3),
        "noise_estimation.0.4.weight": (32, 32, 3, 3),
        "noise_estimation.0.6.weight": (32, 32, 3, 3),
        "noise_estimation.1.fc.0.weight": (2, 32, 1, 1),
        "noise_estimation.1.fc.2.weight": (32, 2, 1, 1),
        "noise_estimation.2.weight": (3, 32, 3, 3),
        "branches.0.unet.encoders.0.0.weight": (4, 6, 3, 3),
        "branches.0.unet.bottleneck.0.weight": (8, 4, 3, 3),
        "branches.0.unet.upconvs.0.weight": (8, 4, 2, 2),
        "branches.0.unet.decoders.0.0.weight": (4, 8, 3, 3),
        "branches.0.conv.weight": (3, 4, 1, 1),
        "fusion.convs.0.weight": (9, 9, 3, 3),
        "fusion.convs.1.weight": (9, 9, 5, 5),
        "fusion.convs.2.weight": (9, 9, 7, 7),
        "fusion.fc.weight": (2, 9, 1, 1),
        "fusion.fcs.0.weight": (9, 2, 1, 1),
        "fusion.fcs.1.weight": (9, 2, 1, 1),
        "fusion.fcs.2.weight": (9, 2, 1, 1),
        "conv.weight": (3, 9, 3, 3),
    }


def test_branches_average_over_squares_of_1_to_16_pixels() -> None:
    made = create_model("pridnet", width=2).eval()
    x = photo(256, 256)
    inputs = recorded(made, x)
    for branch, pooling in enumerate((1, 2, 4, 8, 16)):
        pooled = inputs[f"branches.{branch}.unet"]
        side = 256 // pooling
        assert pooled.shape == (1, 6, side, side)
        averages = x.reshape(1, 3, side, pooling, side, pooling).mean(dim=(3, 5))
        assert torch.allclose(pooled[:, :3], averages, atol=1e-6)
    # The fusion's input: noisy photo, estimated noise, and three channels of each branch.
    assert inputs["fusion"].shape == (1, 6 + 5 * 3, 256, 256)
    assert torch.equal(inputs["fusion"][:, :3], x)
    assert [conv.kernel_size for conv in made.fusion.convs] == [(3, 3), (5, 5), (7, 7)]
