"""Sizes and schedule of the shipped tiny model."""

from dataclasses import dataclass


@dataclass
class TinyRecipe:
    """Sizes and schedule of the shipped tiny model."""

    image_size: int = 128
    patch_size: int = 16
    vision_width: int = 160
    vision_layers: int = 5
    scenes: int = 36_000
    vision_steps: int = 5000
    vision_batch: int = 64
    vision_lr: float = 1.5e-3
    vocabulary: int = 768
    text_width: int = 128
    text_layers: int = 6
    region_width: int = 48
    fusion_rounds: int = 2
    text_share: float = 1.0
    alignment_steps: int = 1500
    alignment_batch: int = 32
    alignment_lr: float = 4e-3
    batch: int = 16
    stage1_steps: int = 80
    stage1_lr: float = 3e-4
    stage2_steps: int = 2800
    stage2_lr: float = 1e-3
    stage2_region_share: float = 0.2
