"""Boxes and the region encoder: numbers worked out by hand, properties, messages."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from roilab.bench import literal_region_embeddings
from roilab.config import RegionConfig
from roilab.regions import (
    CELLS,
    CellConvolution,
    RegionCells,
    RegionEncoder,
    cell_names,
    cells_box,
    convolution,
    convolve_resized,
    denormalise_boxes,
    exchange,
    normalise_boxes,
    resize,
    shifted_resize_matrices,
    validate_boxes,
    with_coordinates,
)

GRID = (3, 4)


def small_encoder(**sizes) -> RegionEncoder:
    torch.manual_seed(0)
    defaults = {
        "level_widths": (6, 6, 6), "width": 8, "fusion_rounds": 2, "norm_groups": 2, "roi_size": 3, "sampling_ratio": 2,
        "hidden_size": 10, "position_hidden_size": 5, "output_size": 7,
    }  # fmt: skip
    return RegionEncoder(RegionConfig(**defaults | sizes)).eval()


def some_levels(batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, GRID[0] * GRID[1], 6, generator=generator) for _ in range(3)]


def some_boxes(count: int, seed: int = 0) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corners.amin(1) * 0.9, corners.amin(1) * 0.9 + 0.05 + 0.05 * corners.amax(1)], 1)


# --- numbers worked out by hand -------------------------------------------------------------------------------------------


def test_roi_align_of_a_counting_map():
    # The map      0  1  2  3     is 4 * row + column, so between pixel centres it is 4 * (y - 0.5) + (x - 0.5) for a point
    #              4  5  6  7     (x, y) in pixels of the level, and beyond the outer centres it stays as at the border.
    #              8  9 10 11
    #             12 13 14 15     The box (0, 0, 0.5, 1) of a 4x4 level is x 0..2, y 0..4: 2x2 cells of 1 x 2 pixels.
    #
    # Samples, two per cell and axis, a quarter and three quarters into the cell:
    #   x  0.25 0.75 | 1.25 1.75   -> column  0 (border) 0.25 | 0.75 1.25   -> mean column 0.125 | 1
    #   y  0.5  1.5  | 2.5  3.5    -> row     0          1    | 2    3      -> mean row    0.5   | 2.5
    # The map is linear, so a cell is 4 * mean row + mean column.
    expected = torch.tensor([[2 + 0.125, 2 + 1], [10 + 0.125, 10 + 1]])
    cells = RegionCells(RegionConfig(level_widths=(4,), width=4, norm_groups=1, roi_size=2, sampling_ratio=2))
    counting = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 4, 4, 4)
    found = cells.align(counting, [torch.tensor([[0.0, 0.0, 0.5, 1.0]])])
    assert found.shape == (1, 4, 2, 2)
    for channel in found[0]:
        torch.testing.assert_close(channel, expected)


def test_roi_align_scales_with_each_side_of_the_level():
    # A 2x4 map whose value is the column. The right half, x 2..4: one cell, one sample at its middle, x = 3 -> column 2.5.
    cells = RegionCells(RegionConfig(level_widths=(4,), width=4, norm_groups=1, roi_size=1, sampling_ratio=1))
    columns = torch.arange(4.0).expand(1, 4, 2, 4)
    found = cells.align(columns, [torch.tensor([[0.5, 0.0, 1.0, 1.0]])])
    torch.testing.assert_close(found.flatten(), torch.full((4,), 2.5))


def test_exchange_takes_these_quarters():
    # Value 10 * level + channel. Kept: channels 0, 1; from the next level: channel 3; from the previous one: channel 2.
    maps = [torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, side, side) + 10 * i for i, side in enumerate((8, 4, 2))]
    expected = [[0, 1, 13, 2], [10, 11, 23, 2], [20, 21, 23, 12]]  # at the ends a level is its own neighbour
    for i, values in enumerate(expected):
        mixed = exchange(maps, i)
        assert mixed.shape == maps[i].shape
        torch.testing.assert_close(mixed, torch.tensor(values).float().view(1, 4, 1, 1).expand_as(mixed))


def test_coordinates_are_x_then_y():
    found = with_coordinates(torch.zeros(1, 1, 2, 3))
    assert found[0, 1].tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert found[0, 2].tolist() == [[-1, -1, -1], [1, 1, 1]]


def test_shifted_resize_matrix():
    # 2 -> 3 values with aligned corners: a, (a + b) / 2, b. A tap to the left reads one before, to the right one after.
    left, centre, right = shifted_resize_matrices([2, 3], torch.device("cpu")).tolist()
    assert centre == [[1, 0], [0.5, 0.5], [0, 1]]
    assert left == [[0, 0], [1, 0], [0.5, 0.5]]
    assert right == [[0.5, 0.5], [0, 1], [0, 0]]


def test_normalised_boxes():
    found = normalise_boxes([(20, 10, 100, 50)], (200, 100))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.1, 0.5, 0.5]]))
    assert found.dtype == torch.float32


# --- the folded first round and the quick path for few regions are the plain operations ----------------------------------


@pytest.mark.parametrize("path", [[(3, 4), (6, 8)], [(2, 5), (16, 40), (4, 10)], [(4, 4), (4, 4)], [(2, 2), (1, 1)]])
def test_convolution_of_resized_maps(path):
    maps, weight = torch.randn(2, 3, *path[0]), torch.randn(5, 3, 3, 3)
    resized = maps
    for size in path[1:]:
        resized = resize(resized, size)
    torch.testing.assert_close(
        convolve_resized(maps, weight, path), F.conv2d(resized, weight, padding=1), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_cell_convolution_of_any_number_of_regions(count):
    conv, cells = CellConvolution(4, 6, 3, padding=1), torch.randn(count, 4, 5, 5)
    expected = F.conv2d(cells, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(cells), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(2, 2), (2, 10), (10, 2), (14, 6), (8, 8)])
@pytest.mark.parametrize("tiles", [1, 7, 256])  # strips that overlap, of several rows, of the whole map
def test_winograd_is_a_convolution(monkeypatch, size, tiles):
    monkeypatch.setattr(convolution, "TILES", tiles)
    parts, weight = [torch.randn(2, count, *size) for count in (3, 1, 2)], torch.randn(5, 6, 3, 3)
    out = torch.full((2, 7, *size), torch.nan).to(memory_format=torch.channels_last)
    convolution.winograd(parts, convolution.winograd_weight(weight), out[:, 1:6])
    torch.testing.assert_close(out[:, 1:6], F.conv2d(torch.cat(parts, 1), weight, padding=1), atol=1e-5, rtol=1e-5)
    assert out[:, [0, 6]].isnan().all()


@pytest.fixture
def winograd_calls(monkeypatch):
    """Winograd's convolution also for few channels; the sizes it was called for."""
    from roilab.regions import fusion

    calls = []
    monkeypatch.setattr(convolution, "LEAST_WIDTH", 1)
    monkeypatch.setattr(
        fusion, "winograd", lambda *given: calls.append(tuple(given[2].shape[-2:])) or convolution.winograd(*given)
    )
    return calls


