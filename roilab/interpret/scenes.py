"""Interpretability measured where the truth is known: on drawn scenes, with intervals. The command is `roilab study`."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from .. import scenes
from ..chat import Chat
from ..evaluation.scenes import seeds_of
from .anatomy import exchange_positions
from .faithfulness import energy_in_region
from .passes import prepare, score, splice
from .regions import region_tests, token_bank
from .report import LIKE, region_report
from .results import Scores
from .sanity import rank_correlation
from .studies import study
from .target import Target

COLOUR = "What colour is <region1>?"
LEFT_OF = "Is <region1> left of <region2>?"  # as it is asked in training
ANSWERS = {LEFT_OF: ("yes", "no"), LIKE: scenes.COLOURS}  # the words that tell answers to a question apart
LONGEST = 16  # tokens of an answer about a colour; random weights find no end
FAR = 0.3  # of a scene's width
FLIPS, STAYS = "left of flips", "colour stays"
FLIPS_NEAR, FLIPS_FAR = f"{FLIPS}, middles up to {FAR} of the width apart", f"{FLIPS}, further apart"
WHOLE, FLIPS_TOO = f"{FLIPS} when the whole tokens are exchanged", f"{FLIPS}, of those where it does with whole tokens"
APART = 0.06  # of a scene's width: middles of objects that are left and right of each other


def world(count: int, seed: int = 0) -> list[scenes.Scene]:
    """Test scenes, those that `roilab evaluate --seed` asks about."""
    return [scenes.sample(each, held_out=False) for each in seeds_of(count, seed)]


def colour_targets(model, scenes_: Sequence[scenes.Scene]) -> list[Target]:
    """Per scene, the colour of an object chosen at random, as the model says it."""
    found = []
    for scene in scenes_:
        item = random.Random(f"study {scene.seed}").choice(scene.objects)
        found.append(Target.of(Chat(model, scene.image, max_new_tokens=LONGEST), COLOUR, [item.box]))
    return found


def pairs(scenes_: Sequence[scenes.Scene]) -> list[tuple]:
    """Per scene, the picture and the boxes of two objects of which one is further left; scenes without such are left out."""
    found = []
    for scene in scenes_:
        rng = random.Random(f"pair {scene.seed}")
        items = rng.sample(scene.objects, len(scene.objects))
        both = [(a, b) for a in items for b in items if abs(a.centre[0] - b.centre[0]) > APART * scene.size]
        if both:
            found.append((scene.image, [each.box for each in both[0]]))
    return found


def verdicts(model, scenes_: Sequence[scenes.Scene]) -> dict[str, int]:
    """Verdict of the region tests -> how many answers about a colour."""
    bank, counts = token_bank(model), {}
    for target in tqdm(colour_targets(model, scenes_), desc="region tests"):
        verdict = region_tests(model, target, bank=bank).verdict
        counts[verdict] = counts.get(verdict, 0) + 1
    return counts


def findings(model, scenes_: Sequence[scenes.Scene], each: int = 8) -> dict[str, int]:
    """Finding of `region_report` -> how many reports; every report is of `each` pictures of its own."""
    bank, counts, shown = token_bank(model), {}, pairs(scenes_)
    for start in tqdm(range(0, len(shown) - each + 1, each), desc="region reports"):
        finding = region_report(model, shown[start : start + each], bank=bank).finding
        counts[finding] = counts.get(finding, 0) + 1
    return counts


@torch.no_grad()
def exchanged_positions(model, scenes_: Sequence[scenes.Scene]) -> dict[str, tuple[int, int]]:
    """What exchanging the position terms of two tokens does: (how often as it should, of how many) for left of and for colour.

    left of: the answer turns from yes to no or back; also counted for pairs up to `FAR` of the width apart and for the others, and for those
    whose answer turns when the whole tokens are exchanged: elsewhere the model does not tell left from right. colour: the answer names
    the colour that it named before.
    """
    counts = {name: [0, 0] for name in (FLIPS, FLIPS_NEAR, FLIPS_FAR, WHOLE, FLIPS_TOO, STAYS)}

    def count(name: str, right: bool):
        counts[name][0] += right
        counts[name][1] += 1

    for picture, boxes in tqdm(pairs(scenes_), desc="positions exchanged"):
        far = abs(boxes[0][0] + boxes[0][2] - boxes[1][0] - boxes[1][2]) / 2 > FAR * picture.width
        place, like = (Target.of(Chat(model, picture), question, boxes) for question in (LEFT_OF, LIKE))
        flips = _says_otherwise(model, place, exchange_positions(model, place))
        whole = _says_otherwise(model, place, prepare(model, place).regions.flip(1))
        for name in (FLIPS, FLIPS_FAR if far else FLIPS_NEAR, *([FLIPS_TOO] if whole else [])):
            count(name, flips)
        count(WHOLE, whole)
        count(STAYS, not _says_otherwise(model, like, exchange_positions(model, like)))
    return {name: (right, n) for name, (right, n) in counts.items()}


def _says_otherwise(model, target: Target, regions) -> bool:
    """Whether the greedy answer with these region tokens [1, N, D] names other `ANSWERS` than the target's."""
    prompt = torch.tensor([target.ids[: target.positions("answer")[0]]], device=model.device)
    pixels = model.processor.preprocess(target.image)
    new = model.generate(prompt, pixel_values=pixels, region_embeddings=list(regions), do_sample=False)
    words, answer = ANSWERS[target.question], model.processor.decode_answer(new[0].tolist())
    return _named(answer, words) != _named(target.answer, words)


def _named(answer: str, words: Sequence[str]) -> list[str]:
    """The words of an answer that are among these, in order."""
    return [each for each in re.findall(r"\w+", answer) if each in words]


@torch.no_grad()
def edit_effects(model, scene: scenes.Scene, target: Target) -> list[float]:
    """How much the target's score changes, per object of the scene, when that object gets another colour."""
    before, changes = score(model, splice(model, prepare(model, target)), target).item(), []
    for item in scene.objects:
        colours = [colour for colour in scenes.COLOURS if colour != item.colour]
        colour = random.Random(f"edit {scene.seed} {item.id}").choice(colours)
        edited = dataclasses.replace(target, image=scene.edit(item, colour=colour).image)
        changes.append(abs(before - score(model, splice(model, prepare(model, edited)), target).item()))
    return changes


def edit_correlation(scene: scenes.Scene, scores: Scores, effects: list[float]) -> float:
    """Rank correlation between what a map has in each object's box and the true effect of changing that object's colour."""
    found = [energy_in_region(scores, item.box) for item in scene.objects]
    return rank_correlation(torch.tensor(found).nan_to_num(0), torch.tensor(effects))


def scene_study(model, scenes_: Sequence[scenes.Scene], methods=None, path=None, **kwargs):
    """`study` of `colour_targets`, with a column `edit`: `edit_correlation` with what changing each object's colour does.

    Args, Returns: those of `study`, one target per scene.
    """
    targets, effects = colour_targets(model, scenes_), {}

    def edit(index: int, scores: Scores) -> float:
        if index not in effects:
            effects[index] = edit_effects(model, scenes_[index], scores.target)
        return edit_correlation(scenes_[index], scores, effects[index])

    return study(model, targets, methods, path, measures={"edit": edit}, **kwargs)
