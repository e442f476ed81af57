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
    region_width: int = 32
    fusion_rounds: int = 3
    words: int = 140
    reading_steps: int = 500
    reading_lr: float = 3e-3
    comparing_steps: int = 1400
    comparing_lr: float = 2e-3
    binding_steps: int = 600
    binding_lr: float = 2e-3
    relating_steps: int = 500
    placing_steps: int = 500
    placing_lr: float = 3e-3
    relating_lr: float = 2e-3
    ordering_steps: int = 330
    ordering_lr: float = 3e-3
    talking_steps: int = 150
    talking_lr: float = 1e-3
    alignment_steps: int = 450
    alignment_lr: float = 4e-4
    batch: int = 16
    stage1_steps: int = 30
    stage1_lr: float = 2e-3
    stage2_steps: int = 620
    stage2_lr: float = 1e-3
