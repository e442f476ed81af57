"""Stage 0, language: dialogues about scenes whose regions are given as words, without a picture."""

import dataclasses
import functools
import random
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .. import scenes, training
from ..scenes import language
from ..scenes.wording import NUMBERS, listing
from .recipe import TinyRecipe

BLIND = ("caption", "setting")  # families that need the picture, not only regions: not in the text warm-up
READING = ("kind", "colour", "shape", "material", "size", "action", "mood", "headgear", "description", "granularity")
PLACING = ("left_of", "above", "larger")
RELATING = ("leftmost", "largest", "same_colour", "counting", "looking", "pointing", "holding", "why")


class Phase(NamedTuple):
    """Part of the text warm-up: single questions (words = 1) or dialogues of about `words` words, `batch` of them in each step."""

    families: tuple[str, ...]
    steps: int
    batch: int
    words: int = 1
    lr: float = 3e-3
    blank_picture: bool = False


CURRICULUM = {
    "reading": Phase(READING, 400, 96),
    "binding": Phase(READING, 200, 32, 60, 2e-3),
    "placing": Phase((*READING, *(PLACING * 20)), 1200, 128),
    "comparing": Phase((*(READING * 3), *(PLACING * 4), *(RELATING * 4)), 1000, 128, lr=2e-3),
    "talking": Phase(
        (*(f for f in language.FAMILIES if f not in BLIND), *PLACING, *RELATING), 300, 16, 140, 1e-3, True
    ),
}
"""The text warm-up: first read one region, then compare several, then hold a conversation. All at once takes far longer."""


