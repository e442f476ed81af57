"""Procedural scenes with known truth: pictures, boxes, relations, questions and answers."""

from .sampling import sample
from .world import (
    ACTIONS,
    COLOURS,
    HEADGEAR,
    HELD_OUT,
    KINDS,
    MATERIALS,
    MOODS,
    PARTS,
    RELATIONS,
    SETTINGS,
    SHAPE,
    SIZES,
    Relation,
    Scene,
    SceneObject,
)

__all__ = [
    "ACTIONS", "COLOURS", "HEADGEAR", "HELD_OUT", "KINDS", "MATERIALS", "MOODS", "PARTS", "RELATIONS", "SETTINGS", "SHAPE", "SIZES",
    "Relation", "Scene", "SceneObject", "sample",
]  # fmt: skip
