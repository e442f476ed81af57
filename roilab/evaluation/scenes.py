"""How often a model is right: whole-answer exact match on scenes of unseen seeds, and the three VCR numbers in the four-choice form.

An answer counts if it is one of the accepted phrasings, word for word. The four choices are scored by the log-probability of their
letter: Q->A, QA->R (given the right answer), Q->AR (both right on the same item).
"""

import random
import re
from collections import defaultdict

import torch
from tqdm.auto import tqdm

from ..demo import rounds_about
from ..dialogues import escape_regions
from ..presenting import ARMS
from ..regions import RegionDialogue
from ..scenes import HELD_OUT, language, sample
from .naming import VALUES, named_value
from .reading import PictureReader, SceneReader, answer_all, choose_letters
from .statistics import interval

SEEDS_PER_RUN = 100_000  # `--seed S` starts at test scene S * this: no scene is shared by runs whose seeds are less than 5,000 apart
HELD_OUT_FAMILIES = ("kind", "colour")
COMPARED = ("larger", "left_of", "above")
ATTRIBUTES = tuple(VALUES)


def seeds_of(scenes: int, seed: int) -> list[int]:
    """Scene seeds of the test split that an evaluation of `scenes` scenes with `--seed` asks about."""
    split = len(language.SPLITS["test"])
    begin = seed * SEEDS_PER_RUN % split
    return [language.seed_of("test", (begin + i) % split) for i in range(scenes)]


@torch.inference_mode()
def evaluate_scenes(
    model,
    scenes: int = 2000,
    seed: int = 0,
    families=None,
    chunk: int = 40,
    errors: list | None = None,
    arm: str = "regions",
) -> dict:
    """One question per family and scene on `scenes` test scenes; held-out combinations on as many again.

    Args:
        seed: which part of the test split; any integer.
        errors: a list that receives (family, question, given answer, an accepted answer) of every mistake.
        arm: how the model is told of regions, a name in `roilab.presenting.ARMS`; other arms than "regions" answer single questions and
            the four-choice form alone, not those of several rounds.
    Returns:
        `attributes.{accuracy, named}` (means of `ATTRIBUTES`, if all of them are asked), `families.<name>.{accuracy, n}` (and `named` for an
        attribute: how often the answer names the true value and no other, in any words), `vcr.{q_a, qa_r, q_ar, n}`,
        `conversation.{accuracy, n}` (three rounds as in `roilab demo`, all of them right), `by_number.{accuracy, n}` (what a region of an
        earlier round is), `swapped_boxes.{accuracy, n}` (the answer names the other region once two boxes are exchanged),
        `held_out_combinations.{accuracy, n}`, all 0-1, each with its 95 % `interval`, and the settings.
    """
    families = list(language.FAMILIES if families is None else families)
    counts, vcr, held_out, talks, numbers, swaps = defaultdict(lambda: [0, 0]), [0] * 4, [0, 0], [0, 0], [0, 0], [0, 0]
    named = defaultdict(int)
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r}, expected {', '.join(ARMS)}")
    asked_about = seeds_of(scenes, seed)
    for start in tqdm(range(0, scenes, chunk), desc="scenes", unit=f"x{chunk}"):
        seeds = asked_about[start : start + chunk]
        world = [sample(s, held_out=False) for s in seeds]
        reader = SceneReader(model, world)
        for family in families:
            rows, asked = [], []
            for i, scene in enumerate(world):
                for question in language.questions(scene, random.Random(f"{seed} {scene.seed} {family}"), [family]):
                    rows.append((i, [{"role": "user", "content": question.text}], question.boxes))
                    asked.append(question)
            if not rows:
                continue
            if family == "vcr":
                count_vcr(model, reader, world, rows, asked, vcr, arm)
                continue
            for question, answer in zip(asked, answer_all(model, *_shown(model, reader, world, rows, arm))):
                right = answer in {language.plain(a) for a in question.answers}
                if family in VALUES:
                    named[family] += named_value(family, answer) == named_value(family, question.answers[0])
                counts[family][0] += right
                counts[family][1] += 1
                if errors is not None and not right:
                    errors.append((family, language.plain(question.text), answer, language.plain(question.answers[0])))
        if arm == "regions" and set(HELD_OUT_FAMILIES) <= set(families):
            _count_held_out(model, seeds, held_out)
        if arm == "regions" and set(language.FAMILIES) <= set(families):
            _count_conversations(model, reader, world, talks)
            _count_by_number(model, reader, world, numbers)
            _count_swaps(model, reader, world, swaps)
    result = {
        "scenes": scenes, "seed": seed, "parameters": sum(p.numel() for p in model.parameters()),
        "families": {f: {"accuracy": r / n, "n": n, "interval": interval(r, n)} for f, (r, n) in counts.items()},
    }  # fmt: skip
    for family, hits in named.items():
        result["families"][family]["named"] = hits / counts[family][1]
    if set(ATTRIBUTES) <= set(counts):
        for key in ("accuracy", "named"):
            mean = sum(result["families"][family][key] for family in ATTRIBUTES) / len(ATTRIBUTES)
            result.setdefault("attributes", {})[key] = mean
    if vcr[3]:
        result["vcr"] = {name: vcr[i] / vcr[3] for i, name in enumerate(("q_a", "qa_r", "q_ar"))} | {"n": vcr[3]}
        result["vcr"]["intervals"] = {name: interval(vcr[i], vcr[3]) for i, name in enumerate(("q_a", "qa_r", "q_ar"))}
    for name, (right, n) in {
        "conversation": talks,
        "by_number": numbers,
        "swapped_boxes": swaps,
        "held_out_combinations": held_out,
    }.items():
        if n:
            result[name] = {"accuracy": right / n, "n": n, "interval": interval(right, n)}
    return result