@torch.no_grad()
def test_fusion_by_winograd_is_the_literal_formulation(winograd_calls):
    encoder = small_encoder(fusion_rounds=3)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.dim() == 1 else parameter[0].numel() ** -0.5)
    boxes = [some_boxes(1), some_boxes(2)]
    found = encoder(some_levels(), boxes, GRID)
    # Two rounds, each in two halves of the channels; the coarsest level, 3 x 4, is not made of whole tiles.
    assert winograd_calls == [(12, 16), (6, 8)] * 2 * 2
    expected = literal_region_embeddings(encoder, some_levels(), boxes, GRID)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_the_ways_through_the_fusion_agree(winograd_calls):
    encoder = small_encoder(fusion_rounds=3)
    with torch.no_grad():
        expected = encoder.fuse(some_levels(), GRID)
    assert len(winograd_calls) == 8
    seen = []
    for fused in (encoder.fuse(some_levels(), GRID), encoder.requires_grad_(False).fuse(some_levels(), GRID)):
        torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)
    assert len(winograd_calls) == 16  # with gradients asked for: never; with nothing that could have any: again
    for module in (encoder.fusion.rounds[1].conv, encoder.fusion.rounds[2].norm):
        hook = module.register_forward_hook(lambda _, given, out: seen.append((out, out.clone())))
        torch.testing.assert_close(encoder.fuse(some_levels(), GRID), expected, atol=1e-5, rtol=1e-5)
        hook.remove()
    assert len(seen) == 6
    for kept, copy in seen:  # what a hook keeps stays as it was
        assert torch.equal(kept, copy)
    with torch.autocast("cpu", torch.bfloat16):
        winograd_calls.clear()
        fused = encoder.fuse(some_levels(), GRID)
    assert winograd_calls == []
    torch.testing.assert_close([each.float() for each in fused], expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    "trained", ["fusion.inputs", "fusion.rounds.1.conv", "fusion.rounds.1.norm", "fusion.rounds.0"]
)
def test_gradients_of_a_part_are_those_through_the_literal_formulation(winograd_calls, trained):
    encoder, boxes = small_encoder(), [some_boxes(1), some_boxes(3)]
    encoder.requires_grad_(False).get_submodule(trained).requires_grad_(True)
    parameters = [each for each in encoder.parameters() if each.requires_grad]
    gradients = [
        torch.autograd.grad(torch.cat(run(some_levels(), boxes, GRID)).square().sum(), parameters)
        for run in (encoder, lambda *given: literal_region_embeddings(encoder, *given))
    ]
    assert all(each.abs().sum() > 0 for each in gradients[0])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


