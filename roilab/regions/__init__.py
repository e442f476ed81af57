"""Boxes and the region encoder: feature levels + boxes -> one embedding per region.

`boxes`: the record every reader yields (`RegionDialogue`) and the one place where boxes are checked and change their unit; `cells`:
boxes by the cells of a grid; `outlines`: regions that are no boxes;
`fusion` and `encoder`: `RegionEncoder`, the region module of GPT4RoI (arXiv 2307.03601, section 3.2 and the published parameter
shapes; RoIAlign: He et al., arXiv 1703.06870, section 3); `words`: what may stand between it and the language model.
"""

from .boxes import RegionDialogue, denormalise_boxes, normalise_boxes, validate_box, validate_boxes
from .cells import CELLS, cell_names, cells_box
from .encoder import CellConvolution, RegionCells, RegionEncoder
from .fusion import (
    FusionRound,
    PyramidFusion,
    convolve_resized,
    exchange,
    resize,
    shifted_resize_matrices,
    with_coordinates,
)
from .outlines import (
    bounding_box,
    cell_mask,
    disc,
    grid_mask,
    is_outline,
    normalise_regions,
    outline_box,
    validate_regions,
)
from .words import RegionWords

__all__ = [
    "CELLS", "CellConvolution", "FusionRound", "PyramidFusion", "RegionCells", "RegionDialogue", "RegionEncoder", "RegionWords", "bounding_box", "cell_mask", "cell_names",
    "cells_box", "convolve_resized", "denormalise_boxes", "disc", "exchange", "grid_mask", "is_outline", "normalise_boxes", "normalise_regions", "outline_box", "resize", "shifted_resize_matrices", "validate_box", "validate_boxes", "validate_regions", "with_coordinates",
]  # fmt: skip
