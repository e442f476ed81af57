"""What the frozen parts say of a data set's pictures and boxes, computed once: each picture as it is and mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..data.augment import flip
from ..files import write_whole
from ..regions import normalise_boxes


@dataclass
class Features:
    """Frozen features of R records with P patches each and, over all records, N boxes.

    Attributes:
        patches: [R, P, C] image tokens. cells: [N, F] the cells of each box, see `flat_cells`. boxes: [N, 4], normalised xyxy.
        counts: [R] boxes of each record.
    """

    patches: Tensor
    cells: Tensor
    boxes: Tensor
    counts: Tensor

    def of(self, record: int) -> slice:
        """Which of the N boxes are a record's."""
        end = int(self.counts[: record + 1].sum())
        return slice(end - int(self.counts[record]), end)


def flat_cells(cells: Tensor, width: int) -> Tensor:
    """Cells [N, width + crops, r, r] -> [N, width * r * r + crops]: what comes from crops as a mean over the cells."""
    return torch.cat([cells[:, :width].flatten(1), cells[:, width:].mean((2, 3))], 1)


def content_weight(flat: Tensor, width: int, side: int) -> Tensor:
    """Weights [H, F] of flat cells -> those of `RegionEncoder.content` [H, (width + crops) * r * r], for which they mean the same."""
    levels, crops = flat[:, : width * side**2], flat[:, width * side**2 :]
    return torch.cat([levels, crops.repeat_interleave(side**2, 1) / side**2], 1)


def flat_weight(weight: Tensor, width: int, side: int) -> Tensor:
    """Of `content_weight` the inverse, a sixteenth in size with 4 x 4 cells.

    Raises:
        ValueError: the weights of crops differ from cell to cell.
    """
    levels, crops = weight[:, : width * side**2], weight[:, width * side**2 :].unflatten(1, (-1, side**2))
    if not torch.equal(crops, crops[..., :1].expand_as(crops)):
        raise ValueError("the weights of crops differ from cell to cell: they cannot be kept for flat cells")
    return torch.cat([levels, crops[..., 0] * side**2], 1)


@torch.no_grad()
def features(model, records, mirrored: bool, path: Path, say=print) -> Features:
    """Features of all records, read from `path` if they are there already."""
    if path.is_file():
        return Features(**load_file(path))
    encoder = model.region_encoder
    kept: dict[str, list] = {name: [] for name in ("patches", "cells", "boxes", "counts")}
    for index in range(len(records)):
        record, picture = records[index], records.picture(index)
        if mirrored:
            record, picture = flip(record, picture)
        seen = model.encode_image(model.processor.preprocess(picture))
        boxes = normalise_boxes(record.boxes, picture.size)
        cells = encoder.cells(model.fuse(seen), [boxes])
        kept["patches"].append(seen.patches[0].half())
        kept["cells"].append(flat_cells(cells, encoder.config.width).half())
        kept["boxes"].append(boxes)
        kept["counts"].append(len(boxes))
        if index % 25 == 24:
            say(f"features of {index + 1} of {len(records)} pictures")
    made = {
        "patches": torch.stack(kept["patches"]), "cells": torch.cat(kept["cells"]), "boxes": torch.cat(kept["boxes"]),
        "counts": torch.tensor(kept["counts"]),
    }  # fmt: skip
    write_whole(path, save(made))
    return Features(**made)
