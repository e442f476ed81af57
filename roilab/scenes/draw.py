"""How a scene becomes pixels: the background, then the polygons of every object, in its colour and material.

Painting happens at twice the wanted size and is averaged down (anti-aliasing).
"""

import functools
import math
import random

from PIL import Image, ImageDraw

from .shapes import BODY, RGB, bar, ellipse, layers, rectangle

CANVAS = 224  # units; `Scene.size` says how many pixels they become
SUPERSAMPLE = 2


@functools.lru_cache(maxsize=64)
def _texture(colour: str, material: str, stripe: int) -> Image.Image:
    """A tile of the material in the colour; striped tiles are cropped, shiny ones stretched over the object."""
    rgb = RGB[colour]
    if material == "striped":
        other = tuple(int(c * 0.3 + 255 * 0.7) for c in rgb) if sum(rgb) < 500 else tuple(int(c * 0.45) for c in rgb)
        tile = Image.new("RGB", (40 * stripe, 40 * stripe), rgb)
        paint = ImageDraw.Draw(tile)
        for start in range(-40 * stripe, 40 * stripe, stripe * 2):
            paint.polygon(
                [
                    (start, 0),
                    (start + stripe, 0),
                    (start + 41 * stripe, 40 * stripe),
                    (start + 40 * stripe, 40 * stripe),
                ],
                fill=other,
            )
        return tile
    tile = Image.new("RGB", (48, 48))
    pixels = []
    for y in range(48):
        for x in range(48):
            shade = 1.1 - 0.75 * (x + y) / 96
            glint = math.exp(-(((x - 15) / 8.0) ** 2 + ((y - 14) / 6.0) ** 2))
            pixels.append(tuple(int(min(255, max(0, c * shade * (1 - glint) + 255 * glint + 14))) for c in rgb))
    tile.putdata(pixels)
    return tile


def paint(image: Image.Image, item, scale: float) -> None:
    """Paint one object onto `image`; `scale` is image pixels per canvas unit."""
    pen = ImageDraw.Draw(image)
    rim = tuple(int(c * 0.5) for c in RGB[item.colour]) if item.colour != "black" else (110, 110, 114)
    for points, fill, _ in layers(item):
        points = [(x * scale, y * scale) for x, y in points]
        if fill != BODY:
            pen.polygon(points, fill=fill)
            continue
        if item.material in (None, "matte"):
            pen.polygon(points, fill=RGB[item.colour])
        else:
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            left, top = math.floor(min(xs)), math.floor(min(ys))
            width, height = math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1
            mask = Image.new("L", (width, height))
            ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in points], fill=255)
            tile = _texture(item.colour, item.material, max(2, round(7 * scale)))
            tile = tile.crop((0, 0, width, height)) if item.material == "striped" else tile.resize((width, height))
            image.paste(tile, (left, top), mask)
        if item.kind != "person":
            pen.line(points + points[:1], fill=rim, width=max(1, round(0.9 * scale)))


def background(image: Image.Image, setting: str, seed: int, scale: float) -> None:
    """Fill `image` with the setting; depends on nothing but the setting and the seed."""
    rng = random.Random(f"background {seed}")
    pen = ImageDraw.Draw(image)
    horizon = rng.uniform(110, 160)
    tint = rng.randint(-14, 14)
    far, near = {
        "indoor": ((222, 200, 170), (156, 118, 86)), "outdoor": ((150, 200, 236), (112, 172, 92)),
        "rain": ((126, 134, 148), (84, 112, 92)), "sun": ((116, 196, 252), (164, 204, 84)),
    }[setting]  # fmt: skip

    def polygon(points, fill):
        pen.polygon([(x * scale, y * scale) for x, y in points], fill=tuple(max(0, min(255, c + tint)) for c in fill))

    polygon(rectangle(-1, -1, CANVAS + 1, horizon), far)
    polygon(rectangle(-1, horizon, CANVAS + 1, CANVAS + 1), near)
    x = rng.uniform(20, 170)
    if setting == "indoor":
        polygon(rectangle(x - 3, 13, x + 45, 61), (250, 246, 236))
        for i in range(4):
            polygon(
                rectangle(x + 23 * (i % 2), 16 + 22 * (i // 2), x + 19 + 23 * (i % 2), 35 + 22 * (i // 2)),
                (176, 214, 240),
            )
        polygon(rectangle(-1, horizon, CANVAS + 1, horizon + 5), (120, 88, 62))
    elif setting == "outdoor":
        polygon(ellipse(x, horizon, 70, 24, 180, 360), (96, 152, 84))
        for dx, dy, r in ((0, 0, 14), (14, 3, 11), (-14, 4, 10)):
            polygon(ellipse(x + dx, 26 + dy, r * 1.4, r * 0.8), (240, 244, 250))
    elif setting == "rain":
        for _ in range(90):
            rx, ry = rng.uniform(0, CANVAS), rng.uniform(-10, CANVAS)
            polygon(bar((rx, ry), (rx - 4, ry + 13), 1.4), (190, 204, 224))
    else:
        for i in range(10):
            angle = 2 * math.pi * i / 10
            polygon(bar((x, 30), (x + 31 * math.cos(angle), 30 + 31 * math.sin(angle)), 3.5), (255, 226, 96))
        polygon(ellipse(x, 30, 19, 19), (255, 214, 40))


def render(scene) -> Image.Image:
    """Paint a whole scene: RGB picture of `scene.size` x `scene.size` pixels."""
    big = Image.new("RGB", (scene.size * SUPERSAMPLE,) * 2)
    scale = scene.size * SUPERSAMPLE / CANVAS
    background(big, scene.setting, scene.seed, scale)
    for item in scene.objects:
        paint(big, item, scale)
    return big.reduce(SUPERSAMPLE)
