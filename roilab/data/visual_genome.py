"""Visual Genome's region descriptions (Krishna et al., arXiv 1602.07332): the user asks about a region, the answer is its description.

Two forms of the same data, the first one preferred where both are there:

    train.json of GRiT (Wu et al., arXiv 2212.00280): images {id, file_name, width, height}, annotations {image_id, bbox [x, y, width,
    height] in pixels, area, caption}, over 1 GB
    region_descriptions.json: [{id, regions [{x, y, width, height in pixels, phrase}]}], with image_data.json: [{image_id, url, width,
    height}]; official, not split

The pictures come in two folders, VG_100K and VG_100K_2, or are put together in one. Records name them with their folder.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ..regions import RegionDialogue
from .coco_style import pictures
from .fields import box_xywh, field, raw, size
from .json_stream import items
from .picture_files import below
from .report import Filtered, Malformed, Report
from .requests import DESCRIBE
from .rounds import NO_REGION, Picture, Region, box_of, one_region_per_round
from .sources import Source

OFFICIAL = "VG_100K"  # the official folders' names begin so


def read(
    files: dict[str, Path], report: Report, *, seed: int = 0, folder: str | None = None, split: str = "train", limit: int = 15
) -> Iterator[RegionDialogue]:  # fmt: skip
    """Records of Visual Genome's regions, one per round.

    Args:
        files: "annotations", GRiT's file, with or without "places" (image_data.json, here only for the pictures' folders); or
            "descriptions" and "image_data".
        report: gets what is malformed or left out.
        seed: of the order of the regions and the phrasings.
        folder: of the pictures. If it is not one of the official two, all pictures are in it.
        split: which one `files` are of; the official files are "train".
        limit: regions per record; a picture with more has several records.
    Raises:
        ValueError: another split of the official files.
    """
    if "annotations" in files:
        found = _grit(files, report, folder)
    elif split == "train":
        found = _official(files, report, folder)
    else:
        name = files["descriptions"].name
        raise ValueError(f"{name} is not split: there is no {split!r}, all of it is read as 'train'")
    for picture, regions in found:
        yield from one_region_per_round(picture, regions, _ask, limit=limit, seed=seed)


def _ask(number: int, rng: random.Random) -> str:
    return rng.choice(DESCRIBE).format(region=f"<region{number}>")


def _grit(files: dict[str, Path], report: Report, folder: str | None) -> Iterator[tuple[Picture, list[Region]]]:
    path = files["annotations"]
    known = _image_data(files["places"], report) if "places" in files else {}
    for entries, marked in pictures(path, report):
        position, entry = entries[0]
        picture, regions = None, []
        with report.at(path, position):
            width, height = size(entry)
            number = field(entry, "id", int)
            image = _image(below(entry, "file_name"), folder, known[number][0] if number in known else None)
            if not marked:
                raise Filtered(NO_REGION)
            picture = Picture("vg", f"vg-{number}", image, width, height)
        if picture is None:
            continue
        for position, annotation, _ in marked:
            with report.at(path, position):
                label = _label(annotation, "caption")
                regions.append(Region(box_of(annotation, width, height), label))
        yield picture, regions


def _official(files: dict[str, Path], report: Report, folder: str | None) -> Iterator[tuple[Picture, list[Region]]]:
    path = files["descriptions"]
    known, seen = _image_data(files["image_data"], report), set()
    for position, entry in items(path, "item", report):
        picture, regions, descriptions = None, [], []
        with report.at(path, position):
            number = field(entry, "id", int)
            if number not in known:
                raise Malformed(f"picture {number} is not in {files['image_data'].name}")
            if number in seen:
                raise Malformed(f"picture {number} a second time")
            seen.add(number)
            descriptions = field(entry, "regions", list)
            if not descriptions:
                raise Filtered(NO_REGION)
            place, width, height = known[number]
            picture = Picture("vg", f"vg-{number}", _image(place, folder, None), width, height)
        if picture is None:
            continue
        for i, description in enumerate(descriptions):
            with report.at(path, f"{position}.regions[{i}]"):
                told = isinstance(description, dict) and "image_id" in description
                owner = field(description, "image_id", int) if told else number
                if owner != number:
                    raise Malformed(f"'image_id' is {owner}, in the list of picture {number}")
                label = _label(description, "phrase")
                sides = [field(description, side, float) for side in ("x", "y", "width", "height")]
                regions.append(Region(box_xywh(sides, width, height), label))
        yield picture, regions


def _label(record: dict, key: str) -> str:
    raw(field(record, key, str), repr(key))  # Malformed if empty
    return record[key].strip()


def _image_data(path: Path, report: Report) -> dict[int, tuple[str, int, int]]:
    """Picture id -> (folder and file as in its address, width, height); 108,077 of them in the official file."""
    known: dict[int, tuple[str, int, int]] = {}
    for position, entry in items(path, "item", report):
        with report.at(path, position):
            number = field(entry, "image_id", int)
            if number in known:
                raise Malformed(f"picture {number} a second time")
            known[number] = (_place(field(entry, "url", str)), *size(entry))
    return known


def _place(url: str) -> str:
    """ "https://.../VG_100K_2/1.jpg" -> "VG_100K_2/1.jpg": the folder is known from there alone."""
    try:
        parts = PurePosixPath(urlsplit(url).path).parts[-2:]
    except ValueError:  # of urlsplit, "https://[/1.jpg"
        parts = ()
    if len(parts) < 2 or parts[0] == "/":
        raise Malformed(f"'url' is {url!r}, expected .../folder/file")
    return below({"url": "/".join(parts)}, "url")


def _image(name: str, folder: str | None, place: str | None) -> str:
    """A picture's path from the folder above the pictures.

    Args:
        name: in the file, with or without a folder.
        folder: of the pictures on this machine, if there is one.
        place: folder and file by image_data.json, if known.
    """
    *folders, last = PurePosixPath(name).parts
    if folder and not folder.startswith(OFFICIAL):  # all put together
        return f"{folder}/{last}"
    if folders:
        return f"{folders[-1]}/{last}"
    return place or f"{folder or OFFICIAL}/{last}"


def _below(*names: str) -> tuple[str, ...]:
    return tuple(f"{folder}{name}" for name in names for folder in ("vg/", "visual_genome/", ""))


_IMAGE_DATA = _below("image_data.json")
SOURCES = (
    Source(
        name="vg",
        title="Visual Genome",
        stage="stage 2",
        files={"annotations": (*_below("{split}.json"), "vg/annotations/{split}.json"), "places": _IMAGE_DATA},
        optional=frozenset({"places"}),
        alternatives=({"descriptions": _below("region_descriptions.json"), "image_data": _IMAGE_DATA},),
        images=(*_below("VG_100K", "VG_100K_2"), "vg/images", "visual_genome/images"),
        read=read,
        obtain="Visual Genome 1.2, region descriptions, image data and images: homes.cs.washington.edu/~ranjay/visualgenome; its form "
        "train.json: GRiT, github.com/JialianW/GRiT",
        splits=("train", "val", "test"),
        options={"folder": "{folder}", "split": "{split}"},
        folder_in_names=True,
    ),
)
