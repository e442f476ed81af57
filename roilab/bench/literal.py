"""The region module of GPT4RoI (arXiv 2307.03601, section 3.2) written step by step as published: no reordering, folding or caching.

The baseline that `roilab.regions` must agree with and must not fall behind.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from ..config import RegionConfig
from ..regions import RegionEncoder

PATCH = 14  # pixels; the literal formulation counts boxes in pixels of a picture of 14-pixel patches, as published
PAPER_GRID = 16  # patches per side of CLIP ViT-L/14 at 224 pixels


def literal_region_embeddings(
    encoder: RegionEncoder, levels: list[Tensor], boxes: list[Tensor], grid: tuple[int, int] | None = None
) -> list[Tensor]:
    """Region embeddings by the published steps 1 to 7, one after the other, with the parameters of `encoder`.

    Args:
        encoder: only its parameters and config are used.
        levels, boxes, grid: as in `RegionEncoder.forward`: L tensors [B, P, C_i] or [B, C_i, H, W]; B tensors [N, 4], normalised xyxy.
    Returns:
        B tensors [N, D].
    """
    config, fusion = encoder.config, encoder.fusion
    maps = []
    for level in levels:
        if level.dim() == 3:
            side = int(level.shape[1] ** 0.5)
            height, width = grid or (side, side)
            level = level.transpose(1, 2).reshape(level.shape[0], level.shape[2], height, width)
        maps.append(level)

    # 1. Every level on its own grid.  2. Coordinates, 1x1 convolution.
    last_height, last_width = maps[-1].shape[-2:]
    count = len(maps)
    pyramid = []
    for i in range(count):
        size = (last_height * 2 ** (count - 1 - i), last_width * 2 ** (count - 1 - i))
        level = F.interpolate(maps[i], size=size, mode="bilinear", align_corners=True)
        x = torch.linspace(-1, 1, size[1]).repeat(size[0], 1)
        y = torch.linspace(-1, 1, size[0]).repeat(size[1], 1).T
        coordinates = torch.stack([x, y]).repeat(len(level), 1, 1, 1).to(level)
        level = torch.cat([level, coordinates], dim=1)
        pyramid.append(F.conv2d(level, fusion.inputs[i].weight, fusion.inputs[i].bias))

    # 3. Fusion rounds.
    half, quarter = config.width // 2, config.width // 4
    for each in fusion.rounds:
        fused = []
        for i in range(count):
            size = pyramid[i].shape[-2:]
            kept = pyramid[i][:, :half]
            following = pyramid[min(i + 1, count - 1)][:, half + quarter :]
            previous = pyramid[max(i - 1, 0)][:, half : half + quarter]
            following = F.interpolate(following, size=size, mode="bilinear", align_corners=True)
            previous = F.interpolate(previous, size=size, mode="bilinear", align_corners=True)
            mixed = torch.cat([kept, following, previous], dim=1)
            mixed = F.conv2d(mixed, each.conv.weight, padding=1)
            mixed = F.group_norm(mixed, config.norm_groups, each.norm.weight, each.norm.bias, each.norm.eps)
            fused.append(F.relu(mixed))
        pyramid = fused

    # 4. RoIAlign on every level.  5. Convolutions, sum, flatten.
    unit = torch.tensor([last_width, last_height, last_width, last_height]) * PATCH
    pixels = [each * unit.to(each) for each in boxes]
    cells = 0
    for i in range(count):
        stride = PATCH / 2 ** (count - 1 - i)
        features = roi_align(  # in float32, as published
            pyramid[i].float(), pixels, config.roi_size, 1 / stride, sampling_ratio=config.sampling_ratio, aligned=True
        )
        conv, features = encoder.cells.convs[i], features.to(pyramid[i])
        cells = cells + F.conv2d(features, conv.weight, conv.bias, padding=1)
    content = F.linear(F.relu(cells).flatten(1), encoder.content.weight, encoder.content.bias)

    # 6. The box itself.  7. To the width of the language model.
    position = encoder.position(torch.cat(boxes).to(content))
    embeddings = F.linear(content + position, encoder.output.weight, encoder.output.bias)
    return list(embeddings.split([len(each) for each in boxes]))


def paper_region_encoder() -> tuple[RegionEncoder, list[Tensor], list[Tensor]]:
    """A region encoder of paper size with random weights (1.2 GB), levels [1, 256, 1024] of one picture and two boxes."""
    torch.manual_seed(0)
    config = RegionConfig()
    levels = [torch.randn(1, PAPER_GRID**2, width) for width in config.level_widths]
    boxes = [torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.4, 0.4, 0.55, 0.6]])]
    return RegionEncoder(config).eval(), levels, boxes
