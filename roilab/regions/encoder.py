"""The region encoder: feature levels + boxes -> one embedding per region.

Axes: B images, P patches, N regions of one image, L levels, C channels, H W height and width, D language-model width.

RoIAlign on one level. The box is scaled to the level's grid and never rounded. It is cut into `roi_size` x `roi_size` cells; in each
cell the map is read bilinearly at `sampling_ratio` x `sampling_ratio` points (`+`) and averaged. With `aligned=True` the value
of pixel (row 0, column 0) sits at (0.5, 0.5), the middle of its square. Here `roi_size` = 2 and `sampling_ratio` = 2:

       0       1       2       3       4  -> x, in pixels of the level: normalised x * W
     0 |-------|-------|-------|-------|
       |   o   |   o   |   o   |   o   |     o  value of a pixel of the map
     1 |---x1----------------------x2--|     the box, from (x1, y1) to (x2, y2)
       |   |o +   o + |  +  o  + | o   |     +  sample, interpolated from the four o around it
     2 |---|----------|----------|-----|
       |   |o +   o + |  +  o  + | o   |     four + give one cell, 2 x 2 cells give [C, 2, 2]
     3 |---y2--------------------------|
       |   o   |   o   |   o   |   o   |
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from .fusion import PyramidFusion

if TYPE_CHECKING:
    from ..config import RegionConfig


class CellConvolution(nn.Conv2d):
    """A 3x3 convolution of RoI cells that is quick for one region too.

    For a few small maps `conv2d` spends its time on rearranging the weights; one matrix product with the unfolded cells does not.
    For many maps the unfolded cells would take nine times the memory.
    """

    few = 2

    def forward(self, cells: Tensor) -> Tensor:
        if not 0 < len(cells) <= self.few:
            return super().forward(cells)
        unfolded = F.unfold(cells, 3, padding=1)  # [N, 9 C, r * r]
        return (self.weight.flatten(1) @ unfolded + self.bias[:, None]).unflatten(2, cells.shape[-2:])


class RegionCells(nn.Module):
    """Fused pyramid + boxes -> the cells of every region [N, C, r, r]: RoIAlign and a convolution per level, sum, ReLU.

    With `focal_size` further channels come from crops of the picture, one after the other in the order of `focal_contexts`, each through the
    vision tower, a 1x1 convolution and ReLU.

    Attributes:
        look: what shows crops [N, 3, focal_size, focal_size] to the vision tower and returns its last level [N, C_L, h, w]; set by the
            model that owns both.
    """

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.roi_size, self.sampling_ratio = config.roi_size, config.sampling_ratio
        self.focal_size, self.focal_contexts, self.look = config.focal_size, config.focal_contexts, None
        self.focal = nn.Conv2d(config.level_widths[-1], config.focal_width, 1) if config.focal_size else None
        self.convs = nn.ModuleList(
            CellConvolution(config.width, config.width, 3, padding=1) for _ in config.level_widths
        )

    def forward(self, fused: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Boxes: per image [N, 4], normalised xyxy. Regions of all images in one call, in order of the images."""
        levels = fused[: len(self.convs)]
        cells = F.relu(sum(conv(self.align(maps, boxes)) for conv, maps in zip(self.convs, levels, strict=True)))
        return cells if self.focal is None else torch.cat([cells, self.crops(fused[-1], boxes).to(cells)], 1)

    def align(self, maps: Tensor, boxes: list[Tensor], size: int | None = None) -> Tensor:
        """RoIAlign on one level: maps [B, C, H, W], B boxes [N, 4], normalised xyxy -> [sum of N, C, r, r] in the maps' dtype.

        Args:
            size: r, by default `roi_size`.
        """
        height, width = maps.shape[-2:]
        scale = torch.tensor([width, height, width, height], device=maps.device)
        scaled = [each * scale for each in boxes]
        rois = roi_align(maps.float(), scaled, size or self.roi_size, sampling_ratio=self.sampling_ratio, aligned=True)
        return rois.to(maps.dtype)

    def crops(self, picture: Tensor, boxes: list[Tensor]) -> Tensor:
        """What the vision tower says about each region alone: picture [B, 3, H, W] -> [sum of N, focal_width * crops, r, r].

        What lies beyond the picture's edge is grey.

        Raises:
            RuntimeError: the region encoder is not part of a model.
        """
        if self.look is None:
            raise RuntimeError("this region encoder looks at crops through a vision tower: use it as part of a GPT4RoI")
        count, side = len(self.focal_contexts), self.roi_size
        crops = torch.cat(
            [self.align(picture, [enlarged(each, by) for each in boxes], self.focal_size) for by in self.focal_contexts]
        )
        if not len(crops):
            return picture.new_zeros(0, count * len(self.focal.weight), side, side)
        maps = F.relu(self.focal(self.look(crops).to(self.focal.weight))).chunk(count)
        sizes = [side if by == 1 else 1 for by in self.focal_contexts]
        cells = [F.adaptive_avg_pool2d(each, size) for each, size in zip(maps, sizes, strict=True)]
        return torch.cat([each.expand(-1, -1, side, side) for each in cells], 1)


