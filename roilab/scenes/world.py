"""The small world: things, people and settings with known truth, deterministic by seed.

`sample(seed)` gives a `Scene`; its picture (`draw.py`) and its questions (`language.py`) are computed from the same facts, so every
answer has a known cause. `Scene.edit` changes one fact and nothing else.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from . import draw, shapes

KINDS = ("ball", "box", "car", "chair", "cup", "lamp", "umbrella", "bottle", "kite", "clock", "boat", "house")
COLOURS = tuple(shapes.RGB)
MATERIALS = ("matte", "shiny", "striped")
SIZES = ("small", "medium", "large")
ACTIONS = ("standing", "running", "sitting", "jumping", "waving", "pointing", "holding", "kicking")
MOODS = ("happy", "sad", "angry")
HEADGEAR = ("none", "cap", "top hat", "helmet")
SETTINGS = ("indoor", "outdoor", "rain", "sun")
SHAPE = {
    "ball": "round", "clock": "round", "box": "square", "house": "square", "kite": "diamond", "bottle": "tall", "lamp": "tall",
    "chair": "tall", "car": "long", "boat": "long", "cup": "curved", "umbrella": "curved",
}  # fmt: skip
PARTS = {
    "box": "lid", "car": "wheel", "chair": "leg", "cup": "handle", "lamp": "shade", "umbrella": "handle", "bottle": "neck",
    "kite": "tail", "clock": "face", "boat": "sail", "house": "roof",
}  # fmt: skip
RELATIONS = ("left of", "above", "larger than", "same colour", "holding", "pointing at", "kicking", "looking at")
HELD_OUT = frozenset(
    [("red", "kite"), ("blue", "cup"), ("green", "car"), ("yellow", "house"), ("purple", "ball"), ("orange", "clock"),
     ("white", "boat"), ("black", "umbrella"), ("red", "bottle"), ("blue", "lamp"), ("green", "chair"), ("yellow", "box")]
)  # fmt: skip
"""Colour x kind combinations that training never shows (one per kind)."""
HEIGHT = {"small": (46, 52), "medium": (66, 74), "large": (94, 104)}  # longer side of a thing, canvas units
PERSON_HEIGHT = (92, 124)
_EDITABLE = ("kind", "colour", "material", "size", "action", "mood", "headgear", "facing")
_CHOICES = dict(kind=KINDS, colour=COLOURS, material=MATERIALS, size=SIZES, action=ACTIONS, mood=MOODS, headgear=HEADGEAR, facing=("left", "right"))  # fmt: skip
_OF_PEOPLE = ("action", "mood", "headgear", "facing")


class Relation(NamedTuple):
    name: str
    subject: int
    object: int


@dataclass(frozen=True)
class SceneObject:
    """A thing or a person. `colour` is a person's shirt; `target` is what the person points at, holds or kicks.

    `x, y, height` place it on the 224-unit canvas; `box`, `polygons` and `parts` are in pixels of the scene's picture, xyxy with the
    origin at the top left.
    """

    id: int
    kind: str
    colour: str
    material: str | None = None
    size: str | None = None
    action: str | None = None
    mood: str | None = None
    headgear: str | None = None
    facing: str | None = None
    target: int | None = None
    x: float = 112.0
    y: float = 112.0
    height: float = 60.0
    angle: float = 0.0
    look: int = 0
    scale: float = 1.0

    @functools.cached_property
    def _layers(self):
        return shapes.layers(self)

    @functools.cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Exact box of everything painted for this object, covered parts included."""
        return _bounds([layer.points for layer in self._layers], self.scale)

    @property
    def polygons(self) -> list[list[list[float]]]:
        """The silhouette: the union of these polygons (pixels)."""
        return [[[x * self.scale, y * self.scale] for x, y in layer.points] for layer in self._layers]

    @functools.cached_property
    def parts(self) -> dict[str, list[tuple[float, float, float, float]]]:
        """Boxes of the named parts, e.g. two for "wheel"."""
        found: dict[str, list] = {}
        for layer in self._layers:
            if layer.part:
                found.setdefault(layer.part, []).append(layer.points)
        if "wheel" in found:  # tyre and hub of each wheel belong together
            return {"wheel": [_bounds(found["wheel"][i : i + 2], self.scale) for i in (0, 2)]}
        if "leg" in found:
            return {"leg": [_bounds([points], self.scale) for points in found["leg"]]}
        return {name: [_bounds(polygons, self.scale)] for name, polygons in found.items()}

    @property
    def is_person(self) -> bool:
        return self.kind == "person"

    @property
    def attributes(self) -> dict[str, str]:
        if self.is_person:
            return dict(kind="person", colour=self.colour, action=self.action, mood=self.mood, headgear=self.headgear)
        return dict(kind=self.kind, colour=self.colour, shape=SHAPE[self.kind], material=self.material, size=self.size)

    @property
    def centre(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2

    @property
    def area(self) -> float:
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is true of it; objects are listed back to front."""

    seed: int
    setting: str
    objects: tuple[SceneObject, ...]
    size: int = draw.CANVAS

    @functools.cached_property
    def image(self):
        """The picture, RGB, `size` x `size` pixels."""
        return draw.render(self)

    def object(self, id: int) -> SceneObject:
        for item in self.objects:
            if item.id == id:
                return item
        raise ValueError(f"no object {id}; this scene has {sorted(o.id for o in self.objects)}")

    def holds(self, name: str, a: int, b: int) -> bool | None:
        """Whether the relation holds between objects `a` and `b`; None where it is too close to call."""
        one, two = self.object(a), self.object(b)
        if name in ("left of", "above"):
            axis = name == "above"
            gap = (two.centre[axis] - one.centre[axis]) / self.size
            return None if abs(gap) < 0.08 else gap > 0
        if name == "larger than":
            ratio = one.area / two.area
            return None if 1 / 1.3 < ratio < 1.3 else ratio > 1
        if name == "same colour":
            return one.colour == two.colour
        if name in ("holding", "pointing at", "kicking"):
            return one.action == name.split()[0] and one.target == b
        if name == "looking at":
            seen = self._gaze(one)
            return None if seen == -1 else seen == b
        raise ValueError(f"unknown relation {name!r}; known: {', '.join(RELATIONS)}")

    def _gaze(self, person: SceneObject) -> int | None:
        """Id of what a person looks at: the nearest object in a 45 degree cone ahead. None: nothing; -1: no clear winner."""
        if not person.is_person:
            return None
        sign = -1 if person.facing == "left" else 1
        head = (person.x * person.scale, (person.y - 0.3 * person.height) * person.scale)
        ahead, doubtful = [], False
        for other in self.objects:
            dx, dy = (other.centre[0] - head[0]) * sign, other.centre[1] - head[1]
            if other.id == person.id or dx <= 0:
                continue
            slope = abs(dy) / dx
            doubtful |= 0.85 < slope < 1.2
            if slope <= 1:
                ahead.append((math.hypot(dx, dy), other.id))
        ahead.sort()
        if doubtful or (len(ahead) > 1 and ahead[1][0] < 1.25 * ahead[0][0]):
            return -1
        return ahead[0][1] if ahead else None

    @functools.cached_property
    def relations(self) -> list[Relation]:
        """Every relation that clearly holds."""
        pairs = [(a.id, b.id) for a in self.objects for b in self.objects if a.id != b.id]
        return [Relation(name, a, b) for name in RELATIONS for a, b in pairs if self.holds(name, a, b)]

    def scaled(self, size: int) -> "Scene":
        """The same scene as a picture of `size` x `size` pixels; boxes scale along."""
        if size < 16:
            raise ValueError(f"a scene of {size} px shows nothing; at least 16")
        objects = tuple(replace(item, scale=size / draw.CANVAS) for item in self.objects)
        return Scene(self.seed, self.setting, objects, size)

    def edit(self, item: "SceneObject | int", **changes) -> "Scene":
        """The same scene with facts of one object changed, e.g. `edit(car, colour="red")`.

        No pixel changes outside the object's silhouette, before and after, plus 1 px. A person who stops pointing, holding or kicking
        has no target any more; nobody can be made to do so to nothing.

        Raises:
            ValueError: an attribute or value that this object cannot have.
        """
        old = self.object(item if isinstance(item, int) else item.id)
        for name, value in changes.items():
            known = _EDITABLE if old.is_person else [n for n in _EDITABLE if n not in _OF_PEOPLE]
            known = [n for n in known if not (old.is_person and n in ("kind", "material", "size"))]
            if name not in known:
                raise ValueError(f"a {old.kind} has no {name!r} to edit; it has {', '.join(known)}")
            if value not in _CHOICES[name]:
                raise ValueError(f"{name}={value!r} is unknown; choose from {', '.join(_CHOICES[name])}")
        action = changes.get("action", old.action)
        if action != old.action:
            if action in ("pointing", "holding", "kicking"):
                raise ValueError(f"{action} needs a target, and object {old.id} has none: it is {old.action}")
            changes["target"] = None
        if old.target is not None and changes.get("facing", old.facing) != old.facing and action == old.action:
            raise ValueError(f"object {old.id} is {old.action} object {old.target} and must face it")
        if changes.get("size", old.size) != old.size:
            changes["height"] = sum(HEIGHT[changes["size"]]) / 2
        new = replace(old, **changes)
        return replace(self, objects=tuple(new if o.id == old.id else o for o in self.objects))


def _bounds(polygons, scale):
    xs = [x for points in polygons for x, _ in points]
    ys = [y for points in polygons for _, y in points]
    return min(xs) * scale, min(ys) * scale, max(xs) * scale, max(ys) * scale
