"""Interactive parts for Jupyter: draw regions on a picture, ask about them, and see the answers beside it.

`RegionSet` is the state and plain Python; `RegionCanvas` and `RegionChat` are views of it. `QuizView` asks people what a model is
asked. Everything a mouse can do, keys, buttons and number fields can do too.
"""

from .canvas import RegionCanvas
from .chat import RegionChat
from .quiz import QuizView
from .regions import Region, RegionSet

__all__ = ["QuizView", "Region", "RegionCanvas", "RegionChat", "RegionSet"]
