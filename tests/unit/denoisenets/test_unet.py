"""U-Net's layers."""

from unit.small_networks import state_shapes


def test_layers_have_the_expected_names_and_shapes() -> None:
    shapes = state_shapes("unet", width=4, depth=1, levels=2)
    assert {k: v for k, v in shapes.items() if k.endswith("weight")} == {
        "body.encoders.0.0.weight": (4, 3, 3, 3),
        "body.encoders.1.0.weight": (8, 4, 3, 3),
        "body.bottleneck.0.weight": (16, 8, 3, 3),
        "body.upconvs.0.weight": (8, 4, 2, 2),
        "body.upconvs.1.weight": (16, 8, 2, 2),
        "body.decoders.0.0.weight": (4, 8, 3, 3),
        "body.decoders.1.0.weight": (8, 16, 3, 3),
        "conv.weight": (3, 4, 1, 1),
    }