def _shown(model, reader, world, rows, arm: str) -> tuple[PictureReader, list]:
    """A reader and rows as the arm shows them to the model."""
    if arm == "regions":
        return reader, rows
    shown, pictures = [], []
    for i, turns, boxes in rows:
        size, boxes = world[i].size, [list(box) for box in boxes]
        record, picture = ARMS[arm](
            RegionDialogue(str(i), "scenes", "", size, size, boxes, None, turns), world[i].image
        )
        shown.append((None if picture is None else len(pictures), record.turns, record.boxes))
        pictures += [] if picture is None else [picture]
    return PictureReader(model, pictures), shown


def count_vcr(model, reader, world, rows, asked, vcr, arm):
    turns = [language.multiple_choice(question) for question in asked]
    first, second = (
        choose_letters(
            model, *_shown(model, reader, world, [(i, t[:n], boxes) for (i, _, boxes), t in zip(rows, turns)], arm)
        )
        for n in (1, 3)
    )
    for question, answer, rationale in zip(asked, first, second):
        q_a, qa_r = answer == question.choices["answer_label"], rationale == question.choices["rationale_label"]
        for k, hit in enumerate((q_a, qa_r, q_a and qa_r, True)):
            vcr[k] += hit


def _count_conversations(model, reader, world, talks):
    """Three rounds about two regions, each asked after the model's own answers to the ones before; right if all three are."""
    conversations = []
    for i, scene in enumerate(world):
        try:
            conversations.append((i, rounds_about(scene), [], []))
        except ValueError:  # no two objects that clearly differ
            continue
    right = [True] * len(conversations)
    for number in range(3):
        for _, rounds, turns, boxes in conversations:
            turns.append({"role": "user", "content": rounds[number].question})
            boxes += rounds[number].boxes
        rows = [(i, turns, boxes) for i, _, turns, boxes in conversations]
        answers = answer_all(model, reader, rows) if rows else []
        for k, ((_, rounds, turns, _), answer) in enumerate(zip(conversations, answers)):
            right[k] &= rounds[number].is_right(answer)
            turns.append({"role": "assistant", "content": escape_regions(answer)})
    talks[0] += sum(right)
    talks[1] += len(right)


