"""The region encoder against a literal formulation, and against numbers of the published module."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from roilab.bench import literal_region_embeddings
from roilab.config import RegionConfig
from roilab.regions import RegionEncoder
from roilab.weights import region_encoder_from_official

DATA = Path(__file__).parent / "data" / "region_encoder_parity"

# (level widths, natural grids, rounds, RoI size, sampling ratio)
SIZES = {
    "square": ((8, 8, 8, 8), [(4, 4)] * 4, 5, 4, 2),
    "landscape": ((8, 8, 8), [(3, 5)] * 3, 3, 3, 2),
    "widths": ((4, 6, 10, 8), [(4, 3)] * 4, 2, 4, 1),
    "convolutional": ((4, 8, 16), [(12, 20), (6, 10), (3, 5)], 3, 3, 2),
    "finer than needed": ((8, 8), [(17, 11), (3, 2)], 2, 3, 2),
    "mixed": ((4, 6, 8), [(5, 5), (9, 3), (4, 4)], 2, 3, 3),
    "one level": ((8,), [(4, 4)], 2, 3, 2),
    "one patch": ((8, 8, 8), [(1, 1)] * 3, 2, 3, 2),
    "one row": ((8, 8), [(1, 6)] * 2, 2, 2, 2),
    "no fusion": ((8, 8), [(3, 3)] * 2, 0, 3, 2),
    "one round": ((8, 8), [(3, 3)] * 2, 1, 3, 2),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("counts", [(1, 0), (4, 2)])
def test_against_the_literal_formulation(name, counts):
    widths, grids, rounds, roi_size, sampling_ratio = SIZES[name]
    torch.manual_seed(0)
    config = RegionConfig(
        level_widths=widths, width=16, fusion_rounds=rounds, norm_groups=4, roi_size=roi_size,
        sampling_ratio=sampling_ratio, hidden_size=12, position_hidden_size=6, output_size=20,
    )  # fmt: skip
    encoder = RegionEncoder(config).eval()
    for parameter in encoder.parameters():
        # Norms differ from 1 and 0, and every term of an embedding is of size 1, so that a mistake anywhere shows.
        torch.nn.init.normal_(parameter, std=0.5 if parameter.dim() == 1 else parameter[0].numel() ** -0.5)
    levels = [torch.randn(2, width, *grid) for width, grid in zip(widths, grids, strict=True)]
    corners = [torch.rand(count, 2) * 0.6 for count in counts]
    boxes = [torch.cat([corner, corner + 0.05 + torch.rand_like(corner) * 0.35], 1) for corner in corners]
    with torch.no_grad():
        expected, found = literal_region_embeddings(encoder, levels, boxes), encoder(levels, boxes)
    for each_expected, each in zip(expected, found, strict=True):
        torch.testing.assert_close(each, each_expected, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
def test_against_the_published_module():
    """About 4 GB of memory and a minute: weights of paper size, made by the recipe beside the expected numbers."""
    recipe = runpy.run_path(str(DATA / "recipe.py"))
    expected = np.load(DATA / "paper_size_open.npz")
    levels, boxes = recipe["inputs"]("open")
    np.testing.assert_array_equal(torch.cat(boxes).numpy(), expected["boxes"])
    encoder = region_encoder_from_official(recipe["official_state_dict"]("open"))
    assert not encoder.training
    with torch.no_grad():
        found = encoder(levels, boxes)
    assert [len(each) for each in found] == [2, 3]
    assert np.abs(torch.cat(found).numpy() - expected["out"]).max() <= 1e-4