# --- shapes and parts -------------------------------------------------------------------------------------------------------


def test_shapes_of_the_docstrings():
    encoder = small_encoder(level_widths=(6, 5, 9))
    levels = [torch.randn(2, 12, 6), torch.randn(2, 5, 5, 7), torch.randn(2, 12, 9)]
    fused = encoder.fuse(levels, grid=GRID)
    assert [tuple(each.shape) for each in fused] == [(2, 8, 12, 16), (2, 8, 6, 8), (2, 8, 3, 4)]
    boxes = [some_boxes(3), some_boxes(0)]
    assert encoder.cells(fused, boxes).shape == (3, 8, 3, 3)
    assert [tuple(each.shape) for each in encoder.pool(fused, boxes)] == [(3, 7), (0, 7)]


def test_patches_are_read_row_by_row():
    encoder = small_encoder()
    levels, boxes = some_levels(), [some_boxes(2), some_boxes(1)]
    as_maps = [level.view(2, *GRID, 6).permute(0, 3, 1, 2) for level in levels]
    for found, expected in zip(encoder(levels, boxes, grid=GRID), encoder(as_maps, boxes), strict=True):
        torch.testing.assert_close(found, expected)


def test_an_embedding_is_a_bias_a_position_term_and_one_term_per_cell():
    encoder = small_encoder()
    boxes = [some_boxes(2), some_boxes(1)]
    fused = encoder.fuse(some_levels(), GRID)
    expected = torch.cat(encoder.pool(fused, boxes))
    cells = encoder.cells(fused, boxes)  # [3, C, r, r]
    weight = encoder.content.weight.view(10, 8, 3, 3)
    terms = torch.einsum("hcyx,ncyx->nyxh", weight, cells) @ encoder.output.weight.T  # [3, r, r, D]
    position = encoder.position(torch.cat(boxes)) @ encoder.output.weight.T
    bias = encoder.output(encoder.content.bias)
    torch.testing.assert_close(bias + position + terms.sum((1, 2)), expected, atol=1e-5, rtol=1e-5)


