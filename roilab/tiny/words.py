"""Stage 0, language: dialogues about scenes whose regions are given as words, without a picture."""

import functools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .. import training
from ..scenes import language
from ..scenes.wording import NUMBERS, PLACES
from .dialogues import Batches, Encoder, Portion
from .recipe import TinyRecipe
from .sight import AIMS, aims

BLIND = ("caption",)  # the family that needs the picture, not only regions and setting: not in the text warm-up
READING = ("kind", "colour", "shape", "material", "size", "action", "mood", "headgear", "description", "granularity")
PLACING = ("left_of", "above", "larger")
TALKING = tuple(family for family in language.FAMILIES if family not in BLIND)
RELATING = ("leftmost", "largest", "same_colour", "counting", "looking", "pointing", "holding", "why")


class Phase(NamedTuple):
    """Part of the text warm-up: so many steps at a learning rate, each with all of the portions; `by_letter` and `patches` as in `Encoder`."""

    steps: int
    lr: float
    portions: tuple[Portion, ...]
    by_letter: bool = True
    patches: int | None = 1


LATE = ("granularity", "counting", "same_colour", "pointing", "looking")  # what is learned last, so asked more often
MIXED = (*READING, "setting", *(PLACING * 3), *(RELATING * 3))
SLOW = (*MIXED, *(LATE * 6))
CURRICULUM = {
    "reading": Phase(200, 4e-3, (Portion(READING, 96, 2),)),
    "placing": Phase(900, 4e-3, (Portion((*READING, *(PLACING * 20)), 96, 2),)),
    "stating": Phase(350, 3.5e-3, (Portion(("statement",), 64), Portion((*READING, *(PLACING * 4)), 40))),
    "relating": Phase(2400, 3.5e-3, (Portion((*MIXED, *(PLACING * 2)), 56, 2), Portion(("statement",), 16))),
    "judging": Phase(800, 3.5e-3, (Portion(("option",), 48), Portion(("statement",), 16), Portion(SLOW, 40, 2))),
    "choosing": Phase(800, 3e-3, (Portion(("vcr",), 12), Portion(("option",), 24), Portion(SLOW, 40, 2)), by_letter=False),
    "lettering": Phase(1500, 3e-3, (Portion(("vcr",), 32, 2), Portion(("option",), 8), Portion(SLOW, 36, 2))),
    "polishing": Phase(1200, 3e-3, (Portion((*MIXED, *(LATE * 12)), 96, 3), Portion(("vcr",), 16))),
    "referring": Phase(
        600, 3e-3, (Portion((*MIXED, *(PLACING * 6)), 80, 3, any_order=0.5, listed=1), Portion((*MIXED, *(LATE * 8)), 40, 2), Portion(("vcr",), 8)),
    ),
    "talking": Phase(
        700, 2e-3, (
            Portion((*TALKING, *(PLACING * 4), *(RELATING * 2), *("vcr",) * 8), 16, 2, words=100, any_order=0.5, listed=0.3),
            Portion((*MIXED, *(PLACING * 3), *(LATE * 6)), 32, 2, any_order=0.5, listed=0.5),
        ), patches=None,
    ),
    "drilling": Phase(
        1000, 3e-3, (
            Portion((*MIXED, *("counting",) * 60, *("granularity",) * 8), 96, 3, any_order=0.3, listed=0.3),
            Portion((*TALKING, *("vcr",) * 8), 8, words=100, any_order=0.5, listed=0.3),
        ), patches=8,
    ),
}  # fmt: skip
"""The text warm-up: read one region, compare two, relate several, tell true from false, go by numbers, converse, then count.
All at once takes far longer; and what a phase leaves out is soon forgotten."""


