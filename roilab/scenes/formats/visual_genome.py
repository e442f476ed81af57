"""Visual Genome's region descriptions (Krishna et al., arXiv 1602.07332): as GRiT's COCO-style `train.json`, and as the official files.

A region is an object, a part of one, or a pair in one box. As with the official pictures, some lie in a second folder.
"""

import random
from collections.abc import Iterator
from itertools import permutations

from ..wording import Box, View, article, doing, long_phrase, short_phrase, shuffled, union
from ..world import SceneObject
from .picture import Entry, Format, Picture, area, xywh

_PAIRS = {  # relation: (words, share of the pairs that are described)
    "holding": ("holding", 1.0), "kicking": ("kicking", 1.0), "pointing at": ("pointing at", 1.0), "looking at": ("looking at", 0.5),
    "left of": ("to the left of", 0.1), "above": ("above", 0.1),
}  # fmt: skip


def _captions(item: SceneObject, rng: random.Random) -> list[str]:
    """Two or three captions of one object."""
    first = rng.choice((short_phrase(item), long_phrase(item)))
    if item.is_person:
        more = [
            f"{article(item.mood)} person", f"{rng.choice(('person', 'a person', 'the person is'))} {doing(item.action)}",
            "person without headgear" if item.headgear == "none" else f"person wearing {article(item.headgear)}",
            f"person in {article(item.colour)} shirt",
        ]  # fmt: skip
    else:
        more = [
            f"the {item.kind} is {item.colour}", f"{item.colour} {item.kind}", f"{article(item.material)} {item.kind}",
            f"the {item.kind} is {item.material}", f"{article(item.size)} {item.kind}",
        ]  # fmt: skip
    return [first, *rng.sample(more, rng.choice((1, 2)))]


def regions(view: View, rng: random.Random) -> Iterator[tuple[Box, str]]:
    """Boxes of a scene and what each shows, in random order."""
    found = [(item.box, caption) for item in view.objects for caption in _captions(item, rng)]
    for item in view.objects:
        for name, boxes in item.parts.items():
            if rng.random() < 0.5:
                part = item.headgear if name == "hat" else name
                found.append(
                    (
                        rng.choice(boxes),
                        f"{rng.choice(('the', article(part).split()[0]))} {part} of {short_phrase(item)}",
                    )
                )
    for one, other in permutations(view.objects, 2):
        for relation, (words, share) in _PAIRS.items():
            if view.holds(relation, one, other) and rng.random() < share:
                names = [rng.choice((article(o.kind), short_phrase(o))) for o in (one, other)]
                found.append((union((one.box, other.box)), f"{names[0]} {words} {names[1]}"))
    yield from shuffled(rng, found)


def image(picture: Picture) -> str:
    folder = "VG_100K_2" if picture.number % 3 == 0 else "VG_100K"
    return f"{folder}/{picture.number}.jpg"


def describe(picture: Picture, rng: random.Random) -> Iterator[Entry]:
    """GRiT's form: COCO-style with one category and a caption for each annotation."""
    file = f"vg/{picture.split}.json"
    yield Entry(file, "images", {"id": picture.number, "file_name": image(picture), **picture.size})
    for position, (box, caption) in enumerate(regions(picture.view, rng)):
        yield Entry(file, "annotations", {
            "id": picture.id(position), "image_id": picture.number, "category_id": 1, "bbox": xywh(box), "area": area(box), "iscrowd": 0,
            "caption": caption,
        }, counts=1)  # fmt: skip


def describe_official(picture: Picture, rng: random.Random) -> Iterator[Entry]:
    """The official form: regions with whole pixels, and the pictures' sizes in a file of their own."""
    found = []
    for position, ((x1, y1, x2, y2), phrase) in enumerate(regions(picture.view, rng)):
        x, y = int(x1), int(y1)
        found.append({
            "region_id": picture.id(position), "image_id": picture.number, "phrase": phrase, "x": x, "y": y,
            "width": max(1, round(x2 - x)), "height": max(1, round(y2 - y)),
        })  # fmt: skip
    yield Entry("region_descriptions.json", None, {"id": picture.number, "regions": found}, len(found))
    url = f"https://cs.stanford.edu/people/rak248/{image(picture)}"
    yield Entry("image_data.json", None, {
        "image_id": picture.number, "url": url, **picture.size, "coco_id": None, "flickr_id": None,
    })  # fmt: skip


HEAD = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
FORMATS = {
    "vg": Format(("train", "val", "test"), lambda split: {f"vg/{split}.json": HEAD}, image, describe),
    "vg_official": Format(
        ("train",), lambda split: {"region_descriptions.json": {}, "image_data.json": {}}, image, describe_official
    ),
}