def test_hooks_reach_every_named_intermediate():
    encoder, seen = small_encoder(), []
    names = [name for name, _ in encoder.named_modules()]
    expected = encoder(some_levels(), [some_boxes(1), some_boxes(2)], grid=GRID)
    for name in names:
        encoder.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    hooked = encoder(some_levels(), [some_boxes(1), some_boxes(2)], grid=GRID)
    # The list is a container; everything else is called, also where a shorter way would give the same.
    assert set(seen) == set(names) - {"fusion.inputs", "fusion.rounds", "cells.convs"}
    torch.testing.assert_close(hooked, expected, atol=1e-5, rtol=1e-5)


def test_what_stands_in_for_a_convolution_is_used():
    class Twice(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, maps):
            return 2 * self.inner(maps)

    encoder = small_encoder()
    level, box = some_levels(), [some_boxes(1), some_boxes(2)]
    fused = encoder.fuse(level, GRID)
    encoder.fusion.rounds[0].norm = torch.nn.Identity()
    plain = encoder.fuse(level, GRID)
    encoder.fusion.rounds[0].conv = Twice(encoder.fusion.rounds[0].conv)
    assert all(not torch.allclose(one, two) for one, two in zip(encoder.fuse(level, GRID), plain))
    assert len(fused) == len(plain) and encoder(level, box, GRID)[0].isfinite().all()


def test_gradients_flow_to_every_level_and_parameter():
    encoder = small_encoder()
    levels = [level.requires_grad_() for level in some_levels()]
    encoder(levels, [some_boxes(1), some_boxes(3)], grid=GRID)[1].square().sum().backward()
    for level in levels:
        assert level.grad[1].abs().sum() > 0
        assert level.grad[0].abs().sum() == 0  # only image 2's embeddings were summed
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_gradients_agree_with_finite_differences():
    encoder = small_encoder().double()
    boxes = [some_boxes(1)]
    levels = [level.double().requires_grad_() for level in some_levels(batch=1)]
    value = encoder(levels, boxes, grid=GRID)[0].sum()
    value.backward()
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(level.shape, generator=generator).double() for level in levels]
    with torch.no_grad():
        # Resizes and RoIAlign are in float32, which limits how small the step can be.
        ahead, behind = (
            encoder([level + sign * 1e-3 * step for level, step in zip(levels, directions, strict=True)], boxes, GRID)
            for sign in (1, -1)
        )
    slope = (ahead[0].sum() - behind[0].sum()) / 2e-3
    expected = sum((level.grad * step).sum() for level, step in zip(levels, directions, strict=True))
    torch.testing.assert_close(slope, expected, rtol=2e-2, atol=1e-3)


