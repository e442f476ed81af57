"""The text warm-up for regions told by coordinates in the text: the picture's patches say in words what covers them.

A language model of the tiny model's text warm-up has learned to read the word bag that a region token will be (`words.py`). So that text
coordinates have the same chance, it here also reads dialogues in which a region is "region1 at [0.12, 0.30, 0.55, 0.80]" and every patch of
the picture is the word bag of what covers it; the projector is then fitted so that real patches say the same.
"""

import itertools
import math
from pathlib import Path

import torch

from .. import training
from ..presenting import text_coordinates
from ..regions import RegionDialogue
from ..scenes import sample
from ..scenes.wording import Slot
from .align import fit_patches
from .dialogues import Batches, Encoder, Portion
from .sight import AIMS
from .truth import TruthReader
from .words import LATE, MIXED, PLACING, TextBatch, TextWarmup, WordBag, bag_tensors, first

PORTIONS = (
    Portion((*MIXED, *PLACING), 24),
    Portion((*MIXED, *LATE, *("vcr",) * 6), 8, words=60, any_order=0.5, listed=0.3),
)
"""What a step asks with regions as coordinates; with regions as word bags, half as many, so that they are not forgotten."""


def record_of(index: int, scene, turns, boxes, size: int) -> RegionDialogue:
    """A dialogue about a scene as a record about its picture of `size` pixels, the boxes clipped to it."""
    scaled = [[min(max(v * size / scene.size, 0.0), float(size)) for v in box] for box in boxes]
    return RegionDialogue(f"scene {index}", "scenes", "", size, size, scaled, None, turns)


def patch_rows(bag: WordBag, scene, grid: int) -> list[tuple]:
    """What covers each of the grid x grid patches, row by row, as `words.bag_tensors` takes it.

    It is the frontmost object whose box holds the patch's centre, or whose own centre lies in the patch; else the setting.
    """
    rows, side = [], scene.size / grid
    for y, x in itertools.product(range(grid), repeat=2):
        corner = (x * side, y * side, (x + 1) * side, (y + 1) * side)
        centre = (corner[0] + side / 2, corner[1] + side / 2)
        covering = [o for o in scene.objects if _holds(o.box, centre) or _holds(corner, o.centre)]
        box = [v / scene.size for v in corner]
        if covering:
            rows.append(bag.row(scene, Slot((covering[-1].id,)), box))
        else:
            rows.append((bag.place_ids(scene.setting), [], 0, [0.0] * AIMS, box))
    return rows


def _holds(box, point) -> bool:
    return box[0] <= point[0] < box[2] and box[1] <= point[1] < box[3]


class CoordinateBatch:
    """Collates dialogues for `TextWarmup`: regions as text coordinates, the picture as one word bag per patch."""

    def __init__(self, processor, bag: WordBag):
        self.bag, self.encoder, self.grid = bag, Encoder(processor), math.isqrt(processor.num_image_tokens)

    def __call__(self, items):
        encoded, rows = [], []
        for index, scene, (turns, boxes, _) in items:
            record, _ = text_coordinates(record_of(index, scene, turns, boxes, scene.size), None)
            encoded.append(self.encoder(record.turns, 0))
            rows += patch_rows(self.bag, scene, self.grid)
        batch = dict(self.encoder.processor.pad(encoded))
        batch.pop("regions")
        return batch | dict(bags=bag_tensors(rows), counts=[self.grid**2] * len(items), places=None)


class CoordinateReader(TruthReader):
    """Prompts as `CoordinateBatch` shows dialogues: what the language model makes of coordinates if every patch says the truth."""

    def inputs(self, rows, add_generation_prompt=True, suffix=()):
        encoded, patches, grid = [], [], math.isqrt(self.processor.num_image_tokens)
        for index, turns, shown in rows:
            scene = self.scenes[index]
            record = record_of(index, scene, turns, [box for _, box in shown], scene.size)
            ids = self.processor.encode_dialogue(text_coordinates(record, None)[0].turns, 0, add_generation_prompt)
            ids.input_ids += suffix
            encoded.append(ids)
            patches += patch_rows(self.bag, scene, grid)
        batch = self.processor.pad(encoded, "left")
        bags = (each.to(self.model.device) for each in bag_tensors(patches))
        pictures = self.bag(self.model.get_input_embeddings(), *bags).unflatten(0, (len(rows), grid**2))
        return {key: batch[key].to(self.model.device) for key in ("input_ids", "attention_mask")} | dict(
            image_embeddings=pictures
        )


class _ByTurns(torch.utils.data.Dataset):
    """A batch of each of several `Batches` by turns, whatever the index."""

    def __init__(self, *sets):
        self.sets, self._turns = sets, itertools.cycle(sets)

    def __len__(self):
        return sum(map(len, self.sets))

    def __getitem__(self, index):
        return next(self._turns)[index]


def read_coordinates(model, warmup: TextWarmup, count: int, out: Path, steps: int, lr: float = 2e-3):
    """Goes on with the warm-up in place, in every step with text coordinates and, half as often, with regions as word bags.

    Args:
        count: training scenes to ask about.
        out: folder for checkpoints, log and the finished `coordinates.pt`.
    """
    done = out / "coordinates.pt"
    if done.exists():
        warmup.load_state_dict(torch.load(done, weights_only=True, map_location="cpu"), strict=False)
        return
    known = Batches(
        count, [p._replace(count=p.count // 2) for p in PORTIONS], TextBatch(model.processor, warmup.bag, None)
    )
    both = known, Batches(count, PORTIONS, CoordinateBatch(model.processor, warmup.bag))
    training.run(
        warmup, _ByTurns(*both), first, out, steps=steps, batch=1, accumulate=sum(each.per_step for each in both), lr=lr,
        weight_decay=0.01, bf16=True, workers=1, log_every=25, muon=True,
    )  # fmt: skip
    training.save_state(warmup.state_dict(), done)


def fit_to_patches(model, bag: WordBag, pictures, count: int = 1200) -> float:
    """Sets `model.projector` so that every patch of a real picture says what covers it; see `align.fit_patches`."""
    grid, embedding = math.isqrt(model.processor.num_image_tokens), model.get_input_embeddings()

    def wanted(rows):
        world = [sample(row, held_out=False) for row in rows]  # the training scenes, as in the pool
        bags = bag_tensors([each for scene in world for each in patch_rows(bag, scene, grid)])
        return bag(embedding, *(each.to(model.device) for each in bags)).unflatten(0, (len(rows), grid**2))

    return fit_patches(model, pictures, wanted, count)
