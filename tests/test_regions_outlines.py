"""Outlines and points: their boxes, the masks of their cells, and what a mask does to a region token."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roilab.regions import RegionEncoder, cell_mask, disc, outline_box

SQUARE = [(10, 10), (30, 10), (30, 30), (10, 30)]


def test_masks_by_hand():
    assert cell_mask(SQUARE, (10, 10, 30, 30), 4).eq(1).all()
    triangle = cell_mask([(0, 0), (8, 0), (0, 8)], (0, 0, 8, 8), 4)
    assert triangle.tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]  # middles at 1, 3, 5, 7; the diagonal is outside
    hole = [(0, 0), (8, 0), (8, 8), (0, 8), (0, 0), (2, 2), (2, 6), (6, 6), (6, 2), (2, 2)]
    assert cell_mask(hole, (0, 0, 8, 8), 4).tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    sliver = cell_mask([(0, 3.9), (8, 3.9), (8, 4.1)], (0, 0, 8, 8), 4)
    assert sliver.sum() == 1  # no middle lies in it


@given(
    st.lists(st.tuples(st.floats(1, 99), st.floats(1, 99)), min_size=3, max_size=8),
    st.integers(1, 9),
)
def test_turning_and_reversing_an_outline_changes_nothing(points, side):
    box = (0, 0, 100, 100)
    mask = cell_mask(points, box, side)
    assert torch.equal(mask, cell_mask(points[::-1], box, side)) or mask.sum() == 1
    assert torch.equal(mask, cell_mask(points[1:] + points[:1], box, side)) or mask.sum() == 1
    assert 1 <= mask.sum() <= side**2


def test_boxes_of_outlines():
    assert outline_box(SQUARE, 1, (64, 48)) == [10, 10, 30, 30]
    assert outline_box([(-5, 5), (80, 5), (20, 60)], 1, (64, 48)) == [0, 5, 64, 48]
    for outline, words in {
        "abc": "an outline is three or more points",
        ((1, 1), (2, 2)): "an outline is three or more points",
        ((1, 1), (2, 2), (3, 3)): "3 points in a line has no area",
        ((1, 1), (2, math.nan), (3, 3)): "not finite",
        ((70, 1), (80, 2), (90, 9)): "outside the image",
        ((1, 2, 3), (1, 2, 3), (1, 2, 3)): "an outline is three or more points",
    }.items():
        with pytest.raises(ValueError, match=f"region 4: .*{words}"):
            outline_box(outline, 4, (64, 48))


def test_a_point_is_a_small_disc():
    points = disc(32, 24, (64, 48))
    assert all(math.hypot(x - 32, y - 24) == pytest.approx(0.04 * 48) for x, y in points)
    assert outline_box(disc(0, 48, (64, 48)), 1, (64, 48)) == pytest.approx([0, 46.08, 1.92, 48])
    corner = cell_mask(points, outline_box(points, 1, (64, 48)), 7)
    assert corner[0, 0] == 0 and corner[3, 3] == 1 and corner[0, 3] == 1


@torch.no_grad()
def test_masked_cells_do_not_reach_the_token(model):
    """A mask takes exactly the cells' terms out of the token: it is linear in them."""
    encoder: RegionEncoder = model.region_encoder
    levels = [torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    fused = encoder.fuse(levels)
    boxes = [torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.9]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]])]
    ones = [torch.ones(len(each), 4, 4) for each in boxes]
    plain = encoder.pool(fused, boxes)
    for one, other in zip(plain, encoder.pool(fused, boxes, ones), strict=True):
        torch.testing.assert_close(one, other)
    masks = [each.clone() for each in ones]
    masks[0][1, 2, 3] = 0
    masks[1][0, 0, :2] = 0.5
    found = encoder(levels, boxes, masks=masks)
    torch.testing.assert_close(found[0][0], plain[0][0])
    cells = encoder.cells(fused, boxes)
    weight = encoder.content.weight.view(-1, *cells.shape[1:])
    lost = encoder.output.weight @ torch.einsum("hc,c->h", weight[:, :, 2, 3], cells[1, :, 2, 3])
    torch.testing.assert_close(found[0][1], plain[0][1] - lost, atol=1e-5, rtol=1e-4)
    half = encoder.output.weight @ torch.einsum("hcx,cx->h", weight[:, :, 0, :2], cells[2, :, 0, :2]) / 2
    torch.testing.assert_close(found[1][0], plain[1][0] - half, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="masks of 1 images given, boxes of 2"):
        encoder.pool(fused, boxes, masks[:1])
    with pytest.raises(ValueError, match=r"masks of image 2 have the shape \[1, 3, 4\], expected \[1, 4, 4\]"):
        encoder.pool(fused, boxes, [masks[0], torch.ones(1, 3, 4)])
