"""Dialogues about training scenes, and how they become rows and batches of the tiny model's own training."""

import copy
import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .. import scenes
from ..dialogues import DialogueIds
from ..presenting import LETTERS
from ..scenes import language
from ..scenes.wording import listing
from .statements import JUDGING


class SceneDialogues(torch.utils.data.Dataset):
    """Dialogues of about `words` words about training scenes, sampled anew every epoch: index -> (index, scene, dialogue).

    With `words` 1 they are single questions, and the families may be those of `statements.JUDGING` too. With `any_order`, which is that
    share of the dialogues, regions are numbered at random. A share `listed` of them begins with a list of all its regions, so that every
    question has to find its regions by their numbers. A scene that offers none of the families gives way to the next one.

    Raises:
        ValueError: no scene offers any of the families.
    """

    cache: dict[int, scenes.Scene] = {}  # shared: sampling a scene takes longer than asking about it

    def __init__(self, count: int, words: int, families, any_order: float = 0.0, listed: float = 0.0):
        self.count, self.words, self.rounds, self.families = count, words, 16, list(families)
        self.any_order, self.listed = any_order, listed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = random.Random(torch.randint(2**62, ()).item())
        families = self.families if self.words > 1 else [rng.choice(self.families)]  # single: as often as it is listed
        for row in (*range(index, self.count), *range(index)):
            if row not in self.cache:
                self.cache[row] = scenes.sample(row, held_out=False)
            scene = self.cache[row]
            questions = self._questions(scene, rng, families)
            if questions:
                break
        else:
            raise ValueError(f"none of {self.count} scenes offers a question of {', '.join(sorted(set(families)))}")
        turns, boxes, slots = language.combine(questions)
        if rng.random() < self.any_order:
            turns, boxes, slots = renumbered(turns, boxes, slots, rng.sample(range(len(boxes)), len(boxes)))
        if boxes and rng.random() < self.listed:
            names = listing([f"<region{i}>" for i in rng.sample(range(1, len(boxes) + 1), len(boxes))])
            turns[0] = turns[0] | {
                "content": f"There {'are' if len(boxes) > 1 else 'is'} {names}. {turns[0]['content']}"
            }
        return row, scene, (turns, boxes, slots)

    def _questions(self, scene, rng, families):
        if self.words == 1:
            if families[0] in JUDGING:
                return [each for each in [JUDGING[families[0]](scene, rng)] if each]
            return language.questions(scene, rng, families)
        questions, length = [], 0
        for question in language.questions(scene, rng, families, self.rounds):
            length += sum(len(turn["content"].split()) + 4 for turn in language.turns_of(question))
            if questions and length > self.words:
                break
            questions.append(question)
        return questions


class Portion(NamedTuple):
    """A kind of dialogue: `count` of them in every step, in `parts` batches of similar length; the rest as in `SceneDialogues`."""

    families: tuple[str, ...]
    count: int
    parts: int = 1
    words: int = 1
    any_order: float = 0.0
    listed: float = 0.0


class Batches(torch.utils.data.Dataset):
    """Whole batches, `per_step` of which belong together: some of every portion, sorted by length so that little of them is padding.

    A step has to see all of them. Where every step is of one kind of dialogue, the kinds undo what the others have learned.
    """

    def __init__(self, count: int, portions: Sequence[Portion], collate):
        self.count, self.portions, self.collate = count, portions, collate
        self.sets = [SceneDialogues(count, p.words, p.families, p.any_order, p.listed) for p in portions]
        self.per_step = sum(portion.parts for portion in portions)
        self._drawn: list[list] = []

    def __len__(self):
        return self.count * self.per_step

    def __getitem__(self, index):
        if not self._drawn:
            for portion, dialogues in zip(self.portions, self.sets):
                rows = torch.randint(self.count, (portion.count,)).tolist()
                items = sorted((dialogues[row] for row in rows), key=_length)
                edges = [round(part * portion.count / portion.parts) for part in range(portion.parts + 1)]
                self._drawn += [items[start:stop] for start, stop in zip(edges, edges[1:])]
        return self.collate(self._drawn.pop())


def _length(item) -> int:
    _, _, (turns, _, _) = item
    return sum(len(turn["content"]) for turn in turns)


def renumbered(turns, boxes, slots, order):
    """The same dialogue with its regions numbered otherwise, as by a user who draws first and asks in another order.

    Args:
        order: new position -> old position.
    """
    numbers = {old + 1: new + 1 for new, old in enumerate(order)}
    turns = [turn | {"content": language.renumber(turn["content"], numbers)} for turn in turns]
    return turns, [boxes[old] for old in order], [slots[old] for old in order]


class Encoder:
    """Dialogues -> ids and labels; in training the model also learns, at the end of every option, whether it is the right one.

    Args:
        patches: image tokens of a picture; by default the processor's.
        verdicts: share of the dialogues whose options are judged (see `judge_options`).
        by_letter: what the verdict on the right option is, its letter or " yes".
    """

    def __init__(self, processor, patches: int | None = None, verdicts: float = 0.8, by_letter: bool = True):
        self.processor = copy.copy(processor)
        if patches is not None:
            self.processor.num_image_tokens = patches
        self.processor._prefix = copy.copy(processor._prefix)  # the same few hundred sentences again and again
        self.processor._prefix._raw = functools.lru_cache(100_000)(processor._prefix._raw)
        self.verdicts, self.by_letter = verdicts, by_letter

    def __call__(self, turns, count: int, image: bool = True) -> DialogueIds:
        ids = self.processor.encode_dialogue(turns, count, image=image)
        if torch.rand(()).item() < self.verdicts:
            judge_options(ids, self.processor.tokenizer, self.by_letter)
        return ids


def judge_options(ids: DialogueIds, tokenizer, by_letter: bool = True):
    """Where an option of a four-choice round ends, the label becomes its letter (or " yes") if it is the one that is answered, else " no".

    The token that follows an option, the " (" of the next one or `<assistant>`, is the user's, so it has no label of its own: nothing
    is asked and nothing said there in use. But an answer of one letter teaches little, and a verdict on every option much. Verdicts of
    " yes" are learned sooner, but do not become answers; what foretells a letter where its option ends is easily copied into the answer.
    """
    opening, letters, yes, no, assistant = _marks(tokenizer)
    starts: list[int] = []  # of the options of this round
    for i, (token, follows) in enumerate(zip(ids.input_ids, ids.input_ids[1:])):
        if token == opening and follows in letters and ids.labels[i] == -100:
            starts.append(i)
        elif token == assistant:
            if [ids.input_ids[start + 1] for start in starts] == letters:
                right = ids.input_ids[i + 2]  # "(", letter, ")"
                for letter, end in zip(letters, [*starts[1:], i]):
                    ids.labels[end] = no if letter != right else letter if by_letter else yes
            starts = []


@functools.lru_cache(4)
def _marks(tokenizer):
    """What an option begins with, the letters, the labels " yes" and " no", and what ends a question."""
    opening, yes, no, *letters = (
        tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" (", " yes", " no", *LETTERS)
    )
    return opening, letters, yes, no, tokenizer.convert_tokens_to_ids("<assistant>")
