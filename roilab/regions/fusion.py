"""The pyramid of the region encoder: feature levels of any grid -> fused maps, each twice as fine as the next.

Axes: B images, L levels, C channels, H W height and width.

The maps before and after a round, at the finest level 64 MB each at paper size, are all that has to be in memory. So a round exchanges one level
at a time, and on a CPU without gradients it never makes the exchanged map (`convolution.winograd` takes its parts) and normalises in place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import winograd, winograd_pays, winograd_weight

if TYPE_CHECKING:
    from ..config import RegionConfig


class FusionRound(nn.Module):
    """Neighbouring levels exchange channels; a convolution and a norm, shared by all levels, and a ReLU follow."""

    def __init__(self, width: int, norm_groups: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(norm_groups, width)

    def forward(self, maps: list[Tensor], sizes: list[tuple[int, int]] | None = None) -> list[Tensor]:
        """L maps [B, C, H_i, W_i] -> L maps of the same shapes. With `sizes`: L coarse maps -> L maps [B, C, *sizes[i]]."""
        if sizes is not None:
            return [self._normalise(self._exchange_coarse(maps, sizes, i)) for i in range(len(maps))]
        if is_plain(self.conv, nn.Conv2d) and winograd_pays(maps, self.conv.weight):
            return [self._normalise(each) for each in self._exchange_winograd(maps)]
        return [self._normalise(self.conv(exchange(maps, i))) for i in range(len(maps))]

    def _exchange_coarse(self, maps: list[Tensor], sizes: list[tuple[int, int]], i: int) -> Tensor:
        """Level i after resizing every map to its size, exchanging and convolving, at the cost of the coarse grid."""
        parts = exchanged_parts(i, len(maps), maps[i].shape[1])
        out = maps[i].new_empty(len(maps[i]), len(self.conv.weight), *sizes[i])
        # What lies between is large. On a CPU, where a call costs little beside the work in it, a few outputs at a time.
        plain = maps[i].device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling()
        for some in slices(len(self.conv.weight), len(self.conv.weight) if plain else 64):
            weights = self.conv.weight[some].split([part.stop - part.start for _, part in parts], dim=1)
            out[:, some] = sum(
                convolve_resized(maps[j][:, part], weight, [maps[j].shape[-2:], sizes[j], sizes[i]])
                for (j, part), weight in zip(parts, weights, strict=True)
            )
        return out

    def _exchange_winograd(self, maps: list[Tensor]) -> list[Tensor]:
        """All levels exchanged and convolved, without making the exchanged maps."""
        out = [torch.empty_like(each, memory_format=torch.channels_last) for each in maps]
        # In two halves: the sums of all weights would take as much memory as the finest level. Quarters take a fifth more time.
        for some in slices(len(self.conv.weight), len(self.conv.weight) // 2):
            weight = winograd_weight(self.conv.weight[some])
            for i in range(len(maps)):
                if any(side % 2 for side in maps[i].shape[-2:]):
                    out[i][:, some] = F.conv2d(exchange(maps, i), self.conv.weight[some], padding=1)
                else:
                    winograd(exchanged(maps, i), weight, out[i][:, some])
            del weight  # before the next one is made
        return out

    def _normalise(self, maps: Tensor) -> Tensor:
        """Norm and ReLU; on a CPU in place and a few groups at a time, if nobody else holds the map."""
        plain = is_plain(self.conv, nn.Conv2d) and is_plain(self.norm, nn.GroupNorm)
        gradients = torch.is_grad_enabled() and any(each.requires_grad for each in (maps, *self.norm.parameters()))
        whole = maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        if gradients:  # torch 2.6 crashes in the gradient of a norm whose map, channels last, needs none itself
            maps = maps.contiguous()
        if not plain or gradients or whole:
            return F.relu(self.norm(maps))
        pieces = math.gcd(self.norm.num_groups, 32)
        for some in slices(maps.shape[1], maps.shape[1] // pieces):
            weight, bias = self.norm.weight[some], self.norm.bias[some]
            piece = F.group_norm(maps[:, some], self.norm.num_groups // pieces, weight, bias, self.norm.eps)
            maps[:, some] = piece.relu_()
        return maps


def slices(length: int, step: int) -> list[slice]:
    """0 to `length` in pieces of `step`, the last one what is left."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def exchanged_parts(i: int, levels: int, channels: int) -> list[tuple[int, slice]]:
    """What level i is made of, in order: (level, its channels). Half is kept, a quarter each comes from the next and the previous."""
    half, three_quarters = channels // 2, channels * 3 // 4
    following, previous = min(i + 1, levels - 1), max(i - 1, 0)
    return [(i, slice(0, half)), (following, slice(three_quarters, channels)), (previous, slice(half, three_quarters))]


def exchange(maps: list[Tensor], i: int) -> Tensor:
    """Level i with half of its channels from its neighbours, resized to it: [B, C, H_i, W_i]."""
    return torch.cat(exchanged(maps, i), 1)


def exchanged(maps: list[Tensor], i: int) -> list[Tensor]:
    """The parts of `exchange`, in order, each [B, c, H_i, W_i]."""
    size = maps[i].shape[-2:]
    return [resize(maps[j][:, part], size) for j, part in exchanged_parts(i, len(maps), maps[i].shape[1])]


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, computed in float32: [B, C, h, w] -> [B, C, *size]."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps.float(), size=tuple(size), mode="bilinear", align_corners=True).to(maps.dtype)


def convolve_resized(maps: Tensor, weight: Tensor, path: list[tuple[int, int]]) -> Tensor:
    """A 3x3 convolution (zero padding) of maps resized along `path`, without making the resized maps.

    Resizing is a matrix product per axis, and a convolution adds nine shifted copies of its input, each through a 1x1 convolution. Both are
    linear, so the 1x1 convolutions run on the coarse grid (the resizing in float32) and the shift moves into the matrix: row t of a shifted matrix is row t + 1,
    t or t - 1 of the resize, or zeros beyond the border. For 16x16 -> 128x128 this is 64 times less multiplication.

    Args:
        maps: [B, c, h, w]. weight: [C, c, 3, 3]. path: sizes (height, width) from (h, w) over any steps to (H, W).
    Returns:
        [B, C, H, W]
    """
    rows, columns = (shifted_resize_matrices([size[axis] for size in path], maps.device) for axis in (0, 1))
    (batch, _, h, w), out = maps.shape, len(weight)
    taps = F.conv2d(maps, weight.permute(2, 0, 3, 1).reshape(9 * out, -1, 1, 1))
    taps = taps.view(batch, 3, out, 3, h, w)  # dy, C, dx
    taps = torch.einsum("byoxhw,xWw->boyhW", taps.float(), columns)
    return torch.einsum("boyhW,yHh->boHW", taps, rows).to(maps.dtype)


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
        coarse = all(level[0, 0].numel() <= math.prod(sizes[-1]) for level in maps)
        if rounds and coarse and is_plain(rounds[0].conv, nn.Conv2d):
            # All levels of a vision transformer share one coarse grid: the first round need not leave it.
            maps = rounds.pop(0)(maps, sizes)
        else:
            maps = [resize(level, size) for level, size in zip(maps, sizes, strict=True)]
        for fusion_round in rounds:
            maps = fusion_round(maps)
        return [each.contiguous() for each in maps]  # as RoIAlign reads them


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether nobody listens to this module or has put something in its place: else it has to be called."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) is kind and not any(hooks)


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
