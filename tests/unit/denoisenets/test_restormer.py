"""Restormer's local attention, and its layers against swz30/Restormer."""

import pytest
import torch
from unit.small_networks import state_shapes

from denoisenets.layers import CELLS_PER_WINDOW, LayerNorm2d
from denoisenets.restormer import Attention, transformer_blocks


def test_layers_have_the_references_names_and_shapes() -> None:
    shapes = state_shapes("restormer", width=4, depth=1)
    block = {k: v for k, v in shapes.items() if k.startswith("encoder_level2.0.")}
    assert block == {
        "encoder_level2.0.norm1.body.weight": (8,),
        "encoder_level2.0.norm1.body.bias": (8,),
        "encoder_level2.0.attn.temperature": (2, 1, 1),
        "encoder_level2.0.attn.qkv.weight": (24, 8, 1, 1),
        "encoder_level2.0.attn.qkv_dwconv.weight": (24, 1, 3, 3),
        "encoder_level2.0.attn.project_out.weight": (8, 8, 1, 1),
        "encoder_level2.0.norm2.body.weight": (8,),
        "encoder_level2.0.norm2.body.bias": (8,),
        "encoder_level2.0.ffn.project_in.weight": (42, 8, 1, 1),
        "encoder_level2.0.ffn.dwconv.weight": (42, 1, 3, 3),
        "encoder_level2.0.ffn.project_out.weight": (8, 21, 1, 1),
    }
    levels = {"encoder_level1": 2, "encoder_level2": 3, "encoder_level3": 3, "latent": 4}
    levels |= {"decoder_level3": 3, "decoder_level2": 3, "decoder_level1": 2, "refinement": 2}
    assert {k.rpartition(".norm1.body.weight")[0] for k in shapes} - {""} == {
        f"{level}.{index}" for level, count in levels.items() for index in range(count)
    }
    assert {k: v for k, v in shapes.items() if k.partition(".")[0] not in levels} == {
        "patch_embed.proj.weight": (4, 3, 3, 3),
        "down1_2.body.0.weight": (2, 4, 3, 3),
        "down2_3.body.0.weight": (4, 8, 3, 3),
        "down3_4.body.0.weight": (8, 16, 3, 3),
        "up4_3.body.0.weight": (64, 32, 3, 3),
        "reduce_chan_level3.weight": (16, 32, 1, 1),
        "up3_2.body.0.weight": (32, 16, 3, 3),
        "reduce_chan_level2.weight": (8, 16, 1, 1),
        "up2_1.body.0.weight": (16, 8, 3, 3),
        "output.weight": (3, 8, 3, 3),
    }


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 4, 16])
def test_local_attention_equals_global_attention_where_all_cells_are_equal(scale: int) -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=2, scale=scale)
    make_pointwise(attention)
    cell = 128 // CELLS_PER_WINDOW // scale
    x = torch.rand(2, 8, cell, cell).repeat(1, 1, 12, 15)
    whole = attention(x)
    attention.pool.window = 128
    assert torch.allclose(attention(x), whole, atol=1e-5)
    # A photo that ends within a cell contributes less texture, but its padding no zeros.
    cut = attention(x[..., : x.shape[-2] - cell // 2, : x.shape[-1] - cell // 2])
    assert torch.allclose(
        cut, whole[..., : cut.shape[-2], : cut.shape[-1]], atol=0.05 * whole.abs().max().item()
    )


def make_pointwise(attention: Attention) -> None:
    """Make the depthwise convolutions pointwise, so that borders do not change the result."""
    kernels = attention.qkv_dwconv.weight
    kernels[:, :, :, [0, 2]] = 0
    kernels[:, :, [0, 2]] = 0


@torch.no_grad()
def test_local_attention_uses_the_window_around_each_cell() -> None:
    """At a cell's centre the attention equals global attention over the 7x7 cells around it."""
    torch.manual_seed(0)
    attention = Attention(4, heads=1, scale=1)
    make_pointwise(attention)
    x = torch.rand(1, 4, 256, 256) * torch.linspace(0.1, 1, 256)
    expected = attention(x[..., 120 - 56 : 120 + 56, 120 - 56 : 120 + 56])[..., 55:57, 55:57].mean(
        dim=(2, 3)
    )
    whole = attention(x)[..., 119:121, 119:121].mean(dim=(2, 3))
    attention.pool.window = 128
    local = attention(x)[..., 119:121, 119:121].mean(dim=(2, 3))
    assert torch.allclose(local, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(local, whole, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_the_sum_over_blocks_keeps_small_terms_under_bfloat16() -> None:
    torch.manual_seed(0)
    blocks = transformer_blocks(8, level=0, count=3, norm=LayerNorm2d)
    # Between 64 and 128 bfloat16 has steps of 0.5, which all terms are below.
    x = (96 + torch.randn(1, 8, 16, 16)).bfloat16()
    expected = blocks(x.float()) - x.float()
    assert 0.01 < expected.abs().max() < 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = blocks(x) - x.float()
    assert (terms - expected).abs().max() < 0.02 * expected.abs().max()


@torch.no_grad()
def test_attention_weights_of_bfloat16_are_those_of_their_values() -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=2, scale=1)
    query, key = (torch.rand(1, 9, 9, 2, 4, 64) for _ in range(2))
    sums = [query @ key.transpose(-2, -1), query.square().sum(-1), key.square().sum(-1)]
    narrow = [each.bfloat16() for each in sums]
    averages = [attention._window_sums(each) for each in narrow]
    for average, each in zip(averages, narrow, strict=True):
        assert torch.equal(average, attention._window_sums(each.float()))
    weights = attention._attention_weights(*narrow)
    expected = attention._attention_weights(*(each.float() for each in narrow))
    assert torch.equal(weights, expected)