class WordBag(nn.Module):
    """Region slots filled with the truth: the language model's own embeddings of the true words, summed, plus maps of box and aims.

    It stands in for the region encoder while the language model learns to read regions, and is thrown away afterwards. Because
    the words are the model's own (input and output embeddings are tied), what a region shows is a short step away from saying it.
    """

    def __init__(self, width: int, tokenizer):
        super().__init__()
        self.tokens = functools.cache(lambda word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
        self.second = nn.Linear(width, width, bias=False)  # of a pair, so that the two bags do not mix
        self.role = nn.Embedding(4, width)  # one object, part, pair, group
        self.box = nn.Linear(7, width)
        self.aim = nn.Linear(AIMS, width, bias=False)  # where a person's action and gaze are directed
        nn.init.zeros_(self.aim.weight)
        nn.init.zeros_(self.box.weight)  # words first: places are learned when they are asked for
        nn.init.zeros_(self.box.bias)
        nn.init.normal_(self.role.weight, std=0.05)
        self.patch = nn.Parameter(torch.zeros(width))

    def ids(self, scene, slot) -> tuple[list[int], list[int], int]:
        """What a box shows, as token ids: of the first object, of the second (pairs: left one first), and the role."""
        objects = sorted((scene.object(i) for i in slot.objects), key=lambda o: o.centre[0])
        if slot.part:
            return self._bag(slot.part, objects[0].kind, objects[0].colour), [], 1
        if len(objects) > 2:
            people = sum(o.is_person for o in objects)
            counts = [f"{NUMBERS[people]} people"] * (people > 0) + [f"{NUMBERS[len(objects) - people]} things"] * (
                people < len(objects)
            )
            return self._bag(*counts[:1]), self._bag(*counts[1:]), 3
        bags = [self._bag(*(v for v in (*o.attributes.values(), o.facing) if v and v != "none")) for o in objects]
        return bags[0], bags[1] if len(bags) > 1 else [], 2 if len(bags) > 1 else 0

    def row(self, scene, slot, box) -> tuple:
        """What `bag_tensors` takes of a region: `ids`, the aims of a whole object, the normalised box."""
        whole = len(slot.objects) == 1 and not slot.part
        return (*self.ids(scene, slot), aims(scene, scene.object(slot.objects[0])) if whole else [0.0] * AIMS, box)

    def _bag(self, *phrases) -> list[int]:
        return [i for phrase in phrases for i in self.tokens(phrase)]

    def forward(self, embedding, first, second, roles, aims, boxes):
        """Ids [N, K] padded with -1, roles [N], aims [N, 4], boxes [N, 4] normalised -> [N, D]; `embedding` is the language model's."""
        return self.words(embedding, first, second, roles, aims) + self.place(boxes)

    def place(self, boxes):
        """The part that is place, not content, linear in the box's sides, centre and size: [N, D]."""
        extent = boxes[:, 2:] - boxes[:, :2]
        size = extent.clamp_min(1e-3).prod(1, keepdim=True).sqrt()
        return self.box(4 * torch.cat([boxes, boxes[:, :2] + extent / 2, size], 1) - 2)

    def place_ids(self, setting: str) -> list[int]:
        """What a patch of a picture says: where this is."""
        return self._bag(PLACES[setting], setting)

    def picture(self, embedding, ids):
        """Ids [B, K] padded with -1 -> what every patch of a picture says [B, D]."""
        return (embedding(ids.clamp_min(0)) * (ids >= 0)[..., None]).sum(1) + self.patch

    def words(self, embedding, first, second, roles, aims):
        """The part that is content, not place: [N, D]."""
        bags = [(embedding(ids.clamp_min(0)) * (ids >= 0)[..., None]).sum(1) for ids in (first, second)]
        return bags[0] + self.second(bags[1]) + self.role(roles) + self.aim(aims)


def _drop_tied(module, state, prefix, metadata):
    state.pop(f"{prefix}language_model.lm_head.weight", None)  # safetensors wants every tensor once


class TextWarmup(nn.Module):
    """The language model reads dialogues whose regions are word bags, and whose picture says where this is."""

    accepts_loss_kwargs = True
    _keys_to_ignore_on_save = None  # the Trainer asks when it continues without lm_head, which is tied

    def __init__(self, model):
        super().__init__()
        self.language_model = model.language_model
        self.model = [model]  # not a submodule: only the language model and the bag are trained
        self.bag = WordBag(model.config.text_config.hidden_size, model.processor.tokenizer)
        self.register_state_dict_post_hook(_drop_tied)

    def forward(self, input_ids, attention_mask, labels, bags, counts, places, **kwargs):
        model, embedding = self.model[0], self.language_model.get_input_embeddings()
        patches = (input_ids == model.config.image_token_id).sum(1).max()
        regions, picture = self.bag(embedding, *bags).split(counts), None
        if places is None:  # the bags are those of the picture's patches (`coordinates.py`)
            regions, picture = None, torch.stack(regions)
        elif patches:
            picture = self.bag.picture(embedding, places)[:, None].expand(-1, patches, -1)
        outputs = model(
            input_ids, attention_mask, region_embeddings=regions, image_embeddings=picture, labels=labels, **kwargs
        )
        return {"loss": outputs.loss}


class TextBatch:
    """Collates dialogues for `TextWarmup`; the picture is one token, or `patches` of them (None: as many as the processor's)."""

    def __init__(self, processor, bag: WordBag, patches: int | None = 1, by_letter: bool = True):
        self.bag, self.encoder = bag, Encoder(processor, patches, by_letter=by_letter)

    def __call__(self, items):
        encoded, regions, places = [], [], []
        for _, scene, (turns, boxes, slots) in items:
            ids = self.encoder(turns, len(boxes))
            encoded.append(ids)
            regions += [self.bag.row(scene, slots[r], [v / scene.size for v in boxes[r]]) for r in ids.regions]
            places.append(self.bag.place_ids(scene.setting))
        batch = dict(self.encoder.processor.pad(encoded))
        batch.pop("regions")
        return batch | dict(
            bags=bag_tensors(regions), counts=[len(ids.regions) for ids in encoded], places=padded(places)
        )


def padded(rows):
    """Lists of ids -> [N, longest], -1 where a list has ended."""
    longest = max(map(len, rows), default=0) or 1
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows], dtype=torch.long).reshape(-1, longest)


