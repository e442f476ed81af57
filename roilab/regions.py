"""Boxes and the region encoder: feature levels + boxes -> one embedding per region.

Defines the record every reader yields (`RegionDialogue`), the one place where boxes are checked and change their unit
(`validate_boxes`, `normalise_boxes`, `denormalise_boxes`), and `RegionEncoder`, the region module of GPT4RoI (arXiv
2307.03601, section 3.2 and the published parameter shapes; RoIAlign: He et al., arXiv 1703.06870, section 3).

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

if TYPE_CHECKING:
    from .config import RegionConfig


@dataclass
class RegionDialogue:
    """A dialogue about regions of one picture: the record of every data set.

    `boxes` are absolute pixels of the picture, xyxy; `turns` are `{"role": "user" | "assistant", "content": text}` where
    `<region1>` names `boxes[0]`.
    """

    id: str
    source: str
    image: str
    width: int
    height: int
    boxes: list[list[float]]
    labels: list[str] | None
    turns: list[dict[str, str]]
    choices: dict[str, Any] | None = None


def validate_boxes(boxes, image_size: tuple[int, int]) -> list[list[float]]:
    """Check boxes against their picture and clip what overlaps its border.

    Args:
        boxes: N boxes (x1, y1, x2, y2) in absolute pixels, origin top left; lists, numpy or torch. `None` means no boxes.
        image_size: (width, height) of the picture in pixels.
    Returns:
        N lists of four floats inside [0, width] x [0, height].
    Raises:
        ValueError: a box is not four finite numbers, is reversed, has no area, or lies outside. Names the region (from 1).
    """
    width, height = image_size
    if not (width > 0 and height > 0):
        raise ValueError(f"image size {width} x {height}: both sides must be positive")
    return [_validate_box(box, number, width, height) for number, box in enumerate(_as_list(boxes), start=1)]


def _as_list(boxes) -> list:
    if boxes is None:
        return []
    return boxes.tolist() if hasattr(boxes, "tolist") else list(boxes)


def _validate_box(box, number: int, width: float, height: float) -> list[float]:
    def refuse(problem: str) -> ValueError:
        return ValueError(f"region {number}: {problem}; the image is {width:g} x {height:g} pixels")

    try:
        values = [float(value) for value in _as_list(box)]
    except (TypeError, ValueError, OverflowError):
        values = []
    if len(values) != 4 or isinstance(box, str):
        raise refuse(f"a box is four numbers (x1, y1, x2, y2), got {box!r}")
    shown = "(" + ", ".join(f"{value:g}" for value in values) + ")"
    if not all(map(math.isfinite, values)):
        raise refuse(f"box {shown} has a coordinate that is not finite")
    x1, y1, x2, y2 = values
    for axis, low, high in (("x", x1, x2), ("y", y1, y2)):
        if low > high:
            raise refuse(f"box {shown} is reversed, {axis}1 {low:g} is greater than {axis}2 {high:g}")
        if low == high:
            raise refuse(f"box {shown} has no area, {axis}1 and {axis}2 are both {low:g}")
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise refuse(f"box {shown} lies outside the image")
    return [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]


def normalise_boxes(boxes, image_size: tuple[int, int]) -> Tensor:
    """Validated boxes in the model's unit.

    Args:
        boxes, image_size: as in `validate_boxes` (xyxy pixels; width, height).
    Returns:
        float32 [N, 4], xyxy, each in [0, 1]; [0, 4] for no boxes.
    Raises:
        ValueError: as `validate_boxes`.
    """
    pixels = torch.tensor(validate_boxes(boxes, image_size), dtype=torch.float64).reshape(-1, 4)
    return (pixels / pixels.new_tensor([*image_size, *image_size])).float()


def denormalise_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """The way back of `normalise_boxes`: [N, 4] xyxy in [0, 1] -> [N, 4] xyxy in pixels of a (width, height) picture."""
    return boxes * boxes.new_tensor([*image_size, *image_size])


class FusionRound(nn.Module):
    """What follows an exchange between neighbouring levels: a convolution and a norm, shared by all levels, and a ReLU."""

    def __init__(self, width: int, norm_groups: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(norm_groups, width)

    def forward(self, maps: list[Tensor], sizes: list[tuple[int, int]] | None = None) -> list[Tensor]:
        """Exchanged maps [B, C, H_i, W_i] -> L maps of the same shapes.

        With `sizes`: L coarse maps that were neither resized nor exchanged yet -> L maps [B, C, *sizes[i]].
        """
        if sizes is None:
            return [F.relu(self.norm(self.conv(each))) for each in maps]
        return [F.relu(self.norm(self._exchange_coarse(maps, sizes, i))) for i in range(len(maps))]

    def _exchange_coarse(self, maps: list[Tensor], sizes: list[tuple[int, int]], i: int) -> Tensor:
        """The same as resizing every map to its size, exchanging and convolving, at the cost of the coarse grid."""
        parts = exchanged_parts(i, len(maps), maps[i].shape[1])
        weights = self.conv.weight.split([part.stop - part.start for _, part in parts], dim=1)
        return sum(
            convolve_resized(maps[j][:, part], weight, [maps[j].shape[-2:], sizes[j], sizes[i]])
            for (j, part), weight in zip(parts, weights, strict=True)
        )


def exchanged_parts(i: int, levels: int, channels: int) -> list[tuple[int, slice]]:
    """What level i is made of, in order: (level, its channels). Half is kept, a quarter each comes from the next and the previous."""
    half, three_quarters = channels // 2, channels * 3 // 4
    following, previous = min(i + 1, levels - 1), max(i - 1, 0)
    return [(i, slice(0, half)), (following, slice(three_quarters, channels)), (previous, slice(half, three_quarters))]


def exchange(maps: list[Tensor], i: int) -> Tensor:
    """Level i with half of its channels from its neighbours, resized to it: [B, C, H_i, W_i]."""
    size = maps[i].shape[-2:]
    return torch.cat([resize(maps[j][:, part], size) for j, part in exchanged_parts(i, len(maps), maps[i].shape[1])], 1)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, computed in float32: [B, C, h, w] -> [B, C, *size]."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.float(), size=tuple(size), mode="bilinear", align_corners=True).to(maps.dtype)


def convolve_resized(maps: Tensor, weight: Tensor, path: list[tuple[int, int]]) -> Tensor:
    """A 3x3 convolution (zero padding) of maps resized along `path`, without making the resized maps.

    Resizing is a matrix product per axis, and a convolution adds nine shifted copies of its input, each through a 1x1 convolution. Both are
    linear, so the 1x1 convolutions run on the coarse grid and the shift moves into the matrix: row t of a shifted matrix is row t + 1,
    t or t - 1 of the resize, or zeros beyond the border. For 16x16 -> 128x128 this is 64 times less multiplication.

    Args:
        maps: [B, c, h, w]. weight: [C, c, 3, 3]. path: sizes (height, width) from (h, w) over any steps to (H, W).
    Returns:
        [B, C, H, W]
    """
    rows, columns = (
        shifted_resize_matrices([size[axis] for size in path], maps.device).to(maps.dtype) for axis in (0, 1)
    )
    (batch, _, h, w), out = maps.shape, len(weight)
    taps = F.conv2d(maps, weight.permute(2, 0, 3, 1).reshape(9 * out, -1, 1, 1))
    taps = taps.view(batch, 3, out, 3, h, w)  # dy, C, dx
    taps = torch.einsum("byoxhw,xWw->boyhW", taps, columns)
    return torch.einsum("boyhW,yHh->boHW", taps, rows)


def shifted_resize_matrices(path: list[int], device: torch.device) -> Tensor:
    """Resizing along one axis as matrices, one per tap of a 3-wide convolution with zero padding: [3, path[-1], path[0]]."""
    matrix = torch.eye(path[0], device=device)
    for length in path[1:]:
        matrix = F.interpolate(matrix[None], size=length, mode="linear", align_corners=True)[0]  # [path[0], length]
    return F.pad(matrix, (1, 1)).unfold(1, path[-1], 1).transpose(0, 1).transpose(1, 2)


class PyramidFusion(nn.Module):
    """L maps of any widths and grids -> L fused maps [B, C, H_i, W_i], where level i has the last grid x 2^(L-1-i)."""

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(width + 2, config.width, 1) for width in config.level_widths)
        self.rounds = nn.ModuleList(FusionRound(config.width, config.norm_groups) for _ in range(config.fusion_rounds))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        height, width = maps[-1].shape[-2:]
        scales = [2 ** (len(maps) - 1 - i) for i in range(len(maps))]
        sizes = [(height * scale, width * scale) for scale in scales]
        # The published order is: resize, append coordinates, 1x1 convolution. Resizing with aligned corners turns a coordinate
        # ramp into the longer ramp and mixes no channels, so the convolution may come first, on the smaller grid.
        maps = [
            conv(with_coordinates(level if level[0, 0].numel() <= math.prod(size) else resize(level, size)))
            for conv, level, size in zip(self.inputs, maps, sizes, strict=True)
        ]
        rounds = list(self.rounds)
        if rounds and all(level[0, 0].numel() <= math.prod(sizes[-1]) for level in maps):
            # All levels of a vision transformer share one coarse grid: the first round need not leave it.
            maps = rounds.pop(0)(maps, sizes)
        else:
            maps = [resize(level, size) for level, size in zip(maps, sizes, strict=True)]
        for fusion_round in rounds:
            # The old maps go before the convolutions start: the memory of the whole encoder is decided here, at the finest level.
            maps = [exchange(maps, i) for i in range(len(maps))]
            maps = fusion_round(maps)
        return maps


def with_coordinates(maps: Tensor) -> Tensor:
    """Two channels appended, x then y, each from -1 to 1 over the grid: [B, C, H, W] -> [B, C + 2, H, W].

    A side of one pixel is doubled first: one value cannot carry a ramp, and resizing gives the same with two equal pixels.
    """
    batch, _, height, width = maps.shape
    maps = resize(maps, (max(height, 2), max(width, 2)))
    batch, _, height, width = maps.shape
    x = torch.linspace(-1, 1, width, device=maps.device, dtype=maps.dtype).expand(batch, 1, height, width)
    y = torch.linspace(-1, 1, height, device=maps.device, dtype=maps.dtype)[:, None].expand(batch, 1, height, width)
    return torch.cat([maps, x, y], 1)


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
    """Fused pyramid + boxes -> the cells of every region [N, C, r, r]: RoIAlign and a convolution per level, sum, ReLU."""

    def __init__(self, config: RegionConfig):
        super().__init__()
        self.roi_size, self.sampling_ratio = config.roi_size, config.sampling_ratio
        self.convs = nn.ModuleList(
            CellConvolution(config.width, config.width, 3, padding=1) for _ in config.level_widths
        )

    def forward(self, fused: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Boxes: per image [N, 4], normalised xyxy. Regions of all images in one call, in order of the images."""
        return F.relu(sum(conv(self.align(maps, boxes)) for conv, maps in zip(self.convs, fused, strict=True)))

    def align(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """RoIAlign on one level: maps [B, C, H, W], B boxes [N, 4], normalised xyxy -> [sum of N, C, r, r] in the maps' dtype."""
        height, width = maps.shape[-2:]
        scale = torch.tensor([width, height, width, height], device=maps.device)
        scaled = [each * scale for each in boxes]
        rois = roi_align(maps.float(), scaled, self.roi_size, sampling_ratio=self.sampling_ratio, aligned=True)
        return rois.to(maps.dtype)


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
        self.content = nn.Linear(config.width * config.roi_size**2, hidden)
        self.position = nn.Sequential(
            nn.Linear(4, config.position_hidden_size),
            nn.ReLU(),
            nn.LayerNorm(config.position_hidden_size),
            nn.Linear(config.position_hidden_size, hidden),
            nn.ReLU(),
            nn.LayerNorm(hidden),
        )
        self.output = nn.Linear(hidden, config.output_size)

    def forward(self, levels: list[Tensor], boxes: list[Tensor], grid: tuple[int, int] | None = None) -> list[Tensor]:
        """`pool(fuse(levels, grid), boxes)`: per image one tensor [N, D]."""
        return self.pool(self.fuse(levels, grid), boxes)

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

    def pool(self, fused: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Embeddings of regions from a fused pyramid.

        Args:
            fused: what `fuse` returned for B pictures.
            boxes: B tensors [N, 4], normalised xyxy in [0, 1]; N may differ and may be 0.
        Returns:
            B tensors [N, D] in the parameters' dtype.
        Raises:
            ValueError: number of levels, of images or the shape of a boxes tensor does not fit.
        """
        if len(fused) != self.config.num_levels:
            raise ValueError(f"{len(fused)} fused levels given, the region encoder has {self.config.num_levels}")
        if len(boxes) != len(fused[0]):
            raise ValueError(f"boxes of {len(boxes)} images given, the levels hold {len(fused[0])} images")
        for i, each in enumerate(boxes, start=1):
            if each.dim() != 2 or each.shape[1] != 4:
                raise ValueError(f"boxes of image {i} have the shape {list(each.shape)}, expected [N, 4]")
        boxes = [each.to(fused[0].device, torch.float32) for each in boxes]
        content = self.content(self.cells(fused, boxes).flatten(1))
        position = self.position(torch.cat(boxes).to(content.dtype))
        return list(self.output(content + position).split([len(each) for each in boxes]))


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
