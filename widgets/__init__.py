"""Interactive parts for Jupyter: draw regions on a picture, ask about them, and see the answers beside it.

`RegionSet` is the state and plain Python; `RegionCanvas` and `RegionChat` are views of it. `QuizView` asks people what a model is
asked. `AttentionExplorer`, `AttributionExplorer`, `WhatIf` and `RegionLens` look into an answer. Everything a mouse can do, keys, buttons
and number fields can do too.
"""

from .canvas import RegionCanvas
from .chat import RegionChat
from .explorers import AttentionExplorer, AttributionExplorer
from .lens import RegionLens
from .quiz import QuizView
from .regions import Region, RegionSet
from .whatif import WhatIf

__all__ = [
    "AttentionExplorer", "AttributionExplorer", "QuizView", "Region", "RegionCanvas", "RegionChat", "RegionLens", "RegionSet", "WhatIf",
]  # fmt: skip
