"""Sizes and schedule of the shipped tiny model."""

from dataclasses import dataclass


@dataclass
class TinyRecipe:
    """Sizes and schedule of the shipped tiny model."""

    image_size: int = 128
    patch_size: int = 16
    vision_width: int = 128
    vision_layers: int = 5
    scenes: int = 36_000
    vision_steps: int = 2600
    vision_batch: int = 64
    vision_lr: float = 1.5e-3
    vocabulary: int = 768
    text_width: int = 128
    text_layers: int = 5
    region_width: int = 48
    fusion_rounds: int = 2
    text_share: float = 1.0
    alignment_steps: int = 900
    alignment_batch: int = 32
    alignment_lr: float = 2e-3
    batch: int = 16
    stage1_steps: int = 80
    stage1_lr: float = 3e-4
    stage2_steps: int = 2800
    stage2_lr: float = 7e-4
    conversing_steps: int = 800
    conversing_lr: float = 1e-3
    finishing_steps: int = 400
    finishing_lr: float = 3e-4
    numbering_steps: int = 1100
    numbering_lr: float = 1.5e-3
    settling_steps: int = 1800
    settling_lr: float = 1e-3
    closing_steps: int = 750
    closing_lr: float = 4e-4
