"""Which value of an attribute an answer names, whatever words are around it.

The scenes' questions count an answer only word for word. A model that has learned from other wordings ("the matte chair" for "It is
matte.") may know the value all the same.
"""

import re

from ..scenes.world import ACTIONS, COLOURS, HEADGEAR, KINDS, MATERIALS, MOODS, SHAPE, SIZES

VALUES = {
    "kind": (*KINDS, "person"), "colour": COLOURS, "shape": tuple(dict.fromkeys(SHAPE.values())), "material": MATERIALS, "size": SIZES,
    "action": ACTIONS, "mood": MOODS, "headgear": HEADGEAR,
}  # fmt: skip
"""Attribute -> its values."""
_SAID = {"none": r"nothing|none|no headgear|without headgear"}  # where a value is not its own word


def named_value(attribute: str, answer: str) -> str | None:
    """The one value of the attribute that the answer names; None if it names none, or several.

    Args:
        attribute: a name in `VALUES`.
        answer: a generated text.
    """
    found = [
        value
        for value in VALUES[attribute]
        if re.search(rf"\b(?:{_SAID.get(value, re.escape(value))})\b", answer.lower())
    ]
    return found[0] if len(found) == 1 else None
