"""What roilab knows of a data set: its files, where they lie in a data directory, and where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..regions import RegionDialogue


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: what `read`, recipes and commands call it.
        title: what people call it.
        stage: "stage 1", "stage 2" or "evaluation", where GPT4RoI uses it (arXiv 2307.03601, section 4.1).
        files: role -> patterns of the file, relative to the data directory; "{split}" stands for the split; the first match counts.
        images: folders of the pictures, likewise; the first that exists counts.
        read: (files, report, seed=..., **options) -> records.
        obtain: official name and site of the files.
        splits: the splits that exist.
        optional: roles that may be missing.
        alternatives: other sets of files for the same data set, tried in order when `files` are not there.
        options: passed to `read`; the value "{split}" becomes the split, "{folder}" the name of the folder of the pictures or None.
        augment: whether pictures are mirrored and shifted in training.
        folder_in_names: whether records name their pictures with the folder ("VG_100K/1.jpg"); the root is then the folder above it.
        metadata: whether `read` takes `images`, the folder of the pictures, because files about each picture lie there.
    """

    name: str
    title: str
    stage: str
    files: dict[str, tuple[str, ...]]
    images: tuple[str, ...]
    read: Callable[..., Iterator[RegionDialogue]]
    obtain: str
    splits: tuple[str, ...] = ("train",)
    optional: frozenset[str] = frozenset()
    alternatives: tuple[dict[str, tuple[str, ...]], ...] = ()
    options: dict = dataclasses.field(default_factory=dict)
    augment: bool = False
    folder_in_names: bool = False
    metadata: bool = False

    def find(self, directory: Path, split: str) -> tuple[dict[str, Path], list[str]]:
        """The data set's files below `directory`.

        Returns:
            (role -> file, patterns of the required files that are missing); of several sets of files the first complete one, or the
            one that lacks least.
        """
        tries = [self._find(directory, split, files) for files in (self.files, *self.alternatives)]
        return min(tries, key=lambda found: len(found[1]))

    def _find(self, directory, split, files):
        found, missing = {}, []
        for role, patterns in files.items():
            match = _first(directory, patterns, split, Path.is_file)
            if match:
                found[role] = match
            elif role not in self.optional:
                missing.append(" or ".join(pattern.format(split=split) for pattern in patterns))
        return found, missing

    def image_folder(self, directory: Path, split: str) -> Path | None:
        """The folder of the pictures below `directory`, or None."""
        return _first(directory, self.images, split, Path.is_dir)

    def image_root(self, directory: Path, split: str) -> Path | None:
        """The folder that the records' paths of pictures start from, or None."""
        folder = self.image_folder(directory, split)
        return folder.parent if folder and self.folder_in_names else folder


def _first(directory: Path, patterns, split: str, kind: Callable[[Path], bool]) -> Path | None:
    for pattern in patterns:
        match = sorted(filter(kind, directory.glob(pattern.format(split=split))))
        if match:
            return match[0]
    return None
