"""Writes drawn scenes as a data directory: the files of all data sets, in the layout in which they are read."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...files import write_whole
from ..dialogue import seed_of
from ..sampling import sample
from . import coco, flickr30k, llava, refcoco, vcr, visual7w, visual_genome
from .picture import MOST, PER_PICTURE, Entry, Format, Picture, split_of

FORMATS: dict[str, Format] = {
    **coco.FORMATS, **refcoco.FORMATS, **flickr30k.FORMATS, **visual_genome.FORMATS, **llava.FORMATS, **vcr.FORMATS, **visual7w.FORMATS,
}  # fmt: skip
"""Name -> data set."""
RECORD = "roilab_scenes.json"  # says what an export has put into a directory
_LISTS = ("images", "annotations", "boxes")  # of records; other lists of a file are as its format has them


def export(
    directory: str | Path, scenes: int = 2000, split: str = "train", names: Iterable[str] | None = None, size: int = 128, seed: int = 0
) -> dict[str, int]:  # fmt: skip
    """Write scenes in the file formats of the data sets, in the layout that `roilab.data.read` expects.

    The same scenes go into every data set, each with its own words and its own copy of the pictures (COCO, RefCOCO and LLaVA share
    theirs). Scenes of a split have seeds of that split (`language.SPLITS`); they and all that is said of them keep clear of the `HELD_OUT`
    combinations. The same call writes the same bytes. Pictures that are there are kept, so an interrupted export goes on; a file of
    records appears when it is complete.

    Args:
        directory: a new or empty folder, or one that `export` wrote with the same `size` and `seed`.
        scenes: how many; a larger number adds to the same ones.
        split: "train", "val" or "test".
        names: of `FORMATS`; by default all that have the split, "vg_official" excepted: Visual Genome is then in GRiT's form.
        size: side of the pictures in pixels.
        seed: another one draws other scenes and words.
    Returns:
        name -> number of objects, expressions, sentences, regions, conversations or questions written.
    Raises:
        ValueError: unknown name, a data set without the split, or a directory that holds something else.
    """
    directory, formats = Path(directory), _chosen(names, split)
    if not 1 <= scenes <= MOST:
        raise ValueError(f"{scenes} scenes asked for, expected 1 to {MOST}")
    start = seed_of(split, seed * MOST)
    record = _claim(directory, size, seed)
    documents = {
        name: {file: _Document(file, head) for file, head in formats[name].files(split).items()} for name in formats
    }
    counts = dict.fromkeys(formats, 0)
    for index in tqdm(range(scenes), desc=f"scenes, {split}", unit="scene"):
        picture = Picture(sample(start + index, size, held_out=False), split, index)
        for name, each in formats.items():
            entries = list(each.describe(picture, random.Random(f"{name} {seed} {picture.scene.seed}")))
            for entry in entries:
                documents[name][entry.file].add(entry)
            counts[name] += sum(entry.counts for entry in entries)
            if entries:
                _write_picture(directory, each, picture)
    for name, each in formats.items():
        for file, document in documents[name].items():
            if each.shared and (directory / file).exists():
                document.keep_other_splits(json.loads((directory / file).read_text(encoding="utf-8")), split)
            _replace(directory / file, document.data())
        record["splits"].setdefault(split, {})[name] = scenes
    _replace(directory / RECORD, _json(record).encode())
    return counts


def _chosen(names: Iterable[str] | None, split: str) -> dict[str, Format]:
    if isinstance(names, str):
        names = [names]
    if names is None:
        names = [name for name, each in FORMATS.items() if split in each.splits and name != "vg_official"]
    names = list(names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown data sets {', '.join(unknown)}; known: {', '.join(FORMATS)}")
    for name in names:
        if split not in FORMATS[name].splits:
            raise ValueError(f"{name} has no split {split!r}; it has {', '.join(FORMATS[name].splits)}")
    return {name: FORMATS[name] for name in names}


def _claim(directory: Path, size: int, seed: int) -> dict:
    """What the directory holds so far; raises where its files would be mixed with others."""
    asked = {"size": size, "seed": seed}
    if (directory / RECORD).exists():
        try:
            record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
            found = {key: record[key] for key in asked}
            dict(record["splits"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{directory / RECORD} is not what export writes ({type(error).__name__}): choose another directory"
            ) from error
        if found != asked:
            raise ValueError(f"{directory} holds scenes of {found}, asked for {asked}: choose another directory")
        return record
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"{directory} is a file, expected a folder")
    if directory.exists() and any(not path.name.startswith(".") for path in directory.iterdir()):
        raise ValueError(
            f"{directory} is not empty and was not written by export (it has no {RECORD}): choose another directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    record = {"made by": "roilab.scenes.export", **asked, "splits": {}}
    _replace(directory / RECORD, _json(record).encode())
    return record


def _write_picture(directory: Path, each: Format, picture: Picture) -> None:
    path = directory / each.image(picture)
    if not path.exists():
        _replace(path, picture.jpeg, sync=False)
    for file, content in each.beside(picture).items():
        _replace(directory / file, _json(content).encode(), sync=False)


class _Document:
    """A file in the making. Records are kept as JSON texts, which take a tenth of the memory."""

    def __init__(self, file: str, head: dict[str, Any]):
        self.file, self.head = file, head
        self.lists: dict[str | None, list] = {
            key: [] for key, value in head.items() if value == [] and key in _LISTS
        } or {None: []}

    def add(self, entry: Entry) -> None:
        self.lists[entry.list].append(entry.record if self.file.endswith(".pkl") else _json(entry.record))

    def keep_other_splits(self, old: dict, split: str) -> None:
        """Take over what the file `old` says of pictures of other splits; the file is ordered by picture."""
        for key, records in self.lists.items():
            name, share = ("box_id", PER_PICTURE) if key == "boxes" else ("image_id", 1)
            kept = [each for each in old[key] if split_of(each[name] // share) != split]
            ordered = sorted([*kept, *map(json.loads, records)], key=lambda each: each[name])
            self.lists[key] = [_json(each) for each in ordered]

    def data(self) -> bytes:
        if self.file.endswith(".pkl"):
            return pickle.dumps(self.lists[None], protocol=4)
        if self.file.endswith(".jsonl"):
            return "".join(f"{line}\n" for line in self.lists[None]).encode()
        texts = {key: "[" + ",\n".join(records) + "]" for key, records in self.lists.items()}
        if None in texts:
            return texts[None].encode()
        parts = (f"{_json(key)}: {texts.get(key) or _json(value)}" for key, value in self.head.items())
        return ("{" + ",\n".join(parts) + "}").encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _replace(path: Path, data: bytes, sync: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data, sync)
