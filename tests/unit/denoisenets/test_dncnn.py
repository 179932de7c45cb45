"""DnCNN's layers against cszn/KAIR."""

from unit.small_networks import state_shapes


def test_layers_have_the_references_names_and_shapes() -> None:
    assert state_shapes("dncnn", width=8, depth=3) == {
        "model.0.weight": (8, 3, 3, 3),
        "model.0.bias": (8,),
        "model.2.weight": (8, 8, 3, 3),
        "model.2.bias": (8,),
        "model.4.weight": (3, 8, 3, 3),
        "model.4.bias": (3,),
    }