class WordBag(nn.Module):
    """Region slots filled with the truth: the language model's own embeddings of the true words, summed, plus a map of the box.

    It stands in for the region encoder while the language model learns to read regions, and is thrown away afterwards. Because
    the words are the model's own (input and output embeddings are tied), what a region shows is a short step away from saying it.
    """

    def __init__(self, width: int, tokenizer):
        super().__init__()
        self._tokens = functools.cache(lambda word: tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
        self.second = nn.Linear(width, width, bias=False)  # of a pair, so that the two bags do not mix
        self.role = nn.Embedding(4, width)  # one object, part, pair, group
        self.box = nn.Linear(7, width)
        nn.init.zeros_(self.box.weight)  # words first: places are learned when they are asked for
        nn.init.zeros_(self.box.bias)
        nn.init.normal_(self.role.weight, std=0.05)

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

    def _bag(self, *phrases) -> list[int]:
        return [i for phrase in phrases for i in self._tokens(phrase)]

    def forward(self, embedding, first, second, roles, boxes):
        """Ids [N, K] padded with -1, roles [N], boxes [N, 4] normalised -> [N, D]; `embedding` is the language model's."""
        return self.words(embedding, first, second, roles) + self.place(boxes)

    def place(self, boxes):
        """The part that is place, not content, linear in the box's sides, centre and size: [N, D]."""
        extent = boxes[:, 2:] - boxes[:, :2]
        size = extent.clamp_min(1e-3).prod(1, keepdim=True).sqrt()
        return self.box(4 * torch.cat([boxes, boxes[:, :2] + extent / 2, size], 1) - 2)

    def words(self, embedding, first, second, roles):
        """The part that is content, not place: [N, D]."""
        bags = [(embedding(ids.clamp_min(0)) * (ids >= 0)[..., None]).sum(1) for ids in (first, second)]
        return bags[0] + self.second(bags[1]) + self.role(roles)


def _drop_tied(module, state, prefix, metadata):
    state.pop(f"{prefix}language_model.lm_head.weight", None)  # safetensors wants every tensor once


class TextWarmup(nn.Module):
    """The language model reads dialogues whose regions are word bags; there is no picture."""

    accepts_loss_kwargs = True
    _keys_to_ignore_on_save = None  # the Trainer asks when it continues without lm_head, which is tied

    def __init__(self, model):
        super().__init__()
        self.language_model = model.language_model
        self.model = [model]  # not a submodule: only the language model and the bag are trained
        self.bag = WordBag(model.config.text_config.hidden_size, model.processor.tokenizer)
        self.register_state_dict_post_hook(_drop_tied)

    def forward(self, input_ids, attention_mask, labels, bags, counts, **kwargs):
        model = self.model[0]
        regions = self.bag(self.language_model.get_input_embeddings(), *bags).split(counts)
        blank = None
        if (input_ids == model.config.image_token_id).any():  # the projector starts at zero as well
            blank = regions[0].new_zeros(len(input_ids), model.processor.num_image_tokens, regions[0].shape[-1])
        outputs = model(
            input_ids, attention_mask, region_embeddings=regions, image_embeddings=blank, labels=labels, **kwargs
        )
        return {"loss": outputs.loss}


class SceneDialogues(torch.utils.data.Dataset):
    """Dialogues of about `words` words about training scenes, sampled anew every epoch: index -> (index, scene, dialogue).

    With `any_order` regions are numbered at random; with `objects` each dialogue is about that many objects, drawn from these numbers
    (for families that do not ask about the rest of the picture). A share `listed` of the dialogues begins with a list of all
    its regions, so that every question has to find its regions by their numbers.
    """

    cache: dict[int, scenes.Scene] = {}  # shared: sampling a scene takes longer than asking about it

    def __init__(
        self,
        count: int,
        words: int,
        families,
        any_order: bool = False,
        objects: tuple[int, ...] = (),
        listed: float = 0.0,
    ):
        self.count, self.words, self.rounds, self.families = count, words, 16, list(families)
        self.any_order, self.objects, self.listed = any_order, objects, listed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index not in self.cache:
            self.cache[index] = scenes.sample(index, held_out=False)
        scene = self.cache[index]
        rng = random.Random(torch.randint(2**62, ()).item())
        questions, length = [], 0
        asked = scene
        if self.objects:
            some = rng.sample(scene.objects, min(rng.choice(self.objects), len(scene.objects)))
            asked = dataclasses.replace(scene, objects=tuple(o for o in scene.objects if o in some))
        for question in language.questions(asked, rng, self.families, self.rounds):
            length += sum(len(turn["content"].split()) + 4 for turn in language.turns_of(question))
            if questions and length > self.words:
                break
            questions.append(question)
        turns, boxes, slots = language.combine(questions)
        if self.any_order:
            turns, boxes, slots = _any_order(turns, boxes, slots, rng)
        if boxes and rng.random() < self.listed:
            names = listing([f"<region{i}>" for i in rng.sample(range(1, len(boxes) + 1), len(boxes))])
            turns[0] = turns[0] | {
                "content": f"There {'are' if len(boxes) > 1 else 'is'} {names}. {turns[0]['content']}"
            }
        return index, scene, (turns, boxes, slots)


def _any_order(turns, boxes, slots, rng):
    """The same dialogue with its regions numbered at random, as by a user who draws first and asks in another order."""
    order = rng.sample(range(len(boxes)), len(boxes))  # new position -> old
    numbers = {old + 1: new + 1 for new, old in enumerate(order)}
    turns = [turn | {"content": language.renumber(turn["content"], numbers)} for turn in turns]
    return turns, [boxes[old] for old in order], [slots[old] for old in order]


class TextBatch:
    """Collates dialogues for `TextWarmup`."""

    def __init__(self, processor, bag: WordBag, blank_picture: bool = False):
        self.processor, self.bag, self.blank_picture = processor, bag, blank_picture

    def __call__(self, items):
        encoded, regions = [], []
        for _, scene, (turns, boxes, slots) in items:
            ids = self.processor.encode_dialogue(turns, len(boxes), image=self.blank_picture)
            encoded.append(ids)
            regions += [(*self.bag.ids(scene, slots[r]), [v / scene.size for v in boxes[r]]) for r in ids.regions]
        batch = dict(self.processor.pad(encoded))
        batch.pop("regions")
        return batch | dict(bags=bag_tensors(regions), counts=[len(ids.regions) for ids in encoded])


def bag_tensors(regions):
    """Rows (first ids, second ids, role, normalised box) -> the tensors that `WordBag.forward` takes."""

    def padded(rows):
        longest = max(map(len, rows), default=0) or 1
        return torch.tensor([row + [-1] * (longest - len(row)) for row in rows], dtype=torch.long).reshape(-1, longest)

    first, second, roles, boxes = zip(*regions) if regions else ((), (), (), ())
    return padded(first), padded(second), torch.tensor(roles, dtype=torch.long), torch.tensor(boxes).reshape(-1, 4)


def pretrain_text(recipe: TinyRecipe, model, out: Path):
    """Stage 0, language: trains `model.language_model` in place; returns the warm-up module with its word bag."""
    warmup = TextWarmup(model).to(model.device)
    for name, phase in CURRICULUM.items():
        ended = out / "text" / f"{name}.pt"
        if ended.exists():
            warmup.load_state_dict(torch.load(ended, weights_only=True, map_location="cpu"), strict=False)
            continue
        data = SceneDialogues(min(recipe.scenes, 6000), phase.words, phase.families)
        training.run(
            warmup,
            data,
            TextBatch(model.processor, warmup.bag, phase.blank_picture),
            out / "text" / name,
            steps=max(1, round(phase.steps * recipe.text_share)),
            batch=phase.batch,
            lr=phase.lr,
            weight_decay=0.01,
            bf16=True,
            workers=1,
            log_every=25,
        )
        training.save_state(warmup.state_dict(), ended)
    return warmup
