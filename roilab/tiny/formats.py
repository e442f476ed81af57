"""Stage 0 of the course: the language model has also read dialogues of the data sets, with true words where the regions will be.

Vicuna knows how to meet all sorts of requests before GPT4RoI's stage 1 begins. So that the frozen language model of a small stage 1 does
too, it reads, after the text warm-up (`words.py`), the dialogues that the readers make of exported scenes, mixed with those it knows.
"""

from __future__ import annotations

import copy
import functools
import re
from itertools import combinations
from pathlib import Path

import torch
from torchvision.ops import box_iou

from .. import data, training
from ..scenes import export, language, sample
from ..scenes.formats.picture import MOST
from ..scenes.wording import Slot, union
from .dialogues import SceneDialogues
from .recipe import TinyRecipe
from .words import BLIND, TextBatch, TextWarmup

SETS = ("coco", "refcoco", "refcoco+", "refcocog", "vg", "vcr_full", "vcr_multi")
"""Data sets whose answers are decided by the regions; the others need the picture."""
SCENES, SEED = 3000, 7  # exported for this alone: other scenes and words than anybody's own export has by default
FITS = 0.8  # intersection over union from which a box is taken for that of an object


class FormatDialogues(torch.utils.data.Dataset):
    """By turns, a record of the exported data sets and a dialogue of the warm-up: index -> (index, scene, dialogue)."""

    def __init__(self, folder: Path, scenes: int | None = None, words: int = 140):
        export(folder, scenes or SCENES, names=[*SETS[:5], "vcr"], seed=SEED)
        self.sets = [data.read(name, folder, cache=folder / "tables") for name in SETS]
        families = [family for family in language.FAMILIES if family not in BLIND]
        self.known = SceneDialogues(sum(map(len, self.sets)), words, families)

    def __len__(self):
        return 2 * len(self.known)

    def __getitem__(self, index):
        if index % 2:
            return self.known[index // 2]
        position = index // 2
        for records in self.sets:
            if position < len(records):
                break
            position -= len(records)
        record = records[position]
        scene = _scene(int(re.findall(r"\d+", record.image.removesuffix("@0.jpg"))[-1]), record.width)
        slots = [slot_of(scene, box) for box in record.boxes]
        return self.known[position] if None in slots else (index, scene, (record.turns, record.boxes, slots))


@functools.lru_cache(4096)
def _scene(number: int, size: int):
    return sample(language.seed_of("train", SEED * MOST + number - 1), size, held_out=False)


def slot_of(scene, box) -> Slot | None:
    """What of the scene a box (xyxy, pixels of the scene's picture) is a box of: an object, a part or a pair; None if nothing fits."""
    known = {Slot((item.id,)): item.box for item in scene.objects}
    for item in scene.objects:
        known |= {Slot((item.id,), name): place for name, places in item.parts.items() for place in places}
    known |= {Slot((one.id, two.id)): union((one.box, two.box)) for one, two in combinations(scene.objects, 2)}
    overlaps = box_iou(torch.tensor([list(box)]), torch.tensor([list(each) for each in known.values()]))[0]
    return list(known)[int(overlaps.argmax())] if overlaps.max() >= FITS else None


def read_formats(recipe: TinyRecipe, model, warmup: TextWarmup, out: Path, steps: int = 500, lr: float = 1e-3):
    """A copy of the model that has read the data sets' dialogues too; `model` and `warmup` stay as they are."""
    model = copy.deepcopy(model)
    reading = TextWarmup(model)
    reading.bag.load_state_dict(warmup.bag.state_dict())
    done = out / "formats" / "formats.pt"
    if done.exists():
        reading.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"), strict=False)
        return model
    training.run(
        reading, FormatDialogues(out / "formats" / "data"), TextBatch(model.processor, reading.bag, None), out / "formats",
        steps=max(1, round(steps * recipe.text_share)), batch=recipe.batch, lr=lr, weight_decay=0.01, bf16=True, workers=1, log_every=25,
    )  # fmt: skip
    training.save_state(reading.state_dict(), done)
    return model