class RegionEncoder(nn.Module):
    """Feature levels of a picture + boxes -> one embedding per region (GPT4RoI's region module, any size).

    What hooks reach: `fusion` (the fused pyramid), `cells` (RoI features [N, C, r, r] after the ReLU), `content` and `position`
    (both [N, hidden_size]) and `output` (the embeddings). From `cells` on everything is linear, so

        embedding = output.bias + output.weight @ (content.bias + position + sum over cells of content.weight[cell] @ cell)

    Args:
        config: sizes; see `RegionConfig`.
    """

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.fusion = PyramidFusion(config)
        self.cells = RegionCells(config)
        self.content = nn.Linear(config.cell_width * config.roi_size**2, hidden)
        self.position = nn.Sequential(
            nn.Linear(4, config.position_hidden_size),
            nn.ReLU(),
            nn.LayerNorm(config.position_hidden_size),
            nn.Linear(config.position_hidden_size, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
        )
        self.output = nn.Linear(hidden, config.output_size)

    def forward(
        self,
        levels: list[Tensor],
        boxes: list[Tensor],
        grid: tuple[int, int] | None = None,
        masks: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """`pool(fuse(levels, grid), boxes, masks)`: per image one tensor [N, D]."""
        return self.pool(self.fuse(levels, grid), boxes, masks)

    def fuse(self, levels: list[Tensor], grid: tuple[int, int] | None = None) -> list[Tensor]:
        """The fused pyramid of B pictures. It does not depend on boxes: keep it and call `pool` for every new box.

        Args:
            levels: L tensors, earliest layer first, each [B, P, C_i] (patches row by row) or [B, C_i, H, W].
            grid: (H, W) of the levels given as [B, P, C_i]; by default P is a square.
        Returns:
            L tensors [B, C, H_i, W_i] in the parameters' dtype; level i has the last level's grid x 2^(L-1-i).
        Raises:
            ValueError: number of levels, channels, batch sizes or patches do not fit.
        """
        widths = self.config.level_widths
        if len(levels) != len(widths):
            raise ValueError(f"{len(levels)} feature levels given, the region encoder has {len(widths)}")
        dtype = self.output.weight.dtype
        maps = [_as_map(level, i, widths[i - 1], grid).to(dtype) for i, level in enumerate(levels, start=1)]
        for i, level in enumerate(maps, start=1):
            if len(level) != len(maps[0]):
                raise ValueError(f"level {i} holds {len(level)} images, level 1 holds {len(maps[0])}")
        return self.fusion(maps)

    def pool(self, fused: list[Tensor], boxes: list[Tensor], masks: list[Tensor] | None = None) -> list[Tensor]:
        """Embeddings of regions from a fused pyramid.

        Args:
            fused: what `fuse` returned for B pictures; with `focal_size` followed by the pictures themselves, [B, 3, H, W].
            boxes: B tensors [N, 4], normalised xyxy in [0, 1]; N may differ and may be 0.
            masks: B tensors [N, r, r] in [0, 1] by which the cells of each box are multiplied (see `cell_mask`); by default all ones.
        Returns:
            B tensors [N, D] in the parameters' dtype.
        Raises:
            ValueError: number of levels, of images or the shape of a boxes or masks tensor does not fit.
        """
        expected, focal = self.config.num_levels, bool(self.config.focal_size)
        if len(fused) != expected + focal:
            wanted = f"{expected} and the pictures" if focal else f"{expected}"
            raise ValueError(f"{len(fused)} fused levels given, the region encoder has {wanted}")
        if len(boxes) != len(fused[0]):
            raise ValueError(f"boxes of {len(boxes)} images given, the levels hold {len(fused[0])} images")
        for i, each in enumerate(boxes, start=1):
            if each.dim() != 2 or each.shape[1] != 4:
                raise ValueError(f"boxes of image {i} have the shape {list(each.shape)}, expected [N, 4]")
        boxes = [each.to(fused[0].device, torch.float32) for each in boxes]
        cells = self.cells(fused, boxes)
        if masks is not None:
            cells = cells * self._checked_masks(masks, boxes).to(cells)[:, None]
        content = self.content(cells.flatten(1))
        position = self.position(torch.cat(boxes).to(content.dtype))
        return list(self.output(content + position).split([len(each) for each in boxes]))

    def _checked_masks(self, masks: list[Tensor], boxes: list[Tensor]) -> Tensor:
        side = self.config.roi_size
        if len(masks) != len(boxes):
            raise ValueError(f"masks of {len(masks)} images given, boxes of {len(boxes)}")
        for i, (mask, each) in enumerate(zip(masks, boxes, strict=True), start=1):
            if tuple(mask.shape) != (len(each), side, side):
                raise ValueError(
                    f"masks of image {i} have the shape {list(mask.shape)}, expected {[len(each), side, side]}"
                )
        return torch.cat(list(masks))


def enlarged(boxes: Tensor, by: float) -> Tensor:
    """Boxes [N, 4] xyxy, `by` times as wide and high around the same centres."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * by
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)


def _as_map(level: Tensor, number: int, channels: int, grid: tuple[int, int] | None) -> Tensor:
    """[B, P, C] or [B, C, H, W] -> [B, C, H, W], checked against the configured channels."""
    if level.dim() not in (3, 4):
        raise ValueError(f"level {number} has the shape {list(level.shape)}, expected [B, P, C] or [B, C, H, W]")
    given = level.shape[2] if level.dim() == 3 else level.shape[1]
    if given != channels:
        raise ValueError(f"level {number} has {given} channels, the region encoder expects {channels}")
    if level.dim() == 4:
        return level
    patches = level.shape[1]
    height, width = grid or (math.isqrt(patches), math.isqrt(patches))
    if height * width != patches:
        wanted = f"the grid {height} x {width}" if grid else "a square; pass grid=(height, width)"
        raise ValueError(f"level {number} has {patches} patches, which is not {wanted}")
    return level.transpose(1, 2).unflatten(2, (height, width))