def test_no_regions_still_give_gradients():
    # Distributed training needs a gradient, if only zero, for every parameter.
    encoder = small_encoder()
    torch.cat(encoder(some_levels(), [some_boxes(0), some_boxes(0)], grid=GRID)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_output_has_the_dtype_of_the_parameters():
    encoder = small_encoder()
    boxes = [some_boxes(2), some_boxes(5)]
    expected = torch.cat(encoder(some_levels(), boxes, grid=GRID))
    found = torch.cat(encoder.bfloat16()(some_levels(), boxes, grid=GRID))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


# --- properties -------------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_permuting_regions_permutes_embeddings(order, seed):
    encoder, boxes = small_encoder(), some_boxes(5, seed)
    fused = encoder.fuse(some_levels(batch=1), GRID)
    (given_order,), (permuted,) = encoder.pool(fused, [boxes]), encoder.pool(fused, [boxes[list(order)]])
    torch.testing.assert_close(permuted, given_order[list(order)], atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(0, 1000))
def test_a_batch_equals_its_items_one_by_one(counts, seed):
    encoder, levels = small_encoder(), some_levels(len(counts), seed)
    boxes = [some_boxes(count, seed + i) for i, count in enumerate(counts)]
    batch = encoder(levels, boxes, grid=GRID)
    for i, each in enumerate(boxes):
        (alone,) = encoder([level[i : i + 1] for level in levels], [each], grid=GRID)
        torch.testing.assert_close(batch[i], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_any_number_of_regions(count):
    encoder, boxes = small_encoder(), some_boxes(count)
    fused = encoder.fuse(some_levels(batch=1), GRID)
    (embeddings,) = encoder.pool(fused, [boxes])
    assert embeddings.shape == (count, 7)
    for i in range(0, count, 33):
        (alone,) = encoder.pool(fused, [boxes[i : i + 1]])
        torch.testing.assert_close(embeddings[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.data(), st.integers(1, 5000), st.integers(1, 5000))
def test_boxes_inside_survive_the_round_trip(data, width, height):
    def span(side):
        low = data.draw(st.floats(0, side * 0.9))
        return low, data.draw(st.floats(low + side * 0.05, side))

    (x1, x2), (y1, y2) = span(width), span(height)
    normalised = normalise_boxes([[x1, y1, x2, y2]], (width, height))
    assert 0 <= normalised.min() and normalised.max() <= 1
    back = denormalise_boxes(normalised, (width, height))
    torch.testing.assert_close(back, torch.tensor([[x1, y1, x2, y2]]), atol=1e-3, rtol=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------------

GOOD = [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([30, 20, 10, 40], "box (30, 20, 10, 40) is reversed, x1 30 is greater than x2 10"),
        ([10, 40, 30, 20], "box (10, 40, 30, 20) is reversed, y1 40 is greater than y2 20"),
        ([10, 20, 10, 40], "box (10, 20, 10, 40) has no area, x1 and x2 are both 10"),
        ([10, 20, 30, 20], "box (10, 20, 30, 20) has no area, y1 and y2 are both 20"),
        ([math.nan, 20, 30, 40], "box (nan, 20, 30, 40) has a coordinate that is not finite"),
        ([10, 20, math.inf, 40], "box (10, 20, inf, 40) has a coordinate that is not finite"),
        ([200, 20, 300, 40], "box (200, 20, 300, 40) lies outside the image"),
        ([10, -9, 30, 0], "box (10, -9, 30, 0) lies outside the image"),
        ([10, 100, 30, 101], "box (10, 100, 30, 101) lies outside the image"),
        ([-5, 20, 0, 40], "box (-5, 20, 0, 40) lies outside the image"),
        ([10, 20, 30], "a box is four numbers (x1, y1, x2, y2), got [10, 20, 30]"),
        (["a", 20, 30, 40], "a box is four numbers (x1, y1, x2, y2), got ['a', 20, 30, 40]"),
        ([10, 20, 10**400, 40], "a box is four numbers"),
        ("1234", "a box is four numbers (x1, y1, x2, y2), got '1234'"),
    ],
)
def test_bad_boxes_are_refused_with_their_number_and_the_image_size(box, message):
    for function in (validate_boxes, normalise_boxes):
        with pytest.raises(ValueError) as error:
            function([GOOD, box, GOOD], (200, 100))
        assert str(error.value).startswith(f"region 2: {message}")
        assert str(error.value).endswith("the image is 200 x 100 pixels")


def test_a_single_box_without_its_list_is_refused():
    with pytest.raises(ValueError, match="region 1: a box is four numbers .* got 10"):
        validate_boxes(GOOD, (200, 100))


def test_an_image_without_size_is_refused():
    with pytest.raises(ValueError, match="image size 0 x 100"):
        validate_boxes([GOOD], (0, 100))


def test_boxes_over_the_border_are_clipped():
    assert validate_boxes([[-5, -1e300, 250, 100.5], GOOD], (200, 100)) == [[0, 0, 200, 100], GOOD]


@pytest.mark.parametrize("boxes", [None, [], np.zeros((0, 4)), torch.zeros(0, 4)])
def test_no_boxes(boxes):
    assert validate_boxes(boxes, (200, 100)) == []
    assert normalise_boxes(boxes, (200, 100)).shape == (0, 4)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple, lambda rows: [np.array(row) for row in rows]])
def test_boxes_of_any_container(kind):
    assert validate_boxes(kind([GOOD, GOOD]), (200, 100)) == [GOOD, GOOD]


def test_wrong_inputs_of_the_encoder_are_named():
    encoder, levels = small_encoder(), some_levels()
    boxes = [some_boxes(1), some_boxes(1)]
    with pytest.raises(ValueError, match="2 feature levels given, the region encoder has 3"):
        encoder(levels[:2], boxes, grid=GRID)
    with pytest.raises(ValueError, match="level 2 has 5 channels, the region encoder expects 6"):
        encoder([levels[0], levels[1][..., :5], levels[2]], boxes, grid=GRID)
    with pytest.raises(ValueError, match="level 3 holds 1 images, level 1 holds 2"):
        encoder([*levels[:2], levels[2][:1]], boxes, grid=GRID)
    with pytest.raises(ValueError, match="level 1 has 12 patches, which is not a square; pass grid"):
        encoder(levels, boxes)
    with pytest.raises(ValueError, match="level 1 has 12 patches, which is not the grid 3 x 5"):
        encoder(levels, boxes, grid=(3, 5))
    with pytest.raises(ValueError, match=r"level 1 has the shape \[12, 6\]"):
        encoder([level[0] for level in levels], boxes)
    with pytest.raises(ValueError, match="boxes of 1 images given, the levels hold 2 images"):
        encoder(levels, boxes[:1], grid=GRID)
    with pytest.raises(ValueError, match=r"boxes of image 2 have the shape \[4\]"):
        encoder(levels, [boxes[0], boxes[1][0]], grid=GRID)
    with pytest.raises(ValueError, match="1 fused levels given, the region encoder has 3"):
        encoder.pool(encoder.fuse(levels, GRID)[:1], boxes)


# --- grid cells -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("A1", (0, 0, 10, 5)), ("H8", (70, 35, 80, 40)), ("a1", (0, 0, 10, 5)), (" h8 ", (70, 35, 80, 40)), ("H1", (70, 0, 80, 5)),
        ("B2:D5", (10, 5, 40, 25)), ("D5:B2", (10, 5, 40, 25)), ("B5:D2", (10, 5, 40, 25)), ("d2 : b5", (10, 5, 40, 25)),
        ("B2-D5", (10, 5, 40, 25)), ("A1:H8", (0, 0, 80, 40)), ("C3:C3", (20, 10, 30, 15)),
    ],
)  # fmt: skip
def test_cells_are_boxes(text, box):
    found = cells_box(text, (80, 40))
    assert found == box and all(isinstance(side, float) for side in found)


