"""COCO detection (Lin et al., arXiv 1405.0312): the user marks a region, the answer is its category's name.

instances_{split}2017.json: images {id, file_name, width, height}, annotations {image_id, category_id, bbox [x, y, width, height] in
pixels, area, iscrowd}, categories {id, name}

Other data in this format comes as one file `instances.json` beside a folder `images`: of its pictures those whose id is a multiple of five
are "val", the others "train".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..dialogues import escape_regions
from ..regions import RegionDialogue
from .coco_style import categories, category_of, pictures
from .fields import field, raw, size
from .picture_files import below
from .report import Filtered, Report
from .requests import DETECTION
from .rounds import NO_REGION, Picture, Region, box_of, one_region_per_round
from .sources import Source

WHOLE = "instances.json"
KEPT_ASIDE = 5
SMALLEST = 2.0  # pixels of the picture as the model sees it


def read(
    files: dict[str, Path],
    report: Report,
    *,
    seed: int = 0,
    image_size: int = 224,
    limit: int = 100,
    split: str = "train",
) -> Iterator[RegionDialogue]:
    """Records of COCO's boxes, one region per round; the first turn lists the categories.

    Args:
        files: "annotations".
        report: gets what is malformed or left out.
        seed: of the order of the regions and the phrasings.
        image_size: the model's pictures have `image_size` x `image_size` pixels; boxes under 2 of these on a side are left out.
        limit: regions per record; a picture with more has several records.
        split: which pictures of a file `WHOLE`; other files are of one split.
    """
    path = files["annotations"]
    names = categories(path, report)
    if not names:
        if str(path) not in report.unreadable:
            report.add(path, "categories", "the list is missing or empty, so that no region has a name")
        return
    listed = ", ".join(escape_regions(name.strip()) for name in dict.fromkeys(names.values()) if name.strip())

    def ask(number, rng):
        opening = "" if number > 1 else rng.choice(DETECTION).format(names=listed) + "\n"
        return f"{opening}<region{number}>"

    for entries, marked in pictures(path, report):
        position, entry = entries[0]
        picture = None
        with report.at(path, position):
            width, height = size(entry)
            if not marked:
                raise Filtered(NO_REGION)
            number = field(entry, "id", int)
            if path.name == WHOLE and (number % KEPT_ASIDE == 0) != (split == "val"):
                continue
            picture = Picture("coco", f"coco-{number}", below(entry, "file_name"), width, height)
        if picture is None:
            continue
        regions = []
        for position, annotation, _ in marked:
            with report.at(path, position):
                regions.append(_region(annotation, picture, names, image_size))
        yield from one_region_per_round(picture, regions, ask, limit=limit, seed=seed)


def _region(annotation: dict, picture: Picture, names: dict[int, str], image_size: int) -> Region:
    name = category_of(annotation, names).strip()
    raw(name, "the category's name")  # Malformed if empty
    box = box_of(annotation, picture.width, picture.height)
    if "iscrowd" in annotation and field(annotation, "iscrowd", int):
        raise Filtered("crowd")
    sides = (box[2] - box[0]) / picture.width, (box[3] - box[1]) / picture.height
    if min(sides) * image_size < SMALLEST:
        raise Filtered(f"a side under {SMALLEST:g} px when the picture is resized to {image_size} x {image_size}")
    return Region(box, name)


SOURCES = (
    Source(
        name="coco",
        title="COCO detection",
        stage="stage 1",
        files={
            "annotations": (
                "annotations/instances_{split}2017.json",
                "instances_{split}2017.json",
                f"annotations/{WHOLE}",
                WHOLE,
            )
        },
        images=("{split}2017", "images"),
        read=read,
        obtain="COCO 2017, train/val images and annotations: cocodataset.org, Download",
        splits=("train", "val"),
        options={"split": "{split}"},
        augment=True,
    ),
)
