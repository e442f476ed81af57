"""A stage as a dataclass: what is trainable, on which mixture, with which hyper-parameters; and presets at the paper's scale and at tiny's.

The paper's numbers are those of arXiv 2307.03601, section 4.1, and of the published training scripts. They count by the global batch, and so
does a recipe: `batch_size` records make one optimizer step, on however many processes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

STAGES = {
    "stage1": ("region_encoder",),
    "stage2": ("region_encoder", "projector", "language_model"),
}
"""Trainable submodules of each stage; the rest is frozen by `requires_grad=False`."""

PRECISIONS = ("bf16", "fp16", "float32")
QUANTIZED = (None, "4bit", "8bit")
_EITHER = {"epochs": "steps", "steps": "epochs", "warmup_ratio": "warmup_steps", "warmup_steps": "warmup_ratio"}


def _told(default, text: str):
    """A field with the words that `roilab train --help` says of it."""
    kind = "default_factory" if callable(default) else "default"
    return dataclasses.field(**{kind: default}, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """Everything that decides a stage but the model and the data. `help` of the fields' metadata says what each is.

    Raises:
        ValueError: fields that exclude each other, or values that mean nothing.
    """

    trainable: tuple[str, ...] = _told(("region_encoder",), "submodules that learn, by name; all else is frozen")
    mixture: dict[str, float] = _told(dict, "data sets, each with how often a record comes per epoch: coco=1,vg=0.5")
    epochs: float | None = _told(None, "passes over the mixture (or give steps)")
    steps: int | None = _told(None, "optimizer steps (or give epochs)")
    batch_size: int = _told(4, "records per optimizer step, over all processes and pieces")
    accumulation: int = _told(1, "pieces into which each process cuts its share of a step, to save memory")
    lr: float = _told(2e-5, "peak learning rate; after the warm-up it falls to 0 along a cosine")
    warmup_steps: int = _told(0, "steps of linear warm-up (or give warmup-ratio)")
    warmup_ratio: float = _told(0.0, "warm-up as a share of all steps")
    weight_decay: float = _told(0.0, "of AdamW; biases and norms are left out")
    betas: tuple[float, float] = _told((0.9, 0.999), "of AdamW")
    max_grad_norm: float = _told(1.0, "longer gradients are scaled down to this length; 0: never")
    max_length: int = _told(2048, "tokens; a longer dialogue loses its last rounds")
    precision: str = _told("bf16", f"of the computation ({', '.join(PRECISIONS)}); what learns is kept in float32")
    gradient_checkpointing: bool = _told(
        False, "compute the language model's activations twice instead of keeping them"
    )
    lora_rank: int = _told(0, "train the language model through LoRA of this rank instead of as a whole; 0: no")
    load_in: str | None = _told(None, "hold the frozen language model in 4bit or 8bit (CUDA, bitsandbytes)")
    reuse_prefix: bool = _told(False, "stage 1: no gradients before the first region, computed once per picture")
    group_by_picture: bool = _told(False, "records of one picture stand side by side (more for reuse-prefix to share)")
    cache_features: bool = _told(False, "keep the frozen vision tower's features on disk")
    centred_cells: bool = _told(
        False, "keep a mean of zero in the filters behind RoIAlign (a narrow region encoder needs it)"
    )
    augment: bool = _told(False, "mirror and shift the pictures of data sets that allow it")
    four_choices: bool = _told(False, "turn records into their four-choice form (VCR)")
    present: str = _told("regions", "how a model is told of regions; a name in roilab.presenting.ARMS")
    seed: int = _told(0, "of the order of the data and of all else that is drawn")
    save_every: int = _told(500, "steps between checkpoints")
    keep: int = _told(1, "how many checkpoints stay")
    log_every: int = _told(10, "steps that one log entry is the mean of")
    workers: int = _told(0, "processes that load data")
    fsdp: bool = _told(False, "shard the model over the processes (FSDP)")

    def __post_init__(self):
        for name in ("trainable", "betas"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "mixture", dict(self.mixture))
        self._check_values()
        self._check_together()

    def _check_values(self):
        def refuse(name, expected):
            raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")

        for name in ("batch_size", "accumulation", "max_length", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                refuse(name, "at least 1")
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "lora_rank", "workers"):
            if not 0 <= getattr(self, name) < math.inf:
                refuse(name, "0 or more")
        for name in ("lr", "epochs", "steps"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                refuse(name, "more than 0")
        if not 0 <= self.warmup_ratio <= 1:
            refuse("warmup_ratio", "a share between 0 and 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            refuse("betas", "two numbers from 0 up to, not including, 1")
        if self.precision not in PRECISIONS:
            refuse("precision", " or ".join(PRECISIONS))
        if self.load_in not in QUANTIZED:
            refuse("load_in", "4bit, 8bit or None")
        if not self.trainable:
            refuse("trainable", "the name of at least one submodule")
        if not self.mixture or not all(0 < weight < math.inf for weight in self.mixture.values()):
            refuse("mixture", "data sets with weights above 0")

    def _check_together(self):
        whole_model = "language_model" in self.trainable and not self.lora_rank
        for wrong, reason in (
            ((self.epochs is None) == (self.steps is None), f"epochs {self.epochs}, steps {self.steps}: give one of them"),
            (
                self.warmup_steps and self.warmup_ratio,
                f"warmup_steps {self.warmup_steps}, warmup_ratio {self.warmup_ratio}: give one of them",
            ),
            (
                self.batch_size % self.accumulation,
                f"batch_size {self.batch_size} cannot be cut into {self.accumulation} pieces (accumulation)",
            ),
            (
                self.lora_rank and "language_model" not in self.trainable,
                f"lora_rank {self.lora_rank}, but language_model is not among the trainable {', '.join(self.trainable)}",
            ),
            (self.load_in and whole_model, f"load_in {self.load_in} freezes the language model, but it is trainable: use lora_rank"),
            (self.load_in and self.precision == "float32", f"load_in {self.load_in} needs precision bf16 or fp16, not float32"),
            (self.load_in and self.fsdp, f"load_in {self.load_in} together with fsdp: quantized weights are not sharded"),
            (self.centred_cells and self.fsdp, "centred_cells together with fsdp: a shard does not know its filters' mean"),
            (self.lora_rank and self.fsdp, f"lora_rank {self.lora_rank} together with fsdp is not supported"),
            (
                self.reuse_prefix and self.trainable != ("region_encoder",),
                f"reuse_prefix needs that region_encoder alone is trained, not {', '.join(self.trainable)}",
            ),
            (
                self.reuse_prefix and self.gradient_checkpointing,
                "reuse_prefix and gradient_checkpointing: the latter drops the keys and values that are reused",
            ),
            (
                self.cache_features and any(name.split(".")[0] == "vision" for name in self.trainable),
                "cache_features, but vision is trainable: its features change with every step",
            ),
            (self.cache_features and self.augment, "cache_features and augment: augmented pictures are new every time"),
        ):  # fmt: skip
            if wrong:
                raise ValueError(reason)

    def replace(self, **changes) -> StageRecipe:
        """The recipe with other values; `steps` takes the place of `epochs`, `warmup_steps` that of `warmup_ratio`, and the reverse."""
        unknown = set(changes) - {field.name for field in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"a recipe has no {', '.join(sorted(unknown))}")
        for name, other in _EITHER.items():
            if changes.get(name) and other not in changes:
                changes[other] = StageRecipe.__dataclass_fields__[other].default
        return dataclasses.replace(self, **changes)

    def optimizer_steps(self, epoch_length: int) -> int:
        """Steps of the whole run; its last step is filled up with the beginning of one more epoch."""
        return self.steps or math.ceil(self.epochs * epoch_length / self.batch_size)


def stage1(scale: str = "paper", **changes) -> StageRecipe:
    """The region encoder alone, on detection and referring expressions: words for regions.

    Published: 4 GPUs with one record each, weight decay 0.01 in this stage's script. The prefix before the first region is computed without
    gradients, which changes no gradient of the region encoder.

    Args:
        scale: "paper", or "tiny" for the shipped tiny model's size.
        changes: fields with other values.
    """
    mixture = {"coco": 1.0, "refcoco": 1.0, "refcoco+": 1.0}
    paper = dict(
        mixture=mixture, epochs=2, batch_size=4, lr=2e-5, warmup_ratio=0.003, weight_decay=0.01, reuse_prefix=True, augment=True, workers=4
    )  # fmt: skip
    tiny = dict(  # expressions about looks teach most: minutes are short
        mixture={"coco": 0.5, "refcoco": 0.5, "refcoco+": 2.0}, steps=400, batch_size=16, lr=3e-3, warmup_ratio=0.05, weight_decay=0.01,
        betas=(0.9, 0.98), max_length=384, reuse_prefix=True, group_by_picture=True, centred_cells=True, save_every=100,
    )  # fmt: skip
    return _scaled(scale, paper, tiny, trainable=STAGES["stage1"]).replace(**changes)


def stage2(scale: str = "paper", **changes) -> StageRecipe:
    """Everything but the vision tower, on dialogues about regions.

    Published: 8 GPUs with two records each, fully sharded: on several processes add `fsdp=True`.

    Args:
        scale, changes: as in `stage1`.
    """
    names = ("refcocog", "flickr30k", "vg", "llava", "vcr_full", "vcr_single", "vcr_multi")
    mixture = dict.fromkeys(names, 1.0)
    paper = dict(
        mixture=mixture, epochs=2, batch_size=16, lr=2e-5, warmup_steps=3000, weight_decay=0.0, gradient_checkpointing=True, workers=4,
        save_every=1000,
    )  # fmt: skip
    weights = dict(
        zip(names, (2.0, 0.5, 2.0, 1.0, 0.3, 1.0, 0.5))
    )  # not mostly VCR, which says little about a region's looks
    tiny = dict(  # a language model this small forgets at higher rates what it had read before
        mixture=weights, steps=300, batch_size=8, lr=3e-4, warmup_ratio=0.05, betas=(0.9, 0.98), max_length=384, centred_cells=True,
        save_every=100,
    )  # fmt: skip
    return _scaled(scale, paper, tiny, trainable=STAGES["stage2"]).replace(**changes)


def stage3_vcr(scale: str = "paper", **changes) -> StageRecipe:
    """Fine-tuning to VCR's four-choice format, from which the paper's VCR numbers come.

    The paper does not publish this stage's schedule. One epoch at stage 2's learning rate and batch with 3 % warm-up is our choice.

    Args:
        scale, changes: as in `stage1`.
    """
    mixture = {"vcr_full": 1.0}
    paper = dict(
        mixture=mixture, epochs=1, batch_size=16, lr=2e-5, warmup_ratio=0.03, gradient_checkpointing=True, workers=4, save_every=1000
    )  # fmt: skip
    tiny = dict(
        mixture=mixture, steps=300, batch_size=16, lr=3e-4, warmup_ratio=0.05, betas=(0.9, 0.98), save_every=100
    )
    return _scaled(scale, paper, tiny, trainable=STAGES["stage2"], four_choices=True).replace(**changes)


PRESETS = {each.__name__: each for each in (stage1, stage2, stage3_vcr)}


def _scaled(scale: str, paper: dict, tiny: dict, **both) -> StageRecipe:
    scales = {"paper": paper, "tiny": tiny}
    if scale not in scales:
        raise ValueError(f"scale is {scale!r}, expected {' or '.join(scales)}")
    return StageRecipe(**both, **scales[scale])


def set_trainable(model, stage: str) -> int:
    """Freeze all but the stage's submodules; returns the number of trainable parameters."""
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    return train_only(model, STAGES[stage])


def train_only(model, names) -> int:
    """Freeze all but the submodules `names` ("projector", "language_model.model.layers.3"); returns the number of trainable parameters."""
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_(True)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
