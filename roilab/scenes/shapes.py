"""Every object as a short list of painted polygons, from which its picture, box, mask and part boxes are computed.

Coordinates: x to the right, y downward. A shape is written in units of the object's height around its centre; `layers` moves it
to the 224-unit canvas.
"""

import math
from typing import NamedTuple

RGB = {
    "red": (214, 40, 40), "orange": (247, 140, 30), "yellow": (250, 216, 50), "green": (44, 160, 70),
    "blue": (40, 92, 214), "purple": (138, 60, 172), "white": (246, 246, 246), "black": (38, 38, 40),
}  # fmt: skip
DARK, WOOD, METAL, GLASS, PAPER = (40, 40, 48), (128, 84, 48), (140, 146, 156), (176, 216, 240), (252, 250, 244)
SKINS = ((250, 214, 178), (226, 174, 128), (176, 120, 78), (122, 80, 54))
HAIR = ((50, 36, 28), (112, 70, 36), (30, 30, 34), (150, 96, 40))
TROUSERS = ((52, 60, 92), (96, 96, 104), (104, 82, 60))
BODY = "body"  # paint: the object's colour and material


class Layer(NamedTuple):
    """One painted polygon: `paint` is an RGB triple or `BODY`; `part` names the part it belongs to, if any."""

    points: list[tuple[float, float]]
    paint: object
    part: str | None = None


def ellipse(cx, cy, rx, ry, start=0.0, stop=360.0, steps=28):
    """Points of an elliptic arc in degrees (0 = right, 90 = down); a full ellipse by default."""
    angles = (math.radians(start + (stop - start) * i / steps) for i in range(steps + (stop - start < 360)))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def rectangle(x1, y1, x2, y2):
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def bar(a, b, width):
    """A straight bar from a to b."""
    length = math.dist(a, b) or 1.0
    dx, dy = (b[1] - a[1]) / length * width / 2, (a[0] - b[0]) / length * width / 2
    return [(a[0] + dx, a[1] + dy), (b[0] + dx, b[1] + dy), (b[0] - dx, b[1] - dy), (a[0] - dx, a[1] - dy)]


def bars(points, width, paint, part=None):
    """A bent bar (limbs, handles): one bar per piece, a disc at every joint and end."""
    pieces = [Layer(bar(a, b, width), paint, part) for a, b in zip(points, points[1:])]
    return pieces + [Layer(ellipse(x, y, width / 2, width / 2, steps=10), paint, part) for x, y in points]


