"""Conversion of the published region module: sizes from shapes, and every wrong key named."""

import runpy
from pathlib import Path

import pytest
import torch

from roilab.config import RegionConfig
from roilab.regions import RegionEncoder
from roilab.weights import OFFICIAL_REGION_PREFIX, region_encoder_from_official

RECIPE = Path(__file__).parent / "data" / "region_encoder_parity" / "recipe.py"


def official_shapes(
    widths=(6, 7, 8), width=16, rounds=2, roi_size=3, hidden=10, position=5, output=9
) -> dict[str, tuple]:
    shapes = {}
    for i, level_width in enumerate(widths):
        shapes[f"mlvl_fuse.input_conv.{i}.weight"] = (width, level_width + 2, 1, 1)
        shapes[f"mlvl_fuse.input_conv.{i}.bias"] = (width,)
        shapes[f"roi_align.pconvs.{i}.weight"] = (width, width, 3, 3)
        shapes[f"roi_align.pconvs.{i}.bias"] = (width,)
    for i in range(rounds):
        shapes[f"mlvl_fuse.fuse_convs.{i}.conv.weight"] = (width, width, 3, 3)
        shapes[f"mlvl_fuse.fuse_convs.{i}.gn.weight"] = (width,)
        shapes[f"mlvl_fuse.fuse_convs.{i}.gn.bias"] = (width,)
    shapes |= {
        "roi_align.pos_embedd.0.weight": (position, 4), "roi_align.pos_embedd.0.bias": (position,),
        "roi_align.pos_embedd.2.weight": (position,), "roi_align.pos_embedd.2.bias": (position,),
        "roi_align.pos_embedd.3.weight": (hidden, position), "roi_align.pos_embedd.3.bias": (hidden,),
        "roi_align.pos_embedd.5.weight": (hidden,), "roi_align.pos_embedd.5.bias": (hidden,),
        "roi_align.updims.weight": (output, hidden), "roi_align.updims.bias": (output,),
        "roi_align.flatten_linear.weight": (hidden, width * roi_size**2), "roi_align.flatten_linear.bias": (hidden,),
    }  # fmt: skip
    return shapes


def official_state(prefix: str = "", **sizes) -> dict[str, torch.Tensor]:
    return {prefix + key: torch.randn(shape) for key, shape in official_shapes(**sizes).items()}


def convert(state: dict[str, torch.Tensor]) -> RegionEncoder:
    return region_encoder_from_official(state, norm_groups=4, sampling_ratio=3)


def message(state: dict[str, torch.Tensor]) -> str:
    with pytest.raises(ValueError) as error:
        convert(state)
    return str(error.value)


KEYS = list(official_shapes())


def test_the_shapes_here_are_the_published_ones():
    paper = official_shapes((1024,) * 4, 1024, 5, 14, 1024, 256, 4096)
    assert paper == runpy.run_path(str(RECIPE))["official_shapes"]()


@pytest.mark.parametrize("prefix", ["", OFFICIAL_REGION_PREFIX])
def test_sizes_come_from_shapes(prefix):
    config = convert(official_state(prefix)).config
    expected = RegionConfig(
        level_widths=(6, 7, 8), width=16, fusion_rounds=2, norm_groups=4, roi_size=3, sampling_ratio=3, hidden_size=10,
        position_hidden_size=5, output_size=9,
    )  # fmt: skip
    assert config.to_dict() == expected.to_dict()


def test_defaults_of_what_shapes_do_not_show():
    config = region_encoder_from_official(official_state(width=64)).config
    assert (config.norm_groups, config.sampling_ratio) == (64, 2)


def test_more_than_ten_levels_and_rounds():
    encoder = convert(official_state(widths=(4,) * 11, rounds=12))
    assert (encoder.config.num_levels, encoder.config.fusion_rounds) == (11, 12)


def test_every_value_arrives_in_eval_mode():
    state = official_state()
    encoder = convert(state)
    assert not encoder.training
    assert torch.equal(encoder.fusion.rounds[1].norm.bias, state["mlvl_fuse.fuse_convs.1.gn.bias"])
    assert torch.equal(encoder.cells.convs[2].weight, state["roi_align.pconvs.2.weight"])
    assert torch.equal(encoder.content.weight, state["roi_align.flatten_linear.weight"])
    # Every number of the file is in the encoder exactly once.
    assert sorted(torch.cat([value.flatten() for value in state.values()]).tolist()) == sorted(
        torch.cat([value.flatten() for value in encoder.state_dict().values()]).tolist()
    )
    embeddings = encoder([torch.randn(1, 4, 6), torch.randn(1, 4, 7), torch.randn(1, 4, 8)], [torch.rand(2, 4)])
    assert embeddings[0].shape == (2, 9)


@pytest.mark.parametrize("prefix", ["", OFFICIAL_REGION_PREFIX])
@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_named(key, prefix):
    state = official_state(prefix)
    del state[prefix + key]
    assert f"missing key {prefix + key}" in message(state)


@pytest.mark.parametrize(
    "key", ["bias", "mlvl_fuse.input_conv.0.scale", "roi_align.pconvs.x.weight", "roi_align.updims"]
)
@pytest.mark.parametrize("prefix", ["", OFFICIAL_REGION_PREFIX])
def test_an_unknown_key_is_named(key, prefix):
    assert message(official_state(prefix) | {prefix + key: torch.zeros(3)}) == (
        f"not a published region module: unknown key {prefix + key}"
    )


def test_a_key_without_the_prefix_of_the_others_is_named():
    assert "unknown key lm_head.weight" in message(
        official_state(OFFICIAL_REGION_PREFIX) | {"lm_head.weight": torch.zeros(3)}
    )


@pytest.mark.parametrize("grow", [1, -1])
@pytest.mark.parametrize("key", [key for key in KEYS])
def test_a_misshapen_key_is_named(key, grow):
    state = official_state()
    shape = list(state[key].shape)
    shape[0] += grow
    state[key] = torch.zeros(shape)
    assert key in message(state)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_with_another_number_of_dimensions_is_named(key):
    state = official_state()
    state[key] = state[key][None]
    assert key in message(state)


def test_a_level_without_its_parts_is_named():
    state = official_state()
    del state["roi_align.pconvs.2.weight"], state["roi_align.pconvs.2.bias"]
    text = message(state)
    assert "missing key roi_align.pconvs.2.weight" in text and "missing key roi_align.pconvs.2.bias" in text


def test_an_empty_state_dict_is_refused():
    with pytest.raises(ValueError, match="missing key mlvl_fuse.input_conv.0.weight"):
        region_encoder_from_official({})


def test_a_width_that_the_norm_groups_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width 16 is not divisible by norm_groups 64"):
        region_encoder_from_official(official_state())