def bag_tensors(regions):
    """Rows (first ids, second ids, role, aims, normalised box) -> the tensors that `WordBag.forward` takes."""
    first, second, roles, directed, boxes = zip(*regions) if regions else ((), (), (), (), ())
    return (
        padded(first), padded(second), torch.tensor(roles, dtype=torch.long), torch.tensor(directed).reshape(-1, AIMS),
        torch.tensor(boxes).reshape(-1, 4),
    )  # fmt: skip


def pretrain_text(recipe: TinyRecipe, model, out: Path):
    """Stage 0, language: trains `model.language_model` in place; returns the warm-up module with its word bag."""
    warmup = TextWarmup(model).to(model.device)
    ended = [out / "text" / f"{name}.pt" for name in CURRICULUM]
    done = max((i + 1 for i, path in enumerate(ended) if path.exists()), default=0)
    if done:
        warmup.load_state_dict(torch.load(ended[done - 1], weights_only=True, map_location="cpu"), strict=False)
    for (name, phase), path in list(zip(CURRICULUM.items(), ended))[done:]:
        collate = TextBatch(model.processor, warmup.bag, phase.patches, phase.by_letter)
        batches = Batches(min(recipe.scenes, 6000), phase.portions, collate)
        training.run(
            warmup, batches, first, out / "text" / name, steps=max(1, round(phase.steps * recipe.text_share)), batch=1, accumulate=batches.per_step,
            lr=phase.lr, weight_decay=0.01, bf16=True, workers=1, log_every=25, muon=True,
        )  # fmt: skip
        training.save_state(warmup.state_dict(), path)
    return warmup


def first(items):
    """Collates what is a batch already (see `Batches`)."""
    return items[0]