def _thing(kind: str) -> list[Layer]:
    """Layers of a thing in unit coordinates; the longer side spans about 1."""
    if kind == "ball":
        return [Layer(ellipse(0, 0, 0.5, 0.5), BODY)]
    if kind == "box":
        lid = [(-0.5, -0.24), (-0.28, -0.46), (0.5, -0.46), (0.36, -0.24)]
        side = [(0.36, -0.24), (0.5, -0.46), (0.5, 0.28), (0.36, 0.46)]
        return [Layer(rectangle(-0.5, -0.24, 0.36, 0.46), BODY), Layer(side, DARK), Layer(lid, WOOD, "lid")]
    if kind == "car":
        body = [
            (-0.5, 0.2),
            (-0.5, -0.02),
            (-0.32, -0.06),
            (-0.2, -0.32),
            (0.2, -0.32),
            (0.32, -0.06),
            (0.5, 0.02),
            (0.5, 0.2),
        ]
        windows = [
            [(-0.22, -0.05), (-0.14, -0.25), (-0.02, -0.25), (-0.02, -0.05)],
            [(0.03, -0.05), (0.03, -0.25), (0.14, -0.25), (0.22, -0.05)],
        ]
        wheels = [layer for x in (-0.27, 0.27) for layer in (
            Layer(ellipse(x, 0.19, 0.15, 0.15), DARK, "wheel"), Layer(ellipse(x, 0.19, 0.07, 0.07, steps=14), METAL, "wheel"))]  # fmt: skip
        return [Layer(body, BODY)] + [Layer(w, GLASS) for w in windows] + wheels
    if kind == "chair":
        legs = [Layer(rectangle(x, 0.14, x + 0.1, 0.5), WOOD, "leg") for x in (-0.32, 0.24)]
        return legs + [
            Layer(rectangle(-0.38, -0.5, -0.18, 0.12), BODY),
            Layer(rectangle(-0.38, -0.04, 0.4, 0.18), BODY),
        ]
    if kind == "cup":
        handle = bars(ellipse(0.24, 0.0, 0.2, 0.2, -80, 80, 6), 0.09, DARK, "handle")
        return handle + [
            Layer([(-0.46, -0.36), (0.3, -0.36), (0.22, 0.42), (-0.38, 0.42)], BODY),
            Layer(ellipse(-0.08, -0.36, 0.38, 0.09), PAPER),
        ]
    if kind == "lamp":
        base = [Layer(rectangle(-0.05, 0.0, 0.05, 0.44), METAL), Layer(rectangle(-0.24, 0.4, 0.24, 0.5), METAL)]
        return base + [Layer([(-0.2, -0.5), (0.2, -0.5), (0.4, 0.06), (-0.4, 0.06)], BODY, "shade")]
    if kind == "umbrella":
        handle = bars([(0, -0.1), (0, 0.42), (0.06, 0.47), (0.13, 0.42)], 0.06, WOOD, "handle")
        dome = ellipse(0, 0, 0.5, 0.46, 180, 360) + [
            (0.33, -0.08),
            (0.17, 0.0),
            (0, -0.08),
            (-0.17, 0.0),
            (-0.33, -0.08),
        ]
        return handle + [Layer([(x, y - 0.02) for x, y in dome], BODY)]
    if kind == "bottle":
        neck = [
            Layer(rectangle(-0.1, -0.36, 0.1, -0.12), GLASS, "neck"),
            Layer(rectangle(-0.13, -0.5, 0.13, -0.36), DARK, "neck"),
        ]
        body = [(-0.1, -0.16), (0.1, -0.16), (0.28, 0.04), (0.28, 0.5), (-0.28, 0.5), (-0.28, 0.04)]
        return neck + [Layer(body, BODY)]
    if kind == "kite":
        tail = bars([(0, 0.12), (-0.1, 0.24), (0.06, 0.34), (-0.04, 0.47)], 0.06, DARK, "tail")
        return tail + [
            Layer([(0, -0.5), (0.36, -0.18), (0, 0.16), (-0.36, -0.18)], BODY),
            Layer(bar((-0.36, -0.18), (0.36, -0.18), 0.03), DARK),
        ]
    if kind == "clock":
        hands = bars([(0, -0.2), (0, 0), (0.15, 0.08)], 0.06, DARK, "face")
        return [Layer(ellipse(0, 0, 0.5, 0.5), BODY), Layer(ellipse(0, 0, 0.29, 0.29), PAPER, "face")] + hands
    if kind == "boat":
        sail = [
            Layer([(-0.02, -0.5), (-0.02, 0.1), (-0.4, 0.1)], PAPER, "sail"),
            Layer([(0.08, -0.34), (0.34, 0.1), (0.08, 0.1)], PAPER, "sail"),
        ]
        return (
            [Layer(rectangle(0.0, -0.5, 0.06, 0.2), WOOD)]
            + sail
            + [Layer([(-0.5, 0.14), (0.5, 0.14), (0.32, 0.44), (-0.34, 0.44)], BODY)]
        )
    if kind == "house":
        door = [
            Layer(rectangle(-0.08, 0.2, 0.12, 0.5), WOOD),
            Layer(rectangle(-0.3, 0.02, -0.14, 0.18), GLASS),
            Layer(rectangle(0.18, 0.02, 0.32, 0.18), GLASS),
        ]
        return (
            [Layer(rectangle(-0.4, -0.12, 0.4, 0.5), BODY)]
            + door
            + [Layer([(-0.5, -0.1), (0, -0.5), (0.5, -0.1)], (150, 70, 52), "roof")]
        )
    raise ValueError(f"no drawing for kind {kind!r}")


