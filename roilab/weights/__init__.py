"""Weights in and out: `load` and `build` models, `convert` the published ones. (Saving is `model.save_pretrained`.)"""

from .convert import convert
from .loading import (
    ASSETS,
    PAPER_LAYERS,
    VARIANTS,
    build,
    default_device,
    default_dtype,
    generation_config,
    load,
    snapshots,
    spread_layers,
)
from .official import OFFICIAL_REGION_PREFIX, region_encoder_from_official
from .quantised import four_bit

__all__ = [
    "ASSETS", "OFFICIAL_REGION_PREFIX", "PAPER_LAYERS", "VARIANTS", "build", "convert", "default_device", "default_dtype", "four_bit", "generation_config", "load",
    "region_encoder_from_official", "snapshots", "spread_layers",
]  # fmt: skip
