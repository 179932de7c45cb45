"""REDNet's layers against the paper and yjn870/REDNet-pytorch."""

import torch
from unit.small_networks import state_shapes

from denoisenets import create_model


def test_layers_have_the_references_names_and_shapes() -> None:
    assert state_shapes("red10", width=8, depth=2) == {
        "conv_layers.0.0.weight": (8, 3, 3, 3),
        "conv_layers.0.0.bias": (8,),
        "conv_layers.1.0.weight": (8, 8, 3, 3),
        "conv_layers.1.0.bias": (8,),
        "deconv_layers.0.0.weight": (8, 8, 3, 3),
        "deconv_layers.0.0.bias": (8,),
        "deconv_layers.1.weight": (3, 8, 3, 3),
        "deconv_layers.1.bias": (3,),
    }


def test_each_skip_is_added_to_its_mirror() -> None:
    """With all weights zero except one convolution's biases, only its skip reaches the mirror."""
    network = create_model("red30", width=2, residual=False)
    convs = [block[0] for block in network.conv_layers]
    deconvs = [*(block[0] for block in network.deconv_layers[:-1]), network.deconv_layers[-1]]
    for layer in [*convs, *deconvs]:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    for number in range(1, 16):
        torch.nn.init.ones_(convs[number - 1].bias)
        inputs: dict[int, torch.Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(
                lambda _, x, i=i, inputs=inputs: inputs.__setitem__(i, x[0])
            )
            for i, layer in enumerate(deconvs, start=1)
        ]
        network(torch.zeros(1, 3, 4, 4))
        for hook in hooks:
            hook.remove()
        torch.nn.init.zeros_(convs[number - 1].bias)
        reached = {i for i, x in inputs.items() if i > 1 and x.abs().sum() > 0}
        # The skip of convolution n is added to the output of deconvolution 15 - n, which is the
        # input of the next one.
        assert reached == ({16 - number} if number % 2 == 0 else set())