# Joints in units of the person's height, drawn facing right: (left arm, right arm, left leg, right leg).
_DOWN = ([(-0.12, -0.12), (-0.19, 0.02), (-0.2, 0.16)], [(0.12, -0.12), (0.19, 0.02), (0.2, 0.16)])
_STAND = ([(-0.06, 0.14), (-0.08, 0.31), (-0.09, 0.48)], [(0.06, 0.14), (0.08, 0.31), (0.09, 0.48)])
POSES = {
    "standing": (*_DOWN, *_STAND),
    "running": ([(-0.12, -0.12), (-0.27, -0.04), (-0.32, 0.12)], [(0.12, -0.12), (0.25, 0.02), (0.36, -0.12)],
                [(-0.04, 0.14), (-0.14, 0.34), (-0.38, 0.36)], [(0.05, 0.14), (0.27, 0.22), (0.25, 0.47)]),
    "sitting": ([(-0.1, -0.12), (0.0, 0.06), (0.16, 0.1)], [(0.12, -0.12), (0.2, 0.02), (0.3, 0.1)],
                [(-0.04, 0.16), (0.26, 0.18), (0.27, 0.46)], [(0.04, 0.16), (0.34, 0.18), (0.36, 0.46)]),
    "jumping": ([(-0.12, -0.12), (-0.29, -0.24), (-0.34, -0.44)], [(0.12, -0.12), (0.29, -0.24), (0.34, -0.44)],
                [(-0.06, 0.14), (-0.26, 0.2), (-0.24, 0.4)], [(0.06, 0.14), (0.26, 0.2), (0.24, 0.4)]),
    "waving": (_DOWN[0], [(0.12, -0.12), (0.3, -0.16), (0.32, -0.4)], *_STAND),
    "pointing": (_DOWN[0], None, *_STAND),
    "holding": ([(-0.12, -0.12), (0.04, 0.06), (0.3, 0.06)], [(0.12, -0.12), (0.2, 0.0), (0.34, 0.02)], *_STAND),
    "kicking": ([(-0.12, -0.12), (-0.28, -0.14), (-0.38, -0.26)], [(0.12, -0.12), (0.24, -0.02), (0.2, 0.1)],
                [(-0.05, 0.14), (-0.1, 0.31), (-0.14, 0.48)], [(0.05, 0.14), (0.24, 0.22), (0.43, 0.17)]),
}  # fmt: skip
SHOULDER, HAND, FOOT, ARM = (0.12, -0.1), (0.34, 0.04), (0.43, 0.17), 0.36