def _count_by_number(model, reader, world, numbers):
    """The kind of one of two regions, asked by its number after a round about the colour of each (with the true answers)."""
    rows, truths = [], []
    for i, scene in enumerate(world):
        rng = random.Random(f"by number {scene.seed}")
        pairs = [(a, b) for a in scene.objects for b in scene.objects if a.kind != b.kind]
        if not pairs:
            continue
        shown = rng.choice(pairs)
        number = rng.choice((1, 2))
        found = [language.question_about(scene, rng, "colour", each.id) for each in shown]
        found.append(language.question_about(scene, rng, "kind", shown[number - 1].id))
        if None in found:
            continue
        turns, boxes, _ = language.combine(found)
        rows.append((i, turns[:-1], boxes))
        truths.append({language.plain(language.renumber(a, {1: number})) for a in found[-1].answers})
    for answer, truth in zip(answer_all(model, reader, rows) if rows else [], truths):
        numbers[0] += answer in truth
        numbers[1] += 1


def _count_swaps(model, reader, world, swaps):
    """The same "which of the two" question with its boxes exchanged: the answer has to name the other region, right or wrong."""
    rows = []
    for i, scene in enumerate(world):
        rng = random.Random(f"swapped {scene.seed}")
        found = (q for q in language.questions(scene, rng, COMPARED, 8) if q.answers[0] in ("<region1>", "<region2>"))
        question = next(found, None)
        if question is not None:
            turns = [{"role": "user", "content": question.text}]
            rows += [(i, turns, question.boxes), (i, turns, question.boxes[::-1])]
    answers = [set(re.findall(r"region(\d+)", answer)) for answer in answer_all(model, reader, rows)] if rows else []
    for one, other in zip(answers[::2], answers[1::2]):
        swaps[0] += (one, other) in (({"1"}, {"2"}), ({"2"}, {"1"}))
        swaps[1] += 1


def _count_held_out(model, seeds, held_out):
    """Kind and colour of the object whose combination training never showed; both families asked of each."""
    world = [sample(s, held_out=True) for s in seeds]
    reader = SceneReader(model, world)
    rows, truths = [], []
    for i, scene in enumerate(world):
        item = next(o for o in scene.objects if (o.colour, o.kind) in HELD_OUT)
        for family in HELD_OUT_FAMILIES:
            rng = random.Random(f"held out {scene.seed} {family}")
            question = language.question_about(scene, rng, family, item.id)
            if question is not None:
                rows.append((i, [{"role": "user", "content": question.text}], question.boxes))
                truths.append({language.plain(a) for a in question.answers})
    for answer, truth in zip(answer_all(model, reader, rows), truths):
        held_out[0] += answer in truth
        held_out[1] += 1


def table(result: dict) -> str:
    """The result as a Markdown table, per cent with 95 % intervals; a column for `result["probe"]` (`probe.probe_boxes`) if it is there."""
    probe = result.get("probe")
    lines = ["| question family | right, % | 95 % interval | n |", "| --- | ---: | ---: | ---: |"]
    if probe:
        lines = [lines[0] + " pooled-box probe, % |", lines[1] + " ---: |"]

    def row(name, value, bounds, n):
        lines.append(f"| {name} | {100 * value:.1f} | {100 * bounds[0]:.1f} - {100 * bounds[1]:.1f} | {n} |")
        if probe:
            lines[-1] += f" {100 * probe[name]['accuracy']:.1f} |" if name in probe else " |"

    if "attributes" in result:
        for key, words in (("accuracy", ""), ("named", ", the true value named in any words")):
            value = result["attributes"][key]
            lines.append(
                f"| mean of the {len(ATTRIBUTES)} attributes{words} | {100 * value:.1f} | | |" + " |" * bool(probe)
            )
    for name, each in result["families"].items():
        row(name.replace("_", " "), each["accuracy"], each["interval"], each["n"])
    for name, title in (("q_a", "VCR form, Q->A"), ("qa_r", "VCR form, QA->R"), ("q_ar", "VCR form, Q->AR")):
        if "vcr" in result:
            row(title, result["vcr"][name], result["vcr"]["intervals"][name], result["vcr"]["n"])
    for name, title in (
        ("conversation", "three rounds as in the demo, all right"),
        ("by_number", "a region of an earlier round by its number, kind"),
        ("swapped_boxes", "two boxes exchanged: the answer follows"),
        ("held_out_combinations", "held-out combinations (kind, colour)"),
    ):
        if name in result:
            row(title, result[name]["accuracy"], result[name]["interval"], result[name]["n"])
    return "\n".join(lines)
