"""NAFNet's layers against megvii-research/NAFNet."""

from unit.small_networks import state_shapes


def test_layers_have_the_references_names_and_shapes() -> None:
    shapes = state_shapes("nafnet32", width=4, depth=1, levels=2)
    block = {k: v for k, v in shapes.items() if k.startswith("encoders.1.0.")}
    assert block == {
        "encoders.1.0.beta": (1, 8, 1, 1),
        "encoders.1.0.gamma": (1, 8, 1, 1),
        "encoders.1.0.norm1.weight": (8,),
        "encoders.1.0.norm1.bias": (8,),
        "encoders.1.0.conv1.weight": (16, 8, 1, 1),
        "encoders.1.0.conv1.bias": (16,),
        "encoders.1.0.conv2.weight": (16, 1, 3, 3),
        "encoders.1.0.conv2.bias": (16,),
        "encoders.1.0.sca.1.weight": (8, 8, 1, 1),
        "encoders.1.0.sca.1.bias": (8,),
        "encoders.1.0.conv3.weight": (8, 8, 1, 1),
        "encoders.1.0.conv3.bias": (8,),
        "encoders.1.0.norm2.weight": (8,),
        "encoders.1.0.norm2.bias": (8,),
        "encoders.1.0.conv4.weight": (16, 8, 1, 1),
        "encoders.1.0.conv4.bias": (16,),
        "encoders.1.0.conv5.weight": (8, 8, 1, 1),
        "encoders.1.0.conv5.bias": (8,),
    }
    blocks = {k: v[0] for k, v in shapes.items() if k.endswith("norm1.weight")}
    middle = {f"middle_blks.{index}.norm1.weight": 16 for index in range(6)}
    # The reference counts decoders and upsampling from the deepest level.
    assert blocks == {
        "encoders.0.0.norm1.weight": 4,
        "encoders.1.0.norm1.weight": 8,
        "decoders.0.0.norm1.weight": 8,
        "decoders.1.0.norm1.weight": 4,
        **middle,
    }
    block_lists = ("encoders", "decoders", "middle_blks")
    assert {k: v for k, v in shapes.items() if k.partition(".")[0] not in block_lists} == {
        "intro.weight": (4, 3, 3, 3),
        "intro.bias": (4,),
        "downs.0.weight": (8, 4, 2, 2),
        "downs.0.bias": (8,),
        "downs.1.weight": (16, 8, 2, 2),
        "downs.1.bias": (16,),
        "ups.0.0.weight": (32, 16, 1, 1),
        "ups.1.0.weight": (16, 8, 1, 1),
        "ending.weight": (3, 4, 3, 3),
        "ending.bias": (3,),
    }
