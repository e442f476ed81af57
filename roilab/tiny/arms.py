"""The models of the ablation (`ablation.py`): how each is told of regions and what it lacks, and models with planted defects."""

import copy
from typing import NamedTuple

import torch
from PIL import Image

from ..presenting import ARMS as WAYS
from .coordinates import record_of
from .dialogues import renumbered

SEEDS = 3  # of the ways to tell where a region is; of the others 1


class Arm(NamedTuple):
    """How a model is told of regions (a name in `presenting.ARMS`), what it lacks, and how it is trained."""

    present: str = "regions"
    region: dict = {}  # changes of `RegionConfig`
    levels: int | None = None  # that many of the last levels
    content: bool = True  # the part of a region embedding that comes from the picture
    position: bool = True  # the part that comes from the box
    picture: bool = True  # the image tokens
    order: str = "asked"  # how boxes go with numbers in training, see `in_order`
    drilled: bool = False  # stage 2: comparisons above all, at a higher learning rate, the region encoder left alone
    stage1: bool = True
    finished: bool = False  # begins as the finished tiny model, not as stage 0; stage 2 is single questions
    seeds: int = 1


ARMS = {
    "region token": Arm(seeds=SEEDS),
    "text coordinates": Arm("text_coordinates", seeds=SEEDS),
    "drawn marks": Arm("drawn_marks", seeds=SEEDS),
    "crop only": Arm("crop_only", seeds=SEEDS),
    "image only": Arm("image_only", seeds=SEEDS),
    "text only": Arm("text_only", seeds=SEEDS),
    "one level": Arm(levels=1),
    "no fusion": Arm(region={"fusion_rounds": 0}),
    "no box embedding": Arm(position=False),
    "RoIAlign 14": Arm(region={"roi_size": 14}),
    "no stage 1": Arm(stage1=False),
    "shuffled regions": Arm(order="shuffled"),
}
"""The arms of the ablation. RoIAlign gives 7 x 7 cells but in "RoIAlign 14", and there are four levels but in "one level"."""

FINISHED = dict(stage1=False, finished=True)
DEFECTS = {
    "ignores order": Arm(order="by place", **FINISHED),
    "only positions": Arm(content=False, picture=False, **FINISHED),
    "only text": Arm(content=False, position=False, picture=False, **FINISHED),
    "swaps 1 and 2": Arm(order="swapped", drilled=True, **FINISHED),
}
"""Models with a planted defect: the finished tiny model, trained on as the defect has it, on single questions: no region can be taken for one that
a later round names. To exchange regions it has to unlearn comparing and learn it anew, which takes a drill."""

MODELS = ARMS | DEFECTS


class ArmBatch:
    """Collates dialogues as an arm shows them; pictures and jitter are those of a `train.SceneBatch`."""

    def __init__(self, pictures, arm: Arm):
        self.pictures, self.arm = pictures, arm

    def __call__(self, items):
        pictures, encoder = self.pictures, self.pictures.encoder
        size, blind = pictures.pool.images.shape[1], self.arm.present == "text_only"
        changed = self.arm.present in ("drawn_marks", "crop_only")
        encoded, boxes, shown = [], [], []
        for index, scene, (turns, regions, slots) in items:
            if self.arm.order == "by place":
                left_to_right = sorted(range(len(regions)), key=lambda i: regions[i][0] + regions[i][2])
                turns, regions, _ = renumbered(turns, regions, slots, left_to_right)
            moved = in_order(pictures.jittered(torch.tensor(regions).reshape(-1, 4) / scene.size), self.arm.order)
            record = record_of(index, scene, turns, (moved * scene.size).tolist(), size)
            picture = Image.fromarray(pictures.pool.images[index]) if changed else None
            record, picture = WAYS[self.arm.present](record, picture)
            ids = encoder(record.turns, len(record.boxes), image=not blind)
            encoded.append(ids)
            boxes.append(torch.tensor(record.boxes).reshape(-1, 4)[ids.regions] / size)
            shown.append(picture)
        batch = dict(encoder.processor.pad(encoded))
        batch.pop("regions")
        if blind:
            return batch
        pixels = encoder.processor.preprocess(shown) if changed else pictures.pixels([index for index, _, _ in items])
        return batch | dict(pixel_values=pixels) | (dict(boxes=boxes) if self.arm.present == "regions" else {})


def in_order(boxes, order: str):
    """A dialogue's boxes [N, 4] as a model with this `Arm.order` is shown them in training.

    "asked" as they are; "swapped": those of regions 1 and 2 exchanged; "shuffled": any region has any box; "by place": shuffled too, but what is
    said is said of regions that are numbered from left to right, whatever box each has.
    """
    if order in ("shuffled", "by place"):
        return boxes[torch.randperm(len(boxes))]
    if order == "swapped" and len(boxes) > 1:
        return boxes[[1, 0, *range(2, len(boxes))]]
    return boxes


def build(begun, arm: Arm, seed: int):
    """A model of the arm from `begun`: stage 0, whose region encoder makes way for a fresh one, or the finished model.

    What the arm lacks is zero, and `lacking` names it, so that it can stay so.
    """
    from ..model import GPT4RoI

    config = copy.deepcopy(begun.config)
    for name, value in arm.region.items():
        setattr(config.region_config, name, value)
    if arm.levels is not None:
        config.feature_layers = config.feature_layers[-arm.levels :]
        config.region_config.level_widths = config.region_config.level_widths[-arm.levels :]
    torch.manual_seed(seed)
    model = GPT4RoI(config)
    for name in ("vision", "projector", "language_model", "familiarity", *["region_encoder"] * arm.finished):
        model.get_submodule(name).load_state_dict(begun.get_submodule(name).state_dict())
    model.processor = begun.processor
    for name in lacking(arm):
        for each in model.get_submodule(name).parameters():
            torch.nn.init.zeros_(each)
    for part in (model.vision.model, model.language_model):
        part.set_attn_implementation("eager")  # see `train.train`
    return model


def lacking(arm: Arm) -> list[str]:
    """Submodules whose parameters are zero in a model of the arm, and what they give with them."""
    missing = {
        "region_encoder.content": arm.content,
        "region_encoder.position.5": arm.position,
        "projector": arm.picture,
    }
    return [name for name, there in missing.items() if not there]
