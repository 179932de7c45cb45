"""Conversion of published weights, against forward passes written from the papers."""

import pytest
import torch
from unit.published_networks import LEVEL, PUBLISHED, Published, Weights, random_weights

from denoisenets import create_model, list_models
from denoisenets.published import convert
from denoisenets.published_layouts import EXCLUDED, LAYOUTS


def output(published: Published, weights: Weights, noisy: torch.Tensor) -> torch.Tensor:
    """The output of our network with converted weights."""
    arguments, converted = convert(published.network, weights, published.given)
    network = create_model(published.network, **arguments).eval()
    network.load_state_dict(converted)
    level = [torch.full((1, 1, 1, 1), LEVEL)] if published.noise_level else []
    return network(noisy, *level)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seed", [0, 1])
def test_converted_weights_compute_what_the_reference_computes(name: str, seed: int) -> None:
    published = PUBLISHED[name]
    weights = random_weights(published.shapes, seed)
    noisy = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))
    expected = published.forward(weights, noisy)
    assert (expected - noisy).std() > 0.01
    assert expected.isfinite().all()
    scale = max(expected.abs().max().item(), 1)
    difference = (output(published, weights, noisy) - expected).abs().max().item() / scale
    print(f"{name}: largest difference {difference:.1e} at an amplitude of {scale:.1f}")
    assert difference <= 1e-5


@pytest.mark.parametrize("name", PUBLISHED)
def test_arguments_follow_from_the_file(name: str) -> None:
    published = PUBLISHED[name]
    arguments, _ = convert(published.network, random_weights(published.shapes), published.given)
    assert arguments == {**arguments, **published.arguments}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_each_tensor_of_the_file_matters(name: str) -> None:
    """A file without one of its tensors is refused, whichever it is: all but the counter of batch
    normalisation, and the bias of the convolution before, which often has none.
    """
    published = PUBLISHED[name]
    weights = random_weights(published.shapes)
    optional = {key for key in weights if key.endswith("num_batches_tracked")}
    optional |= {
        f"{before}.{int(number) - 1}.bias"
        for key in weights
        for before, _, number in [key.removesuffix(".running_var").rpartition(".")]
        if key.endswith("running_var")
    }
    required = [key for key in weights if key not in optional]
    for missing in required[:: max(len(required) // 6, 1)]:
        fewer = {key: value for key, value in weights.items() if key != missing}
        with pytest.raises(
            ValueError, match=r"lacks|has no|instead of|does not|are one|takes|lack"
        ):
            convert(published.network, fewer, published.given)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_extra_tensor_is_named(name: str) -> None:
    published = PUBLISHED[name]
    weights = {**random_weights(published.shapes), "extra.weight": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"does not use its tensors extra\.weight \("):
        convert(published.network, weights, published.given)


def test_a_missing_tensor_is_named() -> None:
    weights = random_weights(PUBLISHED["drunet"].shapes)
    for name in ("m_body.1.res.2.weight", "m_tail.weight"):
        del weights[name]
    with pytest.raises(
        ValueError,
        match=r"it lacks tensors of the network: m_body\.1\.res\.2\.weight, m_tail\.weight "
        r"\(drunet with width=4, depth=2, levels=3, residual=False\)",
    ):
        convert("drunet", weights, {})


def test_a_wrong_shape_is_named() -> None:
    weights = random_weights(PUBLISHED["drunet"].shapes)
    weights["m_tail.weight"] = torch.zeros(1, 4, 3, 3)
    with pytest.raises(
        ValueError, match=r"'m_tail.weight' has the shape \(1, 4, 3, 3\) instead of \(3, 4, 3, 3\)"
    ):
        convert("drunet", weights, {})


def test_an_argument_that_contradicts_the_file_is_named() -> None:
    weights = random_weights(PUBLISHED["drunet"].shapes)
    with pytest.raises(ValueError, match="its width is 4, not 8; leave width out"):
        convert("drunet", weights, {"width": 8})
    with pytest.raises(ValueError, match="takes no argument 'widht'"):
        convert("drunet", weights, {"widht": 8})
    assert convert("drunet", weights, {"width": 4, "residual": True})[0]["residual"] is True


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has no tensor 'intro\.weight', but m_head\.weight"):
        convert("nafnet32", random_weights(PUBLISHED["drunet"].shapes), {})


def test_half_precision_becomes_single() -> None:
    weights = {k: v.half() for k, v in random_weights(PUBLISHED["drunet"].shapes).items()}
    assert {v.dtype for v in convert("drunet", weights, {})[1].values()} == {torch.float32}


def test_batch_norm_that_follows_no_convolution_is_refused() -> None:
    weights = random_weights(PUBLISHED["dncnn-batchnorm"].shapes)
    for key in list(weights):
        if key.startswith("model.3."):
            weights[key.replace("model.3.", "model.4.")] = weights.pop(key)
    with pytest.raises(ValueError, match=r"'model\.4' does not follow a convolution"):
        convert("dncnn", weights, {})


def test_every_network_has_a_layout_or_a_reason() -> None:
    variants = {"mwcnn_article", "pridnet_article", "red_article"}
    variants |= {name for name in list_models() if name.startswith("fast")}
    assert set(LAYOUTS) | set(EXCLUDED) | variants == set(list_models())
    with pytest.raises(ValueError, match="'pridnet' cannot be converted: its authors published Te"):
        convert("pridnet", {}, {})
    with pytest.raises(ValueError, match="nobody published weights of this variant; known: dncnn"):
        convert("red_article", {}, {})


def test_every_layout_is_compared_with_its_reference() -> None:
    tested = {published.network for published in PUBLISHED.values()}
    assert tested | {"nafnet16"} == set(LAYOUTS)
