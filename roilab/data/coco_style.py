"""COCO-style files, joined on disk: each picture with its annotations, in flat memory and whatever comes first in the file."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Callable, Hashable, Iterator
from itertools import groupby
from pathlib import Path

from .fields import field
from .json_stream import items
from .report import Malformed, Report

Entry = tuple[str, dict]  # position in the file, record
Joined = tuple[str, dict, dict]  # position in the file, annotation, its image entry


def pictures(
    path: Path, report: Report, key: Callable[[dict], Hashable] | None = None
) -> Iterator[tuple[list[Entry], list[Joined]]]:
    """Image entries and annotations, grouped by picture, in the order in which the pictures first stand in the file.

    The files of MDETR have an image entry per sentence: `key` says which entries are of the same picture.

    Args:
        path: a JSON object with the lists "images" (each with an `id`) and "annotations" (each with an `image_id`), in any order.
        report: annotations of images that are not there, and a second image entry with the same `id`, are reported.
        key: image entry -> text or number; by default its `id`. It may raise `Malformed`.
    Yields:
        ([(position, image entry)], [(position, annotation, its image entry)]); positions as "annotations[3]".
    """
    with scratch_base() as base:
        base.execute("CREATE TABLE image (id INTEGER UNIQUE, picture TEXT, position TEXT, body TEXT)")
        base.execute("CREATE TABLE picture (rank INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        base.execute("CREATE TABLE annotation (image INTEGER, position TEXT, body TEXT)")
        for position, entry in items(path, "images.item", report, f"{path.name}: images"):
            with report.at(path, position):
                name = json.dumps(key(entry) if key else field(entry, "id", int))
                try:
                    row = (field(entry, "id", int), name, position, json.dumps(entry))
                    base.execute("INSERT INTO image VALUES (?, ?, ?, ?)", row)
                except sqlite3.IntegrityError:
                    raise Malformed(f"image id {entry['id']} a second time") from None
                base.execute("INSERT OR IGNORE INTO picture (name) VALUES (?)", (name,))
        base.executemany("INSERT INTO annotation VALUES (?, ?, ?)", _annotations(path, report))
        base.execute("CREATE INDEX by_image ON annotation (image)")
        lost = base.execute(
            "SELECT image, position FROM annotation WHERE image NOT IN (SELECT id FROM image) ORDER BY rowid"
        )
        for image, position in lost:
            report.add(path, position, f"image_id {image} is no image of the file")
        yield from _joined(base)


def _joined(base: sqlite3.Connection) -> Iterator[tuple[list[Entry], list[Joined]]]:
    rows = base.execute(
        "SELECT picture.rank, image.position, image.body, annotation.position, annotation.body FROM image"
        " JOIN picture ON picture.name = image.picture LEFT JOIN annotation ON annotation.image = image.id"
        " ORDER BY picture.rank, image.rowid, annotation.rowid"
    )
    for _, group in groupby(rows, key=lambda row: row[0]):
        entries: dict[str, dict] = {}
        annotations: list[Joined] = []
        for _, position, body, annotation_position, annotation in group:
            if position not in entries:
                entries[position] = json.loads(body)
            if annotation is not None:
                annotations.append((annotation_position, json.loads(annotation), entries[position]))
        yield list(entries.items()), annotations


def _annotations(path: Path, report: Report) -> Iterator[tuple[int, str, str]]:
    for position, annotation in items(path, "annotations.item", report, f"{path.name}: annotations"):
        with report.at(path, position):
            yield field(annotation, "image_id", int), position, json.dumps(annotation)


@contextlib.contextmanager
def scratch_base() -> Iterator[sqlite3.Connection]:
    """An empty database on disk for one reading, gone afterwards; it needs little memory and survives nothing."""
    with tempfile.TemporaryDirectory(prefix="roilab-") as folder:
        with contextlib.closing(sqlite3.connect(str(Path(folder) / "join.sqlite"), isolation_level=None)) as base:
            for setting in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE", "cache_size = -32000"):
                base.execute(f"PRAGMA {setting}")
            base.execute("BEGIN")
            yield base


def categories(path: Path, report: Report) -> dict[int, str]:
    """Category id -> name, of the list "categories"."""
    names: dict[int, str] = {}
    for position, category in items(path, "categories.item", report, f"{path.name}: categories"):
        with report.at(path, position):
            number = field(category, "id", int)
            if number in names:
                raise Malformed(f"category id {number} a second time")
            names[number] = field(category, "name", str)
    return names


def category_of(annotation: dict, names: dict[int, str]) -> str:
    """Name of an annotation's category; `Malformed` if the file has no such category."""
    number = field(annotation, "category_id", int)
    if number not in names:
        raise Malformed(f"category_id {number} is no category of the file, which has {len(names)}")
    return names[number]
