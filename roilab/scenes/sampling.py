"""Drawing a scene at random: who is there, who looks, points and kicks at what, and where there is room."""

import math
import random
from dataclasses import replace

from . import draw, shapes
from .world import (
    ACTIONS,
    COLOURS,
    HEADGEAR,
    HEIGHT,
    HELD_OUT,
    KINDS,
    MATERIALS,
    MOODS,
    PERSON_HEIGHT,
    SETTINGS,
    SIZES,
    Scene,
    SceneObject,
)  # fmt: skip


def _shift(box, dx, dy):
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _overlap(a, b) -> float:
    """Shared area over the smaller box's area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _inside(box) -> bool:
    return box[0] >= 1 and box[1] >= 1 and box[2] <= draw.CANVAS - 1 and box[3] <= draw.CANVAS - 1


MAX_OVERLAP = 0.1
_ACTION_WEIGHTS = (
    1,
    3,
    3,
    3,
    3,
    6,
    4,
    4,
)  # pointing often finds no target and becomes standing; holding needs more room


class _Sampler:
    """Places objects one after the other; what does not fit is tried elsewhere, then left out."""

    def __init__(self, seed: int, held_out: bool | None):
        self.rng = random.Random(f"scene {seed}")
        self.held_out = held_out
        self.placed: list[SceneObject] = []

    def thing(self, **fixed) -> SceneObject:
        rng = self.rng
        facts = (
            dict(
                kind=rng.choice(KINDS),
                colour=rng.choice(COLOURS),
                material=rng.choice(MATERIALS),
                size=rng.choice(SIZES),
            )
            | fixed
        )
        while self.held_out is False and (facts["colour"], facts["kind"]) in HELD_OUT:
            facts["colour"] = rng.choice(COLOURS)
        low, high = HEIGHT[facts["size"]]
        return SceneObject(id=len(self.placed), **{"height": rng.uniform(low, high)} | facts)

    def person(self) -> SceneObject:
        rng = self.rng
        return SceneObject(
            id=len(self.placed), kind="person", colour=rng.choice(COLOURS), action=rng.choices(ACTIONS, _ACTION_WEIGHTS)[0], mood=rng.choice(MOODS),
            headgear=rng.choice(HEADGEAR), facing=rng.choice(("left", "right")), height=rng.uniform(*PERSON_HEIGHT), look=rng.randrange(48),
        )  # fmt: skip

    def fits(self, box) -> bool:
        return _inside(box) and all(_overlap(box, p.box) <= MAX_OVERLAP for p in self.placed)

    def place(self, item: SceneObject, tries: int = 60) -> bool:
        """Find a free spot; a person who holds or kicks comes with a thing at hand or foot."""
        box = _shift(item.box, -item.x, -item.y)
        for _ in range(tries):
            x = self.rng.uniform(2 - box[0], draw.CANVAS - 2 - box[2])
            y = self.rng.uniform(2 - box[1], draw.CANVAS - 2 - box[3])
            if not self.fits(_shift(box, x, y)):
                continue
            here = replace(item, x=x, y=y)
            if item.action not in ("holding", "kicking"):
                self.placed.append(here)
                return True
            thing = self._within_reach(here)
            if self.fits(thing.box) and _overlap(here.box, thing.box) <= 0.45:
                self.placed += [replace(here, target=thing.id), thing]
                return True
        return False

    def _within_reach(self, person: SceneObject) -> SceneObject:
        """A thing at the person's hand (holding) or just before the foot (kicking)."""
        thing = replace(self.thing(size=self.rng.choice(("small", "medium"))), id=person.id + 1)
        x1, _, x2, _ = thing.box
        joint, reach = (
            (shapes.HAND, 0.8 * (x2 - x1) / 2) if person.action == "holding" else (shapes.FOOT, (x2 - x1) / 2 + 6)
        )
        sign = -1 if person.facing == "left" else 1
        x = person.x + sign * (person.height * joint[0] + reach) - ((x1 + x2) / 2 - thing.x)
        return replace(thing, x=x, y=person.y + person.height * joint[1])

    def angles(self, person: SceneObject, facing: str) -> dict[int, float]:
        """Degrees from level, positive downward, of the way from the shoulder to every other object's centre."""
        sign = -1 if facing == "left" else 1
        x, y = person.x + sign * shapes.SHOULDER[0] * person.height, person.y + shapes.SHOULDER[1] * person.height
        others = [p for p in self.placed if p.id != person.id]
        return {o.id: math.degrees(math.atan2(o.centre[1] - y, (o.centre[0] - x) * sign)) for o in others}

    def aim(self, index: int) -> None:
        """Give a pointing person a target that no other object could be mistaken for, or let the arm sink."""
        person = self.placed[index]
        others = [p for p in self.placed if p.id != person.id]
        for facing in self.rng.sample(("left", "right"), 2):
            angles = self.angles(person, facing)
            for target in self.rng.sample(sorted(angles), len(angles)):
                angle = angles[target]
                if abs(angle) > 50 or any(abs(angle - a) < 25 for i, a in angles.items() if i != target):
                    continue
                new = replace(person, target=target, facing=facing, angle=angle)
                if _inside(new.box) and all(_overlap(new.box, p.box) <= 0.2 for p in others):
                    self.placed[index] = new
                    return
        self.sink(index)

    def sink(self, index: int) -> None:
        self.placed[index] = replace(self.placed[index], action="standing", target=None, angle=0.0)

    def misses(self, person: SceneObject) -> bool:
        """Whether an arm that was aimed points wrongly now: somebody else's raised arm has moved a centre since."""
        angles = self.angles(person, person.facing)
        near = [i for i, angle in angles.items() if abs(angle - person.angle) < 24]
        return near != [person.target] or abs(angles[person.target] - person.angle) > 2

    def aim_all(self) -> None:
        pointing = [i for i, item in enumerate(self.placed) if item.action == "pointing"]
        for index in pointing:
            self.aim(index)
        while wrong := [i for i in pointing if self.placed[i].target is not None and self.misses(self.placed[i])]:
            self.sink(wrong[0])


def sample(seed: int, size: int = draw.CANVAS, held_out: bool | None = None) -> Scene:
    """Draw a scene.

    Args:
        seed: any integer; the same seed gives the same scene, pixel by pixel.
        size: side of the square picture in pixels.
        held_out: False keeps the `HELD_OUT` colour x kind combinations out (training), True puts at least one in, None does neither.
    """
    sampler = _Sampler(seed, held_out)
    rng = sampler.rng
    setting = rng.choice(SETTINGS)
    if held_out:
        colour, kind = rng.choice(sorted(HELD_OUT))
        sampler.place(sampler.thing(colour=colour, kind=kind, size=rng.choice(SIZES[:2])), tries=200)
    for _ in range(rng.choices((0, 1, 2, 3), (10, 40, 38, 12))[0]):
        sampler.place(sampler.person())
    wanted = rng.choices((2, 3, 4), (40, 35, 25))[0]
    for size_name in sorted(
        (rng.choices(SIZES, (28, 32, 40))[0] for _ in range(wanted)), key=SIZES.index, reverse=True
    ):
        if len(sampler.placed) < 6:
            sampler.place(sampler.thing(size=size_name))
    while len(sampler.placed) < 3:  # crowded: a small thing always finds a spot sooner or later
        sampler.place(sampler.thing(size="small"), tries=200)
    sampler.aim_all()
    scene = Scene(seed, setting, tuple(sampler.placed))
    return scene if size == draw.CANVAS else scene.scaled(size)
