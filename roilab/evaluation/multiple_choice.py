"""Four choices: VCR's three numbers (arXiv 1811.10830: Q->A, QA->R given the right answer, Q->AR both right on one item) and Visual7W.

Three ways to choose. "letter": the most probable of "(A)" to "(D)" after the four-choice question; needs no parsing. "generated": the
letter that the model writes; an answer that names none is wrong. "likelihood": the most probable choice as an answer to the open
question, by the sum and by the mean of its tokens' log-probabilities; for models that were not tuned to letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..presenting import LETTERS, choice_turns, four_choices, without_mentions
from ..regions import RegionDialogue
from .reading import answer_all, answer_scores, letter_scores
from .results import Result, Score, scores_of
from .running import Predictions, Query, Spread, header, picture_order, run
from .statistics import weighted_means

CHOSEN = {
    "letter": {"letter": "chosen"},
    "generated": {"generated": "chosen"},
    "likelihood": {"likelihood, sum": "chosen", "likelihood, per token": "chosen_per_token"},
}
"""scoring -> what the table calls it -> the key of the choice in a prediction."""
WORDS = ("what", "where", "when", "who", "why", "how", "which")
NUMBERS = ("Q->A", "QA->R", "Q->AR")


def evaluate_choices(
    model, records: Sequence, data: str = "", split: str = "", *, scoring: str | Sequence[str] = "letter", arm: str = "regions",
    limit: int | None = None, predictions=None, batch: int = 16,
) -> Result:  # fmt: skip
    """Accuracy on records with choices, over all and per type of question.

    A record without a label (VCR's test split) is predicted and not scored; its rationales are chosen given each of the four answers,
    as VCR's leaderboard asks.

    Args:
        records: `RegionDialogue` records with `choices`, and `.picture(index)`; such as `roilab.data.read` gives.
        data, split: their names, for the table and the predictions file.
        scoring: "letter", "generated" or "likelihood", or several.
        arm: how records are presented; one of `roilab.presenting.ARMS`.
        limit: evaluate this many records, spread evenly.
        predictions: JSON-lines file; an existing one of the same evaluation is continued.
        batch: questions at a time.
    Returns:
        `Result`; predictions hold `id`, `stage`, `by`, `scores` and `probabilities` per choice, `chosen`, `right` and `type`.
    Raises:
        ValueError: unknown scoring or arm, no record with choices, a predictions file of another evaluation.
    """
    scorings = [scoring] if isinstance(scoring, str) else list(dict.fromkeys(scoring))
    unknown = [each for each in scorings if each not in CHOSEN]
    if unknown or not scorings:
        raise ValueError(f"unknown scoring {', '.join(unknown) or 'none'}; known: {', '.join(CHOSEN)}")
    records = records if limit is None else Spread(records, limit)
    places, content = picture_order(records)
    order = [index for index in places if records[index].choices is not None]
    if not order:
        raise ValueError(f"none of {len(records)} records has choices")
    settings = dict(arm=arm, limit=limit)
    with Predictions(predictions, header(model, "choices", data, split, content, **settings)) as kept:
        made = []
        for each in scorings:
            keys = [q.key for q in queries(records, sorted(order), each)]
            run(
                model, records, queries(records, order, each), PREDICT[each], kept, arm=arm, batch=batch, total=len(keys),
                title=f"{data or 'choices'}, {each}", fields=FIELDS[each],
            )  # fmt: skip
            made += [kept.known[key] for key in keys]
    result = Result(
        data, split, [], settings | {"model": kept.header["model"], "records": len(order)}, predictions=made
    )
    for each in scorings:
        own = [p for p in made if p["by"] == each]
        for by, chosen in CHOSEN[each].items():
            result.scores += score(own, by, chosen)
        if each == "generated":
            lost = sum(p["chosen"] is None for p in own)
            result.notes.append(f"{lost} of {len(own)} generated answers name no letter; they count as wrong.")
    if len(order) < len(records):
        result.notes.append(f"{len(records) - len(order)} of {len(records)} records have no choices: left out.")
    unlabelled = len({p["id"] for p in made if p["right"] is None})
    if unlabelled:
        result.notes.append(f"{unlabelled} of {len(order)} records have no label: predicted, not scored.")
    return result


def queries(records: Sequence, order: Sequence[int], scoring: str) -> Iterator[Query]:
    """The questions about each record: its answers, then its rationales given the right answer (or, unknown, each answer)."""
    for index in order:
        record = records[index]
        choices = record.choices
        about = {"id": record.id, "by": scoring, "type": choices.get("type") or question_type(choices["question"])}
        yield _query(record, index, scoring, "answer", about | {"right": choices["answer_label"]})
        if choices.get("rationales") is None:
            continue
        if choices["answer_label"] is not None:
            yield _query(record, index, scoring, "rationale", about | {"right": choices.get("rationale_label")})
            continue
        for given, letter in enumerate(LETTERS):
            supposed = replace(record, choices=choices | {"answer_label": given})
            yield _query(supposed, index, scoring, "rationale", about | {"given": letter, "right": None})


def _query(record: RegionDialogue, index: int, scoring: str, stage: str, about: dict) -> Query:
    about = {"stage": stage} | about
    key = " ".join([record.id, stage, *([about["given"]] if "given" in about else []), scoring])
    if scoring == "likelihood":
        asked, answers = open_form(record, stage)
        return Query(key, index, asked, answers, about)
    turns = four_choices(record, stage).turns
    return Query(key, index, replace(record, turns=turns[:1] if stage == "answer" else turns[:3]), (), about)


def open_form(record: RegionDialogue, stage: str) -> tuple[RegionDialogue, tuple[str, ...]]:
    """The question without options ("Why?" after the right answer, for rationales), and the choices as answers to it.

    The record's own open rounds, where its question names all regions that the choices name. Otherwise these stand before the
    question: the model must be shown what it may choose.
    """
    from ..dialogues import find_mentions

    def regions_in(*texts):
        return {number for text in texts for *_, number in find_mentions(text)}

    choices = record.choices
    chosen = regions_in(*choices["answers"], *(choices.get("rationales") or []))
    own = [turn["content"] for turn in record.turns]
    question, why = choices["question"], "Why?"
    if chosen <= regions_in(own[0]) and own[0] != choice_turns(choices, "answer")[0]["content"]:
        question, why = own[0], own[2] if len(own) > 2 else why
    elif chosen - regions_in(question):
        question = f"{', '.join(f'<region{n}>' for n in sorted(chosen - regions_in(question)))}: {question}"
    turns = [{"role": "user", "content": question}]
    if stage == "rationale":
        right = choices["answers"][choices["answer_label"]]
        turns += [{"role": "assistant", "content": right}, {"role": "user", "content": why}]
    asked = choices["answers"] if stage == "answer" else choices["rationales"]
    return replace(record, turns=turns), tuple(without_mentions(text) for text in asked)


def _by_letter(reader, rows, queries) -> list[dict]:
    return [_choice(scores) for scores in letter_scores(reader.model, reader, rows).tolist()]


def _by_generation(reader, rows, queries) -> list[dict]:
    texts = answer_all(reader.model, reader, rows, max_new_tokens=16)
    return [{"text": text, "chosen": parse_letter(text)} for text in texts]


def _by_likelihood(reader, rows, queries) -> list[dict]:
    found = []
    for answers in answer_scores(reader.model, reader, rows, [query.answers for query in queries]):
        sums = [tokens.double().sum().item() for tokens in answers]
        per_token = [total / max(len(tokens), 1) for total, tokens in zip(sums, answers)]
        found.append(
            _choice(sums) | {"tokens": [len(tokens) for tokens in answers], "chosen_per_token": _best(per_token)}
        )
    return found


def _is_choice(found) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < len(LETTERS)


FIELDS = {
    "letter": {"chosen": _is_choice},
    "generated": {"chosen": lambda found: found is None or _is_choice(found)},
    "likelihood": {"chosen": _is_choice, "chosen_per_token": _is_choice},
}
PREDICT = {"letter": _by_letter, "generated": _by_generation, "likelihood": _by_likelihood}


def _choice(scores: list[float]) -> dict:
    powers = np.exp(np.array(scores) - max(scores))
    return {"scores": scores, "probabilities": (powers / powers.sum()).tolist(), "chosen": _best(scores)}


def _best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def parse_letter(text: str) -> int | None:
    """The choice that an answer names, 0 to 3: "(C)" or "C" first of all, or the only "(C)" in it; None if it names none or several."""
    first = re.match(r"\s*(?:\(([A-D])\)|([A-D])(?:[).:,]|\s*$))", text)
    found = {first[1] or first[2]} if first else set(re.findall(r"\(([A-D])\)", text))
    return LETTERS.index(found.pop()) if len(found) == 1 else None


def question_type(question: str) -> str:
    """What a question begins with: "why", "what", ..., "yes or no" ("Is <region1> ..."), or "other".

    What stands before the question itself (a list of regions) is passed over, and so is a subordinate clause ("If ..., what ...").
    """
    asked = re.split(r"[.!:\n]\s+", question.strip())[-1]
    words = re.findall(r"[a-z]+", asked.lower())
    if words and re.fullmatch(
        r"is|are|was|were|am|do|does|did|can|could|will|would|should|has|have|had|may|might", words[0]
    ):
        return "yes or no"
    return next((word for word in words if word in WORDS), "other")


def score(predictions: Sequence[dict], by: str, chosen: str = "chosen") -> list[Score]:
    """Q->A, QA->R and Q->AR of labelled predictions, over all questions and per type where there are several.

    Args:
        predictions: with `id`, `stage`, `type`, `right` and the choice under `chosen`.
    """
    items: dict[str, dict] = {}
    for p in predictions:
        if p["right"] is not None:
            items.setdefault(p["id"], {"type": p["type"]})[p["stage"]] = float(p[chosen] == p["right"])
    if not items:
        return []
    answer, rationale = (np.array([i.get(stage, np.nan) for i in items.values()]) for stage in ("answer", "rationale"))
    right = np.stack([answer, rationale, answer * rationale], 1)  # nan where a stage is missing
    types = np.array([i["type"] for i in items.values()])
    kinds = sorted(set(types))
    columns, names = [right], [(name, by, "all") for name in NUMBERS]
    for kind in kinds if len(kinds) > 1 else []:
        columns.append(np.where((types == kind)[:, None], right, np.nan))
        names += [(name, by, str(kind)) for name in NUMBERS]
    values = np.concatenate(columns, 1)
    counts = (~np.isnan(values)).sum(0)
    kept = np.flatnonzero(counts)
    names, counts = [names[k] for k in kept], [int(counts[k]) for k in kept]
    return scores_of(names, weighted_means(values[:, kept]), list(items), counts)
