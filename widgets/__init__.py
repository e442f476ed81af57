"""Interactive parts for Jupyter, imported as `roilab.widgets`.

Nothing is public here yet: drawing regions and asking about them in a notebook will live in this folder. Until then
`roilab.Chat` holds the conversation and `roilab.plotting` draws it.
"""

__all__: list[str] = []