@pytest.mark.parametrize(
    "text", ["I1", "A9", "A0", "A", "1", "", " ", ":", "A1:", "A1:B", "AA1", "A11", "1A", "A1 B2", "Ä1", "A²"]
)
def test_what_names_no_cells_is_refused(text):
    with pytest.raises(ValueError, match="A1 to H8") as error:
        cells_box(text, (80, 40))
    assert repr(text.strip()) in str(error.value)


def test_more_than_two_cells_are_refused():
    with pytest.raises(ValueError, match="'A1:B2:C3' names 3 cells, expected one"):
        cells_box("A1:B2:C3", (80, 40))


def test_cells_of_pictures_with_fewer_pixels_than_cells():
    assert cells_box("A1:H8", (1, 1)) == (0, 0, 1, 1)
    assert cells_box("A1:D8", (2, 3)) == (0, 0, 1, 3)
    for text in ("A1", "B2"):
        with pytest.raises(ValueError, match=f"'{text}' have no pixels in a picture of 1 x 1"):
            cells_box(text, (1, 1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_cells_cover_the_picture_without_gaps(width, height):
    columns, rows = cell_names()
    assert len(columns) == len(rows) == CELLS == 8
    edges = []
    for column in columns:
        try:
            x1, y1, x2, y2 = cells_box(f"{column}1:{column}8", (width, height))
        except ValueError:
            assert width < 2 * CELLS  # a column without a pixel of its own
            continue
        assert (y1, y2) == (0, height) and x1 == (edges[-1][1] if edges else 0)
        edges.append((x1, x2))
    assert edges[-1][1] == width
