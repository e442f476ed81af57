"""3x3 convolutions with fewer multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308).

Two neighbouring outputs of a 3-wide filter g read four inputs d. Directly they take six multiplications; with sums and differences four:

    y0 = d0 g0 + d1 g1 + d2 g2 = m0 + m1 + m2        m0 = (d0 - d2) g0        m1 = (d1 + d2) (g0 + g1 + g2) / 2
    y1 = d1 g0 + d2 g1 + d3 g2 = m1 - m2 - m3        m3 = (d1 - d3) g2        m2 = (d2 - d1) (g0 - g1 + g2) / 2

Along rows and columns both, a tile of 2x2 outputs takes 16 multiplications in place of 36: 2.25 times fewer. The map is cut into 4x4 tiles that
overlap by two, and each of the 16 products is one matrix product over the channels of many tiles. The algebra is exact; float32 rounds it
differently, by about 1e-5 where a map's values have a spread of 1.

All tiles together would take four times the memory of the map, so it is worked through in strips of rows, and the four rows of the tiles one after
the other. Channels come last, so that sums run over neighbouring numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_WIDTH = 512
"""With fewer channels the sums and differences take as long as the multiplications they save."""

TILES = 256
"""Of a strip, about: with fewer the matrix products are slower, with more the strip takes more memory."""

DIFFERENCES = (torch.sub, 0, 2), (torch.add, 1, 2), (torch.sub, 2, 1), (torch.sub, 1, 3)
"""Of the inputs d, as above."""


def winograd_pays(maps: list[Tensor], weight: Tensor) -> bool:
    """Whether maps [B, c, H, W] had better be convolved by `winograd`: on a CPU, in float32, with many channels, without gradients.

    The libraries of GPUs choose such algorithms themselves, for gradients every tile would have to be kept, and `torch.compile` would
    write out every strip.
    """
    if torch.compiler.is_compiling():
        return False
    plain = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in (*maps, weight))
    gradients = torch.is_grad_enabled() and any(each.requires_grad for each in (*maps, weight))
    return plain and not gradients and not torch.is_autocast_enabled("cpu") and min(weight.shape[:2]) >= LEAST_WIDTH


def winograd_weight(weight: Tensor) -> Tensor:
    """The four sums of g above, along rows and columns, of a convolution's weight [C, c, 3, 3]: [16, c, C]."""
    sums = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    return (torch.kron(sums, sums) @ weight.reshape(-1, 9).T).view(16, *weight.shape[:2]).transpose(1, 2)


def winograd(parts: list[Tensor], weight: Tensor, out: Tensor):
    """The 3x3 convolution (zero padding, no bias) of a map, without gradients.

    Args:
        parts: the map in parts of its channels, [B, c_i, H, W]; H and W are even.
        weight: `winograd_weight` of a convolution of c channels, the sum of the c_i.
        out: where the result goes, [B, C, H, W]; quickest with memory in the order of B, H, W, C.
    """
    (batch, _, height, width), (_, channels, outputs) = parts[0].shape, weight.shape
    parts, out = [part.permute(0, 2, 3, 1) for part in parts], out.permute(0, 2, 3, 1)
    down, across = height // 2, width // 2  # tiles
    rows = min(max(TILES // across, 1), down)  # of tiles in a strip
    strip = weight.new_zeros(2 * rows + 2, width + 2, channels)
    halfway = weight.new_empty(rows, width + 2, channels)
    tiles = weight.new_empty(4, rows, across, channels)
    products = weight.new_empty(4, rows * across, outputs)
    sums = weight.new_empty(rows, across, 2, outputs)
    # The last strip may begin inside the one before, so that all have the same size.
    tops = [2 * top for top in (*range(0, down - rows, rows), down - rows)]
    for image, top in ((image, top) for image in range(batch) for top in tops):
        first, last = max(top - 1, 0), min(top + 2 * rows + 1, height)
        strip[[0, -1]] = 0  # what lies beyond the map
        inside = strip[first - top + 1 : last - top + 1, 1:-1].split([part.shape[3] for part in parts], 2)
        for target, part in zip(inside, parts, strict=True):
            target.copy_(part[image, first:last])
        upper, lower = out[image, top : top + 2 * rows].unflatten(1, (across, 2)).unflatten(0, (rows, 2)).unbind(1)
        for row, (difference, one, two) in enumerate(DIFFERENCES):
            difference(strip[one : one + 2 * rows : 2], strip[two : two + 2 * rows : 2], out=halfway)
            for tile, (difference, one, two) in zip(tiles, DIFFERENCES, strict=True):
                difference(halfway[:, one : one + width : 2], halfway[:, two : two + width : 2], out=tile)
            torch.bmm(tiles.view(4, -1, channels), weight[4 * row : 4 * row + 4], out=products)
            m0, m1, m2, m3 = products.view(4, rows, across, outputs)
            torch.add(m0, m1, out=sums[:, :, 0]).add_(m2)
            torch.sub(m1, m2, out=sums[:, :, 1]).sub_(m3)
            # The same along the columns: y0 = m0 + m1 + m2, y1 = m1 - m2 - m3, where m0 ... m3 are `sums` of the four rows.
            if row == 0:
                upper.copy_(sums)
            elif row == 1:
                upper.add_(sums), lower.copy_(sums)
            elif row == 2:
                upper.add_(sums), lower.sub_(sums)
            else:
                lower.sub_(sums)