def _person(action, mood, headgear, angle, look) -> list[Layer]:
    """Layers of a person facing right; `angle` in degrees is the pointing arm's, 0 = level, positive = downward."""
    skin, hair, trousers = SKINS[look % 4], HAIR[look // 4 % 4], TROUSERS[look // 16 % 3]
    left_arm, right_arm, left_leg, right_leg = POSES[action]
    layers = []
    if action == "pointing":
        tip = (SHOULDER[0] + ARM * math.cos(math.radians(angle)), SHOULDER[1] + ARM * math.sin(math.radians(angle)))
        right_arm = [SHOULDER, ((SHOULDER[0] + tip[0]) / 2, (SHOULDER[1] + tip[1]) / 2), tip]
    if action == "sitting":
        layers += [Layer(rectangle(-0.2, 0.22, 0.14, 0.3), WOOD)]
        layers += [Layer(rectangle(x, 0.3, x + 0.07, 0.5), WOOD) for x in (-0.18, 0.04)]
    for leg in (left_leg, right_leg):
        layers += bars(leg, 0.1, trousers) + [Layer(ellipse(leg[2][0] + 0.03, leg[2][1], 0.075, 0.045, steps=12), DARK)]
    layers += [Layer([(-0.14, -0.18), (0.14, -0.18), (0.12, 0.18), (-0.12, 0.18)], BODY)]
    for arm in (left_arm, right_arm):
        layers += bars(arm[:2], 0.09, BODY) + bars(arm[1:], 0.065, skin)
    if action == "pointing":
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        layers += bars([tip, (tip[0] + 0.09 * dx, tip[1] + 0.09 * dy)], 0.035, skin)
    if action == "waving":
        layers += [piece for r in (0.1, 0.15) for piece in bars(ellipse(0.32, -0.4, r, r, -50, 30, 4), 0.025, DARK)]
    return layers + _head(mood, headgear, skin, hair)


def _head(mood, headgear, skin, hair) -> list[Layer]:
    cy, r = -0.33, 0.155
    face = {"angry": tuple(int(c * 0.45 + t * 0.55) for c, t in zip(skin, (226, 60, 44)))}.get(mood, skin)
    layers = [
        Layer(ellipse(-0.02, cy - 0.01, r * 1.06, r * 1.06), hair, "head"),
        Layer(ellipse(0.025, cy + 0.02, r * 0.9, r * 0.9), face, "head"),
    ]
    for x in (0.02, 0.105):
        layers += [
            Layer(ellipse(x, cy - 0.01, 0.03, 0.035, steps=10), PAPER, "head"),
            Layer(ellipse(x + 0.012, cy - 0.008, 0.017, 0.022, steps=8), DARK, "head"),
        ]
    if mood == "happy":
        layers += [
            Layer(ellipse(0.06, cy + 0.055, 0.075, 0.075, 0, 180, 10), (120, 20, 30), "head"),
            Layer(rectangle(-0.005, cy + 0.055, 0.125, cy + 0.077), PAPER, "head"),
        ]
    elif mood == "sad":
        layers += bars(ellipse(0.06, cy + 0.13, 0.055, 0.05, 200, 340, 4), 0.026, DARK, "head")
        layers += [Layer(ellipse(x, cy + 0.06, 0.024, 0.05, steps=10), (70, 140, 240), "head") for x in (-0.005, 0.13)]
    elif mood == "angry":
        layers += bars([(-0.03, cy - 0.08), (0.045, cy - 0.045)], 0.03, DARK, "head") + bars(
            [(0.15, cy - 0.08), (0.08, cy - 0.045)], 0.03, DARK, "head"
        )
        layers += [Layer(rectangle(0.005, cy + 0.075, 0.12, cy + 0.105), DARK, "head")]
    if headgear == "cap":
        layers += [
            Layer(ellipse(0, cy - 0.05, 0.165, 0.14, 180, 360), (20, 130, 140), "hat"),
            Layer(rectangle(0.02, cy - 0.085, 0.29, cy - 0.045), (14, 100, 110), "hat"),
        ]
    elif headgear == "top hat":
        layers += [Layer(rectangle(-0.13, cy - 0.3, 0.13, cy - 0.08), (30, 26, 30), "hat"), Layer(rectangle(-0.22, cy - 0.1, 0.22, cy - 0.06), (30, 26, 30), "hat"),
                   Layer(rectangle(-0.13, cy - 0.15, 0.13, cy - 0.105), (200, 40, 50), "hat")]  # fmt: skip
    elif headgear == "helmet":
        layers += [
            Layer(ellipse(-0.01, cy - 0.03, 0.19, 0.18, 170, 370), (250, 200, 30), "hat"),
            Layer(rectangle(-0.2, cy - 0.06, 0.18, cy - 0.02), (240, 240, 240), "hat"),
        ]
    return layers


def layers(item) -> list[Layer]:
    """The painted polygons of a `SceneObject` in canvas units, back to front."""
    if item.kind == "person":
        shape = _person(item.action, item.mood, item.headgear, item.angle, item.look)
        sign = -1 if item.facing == "left" else 1
    else:
        shape, sign = _thing(item.kind), 1
    return [
        Layer([(item.x + sign * item.height * x, item.y + item.height * y) for x, y in points], paint, part)
        for points, paint, part in shape
    ]
